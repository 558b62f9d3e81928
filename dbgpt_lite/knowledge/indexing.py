"""Pending documents -> searchable ones, a window of chunks at a time.

A window holds chunks of one long file or of many short ones. They go through the embedder in batches of like length
and are stored, with the documents they complete, in one transaction: memory stays bounded whatever the file, and a
killed process loses at most a window.
"""

import logging
import sqlite3
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dbgpt_lite.errors import Cancelled, DocumentError, ModelError, NotFound, UserError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder, Vectors
from dbgpt_lite.knowledge.lexical import index_words
from dbgpt_lite.knowledge.loaders import load
from dbgpt_lite.knowledge.pace import Pace
from dbgpt_lite.knowledge.records import Chunk, IngestProgress
from dbgpt_lite.knowledge.splitter import split

# Batches in a window: enough to sort by length, few enough to be lost.
WINDOW_BATCHES = 8
# What waits in a half full window is stored before a file of this size is read, which may take long.
LARGE_FILE = 1_000_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """Bounds of an upload and shape of the chunks, in tokens of the embedder."""

    chunk_tokens: int
    chunk_overlap: int
    max_file_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True)
class Task:
    """A pending document to index. size in bytes; new: this upload has entered it, nobody else knows of it."""

    document_id: str
    progress: IngestProgress
    size: int
    new: bool = False


@dataclass(slots=True)
class _Work:
    """A document that has been read. todo: chunks that are in no window yet; done counts the embedded ones."""

    task: Task
    todo: deque[Chunk]
    total: int
    done: int
    pages: int
    encoding: str
    over: bool = False


@dataclass(slots=True)
class _Item:
    """A chunk in the window."""

    work: _Work
    chunk: Chunk
    text: str
    vector: Vectors | None = None


class Indexer:
    """Reads, splits, embeds and publishes documents. path: (space id, document id) -> their kept bytes."""

    def __init__(
        self, catalog: Catalog, embedder: Embedder, limits: IngestLimits, path: Callable[[str, str], Path]
    ) -> None:
        self.catalog = catalog
        self.embedder = embedder
        self.limits = limits
        self.path = path

    def run(self, space_id: str, tasks: Sequence[Task], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Index the documents; the caller holds the writer lock of the space.

        Those that fail are reported. Raises Cancelled; what is unfinished then, or when the generator is closed, stays
        pending with what has been embedded of it.
        """
        return _Run(self, space_id, cancel, Pace([task.size for task in tasks])).steps(tasks)


@dataclass(slots=True)
class _Run:
    """One call: the window, and the documents with something in it."""

    indexer: Indexer
    space_id: str
    cancel: threading.Event
    pace: Pace
    window: list[_Item] = field(default_factory=list)
    works: list[_Work] = field(default_factory=list)

    def steps(self, tasks: Sequence[Task]) -> Iterator[IngestProgress]:
        for task in tasks:
            if task.size >= LARGE_FILE:
                yield from self._flush()
            check(self.cancel)
            yield replace(task.progress, seconds_left=self.pace.seconds_left())
            begun = self._guarded(task, self._read)
            if isinstance(begun, IngestProgress):
                self.pace.begin(task.size, 0)
                yield begun
                continue
            self.pace.begin(task.size, begun.total - begun.done)
            yield self._report(begun)
            yield from self._take(begun)
        yield from self._flush()

    def _take(self, work: _Work) -> Iterator[IngestProgress]:
        """Put the chunks of a document into windows; those that get full are stored."""
        self.works.append(work)
        while work.todo and not work.over:
            chunk = work.todo.popleft()
            self.window.append(_Item(work, chunk, embedded_text(chunk.heading, chunk.text)))
            if len(self.window) >= WINDOW_BATCHES * self.indexer.embedder.batch:
                yield from self._flush()
                if work.todo and not work.over:
                    self.works.append(work)

    def _guarded(self, task: Task, action: Callable[[Task], "_Work | IngestProgress"]) -> "_Work | IngestProgress":
        """What an action on one document gives; its failure as a report, noted in the catalogue if it is the file's."""
        try:
            return action(task)
        except (NotFound, ModelError) as error:
            # Deleted meanwhile, or the model's trouble, not the file's: then it stays pending.
            return replace(task.progress, state="failed", error=error)
        except UserError as error:
            return self._failed(task, error)
        except Cancelled:
            raise
        except (OSError, sqlite3.Error) as error:
            # The machine's trouble, not the file's: it stays pending and can be resumed.
            return replace(task.progress, state="failed", error=storage_failed(error))
        except Exception as error:
            logger.error("a document could not be indexed: %s", type(error).__name__)
            return self._failed(task, DocumentError("knowledge.index_failed"))

    def _failed(self, task: Task, error: UserError) -> IngestProgress:
        try:
            self.indexer.catalog.fail_document(task.document_id, error)
        except sqlite3.Error as fault:
            error = storage_failed(fault)
        return replace(task.progress, state="failed", error=error)

    def _read(self, task: Task) -> "_Work | IngestProgress":
        """Read and split a document; or how it ended, if somebody else has been faster."""
        indexer, cancel = self.indexer, self.cancel
        document = indexer.catalog.document(self.space_id, task.document_id)
        if document.status == "ready":
            done = replace(task.progress, chunks_done=document.chunks, chunks_total=document.chunks)
            return replace(done, state="done" if task.new else "duplicate")
        if document.error is not None:
            return replace(task.progress, state="failed", error=document.error)
        path = indexer.path(self.space_id, document.id)
        if not path.is_file():
            raise DocumentError("knowledge.file_gone")
        encoding = indexer.catalog.chosen_encoding(document.id)
        loaded = load(path, document.name, lambda: check(cancel), encoding)

        def count(text: str) -> int:
            check(cancel)
            return indexer.embedder.count(text)

        chunk_tokens = min(indexer.limits.chunk_tokens, indexer.embedder.max_tokens)
        chunks = split(loaded, count, chunk_tokens, indexer.limits.chunk_overlap)
        staged = self._staged(document.id, chunks)
        todo = deque(chunk for chunk in chunks if (chunk.start, chunk.end) not in staged)
        return _Work(task, todo, len(chunks), len(staged), loaded.pages, loaded.encoding)

    def _staged(self, document_id: str, chunks: Sequence[Chunk]) -> set[tuple[int, int]]:
        """Places of the chunks that an earlier attempt has stored; if they do not fit this one, they are dropped."""
        catalog = self.indexer.catalog
        staged = catalog.staged(document_id, self.indexer.embedder.identity)
        places = set(staged)
        # Chunks that another embedder has left have no vector of this one; beside new ones they would stand twice.
        whole = len(places) == len(staged) == catalog.staged_count(document_id)
        if whole and places <= {(chunk.start, chunk.end) for chunk in chunks}:
            return places
        catalog.unstage(document_id)
        return set()

    def _flush(self) -> Iterator[IngestProgress]:
        """Embed and store the window and publish the documents that are complete with it."""
        if not self.works:
            return
        try:
            yield from self._embed()
            outcome = self._store()
        except (Cancelled, GeneratorExit):
            with suppress(OSError, sqlite3.Error):
                self._store()
            raise
        except ModelError as error:
            # The model's trouble: the documents stay pending and can be resumed.
            yield from self._over(error)
        except (OSError, sqlite3.Error) as error:
            yield from self._over(storage_failed(error))
        except Exception as error:
            logger.error("documents could not be indexed: %s", type(error).__name__)
            yield from self._over(DocumentError("knowledge.index_failed"), failed=True)
        else:
            yield from self._finished(outcome)
        self.window, self.works = [], []

    def _embed(self) -> Iterator[IngestProgress]:
        embedder = self.indexer.embedder
        # By tokens: a Chinese character is one, an English one a fifth, and padding costs as much as text.
        order = sorted(self.window, key=lambda item: -embedder.count(item.text))
        for first in range(0, len(order), embedder.batch):
            check(self.cancel)
            batch = order[first : first + embedder.batch]
            for item, vector in zip(batch, embedder.embed([item.text for item in batch], "passage"), strict=True):
                item.vector = vector
                item.work.done += 1
            self.pace.embedded(len(batch))
            for work in {id(item.work): item.work for item in batch}.values():
                yield self._report(work)

    def _store(self) -> dict[str, tuple[str, ...] | UserError]:
        """Store what is embedded and publish what is complete: document id -> those it replaced, or why it failed."""
        chunks: dict[str, list[Chunk]] = defaultdict(list)
        vectors: dict[str, list[Vectors]] = defaultdict(list)
        for item in self.window:
            if item.vector is not None:
                chunks[item.work.task.document_id].append(replace(item.chunk, words=index_words(item.text)))
                vectors[item.work.task.document_id].append(item.vector)
        outcome: dict[str, tuple[str, ...] | UserError] = {}
        with self.indexer.catalog.writing():
            for work in self.works:
                id_ = work.task.document_id
                try:
                    removed = self._store_one(work, chunks[id_], np.array(vectors[id_], dtype=np.float32))
                    if removed is not None:
                        outcome[id_] = removed
                except UserError as error:
                    # It was deleted meanwhile.
                    outcome[id_] = error
        for result in outcome.values():
            for id_ in () if isinstance(result, UserError) else result:
                with suppress(OSError):
                    self.indexer.path(self.space_id, id_).unlink(missing_ok=True)
        return outcome

    def _store_one(self, work: _Work, chunks: Sequence[Chunk], vectors: Vectors) -> tuple[str, ...] | None:
        """Ids of the documents that this one replaced; None while it is not complete."""
        catalog, id_, identity = self.indexer.catalog, work.task.document_id, self.indexer.embedder.identity
        catalog.stage(id_, chunks, vectors, identity)
        if work.done < work.total:
            return None
        return catalog.publish(self.space_id, id_, work.pages, work.encoding, identity)

    def _finished(self, outcome: dict[str, tuple[str, ...] | UserError]) -> Iterator[IngestProgress]:
        for work in self.works:
            result = outcome.get(work.task.document_id)
            work.over = result is not None
            if isinstance(result, UserError):
                yield replace(work.task.progress, state="failed", error=result)
            elif result is not None:
                yield replace(self._report(work), state="done", replaced=bool(result))

    def _over(self, error: UserError, failed: bool = False) -> Iterator[IngestProgress]:
        """Report all documents of the window as failed; `failed` notes it in the catalogue too."""
        for work in self.works:
            work.over = True
            self.pace.drop(work.total - work.done)
            progress = self._report(work)
            yield self._failed(work.task, error) if failed else replace(progress, state="failed", error=error)

    def _report(self, work: _Work) -> IngestProgress:
        left = self.pace.seconds_left()
        progress = replace(work.task.progress, state="embedding", seconds_left=left)
        return replace(progress, chunks_done=work.done, chunks_total=work.total)


def embedded_text(heading: str, text: str) -> str:
    """What the indexes see of a chunk: its heading says what it is about."""
    return f"{heading}\n{text}" if heading else text


def check(cancel: threading.Event) -> None:
    """Raise Cancelled once the event is set."""
    if cancel.is_set():
        raise Cancelled


def storage_failed(error: Exception) -> DocumentError:
    """What the owner is told when the disk or the catalogue refuses; the log names the kind of fault."""
    logger.error("a document could not be stored: %s", type(error).__name__)
    return DocumentError("knowledge.storage_failed")
