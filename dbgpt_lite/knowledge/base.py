"""The knowledge base as the rest of the app sees it: spaces of documents, uploads, search.

On disk: ``catalog.sqlite3`` (the truth), ``files/<space>/<document>`` (the bytes as uploaded) and ``indexes/`` (FAISS,
made from the catalogue). Every id is random; a client's id is looked up in the catalogue before it means anything.
"""

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dbgpt_lite.errors import KnowledgeIndexError, NotFound, UserError
from dbgpt_lite.knowledge import names, retriever
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.ingest import STAGE_BATCH, IngestLimits, Ingestor, check, embedded_text
from dbgpt_lite.knowledge.loaders import READERS, suffix
from dbgpt_lite.knowledge.locks import FolderLock
from dbgpt_lite.knowledge.records import Document, IngestProgress, Space, Upload
from dbgpt_lite.knowledge.vector_store import VectorStore
from dbgpt_lite.knowledge.words import words
from dbgpt_lite.messages import Passage

# A file that no document names is removed once it is this old: a younger one may belong to an upload under way.
ORPHAN_AGE_S = 24 * 3600
# A half-written file beside its target belongs to a process that was killed once it is this old.
PART_AGE_S = 3600

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
    ) -> None:
        self._files, self._indexes, self._locks = root / "files", root / "indexes", root / "locks"
        for folder in (root, self._files, self._indexes, self._locks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._embedder = embedder
        self._catalog = Catalog(root / "catalog.sqlite3")
        limits = IngestLimits(chunk_tokens, chunk_overlap, max_file_bytes, max_files)
        self._ingestor = Ingestor(self._catalog, embedder, self._files, self._locks, limits)
        self._stores: dict[str, VectorStore] = {}
        self._guard = threading.Lock()
        self._remove_orphans()

    def close(self) -> None:
        """Save the indexes that changed and close the catalogue."""
        for store in list(self._stores.values()):
            store.save()
        self._catalog.close()

    # --- spaces

    def spaces(self) -> list[Space]:
        """The spaces to choose from: bundled ones first, then by name; hidden ones are left out."""
        return self._catalog.spaces()

    def space(self, space_id: str) -> Space:
        """One space, hidden or not. Raises NotFound."""
        return self._catalog.space(space_id)

    def create(self, name: str) -> Space:
        """Make an empty space. Raises UserError for a name that is empty, too long or taken."""
        return self._catalog.space(self._catalog.add_space(names.space_name(name)))

    def rename(self, space_id: str, name: str) -> Space:
        """Give a space another name. Raises NotFound, UserError."""
        self._writable(space_id)
        self._catalog.rename_space(space_id, names.space_name(name))
        return self._catalog.space(space_id)

    def delete(self, space_id: str) -> None:
        """Remove a space with its documents, their files and its index. Raises NotFound, UserError if it is bundled."""
        self._writable(space_id)
        self._catalog.delete_space(space_id)
        with self._guard:
            store = self._stores.pop(space_id, None) or VectorStore(self._indexes, space_id, self._catalog)
        store.forget()
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
        self._delete_document(space_id, document_id)

    def chunks(self, space_id: str, document_id: str) -> list[Passage]:
        """The chunks of a document in reading order. Raises NotFound."""
        return self._catalog.chunks(space_id, document_id)

    # --- uploads

    def ingest(self, space_id: str, uploads: Sequence[Upload], cancel: threading.Event) -> Iterator[IngestProgress]:
        """Take files in, reporting as it goes; the work is done while the caller iterates.

        A file that cannot be read is reported as failed with its error and the others go on. Raises NotFound for the
        space, TooLarge for too many files, KnowledgeIndexError after a change of embedder, Cancelled when stopped: then
        the file at work is taken back. Closing the generator leaves that file pending, for `resume` to finish.
        """
        self._writable(space_id)
        yield from self._indexed(space_id, self._ingestor.ingest(space_id, uploads, cancel))

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

    def reembed(self, space_id: str, cancel: threading.Event) -> Iterator[IngestProgress]:
        """Make the vectors of a space anew with the present embedder; until the end the old ones stay in place.

        May be stopped (Cancelled) and taken up again later.
        """
        space, identity = self._catalog.space(space_id), self._embedder.identity
        progress = IngestProgress(space.name, 1, 1, 0, space.chunks, "embedding")
        with self._ingestor.writer(space_id, cancel):
            done = space.chunks - self._catalog.unembedded_count(space_id, identity)
            while batch := self._catalog.unembedded(space_id, identity, STAGE_BATCH):
                yield IngestProgress(space.name, 1, 1, done, space.chunks, "embedding")
                check(cancel)
                vectors = self._embedder.embed([embedded_text(heading, text) for _, heading, text in batch])
                self._catalog.add_vectors([id_ for id_, _, _ in batch], vectors, identity)
                done += len(batch)
            self._catalog.switch_embedder(space_id, identity)
        self._save(space_id)
        yield IngestProgress(progress.file, 1, 1, space.chunks, space.chunks, "done")

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
        space = self._mirror_space(names.space_name(name), readonly, hidden)
        if self._embedder_changed(space.id):
            for _ in self.reembed(space.id, cancel):
                pass
        files = {
            _sha256(file): file for file in sorted(folder.rglob("*")) if file.is_file() and suffix(file.name) in READERS
        }
        known = self._catalog.hashes(space.id)
        for sha256 in known.keys() - files.keys():
            self._delete_document(space.id, known[sha256])
        ready = {document.id for document in self._catalog.documents(space.id) if document.status == "ready"}
        uploads = [Upload(file, file.name) for sha256, file in files.items() if known.get(sha256) not in ready]
        for first in range(0, len(uploads), self._ingestor.max_files):
            part = uploads[first : first + self._ingestor.max_files]
            for progress in self._indexed(space.id, self._ingestor.ingest(space.id, part, cancel)):
                if progress.error is not None:
                    raise progress.error
        return self._catalog.space(space.id)

    # --- search

    def search(self, space_id: str, question: str, k: int = 5) -> list[Passage]:
        """Up to `k` passages for a question, best first; `score` is the cosine of the two (-1 to 1).

        Raises NotFound, KnowledgeIndexError when the space was made with another embedder, ModelError.
        """
        return retriever.search(self._catalog, self._store(space_id), self._embedder, space_id, question, k)

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
        try:
            yield from steps
        finally:
            self._save(space_id)

    def _save(self, space_id: str) -> None:
        """Bring the index up to date and to disk. It is a cache: failing costs time later, nothing else."""
        try:
            store = self._store(space_id)
            store.refresh(self._embedder.identity)
            store.save()
        except (OSError, UserError) as error:
            logger.warning("the index of space %s was not saved: %s", space_id, type(error).__name__)

    def _store(self, space_id: str) -> VectorStore:
        self._catalog.space(space_id)
        with self._guard:
            return self._stores.setdefault(space_id, VectorStore(self._indexes, space_id, self._catalog))

    def _writable(self, space_id: str) -> None:
        space = self._catalog.space(space_id)
        if space.readonly or space.hidden:
            raise UserError("knowledge.readonly", name=space.name)

    def _delete_document(self, space_id: str, document_id: str) -> None:
        self._catalog.delete_document(space_id, document_id)
        self._ingestor.path(space_id, document_id).unlink(missing_ok=True)

    def _made_with(self, space_id: str) -> str:
        return self._catalog.version(space_id).embedder.split("@")[0]

    def _embedder_changed(self, space_id: str) -> bool:
        return self._catalog.version(space_id).embedder not in ("", self._embedder.identity)

    def _mirror_space(self, name: str, readonly: bool, hidden: bool) -> Space:
        wanted, number = name, 1
        while (space := self._catalog.space_named(wanted, hidden)) is not None:
            if space.readonly == readonly and space.hidden == hidden:
                return space
            number += 1
            wanted = f"{name} ({number})"
        return self._catalog.space(self._catalog.add_space(wanted, readonly, hidden))

    def _remove_orphans(self) -> None:
        """Files of uploads and spaces that a crash left behind, and half-written indexes."""
        for pattern in ("*.new", "*.part"):
            for file in self._indexes.glob(pattern):
                _remove_older(file, PART_AGE_S)
        known = {space.id: set(self._catalog.hashes(space.id).values()) for space in self._catalog.spaces(hidden=True)}
        for file in self._files.glob("*/*"):
            if file.name not in known.get(file.parent.name, ()):
                _remove_older(file, ORPHAN_AGE_S)


def _remove_older(file: Path, age_s: float) -> None:
    """Remove a file last written more than `age_s` seconds ago; another process may be first."""
    with suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime > age_s:
            file.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
