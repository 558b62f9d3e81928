"""The files of one space's index: a big base, a small delta beside it, and a manifest that names both.

    <space>.json            the manifest, replaced last and at once
    <space>.previous.json   the manifest of the base before this one, used when the newest does not open
    <space>.<token>.faiss   a base; <space>.<token>.npz  a delta: ids, float16 vectors, deleted ids

All are a cache of the catalogue. There is no pickle.
"""

import hashlib
import json
import logging
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dbgpt_lite.knowledge.ann import Base, ids_of
from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows
from dbgpt_lite.knowledge.locks import FolderLock
from dbgpt_lite.knowledge.snapshot import Fetch, Snapshot

FORMAT = 2
# Stored vectors that must find themselves before a file is trusted, and how far down they may stand.
PROBES, PROBE_DEPTH = 3, 10
# A vector's inner product with itself after 8-bit compression; one that was not compressed gives 1.
SELF_SCORE = 0.98

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index on disk holds. The hashes are of whole files; the generations are the catalogue's.

    embedder: name and hash of the weights. kind: FAISS's factory string; effort and recall as in `Base`. splitter: the
    chunking in force when it was written; chunks of several settings may stand side by side.
    """

    format: int
    embedder: str
    dimension: int
    count: int
    generation: int
    splitter: str
    faiss: str
    kind: str
    effort: int
    recall: float
    trained_on: int
    base_file: str
    base_sha256: str
    base_count: int
    base_generation: int
    delta_file: str
    delta_sha256: str
    delta_count: int
    deleted: int


@dataclass(frozen=True, slots=True)
class _Written:
    """A base and the file that holds it."""

    base: Base
    file: str
    sha256: str


class IndexFiles:
    """Writes and reads the index files of `space_id` in `folder`; for one thread at a time."""

    def __init__(self, folder: Path, space_id: str, splitter: str = "") -> None:
        self._folder = folder
        self._space_id = space_id
        self._splitter = splitter
        self._newest = folder / f"{space_id}.json"
        self._previous = folder / f"{space_id}.previous.json"
        self._written: _Written | None = None
        self._newest_is_good = False

    def write(self, snapshot: Snapshot, fetch: Fetch) -> bool:
        """Write a state beside the old one, force it to disk, probe it, then swap; the base only when it is new.

        Returns False when another process is writing just now. Raises OSError, ValueError when the probe fails.
        """
        with FolderLock(self._folder / f"{self._space_id}.lock") as lock:
            if not lock.acquire():
                return False
            manifest = self._write_parts(snapshot, fetch)
            old = _manifest(self._newest)
            if self._newest_is_good and old is not None and old.base_file != manifest.base_file:
                self._newest.replace(self._previous)
            write_durably(self._newest, json.dumps(asdict(manifest), indent=1).encode())
            self._newest_is_good = True
            self._remove_unnamed()
        return True

    def read(self, embedder: str, fetch: Fetch) -> Snapshot | None:
        """The newest state that opens, passes its checks and was made with `embedder`."""
        for path in (self._newest, self._previous):
            if not path.exists():
                continue
            try:
                snapshot = self._read(json.loads(path.read_text(encoding="utf-8")), embedder, fetch)
            except Exception as error:
                # Whatever is wrong with a cache, the answer is the same.
                logger.warning("the index file of space %s is not used: %s", self._space_id, error)
                continue
            self._newest_is_good = path == self._newest
            return snapshot
        return None

    def remove(self) -> None:
        """Remove every file of the space."""
        for file in self._folder.glob(f"{self._space_id}.*"):
            file.unlink(missing_ok=True)

    def _write_parts(self, snapshot: Snapshot, fetch: Fetch) -> Manifest:
        import faiss

        base, rows, written = snapshot.base, snapshot.delta.rows, self._written
        assert base is not None
        if written is None or written.base is not base or not (self._folder / written.file).is_file():
            written = self._written = self._write_base(base, fetch)
        delta_file, delta_sha256 = self._write_delta(snapshot)
        return Manifest(
            format=FORMAT,
            embedder=snapshot.embedder,
            dimension=base.index.d,
            count=snapshot.count,
            generation=snapshot.generation,
            splitter=self._splitter,
            faiss=faiss.__version__,
            kind=base.kind,
            effort=base.effort,
            recall=base.recall,
            trained_on=base.trained_on,
            base_file=written.file,
            base_sha256=written.sha256,
            base_count=len(base.ids),
            base_generation=base.generation,
            delta_file=delta_file,
            delta_sha256=delta_sha256,
            delta_count=len(rows.ids),
            deleted=len(snapshot.gone),
        )

    def _write_base(self, base: Base, fetch: Fetch) -> _Written:
        import faiss

        file = self._folder / f"{self._space_id}.{secrets.token_hex(4)}.faiss"
        temporary = file.with_name(file.name + ".new")
        faiss.write_index(base.index, str(temporary))
        _sync_file(temporary)
        # Mapped, not read: it is looked at once, and a second copy need not fit into memory.
        written = faiss.read_index(str(temporary), faiss.IO_FLAG_MMAP_IFC)
        probe(replace(base, index=written), fetch)
        del written
        temporary.replace(file)
        sync_folder(self._folder)
        return _Written(base, file.name, _sha256(file))

    def _write_delta(self, snapshot: Snapshot) -> tuple[str, str]:
        if not snapshot.loose:
            return "", ""
        rows = snapshot.delta.rows
        file = self._folder / f"{self._space_id}.{secrets.token_hex(4)}.npz"
        temporary = file.with_name(file.name + ".new")
        with temporary.open("wb") as stream:
            # The catalogue holds float16: nothing is lost.
            np.savez(stream, ids=rows.ids, vectors=rows.vectors.astype(np.float16), gone=snapshot.gone)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
        sync_folder(self._folder)
        return file.name, _sha256(file)

    def _read(self, content: dict[str, object], embedder: str, fetch: Fetch) -> Snapshot:
        if content.get("format") != FORMAT:
            raise ValueError("its format is of another version")
        manifest = Manifest(**content)  # type: ignore[arg-type]
        if manifest.embedder != embedder:
            raise ValueError("it was made with another embedder")
        base = self._read_base(manifest, fetch)
        self._written = _Written(base, manifest.base_file, manifest.base_sha256)
        return self._with_delta(base, manifest)

    def _read_base(self, manifest: Manifest, fetch: Fetch) -> Base:
        import faiss

        file = self._inside(manifest.base_file)
        if _sha256(file) != manifest.base_sha256:
            raise ValueError("the file is not what its manifest describes")
        # Read, not mapped: a mapped file that is cut short later would end the process.
        index = faiss.read_index(str(file))
        ids = ids_of(index, manifest.kind)
        if (index.d, len(ids)) != (manifest.dimension, manifest.base_count):
            raise ValueError("the index does not fit its manifest")
        base = Base(
            index, manifest.kind, ids, manifest.base_generation, manifest.effort, manifest.trained_on, manifest.recall
        )
        probe(base, fetch)
        return base

    def _with_delta(self, base: Base, manifest: Manifest) -> Snapshot:
        """The base alone serves too: what the delta had comes from the catalogue then."""
        snapshot = Snapshot(manifest.embedder, base.generation, base)
        if not manifest.delta_file:
            return snapshot.at(manifest.generation)
        try:
            rows, gone = self._read_delta(manifest)
        except Exception as error:
            logger.warning("the newest vectors of space %s are read anew: %s", self._space_id, error)
            return snapshot
        held = np.setdiff1d(np.union1d(base.ids, rows.ids), gone, assume_unique=True)
        return snapshot.at(manifest.generation).with_rows(rows).with_only(held)

    def _read_delta(self, manifest: Manifest) -> tuple[VectorRows, Ids]:
        file = self._inside(manifest.delta_file)
        if _sha256(file) != manifest.delta_sha256:
            raise ValueError("the file is not what its manifest describes")
        with np.load(file, allow_pickle=False) as arrays:
            return VectorRows(arrays["ids"], arrays["vectors"].astype(np.float32)), arrays["gone"]

    def _inside(self, name: str) -> Path:
        """A file of this space by its name in a manifest, which anyone may have written."""
        if not name.startswith(f"{self._space_id}.") or Path(name).name != name:
            raise ValueError("the manifest names a file of somewhere else")
        return self._folder / name

    def _remove_unnamed(self) -> None:
        kept = {self._newest.name, self._previous.name, f"{self._space_id}.lock"}
        for path in (self._newest, self._previous):
            if manifest := _manifest(path):
                kept |= {manifest.base_file, manifest.delta_file}
        for file in self._folder.glob(f"{self._space_id}.*"):
            if file.name not in kept:
                file.unlink(missing_ok=True)


def probe(base: Base, fetch: Fetch) -> None:
    """Raises ValueError unless stored vectors find themselves (or an equal) in the index."""
    rows = fetch(base.ids[np.linspace(0, len(base.ids) - 1, PROBES).astype(int)])
    for id_, vector in zip(rows.ids, rows.vectors, strict=True):
        scores, ids = base.search(vector.reshape(1, -1), PROBE_DEPTH)
        if id_ not in ids[0] and scores[0][0] < SELF_SCORE * (vector @ vector):
            raise ValueError("a stored vector does not find itself")


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


def _sync_file(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _manifest(path: Path) -> Manifest | None:
    """A manifest of this format, None for whatever else lies there."""
    try:
        return Manifest(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
