"""Background jobs: they outlive whoever started them, tell how far they are, and stop and resume."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbgpt_lite.errors import NotFound, TooLarge, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.pace import Pace
from dbgpt_lite.knowledge.records import Job, Upload
from tests.knowledge.fake_embedder import FakeEmbedder

LONG = "\n\n".join(f"Paragraph {number} about topic {number}. " * 20 for number in range(300))


class Bench:
    """A knowledge base whose embedder waits at a gate, which is open until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = threading.Event()
        self.gate.set()
        self.discarded: list[str] = []
        self.open()

    def open(self) -> None:
        self.embedder = FakeEmbedder(gate=self.gate)
        self.base = KnowledgeBase(self.folder / "knowledge", self.embedder, max_files=5)
        self.jobs = self.base.jobs

    def uploads(self, **files: str) -> list[Upload]:
        folder = self.folder / f"in{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        return [Upload(folder / name, f"{name}.txt") for name in files]

    def start(self, space: str, **files: str) -> str:
        uploads = self.uploads(**files)

        def discard() -> None:
            self.discarded.extend(upload.name for upload in uploads)
            for upload in uploads:
                upload.path.unlink()

        return self.jobs.start(space, uploads, discard)

    def until(self, job_id: str, reached: Callable[[Job], bool]) -> Job:
        """The job as soon as it is as wanted; it fails loudly when the job ends before."""
        while True:
            job = next(job for space in self.base.spaces() for job in self.jobs.of_space(space.id) if job.id == job_id)
            if reached(job):
                return job
            assert not job.over, job
            threading.Event().wait(0.005)

    def states(self, space: str) -> dict[str, str]:
        return {document.name: document.status for document in self.base.documents(space)}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.gate.set()
    made.base.close()


def test_a_job_goes_on_without_its_page(bench: Bench) -> None:
    space = bench.base.create("s").id
    job_id = bench.start(space, a="Some words.", b=LONG)
    job = bench.jobs.wait(job_id, 30)
    assert (job.state, job.kind, job.error, job.seconds_left) == ("done", "ingest", None, None)
    assert (job.files_done, job.files_total) == (2, 2)
    assert job.chunks_done == job.chunks_total == bench.base.space(space).chunks
    assert {file.file: file.state for file in job.files} == {"a.txt": "done", "b.txt": "done"}
    assert bench.states(space) == {"a.txt": "ready", "b.txt": "ready"}
    assert sorted(bench.discarded) == ["a.txt", "b.txt"]
    assert bench.jobs.of_space(space) == (job,)
    assert bench.jobs.running() == ()


def test_progress_is_told_by_file_and_chunk_and_time(bench: Bench) -> None:
    space = bench.base.create("s").id
    bench.gate.clear()
    job_id = bench.start(space, long=LONG)
    job = bench.until(job_id, lambda job: job.chunks_total > 0)
    assert (job.state, job.file, job.chunks_done, job.seconds_left) == ("running", "long.txt", 0, None)
    bench.gate.set()
    job = bench.until(job_id, lambda job: job.chunks_done > 0)
    assert job.over or (job.seconds_left is not None and job.seconds_left >= 0)
    assert bench.jobs.wait(job_id, 30).state == "done"


def test_cancelling_keeps_what_is_finished_and_resume_does_the_rest(bench: Bench) -> None:
    space = bench.base.create("s").id
    assert bench.jobs.wait(bench.start(space, first="First words."), 30).state == "done"
    bench.gate.clear()
    job_id = bench.start(space, second=LONG, third="Third words.")
    bench.embedder.waiting.wait()
    bench.until(job_id, lambda job: job.chunks_total > 0)
    embedded = len(bench.embedder.batches)
    bench.jobs.cancel(job_id)
    bench.gate.set()
    assert bench.jobs.wait(job_id, 30).state == "cancelled"
    assert len(bench.embedder.batches) <= embedded + 1
    assert bench.states(space) == {"first.txt": "ready", "second.txt": "pending", "third.txt": "pending"}
    assert bench.base.space(space).pending == 2
    assert bench.base.interrupted() == []
    assert sorted(bench.discarded) == ["first.txt", "second.txt", "third.txt"]
    again = bench.jobs.wait(bench.jobs.resume(space), 30)
    assert (again.state, again.kind, again.files_done) == ("done", "resume", 2)
    assert set(bench.states(space).values()) == {"ready"}


def test_the_end_of_the_app_leaves_jobs_to_the_next_start(bench: Bench) -> None:
    space = bench.base.create("s").id
    bench.gate.clear()
    bench.start(space, a=LONG)
    bench.embedder.waiting.wait()
    closing = threading.Thread(target=bench.base.close)
    closing.start()
    bench.gate.set()
    closing.join()
    bench.open()
    assert bench.states(space) == {"a.txt": "pending"}
    assert bench.base.interrupted() == [space]
    assert bench.jobs.wait(bench.jobs.resume(space), 30).state == "done"
    assert bench.base.interrupted() == []


def test_jobs_of_a_space_wait_for_each_other_and_their_bytes_are_kept(bench: Bench) -> None:
    space = bench.base.create("s").id
    bench.gate.clear()
    first, second = bench.start(space, a="First."), bench.start(space, b="Second.")
    bench.until(first, lambda job: job.state == "running")
    bench.until(second, lambda _: "b.txt" in bench.states(space) and "b.txt" in bench.discarded)
    assert [job.state for job in bench.jobs.running()] == ["running", "waiting"]
    bench.jobs.cancel(second)
    assert bench.jobs.wait(second, 30).state == "cancelled"
    bench.gate.set()
    assert bench.jobs.wait(first, 30).state == "done"
    assert bench.states(space) == {"a.txt": "ready", "b.txt": "pending"}


def test_a_question_is_answered_while_a_job_is_at_work(bench: Bench) -> None:
    space = bench.base.create("s").id
    bench.jobs.wait(bench.start(space, a="The scanner battery."), 30)
    bench.gate.clear()
    job_id = bench.start(space, b=LONG)
    bench.until(job_id, lambda job: job.chunks_total > 0)
    assert bench.base.search(space, "scanner battery", 1)[0].document == "a.txt"
    bench.gate.set()
    bench.jobs.wait(job_id, 30)


def test_a_bad_file_fails_alone(bench: Bench) -> None:
    space = bench.base.create("s").id
    uploads = bench.uploads(good="Words.", bad="no pdf")
    uploads[1] = Upload(uploads[1].path, "bad.pdf")
    job = bench.jobs.wait(bench.jobs.start(space, uploads), 30)
    assert job.state == "done"
    assert {file.file: file.state for file in job.files} == {"good.txt": "done", "bad.pdf": "failed"}


def test_what_cannot_begin_says_so_at_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bundled").mkdir()
    bundled = bench.base.ensure_folder("Sample", tmp_path / "bundled").id
    space = bench.base.create("s").id
    with pytest.raises(NotFound):
        bench.start("nothing", a="Words.")
    with pytest.raises(UserError, match="comes with the app"):
        bench.start(bundled, b="Words.")
    with pytest.raises(TooLarge):
        bench.start(space, **{f"c{number}": "Words." for number in range(6)})
    assert len(bench.discarded) == 8
    with pytest.raises(NotFound):
        bench.jobs.wait("nothing", 1)
    bench.jobs.cancel("nothing")


def test_deleting_or_emptying_a_space_ends_its_jobs(bench: Bench, tmp_path: Path) -> None:
    for end in (bench.base.delete, bench.base.empty):
        space = bench.base.create(end.__name__).id
        bench.gate.clear()
        job_id = bench.start(space, a=LONG)
        bench.embedder.waiting.wait()
        end(space)
        bench.gate.set()
        assert bench.jobs.wait(job_id, 30).state in ("cancelled", "done", "failed")
        assert not list((tmp_path / "knowledge" / "files").glob(f"{space}/*"))
        bench.embedder.waiting.clear()


def test_re_embedding_in_the_background_while_the_old_index_answers(bench: Bench) -> None:
    space = bench.base.create("s").id
    bench.jobs.wait(bench.start(space, a="The scanner battery lasts nine hours."), 30)
    bench.base.close()
    gate = threading.Event()
    changed = FakeEmbedder("changed", gate)
    past = FakeEmbedder()
    changed.another = lambda folder: past  # type: ignore[method-assign]
    base = KnowledgeBase(bench.folder / "knowledge", changed)
    assert base.outdated() == [space]
    job_id = base.jobs.reembed(space)
    assert base.jobs.reembed(space) == job_id
    waiting = base.jobs.start(space, bench.uploads(b="Other words."))
    changed.waiting.wait()
    assert base.search(space, "scanner battery", 1)[0].document == "a.txt"
    assert base.retrieve([space], "scanner battery", 1).best > 0
    gate.set()
    assert base.jobs.wait(job_id, 30).state == "done"
    assert base.jobs.wait(waiting, 30).state == "done"
    assert base.outdated() == []
    assert base.search(space, "scanner battery", 1)[0].document == "a.txt"
    base.close()


def test_time_left_follows_the_rate_of_the_job() -> None:
    now = [100.0]
    pace = Pace([1000, 3000], clock=lambda: now[0])
    assert pace.seconds_left() is None
    pace.begin(1000, 10)
    now[0] += 4
    assert pace.seconds_left() is None
    pace.embedded(5)
    assert pace.seconds_left() == pytest.approx(35 * 4 / 5)
    pace.embedded(5)
    now[0] += 4
    pace.begin(3000, 10)
    assert pace.seconds_left() == pytest.approx(8.0)
    pace.drop(10)
    assert pace.seconds_left() == 0
