"""Uploads -> searchable documents, a batch at a time: memory stays bounded and a killed process loses one batch."""

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dbgpt_lite.errors import Cancelled, DocumentError, TooLarge, UserError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import BATCH, Embedder
from dbgpt_lite.knowledge.lexical import index_words
from dbgpt_lite.knowledge.loaders import READERS, load, suffix
from dbgpt_lite.knowledge.locks import FolderLock
from dbgpt_lite.knowledge.names import file_name
from dbgpt_lite.knowledge.records import Chunk, Document, IngestProgress, Upload
from dbgpt_lite.knowledge.splitter import split
from dbgpt_lite.knowledge.vector_store import sync_folder

COPY_BLOCK = 1 << 20
# Chunks between two stored batches, two looks at the cancel event and two progress reports.
STAGE_BATCH = 2 * BATCH
LOCK_POLL_S = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds of an upload and shape of the chunks, in tokens of the embedder."""

    chunk_tokens: int
    chunk_overlap: int
    max_file_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The kept copy of an upload."""

    document_id: str
    path: Path
    sha256: str
    size: int


class Ingestor:
    """Takes files into spaces. One writer a space, over all processes; several spaces at once.

    files: folder of the kept bytes. locks: folder of the files that processes lock.
    """

    def __init__(self, catalog: Catalog, embedder: Embedder, files: Path, locks: Path, limits: IngestLimits) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._files = files
        self._lock_files = locks
        self._limits = limits
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def ingest(self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Index the uploads one after the other; a file that fails is reported and the others go on.

        Raises TooLarge for too many files, NotFound for the space, and Cancelled once `cancel` is set: finished files
        stay, the one at work is taken back. Closing the generator instead leaves that one to `resume`.
        """
        if len(uploads) > self._limits.max_files:
            raise TooLarge("knowledge.too_many_files", limit=self._limits.max_files, files=len(uploads))
        self._catalog.space(space_id)
        for number, upload in enumerate(uploads, start=1):
            progress = IngestProgress(file_name(upload.name), number, len(uploads))
            yield progress
            yield from self._reported(progress, self._upload(space_id, upload, progress, cancel))

    def resume(self, space_id: str, cancel: threading.Event) -> Iterator[IngestProgress]:
        """Finish the documents of a space that an interrupted process left pending, from where they stopped.

        One that another process is at work on is left out. Raises Cancelled once `cancel` is set; what is unfinished
        then stays pending, since the kept bytes are the only copy.
        """
        waiting = [document for document in self._catalog.documents(space_id) if document.status == "pending"]
        for number, document in enumerate(waiting, start=1):
            progress = IngestProgress(document.name, number, len(waiting))
            yield from self._reported(progress, self._resume_one(space_id, document.id, progress, cancel))

    @property
    def max_files(self) -> int:
        """Most files one call may bring."""
        return self._limits.max_files

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

    def _reported(self, progress: IngestProgress, steps: Iterator[IngestProgress]) -> Iterator[IngestProgress]:
        """The steps of one file; its error becomes its last report."""
        try:
            yield from steps
        except UserError as error:
            yield replace(progress, state="failed", error=error)
        except (OSError, sqlite3.Error) as error:
            logger.error("a document could not be stored: %s", type(error).__name__)
            yield replace(progress, state="failed", error=DocumentError("knowledge.storage_failed"))

    def _upload(
        self, space_id: str, upload: Upload, progress: IngestProgress, cancel: threading.Event
    ) -> Iterator[IngestProgress]:
        if suffix(progress.file) not in READERS:
            raise DocumentError(
                "knowledge.unknown_type", suffix=suffix(progress.file) or "?", known=" ".join(sorted(READERS))
            )
        stored = self._store(space_id, upload, cancel)
        try:
            with self.writer(space_id, cancel):
                document_id = self._enter(space_id, stored, progress.file)
                if document_id is None:
                    yield replace(progress, state="duplicate")
                    return
                yield from self._new(space_id, document_id, progress, cancel)
        finally:
            if not self._is_known(space_id, stored.document_id):
                stored.path.unlink(missing_ok=True)

    def _new(
        self, space_id: str, document_id: str, progress: IngestProgress, cancel: threading.Event
    ) -> Iterator[IngestProgress]:
        """Index a document that has just come; its owner still has the file, so stopping takes it back."""
        try:
            yield from self._index(space_id, document_id, progress, cancel)
        except Cancelled:
            with suppress(UserError):
                self._catalog.delete_document(space_id, document_id)
            self.path(space_id, document_id).unlink(missing_ok=True)
            raise

    def _resume_one(
        self, space_id: str, document_id: str, progress: IngestProgress, cancel: threading.Event
    ) -> Iterator[IngestProgress]:
        with self.writer(space_id, cancel, wait=False) as taken:
            if taken and self._catalog.document(space_id, document_id).status == "pending":
                yield progress
                yield from self._index(space_id, document_id, progress, cancel)

    def _store(self, space_id: str, upload: Upload, cancel: threading.Event) -> StoredFile:
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
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        if not size:
            target.unlink()
            raise DocumentError("knowledge.empty_file")
        return StoredFile(document_id, target, digest.hexdigest(), size)

    def _enter(self, space_id: str, stored: StoredFile, name: str) -> str | None:
        """Id of the document to index; None when the space holds these bytes already."""
        known = self._catalog.document_with_hash(space_id, stored.sha256)
        if known is None:
            self._catalog.add_document(space_id, stored.document_id, name, stored.sha256, stored.size)
            return stored.document_id
        if known.status == "ready":
            return None
        stored.path.replace(self.path(space_id, known.id))
        self._catalog.restart_document(known.id, name)
        return known.id

    def _is_known(self, space_id: str, document_id: str) -> bool:
        with suppress(UserError):
            return bool(self._catalog.document(space_id, document_id))
        return False

    def _index(
        self, space_id: str, document_id: str, progress: IngestProgress, cancel: threading.Event
    ) -> Iterator[IngestProgress]:
        """Read, split, embed and publish one entered document; the caller holds the writer lock."""
        try:
            yield from self._publish(space_id, self._catalog.document(space_id, document_id), progress, cancel)
        except UserError as error:
            self._catalog.fail_document(document_id, error)
            raise
        except (Cancelled, OSError, sqlite3.Error):
            # Stopped, or the machine's trouble, not the file's: it stays pending and can be resumed.
            raise
        except Exception as error:
            logger.error("a document could not be indexed: %s", type(error).__name__)
            failure = DocumentError("knowledge.index_failed")
            self._catalog.fail_document(document_id, failure)
            raise failure from error

    def _publish(
        self, space_id: str, document: Document, progress: IngestProgress, cancel: threading.Event
    ) -> Iterator[IngestProgress]:
        check(cancel)
        path = self.path(space_id, document.id)
        if not path.is_file():
            raise DocumentError("knowledge.file_gone")
        loaded = load(path, document.name, lambda: check(cancel))

        def count(text: str) -> int:
            check(cancel)
            return self._embedder.count(text)

        chunk_tokens = min(self._limits.chunk_tokens, self._embedder.max_tokens)
        chunks = split(loaded, count, chunk_tokens, self._limits.chunk_overlap)
        done = self._resumable(document.id, chunks)
        while done < len(chunks):
            yield replace(progress, state="embedding", chunks_done=done, chunks_total=len(chunks))
            check(cancel)
            batch = chunks[done : done + STAGE_BATCH]
            self._stage(document.id, batch)
            done += len(batch)
        check(cancel)
        self._catalog.publish(space_id, document.id, loaded.pages, loaded.encoding, self._embedder.identity)
        yield replace(progress, state="done", chunks_done=done, chunks_total=done)

    def _resumable(self, document_id: str, chunks: Sequence[Chunk]) -> int:
        """Chunks staged by an earlier attempt that fit this one; what does not fit is dropped."""
        staged = self._catalog.staged(document_id, self._embedder.identity)
        if staged == [(chunk.start, chunk.end) for chunk in chunks[: len(staged)]]:
            return len(staged)
        self._catalog.unstage(document_id)
        return 0

    def _stage(self, document_id: str, chunks: Sequence[Chunk]) -> None:
        texts = [embedded_text(chunk.heading, chunk.text) for chunk in chunks]
        vectors = self._embedder.embed(texts, "passage")
        indexed = [replace(chunk, words=index_words(text)) for chunk, text in zip(chunks, texts, strict=True)]
        self._catalog.stage(document_id, indexed, vectors, self._embedder.identity)


def embedded_text(heading: str, text: str) -> str:
    """What the indexes see of a chunk: its heading says what it is about."""
    return f"{heading}\n{text}" if heading else text


def check(cancel: threading.Event) -> None:
    """Raise Cancelled once the event is set."""
    if cancel.is_set():
        raise Cancelled
