"""Files on their way into a real knowledge base: names over a whole upload, names of spaces, dismissed jobs."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from dbgpt_lite.config import Settings
from dbgpt_lite.errors import NotFound
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.ui.bridge import Bridge
from dbgpt_lite.ui.intake import Intake
from dbgpt_lite.ui.knowledge_page import KnowledgePage
from dbgpt_lite.ui.uploads import MAX_NAME, space_for
from tests.knowledge.fake_embedder import FakeEmbedder

MOST = 3


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "received"))
    settings = Settings(data_dir=tmp_path, upload_max_files=MOST, _env_file=None)
    knowledge = KnowledgeBase(tmp_path / "knowledge", FakeEmbedder(), max_files=MOST)
    yield SimpleNamespace(settings=settings, knowledge=knowledge)
    knowledge.close()


def uploads(folder: Path, *files: tuple[str, bytes]) -> list[Upload]:
    made = []
    for number, (name, content) in enumerate(files):
        path = folder / f"copy{number}" / "file"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        made.append(Upload(path, name))
    return made


def settled(services: Any, space_id: str) -> dict[str, str]:
    """Name -> text of every document, once all jobs are over."""
    for job in services.knowledge.jobs.of_space(space_id):
        services.knowledge.jobs.wait(job.id, 60)
    documents = services.knowledge.documents(space_id)
    return {d.name: "".join(p.text for p in services.knowledge.chunks(space_id, d.id)) for d in documents}


def test_files_of_one_name_in_different_parts_of_an_upload_stay(services: Any, tmp_path: Path) -> None:
    intake, space = Intake(services), services.knowledge.create("s").id
    doubtful = "公司假期制度：员工每年享有十五天年假。".encode("gb18030")
    files = [(f"{number}.txt", f"Text {number}.".encode()) for number in range(6)]
    files = [("report.txt", b"First."), *files, ("report.txt", doubtful), ("report.txt", b"Third.")]
    for _ in range(2):
        intake.add("ana", space, uploads(tmp_path, *files))
        intake.release("ana", space, index=True)
        held = settled(services, space)
        assert len(held) == len(files)
        assert held["report.txt"] == "First."
        assert held["report (2).txt"].startswith("公司假期")
        assert held["report (3).txt"] == "Third."
    assert len(services.knowledge._embedder.embedded) == len(files)


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("Report.pdf", "Report 2"),
        ("rep\u202eort.pdf", "report 2"),
        ("\u202e.pdf", "documents"),
        ("REPORT/2026/a.md", "REPORT 2"),
        (f"{'x' * MAX_NAME}.pdf", f"{'x' * (MAX_NAME - 6)} 2"),
    ],
)
def test_a_file_dropped_on_the_list_gets_a_space_of_its_own(services: Any, name: str, space: str) -> None:
    for taken in ("report", "x" * (MAX_NAME - 6)):
        services.knowledge.create(taken)
    assert space_for(services.knowledge, None, [Upload(Path("f"), name)]).name == space


def test_a_job_is_dismissed_by_those_who_see_its_space(services: Any, tmp_path: Path) -> None:
    intake = Intake(services)
    with gr.Blocks():
        page = KnowledgePage(services, Bridge(), intake)
    shared = services.knowledge.create("shared").id
    own = services.knowledge.create_temporary("user:ana", "lease.pdf").id
    jobs = {}
    for space in (shared, own):
        intake.start(space, uploads(tmp_path, ("broken.pdf", b"no pdf")))
        settled(services, space)
        [job] = intake.jobs(space)
        jobs[space] = job.id

    def dismiss(login: str, space: str) -> None:
        request: Any = SimpleNamespace(username=login, cookies={}, headers={})
        page._dismiss_job(space, gr.EventData(None, {"id": jobs[space]}), request)

    with pytest.raises(NotFound):
        dismiss("bo", own)
    assert [job.id for job in intake.jobs(own)] == [jobs[own]]
    dismiss("bo", shared)
    dismiss("ana", own)
    assert intake.jobs(own) == intake.jobs(shared) == []
