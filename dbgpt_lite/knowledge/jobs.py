"""Ingestion, resumption and re-embedding in threads that outlive the page that asked for them."""

import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from dbgpt_lite.errors import Cancelled, DocumentError, NotFound, UserError
from dbgpt_lite.knowledge.indexing import Task
from dbgpt_lite.knowledge.records import IngestProgress, Job, JobKind, JobState, Upload

# Jobs that embed at the same time, each in a space of its own; one keeps the embedder busy while another reads a file.
AT_ONCE = 2
# Finished jobs that are still told about.
REMEMBERED = 200
# A thread that reads a huge file may need so long to notice that the app closes; it then ends with the process.
CLOSE_S = 30.0

logger = logging.getLogger(__name__)

Steps = Iterator[IngestProgress]


class Work(Protocol):
    """What the jobs do; KnowledgeBase does it. All raise Cancelled once the event is set."""

    def check_upload(self, space_id: str, uploads: Sequence[Upload]) -> None: ...

    def receive(
        self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event, tasks: list[Task]
    ) -> Steps: ...

    def index(self, space_id: str, tasks: Sequence[Task], cancel: threading.Event) -> Steps: ...

    def resume(self, space_id: str, cancel: threading.Event) -> Steps: ...

    def reembed(self, space_id: str, cancel: threading.Event) -> Steps: ...

    def stop(self, space_id: str, tasks: Sequence[Task] | None) -> None: ...


@dataclass(slots=True)
class _Entry:
    """A job and its thread. job and running belong to whoever holds the condition."""

    job: Job
    cancel: threading.Event = field(default_factory=threading.Event)
    files: dict[int, IngestProgress] = field(default_factory=dict)
    running: bool = False
    thread: threading.Thread | None = None


class IngestJobs:
    """The jobs of a knowledge base. One a space at a time, AT_ONCE in all; the others wait in their order."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        self._closing = False

    def start(self, space_id: str, uploads: Sequence[Upload], discard: Callable[[], None] | None = None) -> str:
        """Take files in; returns the job's id. `discard` is called once the files are not needed, however it ends.

        The bytes are kept at once, also while the job waits, so a killed process finishes them at its next start.
        Raises NotFound, TooLarge, UserError for a space that comes with the app; `discard` has then been called.
        """
        try:
            self._work.check_upload(space_id, uploads)
        except BaseException:
            if discard:
                discard()
            raise
        tasks: list[Task] = []

        def steps(entry: _Entry) -> Steps:
            try:
                yield from self._work.receive(space_id, uploads, entry.cancel, tasks)
            finally:
                if discard:
                    discard()
            self._take_turn(entry)
            yield from self._work.index(space_id, tasks, entry.cancel)

        return self._begin(Job("", space_id, "ingest", files_total=len(uploads)), steps, tasks)

    def resume(self, space_id: str) -> str:
        """Finish the pending documents of a space; returns the id of the job, which may be under way already."""
        return self._only(space_id, "resume", self._work.resume)

    def reembed(self, space_id: str) -> str:
        """Embed a space anew; returns the id of the job, which may be under way already."""
        return self._only(space_id, "reembed", self._work.reembed)

    def of_space(self, space_id: str) -> tuple[Job, ...]:
        """The jobs of a space, oldest first, finished ones included."""
        with self._changed:
            return tuple(entry.job for entry in self._entries.values() if entry.job.space_id == space_id)

    def running(self) -> tuple[Job, ...]:
        """The jobs that are at work or wait for their turn, oldest first."""
        with self._changed:
            return tuple(entry.job for entry in self._entries.values() if not entry.job.over)

    def cancel(self, job_id: str) -> None:
        """Stop a job within a batch: finished files stay, the others stay pending until somebody resumes them."""
        with self._changed:
            entry = self._entries.get(job_id)
            if entry is not None:
                entry.cancel.set()
                self._changed.notify_all()

    def cancel_space(self, space_id: str) -> None:
        """Stop all jobs of a space."""
        for job in self.of_space(space_id):
            self.cancel(job.id)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """The job once it is over, or as it stands after `timeout` seconds. Raises NotFound."""
        with self._changed:
            entry = self._entries.get(job_id)
            if entry is None:
                raise NotFound("knowledge.no_job")
            self._changed.wait_for(lambda: entry.job.over, timeout)
            return entry.job

    def close(self) -> None:
        """Stop all jobs, to be taken up again at the next start, and wait for their threads."""
        with self._changed:
            self._closing = True
            entries = list(self._entries.values())
            for entry in entries:
                entry.cancel.set()
            self._changed.notify_all()
        for entry in entries:
            if entry.thread is not None and entry.thread is not threading.current_thread():
                entry.thread.join(CLOSE_S)

    def _only(self, space_id: str, kind: JobKind, action: Callable[[str, threading.Event], Steps]) -> str:
        for job in self.running():
            if (job.space_id, job.kind) == (space_id, kind):
                return job.id

        def steps(entry: _Entry) -> Steps:
            self._take_turn(entry)
            yield from action(space_id, entry.cancel)

        return self._begin(Job("", space_id, kind), steps, None if kind == "resume" else [])

    def _begin(self, job: Job, steps: Callable[[_Entry], Steps], tasks: Sequence[Task] | None) -> str:
        entry = _Entry(replace(job, id=secrets.token_hex(8)))
        with self._changed:
            self._entries[entry.job.id] = entry
            finished = [id_ for id_, other in self._entries.items() if other.job.over]
            for id_ in finished[: max(0, len(finished) - REMEMBERED)]:
                del self._entries[id_]
            if self._closing:
                entry.cancel.set()
        thread = threading.Thread(target=self._run, args=(entry, steps, tasks), name="ingest", daemon=True)
        entry.thread = thread
        thread.start()
        return entry.job.id

    def _run(self, entry: _Entry, steps: Callable[[_Entry], Steps], tasks: Sequence[Task] | None) -> None:
        state: JobState = "done"
        error: UserError | None = None
        try:
            for progress in steps(entry):
                self._note(entry, progress)
        except Cancelled:
            state = "cancelled"
            if not self._closing:
                with suppress(Exception):
                    self._work.stop(entry.job.space_id, tasks)
        except UserError as failure:
            state, error = "failed", failure
        except Exception as fault:
            storage = isinstance(fault, OSError | sqlite3.Error)
            logger.error("a job failed: %s", type(fault).__name__)
            state, error = "failed", DocumentError("knowledge.storage_failed" if storage else "knowledge.index_failed")
        with self._changed:
            entry.running = False
            entry.job = replace(entry.job, state=state, error=error, seconds_left=None)
            self._changed.notify_all()

    def _take_turn(self, entry: _Entry) -> None:
        """Wait until no older job of the space is unfinished and there is room for one more. Raises Cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: entry.cancel.is_set() or self._may_run(entry))
            if entry.cancel.is_set():
                raise Cancelled
            entry.running = True
            entry.job = replace(entry.job, state="running")
            self._changed.notify_all()

    def _may_run(self, entry: _Entry) -> bool:
        entries = list(self._entries.values())
        before = entries[: entries.index(entry)]
        alone = all(other.job.over for other in before if other.job.space_id == entry.job.space_id)
        return alone and sum(other.running for other in entries) < AT_ONCE

    def _note(self, entry: _Entry, progress: IngestProgress) -> None:
        with self._changed:
            entry.files[progress.file_number] = progress
            files = tuple(entry.files.values())
            entry.job = replace(
                entry.job,
                files=files,
                file=progress.file,
                files_done=sum(file.state in ("done", "failed", "duplicate") for file in files),
                files_total=max(entry.job.files_total, progress.files),
                chunks_done=sum(file.chunks_done for file in files),
                chunks_total=sum(file.chunks_total for file in files),
                seconds_left=progress.seconds_left,
            )
            self._changed.notify_all()
