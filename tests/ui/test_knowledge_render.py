"""Spaces, jobs, previews and thrown-in files as HTML: harmless, and saying what they should."""

from dataclasses import replace

import pytest
from harmless import HOSTILE, check_harmless, passage

from dbgpt_lite.errors import ModelError
from dbgpt_lite.knowledge.records import Document, IngestProgress, Job, Space, TextPreview
from dbgpt_lite.texts import time_left
from dbgpt_lite.ui import spaces
from dbgpt_lite.ui.intake import shown_address
from dbgpt_lite.ui.jobs_view import Fetching, Held, activity, jobs_panel, previews_panel
from dbgpt_lite.ui.session import Reader
from dbgpt_lite.ui.spaces import web_link
from dbgpt_lite.ui.throwaway import chip_row
from dbgpt_lite.ui.uploads import own_name


def test_knowledge_is_harmless_and_samples_cannot_be_changed() -> None:
    reader = Reader("o", "en")
    error = ModelError("llm.no_folder", name=HOSTILE)
    document = Document(HOSTILE, HOSTILE, 5_000_000, 3, 7, "failed", error, added=1_790_000_000)
    own, sample = Space(HOSTILE, HOSTILE, 1, 7), Space("s", HOSTILE, readonly=True)
    for space in (own, sample):
        html = (
            spaces.space_cards([space], "en")
            + spaces.space_head(space, "en")
            + spaces.document_list([document], space, reader)
        )
        check_harmless(html)
        assert ("delete_document" in html) is not space.readonly
    check_harmless(spaces.chunk_list([passage(text=HOSTILE, heading=HOSTILE)], "en"))
    long = spaces.chunk_list([passage()] * 320, "en", HOSTILE, page=2)
    check_harmless(long)
    assert long.count('class="chunk"') == 20
    assert "301–320 of 320" in long
    found = spaces.chunk_list([passage(text="a Lamp"), passage(text="oil")], "en", "d", find="LAMP")
    assert found.count('class="chunk"') == 1
    check_harmless(spaces.chunk_list([passage()], "en", "d", find=HOSTILE))


def test_a_job_tells_how_far_it_is_and_what_failed() -> None:
    lines = (
        IngestProgress("a.md", 1, 4, 12, 12, "done"),
        IngestProgress("c.md", 2, 4, state="failed", error=ModelError("llm.no_folder", name=HOSTILE)),
        IngestProgress(HOSTILE, 3, 4, 3, 12, "embedding"),
    )
    job = Job("j1", "s", "ingest", "running", lines, HOSTILE, 2, 4, 15, 24, 130.0)
    html = jobs_panel([job], [], "en")
    text = check_harmless(html).text
    assert "Reading file 3 of 4" in text
    assert "15 passages done · about 2 minutes left" in text
    assert 'aria-valuenow="56"' in html
    assert "stop_job" in html
    over = replace(job, state="cancelled")
    assert "Stopped" in check_harmless(jobs_panel([over], [], "en")).text
    assert "1 file added · 1 failed" in jobs_panel([over], [], "en")
    assert "llm" not in jobs_panel([over], [], "en", known=["c.md"])
    check_harmless(activity([job], [Fetching("f", HOSTILE, HOSTILE)], "en"))
    check_harmless(jobs_panel([], [Fetching("f", "s", HOSTILE, ModelError("llm.no_folder", name=HOSTILE))], "en"))


def test_long_lists_of_failed_files_are_folded() -> None:
    error = ModelError("llm.no_folder", name="x")
    lines = tuple(IngestProgress(f"{n}.md", n, 9, state="failed", error=error) for n in range(9))
    job = Job("j1", "s", "ingest", "done", lines, files_done=9, files_total=9)
    assert "<details" in jobs_panel([job], [], "en")
    assert "<details" not in jobs_panel([replace(job, files=lines[:3])], [], "en")


def test_an_encoding_is_shown_with_the_first_lines_and_the_choice() -> None:
    preview = TextPreview(HOSTILE, "gb18030", False, f"{HOSTILE}\n第二行\n" * 20, 2, ("gb18030", HOSTILE))
    html = previews_panel([Held(HOSTILE, preview)], "zh")
    text = check_harmless(html).text
    assert "第二行" in text
    assert "有 2 处无法按此编码读取" in text
    assert html.count("第二行") == 6


@pytest.mark.parametrize(
    ("address", "linked"),
    [
        ("https://example.com/a?b=1", True), ("http://example.com", True), ("javascript:alert(1)", False),
        ("data:text/html,x", False), ("//example.com", False), ("https:/", False), ("http://[", True), ("", False),
    ],
)  # fmt: skip
def test_only_web_addresses_become_links(address: str, linked: bool) -> None:
    html = web_link(address)
    assert ("href=" in html) is linked
    assert ('rel="noopener noreferrer"' in html) is linked


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown_address("https://ana:secret@example.com/a/?token=x#y") == "example.com/a"
    assert shown_address("example.com/a") == "example.com/a"


def test_chips_tell_the_state_of_each_file() -> None:
    space = Space(HOSTILE, HOSTILE, 1, 7, temporary=True, owner="o")
    ready = Document("d", f"{HOSTILE}.txt", 5, chunks=7, status="ready", encoding="gb18030")
    lines = (IngestProgress("b.md", 1, 2, 6, 12, "embedding"), IngestProgress(
        "c.md", 2, 2, state="failed", error=ModelError("llm.no_folder", name=HOSTILE)))  # fmt: skip
    html = chip_row(space, [ready], [Job("j", "s", "ingest", "running", lines)], "en")
    text = check_harmless(html).text
    assert "this chat only · GB18030" in text
    assert "reading 50%" in text
    assert "Keep" in text
    assert "Keep" not in chip_row(space, [], [], "en")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, ""), (3, "a few seconds left"), (40, "less than a minute left"), (70, "about a minute left"),
     (600, "about 10 minutes left"), (5400, "about 1 h 30 min left")],
)  # fmt: skip
def test_time_left_is_said_in_words(seconds: float | None, said: str) -> None:
    assert time_left(seconds) == said


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("合同（终稿）.pdf", "合同（终稿）.pdf"),
        ("../../x.pdf", "x.pdf"),
        ("plans/2026/a.md", "plans/2026/a.md"),
        (r"C:\\d\\y.md", "y.md"),
        ("/", "file"),
        ("", "file"),
    ],
)
def test_a_file_keeps_its_own_name(sent: str, name: str) -> None:
    assert own_name(sent) == name
