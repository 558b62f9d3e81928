"""FAISS index of one space: exact inner product over unit vectors (IndexIDMap2 over IndexFlatIP).

The index is a cache of the catalogue. Its file carries a JSON manifest; a file that is missing, damaged, stale or of
another embedder is brought up to date or rebuilt from the catalogue, never trusted. There is no pickle.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dbgpt_lite.errors import KnowledgeIndexError
from dbgpt_lite.knowledge.catalog import Catalog, Version
from dbgpt_lite.knowledge.catalog_rows import VectorRows
from dbgpt_lite.knowledge.embeddings import Vectors

if TYPE_CHECKING:
    import faiss

FORMAT = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index file holds; sha256 is of the whole file, generation is the catalogue's."""

    format: int
    embedder: str
    dimension: int
    count: int
    generation: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk and the cosine of its vector to the question's."""

    id: int
    score: float


class VectorStore:
    """Vectors of one space; `folder` holds ``<space_id>.faiss`` and ``<space_id>.json``.

    Many threads may search at once; a change waits for them and shows itself whole.
    """

    def __init__(self, folder: Path, space_id: str, catalog: Catalog) -> None:
        self._file = folder / f"{space_id}.faiss"
        self._manifest = folder / f"{space_id}.json"
        self._space_id = space_id
        self._catalog = catalog
        self._lock = _ReadWriteLock()
        self._refreshing = threading.Lock()
        self._index: faiss.IndexIDMap2 | None = None
        self._generation = 0
        self._saved_generation = 0
        self._embedder = ""
        self._opened = False

    def search(self, query: Vectors, embedder: str, limit: int) -> list[Hit]:
        """The chunks nearest to `query` (float32, shape (dimension,)), best first.

        Raises KnowledgeIndexError when the space was made with another embedder, NotFound when it is gone.
        """
        import faiss

        self.refresh(embedder)
        with self._lock.reading():
            if self._index is None or not self._index.ntotal:
                return []
            # With two OpenMP threads a single query gets slower; the setting is each thread's own.
            faiss.omp_set_num_threads(1)
            scores, ids = self._index.search(query.reshape(1, -1), min(limit, self._index.ntotal))
        return [Hit(int(id_), float(score)) for id_, score in zip(ids[0], scores[0], strict=True) if id_ >= 0]

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """The stored unit vectors, float32 of shape (dimension,), of those `ids` that are in the index."""
        found: dict[int, Vectors] = {}
        with self._lock.reading():
            if self._index is not None:
                for id_ in ids:
                    # FAISS raises RuntimeError for an id that it does not hold.
                    with suppress(RuntimeError):
                        found[id_] = np.asarray(self._index.reconstruct(int(id_)), dtype=np.float32)
        return found

    def refresh(self, embedder: str) -> None:
        """Bring the index to the state of the catalogue. Cheap when nothing changed."""
        version = self._catalog.version(self._space_id)
        if version.embedder not in ("", embedder):
            raise KnowledgeIndexError("knowledge.other_embedder", made_with=version.embedder.split("@")[0])
        if self._opened and version.generation == self._generation:
            return
        with self._refreshing:
            self._open(embedder)
            self._catch_up(embedder)

    def save(self) -> None:
        """Write the index beside the old one, force it to disk, then swap; then the same for its manifest."""
        import faiss

        with self._refreshing, self._lock.reading():
            if self._index is None or self._generation == self._saved_generation:
                return
            content = faiss.serialize_index(self._index).tobytes()
            manifest = Manifest(
                FORMAT, self._embedder, self._index.d, self._index.ntotal, self._generation, _sha256(content)
            )
            write_durably(self._file, content)
            write_durably(self._manifest, json.dumps(asdict(manifest), indent=1).encode())
            self._saved_generation = self._generation

    def forget(self) -> None:
        """Remove the files; for a space that was deleted."""
        with self._refreshing, self._lock.writing():
            self._index, self._generation, self._opened = None, 0, False
            self._file.unlink(missing_ok=True)
            self._manifest.unlink(missing_ok=True)

    def _open(self, embedder: str) -> None:
        if self._opened:
            return
        self._opened = True
        try:
            manifest = Manifest(**json.loads(self._manifest.read_text(encoding="utf-8")))
            index = self._read(manifest, embedder)
        except FileNotFoundError:
            return
        except Exception as error:
            logger.warning("the index of space %s is rebuilt: %s", self._space_id, error)
            return
        self._index, self._embedder = index, manifest.embedder
        self._generation = self._saved_generation = manifest.generation

    def _read(self, manifest: Manifest, embedder: str) -> "faiss.IndexIDMap2":
        import faiss

        if manifest.format != FORMAT or manifest.embedder != embedder:
            raise ValueError("made with another embedder or version")
        content = self._file.read_bytes()
        if _sha256(content) != manifest.sha256:
            raise ValueError("the file is not what its manifest describes")
        index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
        if not isinstance(index, faiss.IndexIDMap2) or (index.d, index.ntotal) != (manifest.dimension, manifest.count):
            raise ValueError("the index does not fit its manifest")
        return index

    def _catch_up(self, embedder: str) -> None:
        version, rows = self._catalog.vectors_since(self._space_id, self._generation)
        if version.generation == self._generation:
            return
        if version.generation < self._generation or (self._embedder and self._embedder != embedder):
            version, rows = self._rebuild_rows()
        with self._lock.writing():
            self._add(rows)
            self._remove_gone(version)
            complete = (self._index.ntotal if self._index is not None else 0) == version.chunks
            self._generation, self._embedder = version.generation, embedder
        if not complete:
            logger.warning("the index of space %s is rebuilt: it does not fit the catalogue", self._space_id)
            version, rows = self._rebuild_rows()
            with self._lock.writing():
                self._index = None
                self._add(rows)
                self._generation = version.generation

    def _rebuild_rows(self) -> tuple[Version, VectorRows]:
        with self._lock.writing():
            self._index, self._generation = None, 0
        return self._catalog.vectors_since(self._space_id, 0)

    def _add(self, rows: VectorRows) -> None:
        import faiss

        if not len(rows.ids):
            return
        if self._index is None:
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.vectors.shape[1]))
        self._index.add_with_ids(rows.vectors, rows.ids)

    def _remove_gone(self, version: Version) -> None:
        import faiss

        if self._index is None or self._index.ntotal == version.chunks:
            return
        have = faiss.vector_to_array(self._index.id_map)
        gone = np.setdiff1d(have, self._catalog.visible_ids(self._space_id, version.generation))
        self._index.remove_ids(faiss.IDSelectorBatch(gone))


class _ReadWriteLock:
    """Many readers or one writer; a waiting writer goes before new readers."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._writing and not self._writers_waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._condition:
            self._writers_waiting += 1
            self._condition.wait_for(lambda: not self._writing and not self._readers)
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._condition:
                self._writing = False
                self._condition.notify_all()


def write_durably(file: Path, content: bytes) -> None:
    """Replace `file` so that a crash at any moment leaves the old content or the new, never a mixture."""
    temporary = file.with_name(file.name + ".new")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk (where the system can open a folder)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
