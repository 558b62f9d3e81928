"""The knowledge base as the rest of the app sees it: spaces of documents, uploads, search.

On disk: ``catalog.sqlite3`` (the truth), ``files/<space>/<document>`` (the bytes as uploaded) and ``indexes/`` (FAISS,
made from the catalogue). Every id is random; a client's id is looked up in the catalogue before it means anything.
"""

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dbgpt_lite.errors import KnowledgeIndexError, NotFound, UserError
from dbgpt_lite.knowledge import names
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.housekeeping import TEMPORARY_AGE_S, remove_orphans
from dbgpt_lite.knowledge.indexing import IngestLimits, Task
from dbgpt_lite.knowledge.ingest import Ingestor
from dbgpt_lite.knowledge.jobs import IngestJobs
from dbgpt_lite.knowledge.locks import FolderLock
from dbgpt_lite.knowledge.mirror import difference, mirror_space
from dbgpt_lite.knowledge.records import Document, IngestProgress, Retrieval, Space, TextPreview, Upload
from dbgpt_lite.knowledge.reembedding import reembed
from dbgpt_lite.knowledge.retriever import Reranker, Retriever
from dbgpt_lite.knowledge.searchers import Searchers
from dbgpt_lite.knowledge.vector_index import VectorIndex, index_maker
from dbgpt_lite.knowledge.words import words
from dbgpt_lite.messages import Passage

logger = logging.getLogger(__name__)


class KnowledgeBase:
    """Spaces of documents under the folder `root`, which is made when missing. Safe for many threads.

    chunk_tokens and chunk_overlap are tokens of the embedder; a chunk never exceeds what the embedder reads.
    """

    def __init__(
        self,
        root: Path,
        embedder: Embedder,
        *,
        chunk_tokens: int = 180,
        chunk_overlap: int = 30,
        max_file_bytes: int = 50_000_000,
        max_files: int = 50,
        reranker: Reranker | None = None,
        vector_store: str = "",
    ) -> None:
        self._files, self._indexes, self._locks = root / "files", root / "indexes", root / "locks"
        for folder in (root, self._files, self._indexes, self._locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._embedder = embedder
        self._catalog = Catalog(root / "catalog.sqlite3")
        limits = IngestLimits(chunk_tokens, chunk_overlap, max_file_bytes, max_files)
        self._ingestor = Ingestor(self._catalog, embedder, self._files, self._locks, limits)
        self._stores: dict[str, VectorIndex] = {}
        splitter = f"{chunk_tokens} tokens, {chunk_overlap} shared"
        self._open_index = index_maker(vector_store, self._indexes, self._catalog, splitter)
        self._guard = threading.Lock()
        calibrations = root / "calibrations"
        self._searchers = Searchers(
            self._catalog, embedder, lambda one: Retriever(self._catalog, one, self._store, calibrations, reranker)
        )
        self._remembered = False
        self.jobs = IngestJobs(self)
        remove_orphans(self._catalog, self._files, self._indexes)

    def close(self) -> None:
        """Stop the jobs, save the indexes that changed and close the catalogue."""
        self.jobs.close()
        self._searchers.close()
        for store in list(self._stores.values()):
            store.close()
        self._open_index.close()
        self._catalog.close()

    @property
    def retriever(self) -> Retriever:
        """What searches the spaces made with the present embedder."""
        return self._searchers.current

    # --- spaces

    def spaces(self, owner: str = "") -> list[Space]:
        """The spaces to choose from, bundled ones first, then by name; hidden ones are left out.

        With an `owner` also their temporary ones.
        """
        return self._catalog.spaces(owner=owner)

    def space(self, space_id: str, owner: str | None = None) -> Space:
        """One space, hidden or not. Raises NotFound, with an `owner` also for a temporary space of somebody else."""
        space = self._catalog.space(space_id)
        if owner is not None and space.temporary and space.owner != owner:
            raise NotFound("knowledge.no_space")
        return space

    def create(self, name: str) -> Space:
        """Make an empty space. Raises UserError for a name that is empty, too long or taken."""
        return self._catalog.space(self._catalog.add_space(names.space_name(name)))

    def create_temporary(self, owner: str, name: str) -> Space:
        """Make a space for files thrown into one conversation; only `owner` sees it, under any name."""
        shown = names.file_name(name)[: names.MAX_SPACE_NAME]
        return self._catalog.space(self._catalog.add_temporary_space(shown, owner))

    def keep(self, space_id: str, name: str) -> Space:
        """Turn a temporary space into one that all see. Raises NotFound, UserError for the name."""
        self._writable(space_id)
        self._catalog.keep_space(space_id, names.space_name(name))
        return self._catalog.space(space_id)

    def remove_temporary(self, in_use: Collection[str]) -> int:
        """Delete the temporary spaces older than a day whose id is not in use; returns how many."""
        gone = self._catalog.abandoned(time.time() - TEMPORARY_AGE_S, in_use)
        for space_id in gone:
            self.delete(space_id)
        return len(gone)

    def empty(self, space_id: str) -> int:
        """Remove all documents of a space at once, pending ones too; returns how many. Raises NotFound, UserError."""
        self._writable(space_id)
        self.jobs.cancel_space(space_id)
        removed = self._catalog.delete_documents(space_id)
        for document_id in removed:
            self._ingestor.path(space_id, document_id).unlink(missing_ok=True)
        return len(removed)

    def rename(self, space_id: str, name: str) -> Space:
        """Give a space another name. Raises NotFound, UserError."""
        self._writable(space_id)
        self._catalog.rename_space(space_id, names.space_name(name))
        return self._catalog.space(space_id)

    def delete(self, space_id: str) -> None:
        """Remove a space with its documents, their files and its index. Raises NotFound, UserError if it is bundled."""
        self._writable(space_id)
        self.jobs.cancel_space(space_id)
        self._catalog.delete_space(space_id)
        with self._guard:
            store = self._stores.pop(space_id, None) or self._open_index(space_id)
        store.forget()
        self.retriever.calibrator.forget(space_id)
        shutil.rmtree(self._files / space_id, ignore_errors=True)
        FolderLock(self._locks / f"{space_id}.lock").forget()

    # --- documents

    def documents(self, space_id: str) -> list[Document]:
        """Documents of a space, newest first; also the failed ones with their error and the interrupted ones."""
        return self._catalog.documents(space_id)

    def document(self, space_id: str, document_id: str) -> Document:
        """One document. Raises NotFound."""
        return self._catalog.document(space_id, document_id)

    def original(self, space_id: str, document_id: str) -> Path:
        """The bytes of a document as they were uploaded. Raises NotFound."""
        self._catalog.document(space_id, document_id)
        return self._ingestor.path(space_id, document_id)

    def delete_document(self, space_id: str, document_id: str) -> None:
        """Remove a document at once, also while others search or upload. Raises NotFound, UserError if bundled."""
        self._writable(space_id)
        self._catalog.delete_document(space_id, document_id)
        self._ingestor.path(space_id, document_id).unlink(missing_ok=True)

    def chunks(self, space_id: str, document_id: str) -> list[Passage]:
        """The chunks of a document in reading order. Raises NotFound."""
        return self._catalog.chunks(space_id, document_id)

    # --- uploads

    def ingest(self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Take files in, reporting as it goes; the work is done while the caller iterates.

        A file that cannot be read is reported as failed with its error and the others go on. Raises NotFound for the
        space, TooLarge for too many files, KnowledgeIndexError after a change of embedder, Cancelled when stopped: then
        what is unfinished is taken back. Closing the generator leaves it pending, for `resume` to finish.
        A file replaces an older one of the same name or address in the moment in which it becomes searchable. Bytes
        that the space has under another name are not indexed again: the new name is shown, and the document stays as
        long as one of its names has not been given to other bytes.
        """
        self._writable(space_id)
        yield from self._indexed(space_id, self._ingestor.ingest(space_id, uploads, cancel))

    def check_upload(self, space_id: str, uploads: Sequence[Upload]) -> None:
        """Raise NotFound, TooLarge, or UserError when the space comes with the app, before anything is begun."""
        self._writable(space_id)
        self._ingestor.check_number(uploads)

    def receive(
        self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event, tasks: list[Task]
    ) -> Iterator[IngestProgress]:
        """The first half of `ingest`: keep the bytes, append to `tasks` what is to be indexed, report the others."""
        return self._ingestor.receive(space_id, uploads, cancel, tasks)

    def index(self, space_id: str, tasks: Sequence[Task], cancel: threading.Event) -> Iterator[IngestProgress]:
        """The second half of `ingest`, for `tasks`; stopping it (Cancelled) leaves them pending."""
        yield from self._indexed(space_id, self._ingestor.index(space_id, tasks, cancel))

    def stop(self, space_id: str, tasks: Sequence[Task] | None) -> None:
        """Note that the unfinished of `tasks` (None: all) are so by their owner's wish: see `interrupted`."""
        ids = None if tasks is None else [task.document_id for task in tasks]
        self._catalog.stop_documents(space_id, True, ids)

    def interrupted(self) -> list[str]:
        """Ids of the spaces with documents that a crash or the end of the app left pending."""
        return self._catalog.interrupted()

    def preview(self, path: Path, name: str, encoding: str = "") -> TextPreview | None:
        """The beginning of a text file as it would be read, in `encoding` or the one that is detected.

        None for the formats that carry their encoding (PDF, Office). Raises DocumentError.
        """
        from dbgpt_lite.knowledge.preview import preview_text

        return preview_text(path, name, encoding)

    def resume(self, space_id: str, cancel: threading.Event) -> Iterator[IngestProgress]:
        """Finish the documents an interrupted process left pending, from the batch where they stopped.

        Stopping it (Cancelled) leaves them pending. A space that another process is writing to is left out.
        """
        yield from self._indexed(space_id, self._ingestor.resume(space_id, cancel))

    def needs_reembedding(self, space_id: str) -> bool:
        """Whether the space was made with another embedder: it can be searched again after `reembed`.

        Cheap, except that the first call hashes the weights of the embedder. Raises NotFound, ModelError.
        """
        return self._embedder_changed(space_id)

    def outdated(self) -> list[str]:
        """Ids of the spaces, hidden and temporary ones included, that were made with another embedder."""
        return [space.id for space in self._catalog.all_spaces() if self._embedder_changed(space.id)]

    def reembed(self, space_id: str, cancel: threading.Event) -> Iterator[IngestProgress]:
        """Make the vectors of a space anew with the present embedder; until the end the old ones stay in place.

        May be stopped (Cancelled) and taken up again later.
        """
        with self._ingestor.writer(space_id, cancel):
            space = self._catalog.space(space_id)
            yield from reembed(self._catalog, self._embedder, space, cancel)
        self._remember_embedder()
        self._save(space_id)
        self._searchers.tidy()
        yield IngestProgress(space.name, 1, 1, space.chunks, space.chunks, "done")

    def ensure_folder(
        self,
        name: str,
        folder: Path,
        *,
        readonly: bool = True,
        hidden: bool = False,
        cancel: threading.Event | None = None,
    ) -> Space:
        """A space that mirrors a folder of bundled files: made once, brought up to date when the files change.

        Costs only the hashing of the files when nothing changed. A visible name that a user's own space has taken gets
        a number. Raises DocumentError for a bundled file that cannot be read.
        """
        cancel = cancel or threading.Event()
        space = mirror_space(self._catalog, names.space_name(name), readonly, hidden)
        if self._embedder_changed(space.id):
            for _ in self.reembed(space.id, cancel):
                pass
        found = difference(self._catalog, space.id, folder)
        for part in found.parts(self._ingestor.max_files):
            for progress in self._indexed(space.id, self._ingestor.ingest(space.id, part, cancel)):
                if progress.error is not None:
                    raise progress.error
        for removed in self._catalog.drop_names(space.id, found.gone):
            self._ingestor.path(space.id, removed.document_id).unlink(missing_ok=True)
        return self._catalog.space(space.id)

    # --- search

    def search(self, space_id: str, question: str, k: int = 5) -> list[Passage]:
        """Up to `k` passages for a question, best first; `score` is the cosine of the two (-1 to 1).

        Raises NotFound, KnowledgeIndexError when the space was made with another embedder, ModelError.
        """
        return self._searchers.search(space_id, question, k)

    def retrieve(self, space_ids: Sequence[str], question: str, k: int = 5) -> Retrieval:
        """Up to `k` passages of several spaces for a question, or why there are none (see Retrieval).

        Neighbouring chunks come as one passage, which keeps the id of its first; `score` is the evidence (0 to 1) that
        is compared with `needed`. Raises NotFound, ModelError, and KnowledgeIndexError when the only space was made
        with another embedder (among several it is left out).
        """
        return self._searchers.retrieve(space_ids, question, k)

    def calibrate(self, space_id: str) -> None:
        """Learn now what a question must score to count as covered; it happens by itself in the background otherwise.

        Raises NotFound, KnowledgeIndexError, ModelError.
        """
        self.retriever.calibrator.calibrate(space_id)

    def passage(self, space_id: str, passage_id: int) -> Passage:
        """One passage of a space. Raises NotFound."""
        found = self._catalog.passages(space_id, [passage_id])
        if not found:
            raise NotFound("knowledge.no_passage")
        return found[passage_id]

    def warm(self) -> None:
        """Load the embedder and the Chinese dictionary now, so that the first question does not wait for them."""
        self._embedder.embed(["warm"], "query")
        words("准备")

    # --- inside

    def _indexed(self, space_id: str, steps: Iterator[IngestProgress]) -> Iterator[IngestProgress]:
        """Run an ingestion and write the index file once at its end."""
        if self._embedder_changed(space_id):
            raise KnowledgeIndexError("knowledge.other_embedder", made_with=self._made_with(space_id))
        self._remember_embedder()
        try:
            yield from steps
        finally:
            self._save(space_id)

    def _remember_embedder(self) -> None:
        """Keep where the model lies: should the setting change, its spaces answer until they are embedded anew."""
        if not self._remembered:
            with suppress(sqlite3.Error):
                self._catalog.know_embedder(self._embedder.identity, self._embedder.model_folder)
                self._remembered = True

    def _save(self, space_id: str) -> None:
        """Bring the index up to date and to disk. It is a cache: failing costs time later, nothing else."""
        try:
            store = self._store(space_id)
            store.refresh(self._embedder.identity)
            store.save()
        except (OSError, UserError) as error:
            logger.warning("the index of space %s was not saved: %s", space_id, type(error).__name__)

    def _store(self, space_id: str) -> VectorIndex:
        self._catalog.space(space_id)
        with self._guard:
            if space_id not in self._stores:
                self._stores[space_id] = self._open_index(space_id)
            return self._stores[space_id]

    def _writable(self, space_id: str) -> None:
        space = self._catalog.space(space_id)
        if space.readonly or space.hidden:
            raise UserError("knowledge.readonly", name=space.name)

    def _made_with(self, space_id: str) -> str:
        return self._catalog.version(space_id).embedder.split("@")[0]

    def _embedder_changed(self, space_id: str) -> bool:
        return self._catalog.version(space_id).embedder not in ("", self._embedder.identity)
