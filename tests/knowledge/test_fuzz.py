"""Files cut short or damaged at any byte, and names of any characters: an answer or a UserError, and nothing outside.

Each format begins as a real file made here. Hypothesis chooses where it is cut and which bytes are damaged.
"""

import io
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge import names
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.loaders import READERS, load
from dbgpt_lite.knowledge.records import Upload
from tests.knowledge.fake_embedder import FakeEmbedder

LINES = ["The warranty of the lantern lasts two years.", "员工每年享有十五天年假。", "Region;North;1,200;12.5 %"]
SAMPLES = 120


def _docx() -> bytes:
    document = docx.Document()
    document.add_heading("Policy", 1)
    table = document.add_table(rows=2, cols=2)
    for line in LINES:
        document.add_paragraph(line)
        table.rows[0].cells[0].text = line
    return _saved(document.save)


def _pptx() -> bytes:
    deck = pptx.Presentation()
    for line in LINES:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = "Policy", line
    return _saved(deck.save)


def _xlsx() -> bytes:
    book = openpyxl.Workbook()
    for number, line in enumerate(LINES):
        book.create_sheet(f"Sheet {number} 表").append([line, number, number / 3])
    return _saved(book.save)


def _pdf() -> bytes:
    stream = io.BytesIO()
    canvas = Canvas(stream)
    for line in LINES:
        canvas.drawString(70, 700, line)
        canvas.showPage()
    canvas.save()
    return stream.getvalue()


def _saved(save: Callable[[io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def _html() -> bytes:
    rows = "".join(f"<tr><td>{line}</td><td>1</td></tr>" for line in LINES)
    return f'<!doctype html><meta charset="utf-8"><h1>Policy</h1><table>{rows}</table><p>&amp; 年假</p>'.encode()


@cache
def whole(kind: str) -> bytes:
    """A sound file of that suffix."""
    makers = {".docx": _docx, ".pptx": _pptx, ".xlsx": _xlsx, ".pdf": _pdf, ".html": _html}
    plain = "# Policy\n\n" + "\n\n".join(LINES * 3)
    return makers[kind]() if kind in makers else plain.encode("gb18030" if kind == ".txt" else "utf-8")


KINDS = (".txt", ".md", ".csv", ".html", ".pdf", ".docx", ".pptx", ".xlsx")
damage = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6)


def broken(content: bytes, keep: float, spots: list[tuple[float, bytes]]) -> bytes:
    """The first part of a file with some bytes overwritten."""
    part = bytearray(content[: max(1, round(len(content) * keep))])
    for place, new in spots:
        start = int(place * len(part))
        part[start : start + len(new)] = new
    return bytes(part)


def test_every_sound_sample_is_read(tmp_path: Path) -> None:
    assert set(KINDS) <= READERS
    for kind in KINDS:
        file = tmp_path / "stored"
        file.write_bytes(whole(kind))
        assert "warranty" in load(file, f"a{kind}").text, kind


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=SAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(keep=st.floats(0, 1), spots=damage)
def test_a_damaged_file_is_read_or_named(kind: str, keep: float, spots: list[tuple[float, bytes]]) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(broken(whole(kind), keep, spots))
        try:
            document = load(Path(file.name), f"a{kind}")
        except UserError as error:
            # What is shown names no path and is a whole sentence in both languages.
            for told in (error.render("en"), error.render("zh")):
                assert told
                assert file.name not in told
                assert "{" not in told
        else:
            assert document.text.strip()
            assert all(section.text.strip() for section in document.sections)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_at_every_length(kind: str, tmp_path: Path) -> None:
    """Each length of a short file, two hundred lengths of a long one."""
    content, file = whole(kind), tmp_path / "stored"
    step = max(1, len(content) // 200)
    read = 0
    for length in range(1, len(content), step):
        file.write_bytes(content[:length])
        with suppress(UserError):
            load(file, f"a{kind}")
            read += 1
    # An archive without its end cannot be read; a text can, but where it ends inside a character or says nothing.
    assert read == 0 if kind in (".docx", ".pptx", ".xlsx") else read > 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, KnowledgeBase]]:
    """A folder that holds a knowledge base and, beside it, a file that nobody may touch."""
    (tmp_path / "canary").write_text("untouched")
    base = KnowledgeBase(tmp_path / "inside" / "knowledge", FakeEmbedder(), max_files=20)
    yield tmp_path, base
    base.close()


def test_the_rest_of_an_upload_goes_on(place: tuple[Path, KnowledgeBase]) -> None:
    folder, base = place
    space, uploads = base.create("s").id, []
    for number, kind in enumerate(KINDS):
        for name, content in ((f"bad{number}{kind}", whole(kind)[:40] + b"\xff\x00\xfe"), (f"good{number}.md", None)):
            file = folder / "inside" / name
            file.write_bytes(content or f"# Part {number}\n\nLantern {number} shines.".encode())
            uploads.append(Upload(file, name))
    last = {report.file: report for report in base.ingest(space, uploads, threading.Event())}
    assert all(last[f"good{number}.md"].state == "done" for number in range(len(KINDS)))
    assert {base.search(space, f"Lantern {n} shines", 1)[0].document[:4] for n in range(len(KINDS))} == {"good"}
    failed = [report for report in last.values() if report.state == "failed"]
    assert len(failed) >= 4
    assert all(isinstance(report.error, UserError) for report in failed)


# Any text, and pieces that have led out of a folder somewhere.
PIECES = ("../", "..\\", "/", "\\", "%2e%2e/", "．．／", "\x00", "C:", "~", "\u202e", "\ud800", ".", " ", "…", "文")
hostile = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(st.sampled_from((*PIECES, "canary", "etc/passwd", ".env", "a" * 120, ".md")), max_size=12).map("".join),
)


def files_in(folder: Path) -> set[str]:
    """Every path below, as text that a surrogate cannot hide from."""
    return {ascii(str(path.relative_to(folder))) for path in folder.rglob("*")}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile)
def test_any_file_name_stays_a_label(place: tuple[Path, KnowledgeBase], name: str) -> None:
    folder, base = place
    spaces = base.spaces()
    space = spaces[0].id if spaces else base.create("s").id
    source = folder / "inside" / "upload"
    source.write_bytes(b"Lantern of " + ascii(name).encode())
    outside = {one for one in files_in(folder) if not one.startswith("'inside")}
    [*_, last] = base.ingest(space, [Upload(source, name + "x.md")], threading.Event())
    assert last.state in ("done", "duplicate")
    shown = {document.name for document in base.documents(space)}
    assert last.file in shown or last.state == "duplicate"
    for label in shown:
        assert 0 < len(label) <= names.MAX_FILE_NAME
        assert not any(unicodedata.category(letter)[0] == "C" for letter in label)
        assert ".." not in label.split("/")
        assert not label.startswith(("/", "\\", "."))
    # What is stored goes by ids that the app made.
    stored = {path.name for path in (folder / "inside" / "knowledge" / "files" / space).iterdir()}
    assert stored == {document.id for document in base.documents(space)}
    assert {one for one in files_in(folder) if not one.startswith("'inside")} == outside
    assert (folder / "canary").read_text() == "untouched"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile, other=hostile)
def test_any_space_name_stays_a_label(place: tuple[Path, KnowledgeBase], name: str, other: str) -> None:
    folder, base = place
    before = {one for one in files_in(folder) if not one.startswith("'inside")}
    made = None
    with suppress(UserError):
        made = base.create(name)
    if made is not None:
        with suppress(UserError):
            made = base.rename(made.id, other)
        listed = [space.name for space in base.spaces()]
        assert made.name in listed
        assert len(listed) == len(set(listed))
        assert 1 <= len(made.name) <= names.MAX_SPACE_NAME
        assert not any(unicodedata.category(letter)[0] == "C" for letter in made.name)
        base.delete(made.id)
    for identity in (name, other):
        with pytest.raises(UserError):
            base.space(identity)
        with pytest.raises(UserError):
            base.delete(identity)
    assert {one for one in files_in(folder) if not one.startswith("'inside")} == before
    assert (folder / "canary").read_text() == "untouched"
