"""Uploads -> kept bytes and pending documents; indexing.py makes those searchable.

All files of an upload are kept and entered before the first is indexed, so a killed process loses none of them.
"""

import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from dbgpt_lite.errors import Cancelled, DocumentError, NotFound, TooLarge, UserError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_documents import Arrival
from dbgpt_lite.knowledge.catalog_names import Removed
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.indexing import Indexer, IngestLimits, Task, check, storage_failed
from dbgpt_lite.knowledge.loaders import READERS, suffix
from dbgpt_lite.knowledge.locks import FolderLock
from dbgpt_lite.knowledge.names import distinct_names
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from dbgpt_lite.knowledge.vector_store import sync_folder

COPY_BLOCK = 1 << 20
LOCK_POLL_S = 0.2


class Ingestor:
    """Takes files into spaces. One writer a space, over all processes; several spaces at once.

    files: folder of the kept bytes. locks: folder of the files that processes lock.
    """

    def __init__(self, catalog: Catalog, embedder: Embedder, files: Path, locks: Path, limits: IngestLimits) -> None:
        self._catalog = catalog
        self._files = files
        self._lock_files = locks
        self._limits = limits
        self._indexer = Indexer(catalog, embedder, limits, self.path)
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def ingest(self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Take the uploads in; a file that fails is reported and the others go on.

        Raises TooLarge for too many files, NotFound for the space, and Cancelled once `cancel` is set: finished files
        stay, the others are taken back. Closing the generator instead leaves those to `resume`.
        """
        tasks: list[Task] = []
        try:
            yield from self.receive(space_id, uploads, cancel, tasks)
            yield from self.index(space_id, tasks, cancel)
        except Cancelled:
            self._take_back(space_id, tasks)
            raise

    def receive(
        self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event, tasks: list[Task]
    ) -> Iterator[IngestProgress]:
        """Keep the bytes of the uploads and append a task for each to index; reports those that come to an end here.

        Waits for no lock. Raises TooLarge, NotFound, Cancelled; what was appended until then is pending.
        """
        self.check_number(uploads)
        self._catalog.space(space_id)
        known: list[IngestProgress] = []
        replaced: set[str] = set()
        try:
            for number, upload in enumerate(distinct(uploads), start=1):
                progress = IngestProgress(upload.name, number, len(uploads))
                for report in self._receive_one(space_id, upload, progress, cancel, tasks):
                    known += [report] if report.state == "duplicate" else []
                    yield report
        finally:
            # Only now is it known which files have changed their names and which are replaced.
            replaced = self._settle(space_id)
        yield from (replace(report, replaced=True) for report in known if report.file in replaced)

    def index(self, space_id: str, tasks: Sequence[Task], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Make received files searchable, once no other writer is at work on the space. Raises Cancelled."""
        if tasks:
            with self.writer(space_id, cancel):
                yield from self._indexer.run(space_id, tasks, cancel)

    def resume(self, space_id: str, cancel: threading.Event) -> Iterator[IngestProgress]:
        """Finish the documents of a space that an interrupted process left pending, from where they stopped.

        A space that another process is at work on is left out. Raises Cancelled once `cancel` is set; what is
        unfinished then stays pending, since the kept bytes are the only copy.
        """
        with self.writer(space_id, cancel, wait=False) as taken:
            if taken:
                self._catalog.stop_documents(space_id, False)
                found = [document for document in self._catalog.documents(space_id) if document.status == "pending"]
                tasks = [
                    Task(document.id, IngestProgress(document.name, number, len(found)), document.size)
                    for number, document in enumerate(reversed(found), start=1)
                ]
                yield from self._indexer.run(space_id, tasks, cancel)

    @property
    def max_files(self) -> int:
        """Most files one call may bring."""
        return self._limits.max_files

    def check_number(self, uploads: Sequence[Upload]) -> None:
        """Raise TooLarge for more files than one call may bring."""
        if len(uploads) > self._limits.max_files:
            raise TooLarge("knowledge.too_many_files", limit=self._limits.max_files, files=len(uploads))

    def path(self, space_id: str, document_id: str) -> Path:
        """Where the bytes of a document are kept. Both ids must come from the catalogue, never from a client."""
        return self._files / space_id / document_id

    @contextmanager
    def writer(self, space_id: str, cancel: threading.Event, wait: bool = True) -> Iterator[bool]:
        """The space's writer lock, against threads and other processes; gives whether it was taken.

        wait: wait for another process too, so that it is always taken. Raises Cancelled when `cancel` is set meanwhile.
        """
        with self._guard:
            lock = self._locks.setdefault(space_id, threading.Lock())
        while not lock.acquire(timeout=LOCK_POLL_S):
            check(cancel)
        try:
            with FolderLock(self._lock_files / f"{space_id}.lock") as shared:
                while not (taken := shared.acquire()) and wait:
                    check(cancel)
                    time.sleep(LOCK_POLL_S)
                yield taken
        finally:
            lock.release()

    def _settle(self, space_id: str) -> set[str]:
        """Remove what known files have replaced; returns the names that stood for it."""
        removed: tuple[Removed, ...] = ()
        # What cannot be removed now goes at the next upload or start.
        with suppress(NotFound, sqlite3.Error):
            removed = self._catalog.settle(space_id)
        for one in removed:
            with suppress(OSError):
                self.path(space_id, one.document_id).unlink(missing_ok=True)
        return {one.name for one in removed}

    def _receive_one(
        self, space_id: str, upload: Upload, progress: IngestProgress, cancel: threading.Event, tasks: list[Task]
    ) -> Iterator[IngestProgress]:
        try:
            yield from self._enter(space_id, upload, progress, cancel, tasks)
        except UserError as error:
            yield replace(progress, state="failed", error=error)
        except (OSError, sqlite3.Error) as error:
            yield replace(progress, state="failed", error=storage_failed(error))

    def _enter(
        self, space_id: str, upload: Upload, progress: IngestProgress, cancel: threading.Event, tasks: list[Task]
    ) -> Iterator[IngestProgress]:
        ending = suffix(progress.file)
        if ending not in READERS:
            raise DocumentError("knowledge.unknown_type", suffix=ending or "?", known=" ".join(sorted(READERS)))
        arrival = self._store(space_id, upload, progress.file, cancel)
        path = self.path(space_id, arrival.document_id)
        try:
            entered = self._catalog.enter(space_id, arrival)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if not entered.new and not entered.ready:
            # An earlier attempt has the same bytes; should they have been lost, here they are.
            path.replace(self.path(space_id, entered.document_id))
        elif entered.ready:
            path.unlink(missing_ok=True)
        if entered.ready or any(task.document_id == entered.document_id for task in tasks):
            yield replace(progress, state="duplicate")
        else:
            tasks.append(Task(entered.document_id, progress, arrival.size, entered.new))

    def _store(self, space_id: str, upload: Upload, name: str, cancel: threading.Event) -> Arrival:
        """Copy the upload under a generated id, hashing it on the way; never more than the limit is read."""
        document_id = secrets.token_hex(8)
        target = self.path(space_id, document_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        try:
            with upload.path.open("rb") as source, target.open("xb") as copy:
                while block := source.read(COPY_BLOCK):
                    check(cancel)
                    size += len(block)
                    if size > self._limits.max_file_bytes:
                        raise TooLarge("knowledge.file_too_large", limit=self._limits.max_file_bytes // 1_000_000)
                    digest.update(block)
                    copy.write(block)
                copy.flush()
                os.fsync(copy.fileno())
            sync_folder(target.parent)
            if not size:
                raise DocumentError("knowledge.empty_file")
        except BaseException:
            with suppress(OSError):
                target.unlink(missing_ok=True)
            raise
        return Arrival(document_id, name, digest.hexdigest(), size, upload.encoding, upload.source)

    def _take_back(self, space_id: str, tasks: Sequence[Task]) -> None:
        """Remove what this upload has entered and not finished; its owner still has the files."""
        for task in tasks:
            with suppress(UserError, OSError, sqlite3.Error):
                if task.new and self._catalog.document(space_id, task.document_id).status == "pending":
                    self._catalog.delete_document(space_id, task.document_id)
                    self.path(space_id, task.document_id).unlink(missing_ok=True)


def distinct(uploads: Sequence[Upload]) -> list[Upload]:
    """The uploads under the names to show, all different; an upload that is cut into parts must be named before."""
    names = distinct_names([upload.name for upload in uploads])
    return [replace(upload, name=name) for upload, name in zip(uploads, names, strict=True)]
