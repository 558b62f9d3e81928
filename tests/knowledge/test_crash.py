"""kill -9 in the middle of an upload: what was finished is there, what was not goes on where it stopped."""

import io
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docx
import pytest
from reportlab.pdfgen import canvas

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.lexical import search_words
from dbgpt_lite.knowledge.records import Upload
from tests.knowledge.fake_embedder import FakeEmbedder

KILLS = 50
FILES = 40
CHANGED = 12
DELETED = 4
SUFFIXES = ("txt", "md", "html", "csv", "txt", "md", "docx", "txt", "md", "pdf")

CHILD = """
import os, signal, sys, threading
from pathlib import Path
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import Upload
folder = Path(sys.argv[1])
base = KnowledgeBase(folder / "knowledge", Embedder(device="cpu"))
space = base.create("s")
uploads = [Upload(folder / "short", "short.txt"), Upload(folder / "long", "long.txt")]
for report in base.ingest(space.id, uploads, threading.Event()):
    if report.file == "long.txt" and report.chunks_done > 150:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_embedding(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "short").write_text("The warranty lasts two years.")
    (tmp_path / "long").write_text("\n\n".join(f"Paragraph {n} tells of topic {n * 7}. " * 24 for n in range(150)))
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL

    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    [space] = base.spaces()
    assert (space.documents, space.chunks, space.pending) == (1, 1, 1)
    assert {found.document for found in base.search(space.id, "warranty topic paragraph", 9)} == {"short.txt"}
    assert {d.name: d.status for d in base.documents(space.id)} == {"short.txt": "ready", "long.txt": "pending"}
    assert base.interrupted() == [space.id]

    reports = list(base.resume(space.id, threading.Event()))
    first = next(report for report in reports if report.state == "embedding")
    assert first.chunks_done >= 100
    assert reports[-1].state == "done"
    long = next(document for document in base.documents(space.id) if document.name == "long.txt")
    assert (long.status, long.chunks) == ("ready", reports[-1].chunks_total)
    assert base.search(space.id, "Paragraph 149 topic 1043", 1)[0].document == "long.txt"
    assert list(base.resume(space.id, threading.Event())) == []
    again = list(base.ingest(space.id, [Upload(tmp_path / "long", "long.txt")], threading.Event()))
    assert again[-1].state == "duplicate"
    base.close()


def content(number: int, version: int) -> bytes:
    """A file of that version, in its format; every paragraph holds a word that no other file and version has."""
    random_words = random.Random(number * 1000 + version)
    paragraphs = [
        f"Mark{number}x{version} paragraph {position} says "
        + " ".join(
            random_words.choice("scanner battery refund warranty region office 电池 退货".split()) for _ in range(60)
        )
        for position in range(1 + number % 7 * 4)
    ]
    suffix = SUFFIXES[number % len(SUFFIXES)]
    stream = io.BytesIO()
    if suffix == "docx":
        document = docx.Document()
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
        document.save(stream)
    elif suffix == "pdf":
        page = canvas.Canvas(stream, invariant=1)
        for paragraph in paragraphs:
            page.drawString(50, 700, paragraph.encode("ascii", "ignore").decode()[:110])
            page.showPage()
        page.save()
    elif suffix == "html":
        stream.write("".join(f"<p>{paragraph}</p>" for paragraph in paragraphs).encode())
    else:
        stream.write("\n\n".join(paragraphs).encode("gb18030" if number % 3 == 0 else "utf-8"))
    return stream.getvalue()


def name_of(number: int) -> str:
    return f"folder{number % 4}/file{number}.{SUFFIXES[number % len(SUFFIXES)]}"


@dataclass
class Story:
    """What the ingestion should have come to: versions by file number, None once deleted.

    sure: what a child has reported; going: where the present round leads. A file not in `sure` has never been finished.
    """

    folder: Path
    rng: random.Random
    sure: dict[int, int | None] = field(default_factory=dict)
    going: dict[int, int | None] = field(default_factory=dict)
    round: int = 0
    texts: dict[tuple[int, int], list[str]] = field(default_factory=dict)

    def begin_round(self) -> None:
        """The first round brings all files; each later one changes some and deletes some."""
        numbers = range(FILES) if not self.round else sorted(self.rng.sample(range(FILES), CHANGED))
        gone = set() if not self.round else set(numbers[:DELETED])
        self.going = {number: None if number in gone else self.round for number in numbers}
        self.round += 1

    def step(self) -> dict[str, object]:
        uploads = [(str(self._file(n, v)), name_of(n)) for n, v in self.going.items() if v is not None]
        delete = [name_of(number) for number, version in self.going.items() if version is None]
        return {"uploads": uploads, "delete": delete}

    def heard(self, finished: list[str]) -> None:
        """Note what a child has reported. A resumed file of an older round counts as what it was then."""
        for number, version in self.going.items():
            if name_of(number) in finished:
                self.sure[number] = version

    def may_be(self, number: int) -> list[int | None]:
        """The states in which a file may be seen: as last reported, or as the present round makes it."""
        states: list[int | None] = [self.sure.get(number)]
        return [*states, self.going[number]] if number in self.going else states

    def expected(self, number: int, version: int | None) -> list[str]:
        """The chunks of an undisturbed ingestion."""
        return [] if version is None else self.texts.setdefault((number, version), self._undisturbed(number, version))

    def _undisturbed(self, number: int, version: int) -> list[str]:
        if (number, version) in self.texts:
            return self.texts[number, version]
        base = KnowledgeBase(self.folder / "undisturbed", FakeEmbedder())
        space = base.create(f"{number} {version}").id
        upload = Upload(self._file(number, version), name_of(number))
        list(base.ingest(space, [upload], threading.Event()))
        [document] = base.documents(space)
        texts = [passage.text for passage in base.chunks(space, document.id)]
        base.close()
        assert texts
        return texts

    def _file(self, number: int, version: int) -> Path:
        file = self.folder / f"{number}-{version}"
        if not file.exists():
            file.write_bytes(content(number, version))
        return file


def verify(story: Story, space: str) -> None:
    """Open what a kill has left as the next start would, and hold it against the story."""
    base = KnowledgeBase(story.folder / "knowledge", FakeEmbedder())
    visible = {document.name: document.id for document in base.documents(space) if document.status == "ready"}
    assert len(visible) == sum(document.status == "ready" for document in base.documents(space))
    ids = set()
    for number in range(FILES):
        document = visible.get(name_of(number))
        passages = base.chunks(space, document) if document else []
        ids |= {passage.id for passage in passages}
        texts = [passage.text for passage in passages]
        states = [version for version in story.may_be(number) if story.expected(number, version) == texts]
        assert states, f"{name_of(number)}: {len(texts)} chunks fit none of {story.may_be(number)}"
        if passages:
            # Every chunk is found by its words, and by no words of another version.
            hits = {hit.id for hit in search_words(base._catalog, space, f"Mark{number}x{states[0]}", 100)}
            assert hits == {passage.id for passage in passages if f"Mark{number}x" in passage.text}
    query = base._embedder.embed(["scanner"], "query")[0]
    assert {hit.id for hit in base._store(space).search(query, base._embedder.identity, 5000)} == ids
    with base._catalog.connection() as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        db.execute("INSERT INTO chunk_words(chunk_words) VALUES ('integrity-check')")
    base.close()


@pytest.fixture
def runner() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.knowledge.crash_runner"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_fifty_kills_lose_nothing_that_was_finished(tmp_path: Path, runner: subprocess.Popen[str]) -> None:
    story = Story(tmp_path, random.Random(20))
    base = KnowledgeBase(tmp_path / "knowledge", FakeEmbedder())
    space = base.create("s").id
    base.close()

    def run(delay: float | None) -> bool:
        step = {"folder": str(tmp_path / "knowledge"), "space": space, "delay": delay, **story.step()}
        assert runner.stdin is not None
        assert runner.stdout is not None
        runner.stdin.write(json.dumps(step) + "\n")
        runner.stdin.flush()
        answer = json.loads(runner.stdout.readline())
        story.heard(answer["finished"])
        return bool(answer["killed"])

    kills = longest = 0
    story.begin_round()
    while kills < KILLS:
        # Children live longer and longer, until one comes to the end: a slow machine gets there too.
        longest += 1
        if run(story.rng.uniform(0.0, 0.05 * longest)):
            kills += 1
        else:
            longest = 0
            story.begin_round()
        verify(story, space)
    assert not run(None)
    verify(story, space)
    # The children have told of every file of the last round, so this is an undisturbed ingestion to the letter.
    assert all(story.may_be(number) == [version, version] for number, version in story.going.items())
    base = KnowledgeBase(tmp_path / "knowledge", FakeEmbedder())
    documents = {document.id for document in base.documents(space)}
    assert {document.status for document in base.documents(space)} == {"ready"}
    assert documents <= {file.name for file in (tmp_path / "knowledge" / "files" / space).iterdir()}
    assert base.space(space).pending == 0
    base.close()
