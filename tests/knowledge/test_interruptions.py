"""Stops, closed front ends, two processes on one folder, a change of embedder: no document is lost."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dbgpt_lite.errors import Cancelled, NotFound
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder, Kind, Vectors
from dbgpt_lite.knowledge.records import Document, Space, Upload
from dbgpt_lite.model_loading import ONE_AT_A_TIME

LONG = "\n\n".join(f"Paragraph {n} tells of topic {n * 7}. " * 24 for n in range(40))


class OtherEmbedder(Embedder):
    """The real model under another identity, with its vectors turned round."""

    @property
    def identity(self) -> str:  # type: ignore[override]
        return "other-model@1"

    def embed(self, texts: list[str], kind: Kind = "passage") -> Vectors:  # type: ignore[override]
        return super().embed(texts, kind)[:, ::-1].copy()


@pytest.fixture
def long(tmp_path: Path) -> Upload:
    (tmp_path / "long").write_text(LONG)
    return Upload(tmp_path / "long", "long.txt")


def left_early(base: KnowledgeBase, space: Space, upload: Upload) -> Document:
    """The document of an upload whose front end went away while it was being embedded."""
    reports = base.ingest(space.id, [upload], threading.Event())
    for report in reports:
        if report.chunks_done:
            break
    reports.close()  # type: ignore[attr-defined]
    [document] = base.documents(space.id)
    return document


def test_an_upload_whose_front_end_went_away_is_finished_by_resume(base: KnowledgeBase, long: Upload) -> None:
    space = base.create("s")
    document = left_early(base, space, long)
    assert document.status == "pending"
    assert base.original(space.id, document.id).read_text() == LONG
    reports = list(base.resume(space.id, threading.Event()))
    assert reports[1].chunks_done > 0
    assert reports[-1].state == "done"
    assert base.search(space.id, "Paragraph 39 topic 273", 1)[0].document == "long.txt"


def test_leaving_at_the_last_report_keeps_the_document(base: KnowledgeBase, long: Upload) -> None:
    space = base.create("s")
    reports = base.ingest(space.id, [long], threading.Event())
    assert any(report.state == "done" for report in reports)
    reports.close()  # type: ignore[attr-defined]
    assert base.documents(space.id)[0].status == "ready"


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_a_stopped_resume_loses_nothing(base: KnowledgeBase, long: Upload, how: str) -> None:
    space = base.create("s")
    document = left_early(base, space, long)
    long.path.unlink()
    cancel = threading.Event()
    reports = base.resume(space.id, cancel)
    assert next(reports).state == "reading"
    assert next(reports).state == "embedding"
    if how == "cancel":
        cancel.set()
        with pytest.raises(Cancelled):
            next(reports)
    else:
        reports.close()  # type: ignore[attr-defined]
    assert [(d.id, d.status) for d in base.documents(space.id)] == [(document.id, "pending")]
    assert base.original(space.id, document.id).read_text() == LONG
    assert list(base.resume(space.id, threading.Event()))[-1].state == "done"


def test_a_cancelled_upload_is_taken_back(base: KnowledgeBase, long: Upload, tmp_path: Path) -> None:
    space, cancel = base.create("s"), threading.Event()
    reports = base.ingest(space.id, [long], cancel)
    for report in reports:
        if report.chunks_done:
            break
    cancel.set()
    with pytest.raises(Cancelled):
        next(reports)
    assert base.documents(space.id) == []
    assert not list((tmp_path / "knowledge" / "files").glob("*/*"))


def test_resume_leaves_alone_what_another_process_is_at_work_on(
    base: KnowledgeBase, long: Upload, tmp_path: Path, embedder: Embedder
) -> None:
    space = base.create("s")
    at_work = base.ingest(space.id, [long], threading.Event())
    assert next(at_work).state == "reading"
    assert next(at_work).state == "embedding"
    other = KnowledgeBase(tmp_path / "knowledge", embedder)
    assert [document.status for document in other.documents(space.id)] == ["pending"]
    assert list(other.resume(space.id, threading.Event())) == []
    assert list(at_work)[-1].state == "done"
    assert base.documents(space.id)[0].chunks == base.space(space.id).chunks
    assert list(other.resume(space.id, threading.Event())) == []
    other.close()


HOLDER = """
import sys
from pathlib import Path
from dbgpt_lite.knowledge.locks import FolderLock
with FolderLock(Path(sys.argv[1])) as lock:
    print(lock.acquire(), flush=True)
    sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(base: KnowledgeBase, long: Upload, tmp_path: Path) -> None:
    space = base.create("s")
    left_early(base, space, long)
    lock = tmp_path / "knowledge" / "locks" / f"{space.id}.lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert list(base.resume(space.id, threading.Event())) == []
        stopped = threading.Event()
        stopped.set()
        with pytest.raises(Cancelled):
            list(base.reembed(space.id, stopped))
        holder.kill()
    assert list(base.resume(space.id, threading.Event()))[-1].state == "done"
    base.delete(space.id)
    assert not lock.exists()


def test_a_space_of_another_embedder_says_so_and_is_re_embedded(
    base: KnowledgeBase, long: Upload, tmp_path: Path
) -> None:
    space, empty = base.create("s"), base.create("empty")
    list(base.ingest(space.id, [long], threading.Event()))
    assert not base.needs_reembedding(space.id)
    other = KnowledgeBase(tmp_path / "knowledge", OtherEmbedder(device="cpu"))
    assert other.needs_reembedding(space.id)
    assert not other.needs_reembedding(empty.id)
    with pytest.raises(NotFound):
        other.needs_reembedding("nothing")

    cancel = threading.Event()
    reports = other.reembed(space.id, cancel)
    assert next(reports).chunks_done == 0
    done = next(reports).chunks_done
    cancel.set()
    with pytest.raises(Cancelled):
        next(reports)
    assert other.needs_reembedding(space.id)
    # The model that the space was made with is still there, so the old index answers.
    assert other.search(space.id, "Paragraph 39 topic 273", 1)[0].document == "long.txt"
    assert other.retrieve([space.id, empty.id], "Paragraph 39 topic 273", 1).best > 0
    assert base.search(space.id, "Paragraph 39 topic 273", 1)

    again = list(other.reembed(space.id, threading.Event()))
    assert again[0].chunks_done == done > 0
    assert all(report.chunks_done <= report.chunks_total == space_chunks(other, space) for report in again)
    assert again[-1].state == "done"
    assert not other.needs_reembedding(space.id)
    assert other.search(space.id, "Paragraph 39 topic 273", 1)[0].document == "long.txt"
    other.close()


def space_chunks(base: KnowledgeBase, space: Space) -> int:
    return base.space(space.id).chunks


def test_half_written_files_of_killed_processes_are_removed(tmp_path: Path, embedder: Embedder) -> None:
    KnowledgeBase(tmp_path / "knowledge", embedder).close()
    indexes = tmp_path / "knowledge" / "indexes"
    for name in ("old.part", "old.faiss.new", "young.part", "old.faiss"):
        (indexes / name).write_bytes(b"half")
        if name.startswith("old"):
            os.utime(indexes / name, (time.time() - 7200,) * 2)
    KnowledgeBase(tmp_path / "knowledge", embedder).close()
    assert {file.name for file in indexes.iterdir()} == {"young.part", "old.faiss"}


def test_no_embedder_is_built_beside_another_model() -> None:
    embedder = Embedder(device="cpu")
    loading = threading.Thread(target=lambda: embedder.dimension)
    with ONE_AT_A_TIME:
        loading.start()
        loading.join(timeout=0.5)
        assert loading.is_alive()
    loading.join()
    assert embedder.dimension == 384
