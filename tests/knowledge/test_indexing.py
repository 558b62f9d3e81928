"""What indexing promises whatever the file: bounded memory, small batches, failures that stay where they happen."""

import errno
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.knowledge import ingest
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Kind, Vectors
from dbgpt_lite.knowledge.indexing import WINDOW_BATCHES
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from tests.knowledge.fake_embedder import FakeEmbedder

LONG = "\n\n".join(f"Paragraph {number} about topic {number}. " * 20 for number in range(300))

CHILD = """
import resource, sys, threading
from pathlib import Path
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.records import Upload
from tests.knowledge.fake_embedder import FakeEmbedder

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

folder = Path(sys.argv[1])
for name, lines in (("small", 1000), ("large", 36000)):
    with (folder / name).open("w", encoding="utf-32") as file:
        for number in range(lines):
            words = f"The scanner battery number {number} lasts for nine hours." if number % 2 else " " * 600
            file.write(words + "\\n\\n")
embedder = FakeEmbedder()
base = KnowledgeBase(folder / "knowledge", embedder)
space = base.create("s").id
peaks = []
for name in ("small", "large"):
    reports = list(base.ingest(space, [Upload(folder / name, f"{name}.txt")], threading.Event()))
    assert reports[-1].state == "done", reports[-1].error
    peaks.append(peak())
base.close()
print((folder / "large").stat().st_size // 1_000_000, *peaks, max(embedder.batches), len(embedder.embedded))
"""


@pytest.fixture
def uploads(tmp_path: Path) -> list[Upload]:
    texts = {"a.txt": "First words.", "b.txt": LONG, "c.txt": "Last words."}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return [Upload(tmp_path / name, name) for name in texts]


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def base(tmp_path: Path, embedder: FakeEmbedder) -> Iterator[KnowledgeBase]:
    made = KnowledgeBase(tmp_path / "knowledge", embedder)
    yield made
    made.close()


def last(reports: Iterator[IngestProgress]) -> dict[str, IngestProgress]:
    return {report.file: report for report in reports}


def test_memory_is_bounded_whatever_the_file(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    megabytes, small, large, batch, chunks = map(int, child.stdout.split())
    assert megabytes >= 45
    assert chunks > 1000
    assert batch <= FakeEmbedder().batch
    # Its bytes, its text and its chunks, each once or twice; what is being embedded does not show.
    assert large - small < 4 * megabytes


def test_no_batch_is_longer_than_a_query_should_wait(
    base: KnowledgeBase, uploads: list[Upload], embedder: FakeEmbedder
) -> None:
    space = base.create("s").id
    list(base.ingest(space, uploads, threading.Event()))
    assert max(embedder.batches) == embedder.batch
    assert sum(embedder.batches) == base.space(space).chunks > WINDOW_BATCHES * embedder.batch


def test_stopping_is_seen_within_one_batch(base: KnowledgeBase, uploads: list[Upload], embedder: FakeEmbedder) -> None:
    cancel = threading.Event()
    reports = base.ingest(base.create("s").id, uploads, cancel)
    for report in reports:
        if report.chunks_done:
            break
    batches = len(embedder.batches)
    cancel.set()
    with pytest.raises(Cancelled):
        list(reports)
    assert len(embedder.batches) == batches


def test_short_files_share_batches(base: KnowledgeBase, tmp_path: Path, embedder: FakeEmbedder) -> None:
    uploads = []
    for number in range(16):
        (tmp_path / str(number)).write_text(f"File number {number}.")
        uploads.append(Upload(tmp_path / str(number), f"{number}.txt"))
    list(base.ingest(base.create("s").id, uploads, threading.Event()))
    assert embedder.batches == [8, 8]


def test_a_full_disk_fails_the_file_and_nothing_else(
    base: KnowledgeBase, uploads: list[Upload], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = base.create("s").id
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ingest.os, "fsync", full)
    monkeypatch.setattr(ingest, "sync_folder", lambda folder: None)
    reports = last(base.ingest(space, uploads, threading.Event()))
    assert {name: report.state for name, report in reports.items()} == {
        "a.txt": "done",
        "b.txt": "failed",
        "c.txt": "done",
    }
    error = reports["b.txt"].error
    assert error is not None
    assert "free space" in error.render("en")
    assert len(list((tmp_path / "knowledge" / "files" / space).iterdir())) == 2
    monkeypatch.undo()
    assert last(base.ingest(space, uploads, threading.Event()))["b.txt"].state == "done"


def limit_pages(base: KnowledgeBase, pages: int) -> None:
    """Let the catalogue of `base` grow by so many pages, as a disk with so much room does."""
    with base._catalog.connection() as db:
        used = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {used + pages}")


def test_a_catalogue_that_cannot_grow_leaves_files_to_resume(base: KnowledgeBase, uploads: list[Upload]) -> None:
    space = base.create("s").id
    list(base.ingest(space, uploads[:1], threading.Event()))
    limit_pages(base, 30)
    reports = last(base.ingest(space, uploads[1:2], threading.Event()))
    assert reports["b.txt"].state == "failed"
    assert reports["b.txt"].error is not None
    assert reports["b.txt"].error.key == "knowledge.storage_failed"
    assert base.search(space, "first words", 1)[0].document == "a.txt"
    assert {d.name: d.status for d in base.documents(space)} == {"a.txt": "ready", "b.txt": "pending"}
    limit_pages(base, 1_000_000)
    assert last(base.resume(space, threading.Event()))["b.txt"].state == "done"
    with base._catalog.connection() as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_data_folder_that_turned_read_only(base: KnowledgeBase, uploads: list[Upload]) -> None:
    space = base.create("s").id
    list(base.ingest(space, uploads[:1], threading.Event()))
    with base._catalog.connection() as db:
        db.execute("PRAGMA query_only = ON")
    job = base.jobs.wait(base.jobs.start(space, uploads[1:]), 30)
    assert [file.state for file in job.files] == ["failed", "failed"]
    assert all(file.error is not None and file.error.key == "knowledge.storage_failed" for file in job.files)
    assert base.search(space, "first words", 1)[0].document == "a.txt"
    with base._catalog.connection() as db:
        db.execute("PRAGMA query_only = OFF")
    assert last(base.ingest(space, uploads[1:], threading.Event()))["c.txt"].state == "done"


class FailingEmbedder(FakeEmbedder):
    """Fails on texts with a certain word, by the kind of error that `failure` is."""

    failure: Exception | None = None

    def embed(self, texts: list[str], kind: Kind = "passage") -> Vectors:  # type: ignore[override]
        if self.failure is not None and any("topic" in text for text in texts):
            raise self.failure
        return super().embed(texts, kind)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(ModelError("knowledge.embedding_failed", name="m"), "pending"), (ValueError("a fault of ours"), "failed")],
)
def test_a_failing_model_fails_the_window_it_fails_in(
    tmp_path: Path, uploads: list[Upload], failure: Exception, status: str
) -> None:
    embedder = FailingEmbedder()
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    space = base.create("s").id
    list(base.ingest(space, uploads[:1], threading.Event()))
    embedder.failure = failure
    reports = last(base.ingest(space, uploads[1:], threading.Event()))
    assert {name: report.state for name, report in reports.items()} == {"b.txt": "failed", "c.txt": "done"}
    assert {d.name: d.status for d in base.documents(space)} == {"a.txt": "ready", "b.txt": status, "c.txt": "ready"}
    embedder.failure = None
    assert last(base.ingest(space, uploads[1:], threading.Event()))["b.txt"].state == "done"
    base.close()


def test_a_document_deleted_while_it_is_embedded_stays_deleted(base: KnowledgeBase, uploads: list[Upload]) -> None:
    space = base.create("s").id
    reports = base.ingest(space, uploads, threading.Event())
    seen = []
    for report in reports:
        seen.append(report)
        if report.file == "b.txt" and report.chunks_done == FakeEmbedder().batch:
            gone = next(document.id for document in base.documents(space) if document.name == "b.txt")
            base.delete_document(space, gone)
    assert last(iter(seen))["b.txt"].error is not None
    assert {document.name for document in base.documents(space)} == {"a.txt", "c.txt"}
    with sqlite3.connect(base._catalog._path) as db:
        documents = {document.id for document in base.documents(space)}
        assert {row[0] for row in db.execute("SELECT DISTINCT document FROM chunks")} == documents
