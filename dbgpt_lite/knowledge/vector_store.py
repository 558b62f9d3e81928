"""FAISS index of one space, a cache of the catalogue.

Readers hold a snapshot that never changes and no lock. What is added stands in a small exact index beside the big one,
what is deleted is a set of ids that no search returns; both are folded in, and a larger space gets another kind of
index, by a thread in the background that swaps the result in while the old one answers.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dbgpt_lite.errors import Cancelled, KnowledgeIndexError
from dbgpt_lite.knowledge.builder import Builder, IndexOptions, is_loose, wanted_kind
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.index_files import IndexFiles, sync_folder, write_durably
from dbgpt_lite.knowledge.snapshot import Fetch, Snapshot
from dbgpt_lite.knowledge.vector_index import Hit

__all__ = ["Hit", "IndexOptions", "VectorStore", "sync_folder", "write_durably"]

logger = logging.getLogger(__name__)


class VectorStore:
    """Vectors of one space; the files are named after it in `folder`. Many threads may search and refresh at once."""

    def __init__(self, folder: Path, space_id: str, catalog: Catalog, options: IndexOptions | None = None) -> None:
        self._options = options or IndexOptions()
        self._space_id = space_id
        self._catalog = catalog
        self._files = IndexFiles(folder, space_id, self._options.splitter)
        self._cancel = threading.Event()
        self._builder = Builder(catalog, space_id, self._options, self._cancel)
        # Whoever changes the snapshot holds the first, whoever writes files the second; nobody holds one to search.
        self._changing = threading.Lock()
        self._saving = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._saved: Snapshot | None = None
        self._opened = False
        self._thread: threading.Thread | None = None
        self._failed_at = 0

    @property
    def snapshot(self) -> Snapshot | None:
        """What a search would use just now; None before the first."""
        return self._snapshot

    @property
    def build_seconds(self) -> dict[str, float]:
        """What the parts of the last trained index took."""
        return dict(self._builder.seconds)

    def search(self, query: Vectors, embedder: str, limit: int) -> list[Hit]:
        """The chunks nearest to `query` (unit vector, float32, shape (dimension,)), best first; scores are cosines.

        Raises KnowledgeIndexError when the space was made with another embedder, NotFound when it is gone.
        """
        snapshot = self._current(embedder, wait=False)
        return snapshot.search(query, limit, self._fetch(embedder)) if limit > 0 else []

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """The stored unit vectors, float32 of shape (dimension,), of those `ids` that are in the space."""
        embedder = self._catalog.version(self._space_id).embedder
        rows = self._catalog.vectors_of(self._space_id, ids, embedder)
        return dict(zip(rows.ids.tolist(), rows.vectors, strict=True))

    def refresh(self, embedder: str) -> None:
        """Bring the index to the state of the catalogue. Cheap when nothing changed."""
        self._current(embedder, wait=True)

    def save(self) -> None:
        """Write what changed. It is a cache: failing costs time later, nothing else, and is only logged."""
        with self._saving:
            snapshot = self._snapshot
            if snapshot is None or snapshot is self._saved:
                return
            try:
                if snapshot.base is None:
                    self._files.remove()
                elif not self._files.write(snapshot, self._fetch(snapshot.embedder)):
                    return
            except (OSError, RuntimeError, ValueError) as error:
                logger.warning("the index of space %s was not saved: %s", self._space_id, error)
                return
            self._saved = snapshot

    def settle(self) -> None:
        """Wait for the thread in the background."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def close(self) -> None:
        """Stop the thread in the background and save."""
        self._cancel.set()
        self.settle()
        self.save()

    def forget(self) -> None:
        """Remove the files; for a space that was deleted."""
        self._cancel.set()
        self.settle()
        with self._changing, self._saving:
            self._snapshot = self._saved = None
            self._files.remove()

    def _fetch(self, embedder: str) -> Fetch:
        return lambda ids: self._catalog.vectors_of(self._space_id, ids.tolist(), embedder)

    def _current(self, embedder: str, wait: bool) -> Snapshot:
        """The snapshot of the present state; without `wait`, the last one while another thread makes the next."""
        version = self._catalog.version(self._space_id)
        if version.embedder not in ("", embedder):
            raise _other_embedder(version.embedder)
        snapshot = self._snapshot
        usable = snapshot is not None and snapshot.embedder == embedder
        if snapshot is not None and usable and snapshot.generation == version.generation:
            return snapshot
        if not self._changing.acquire(blocking=wait or not usable):
            assert snapshot is not None
            return snapshot
        try:
            return self._brought_up(embedder)
        finally:
            self._changing.release()

    def _brought_up(self, embedder: str) -> Snapshot:
        snapshot = self._snapshot
        if not self._opened:
            self._opened = True
            snapshot = self._saved = self._files.read(embedder, self._fetch(embedder))
        if snapshot is None or snapshot.embedder != embedder:
            snapshot = self._builder.whole(embedder)
        snapshot = self._snapshot = self._caught_up(snapshot)
        if snapshot.embedder != embedder:
            # Switched between two looks at the catalogue: this question was embedded by the one before.
            raise _other_embedder(snapshot.embedder)
        self._tend(snapshot)
        return snapshot

    def _caught_up(self, snapshot: Snapshot) -> Snapshot:
        """A state brought to the catalogue's by what was published and deleted since."""
        old, embedder = snapshot.generation, snapshot.embedder
        with self._catalog.vectors_since(self._space_id, old) as (version, blocks):
            if version.generation == old and snapshot.count == version.chunks:
                return snapshot
            if snapshot.base is None or version.chunks <= self._options.small or version.generation < old:
                return self._builder.whole(embedder)
            if version.embedder != embedder:
                return self._builder.whole(version.embedder)
            for rows in blocks:
                snapshot = snapshot.with_rows(rows)
        snapshot = snapshot.at(version.generation)
        if snapshot.count == version.chunks:
            return snapshot
        visible = self._catalog.visible_ids(self._space_id, version.generation)
        snapshot = snapshot.with_only(visible)
        if snapshot.count != len(visible):
            logger.warning("the index of space %s is rebuilt: it does not fit the catalogue", self._space_id)
            return self._builder.whole(embedder)
        return snapshot

    def _tend(self, snapshot: Snapshot) -> None:
        """Begin in the background what keeps search quick, unless it is under way or failed at this size."""
        if self._cancel.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        if snapshot.count <= 1.1 * self._failed_at:
            return
        if kind := wanted_kind(snapshot, self._options):
            self._start(lambda: self._builder.rebuilt(kind))
        elif is_loose(snapshot):
            self._start(lambda: self._builder.folded(snapshot))

    def _start(self, build: Callable[[], Snapshot]) -> None:
        # No daemon: a thread that is inside FAISS while the interpreter goes away takes the process down with it.
        self._thread = threading.Thread(target=self._swap, args=(build,), name="index-builder")
        self._thread.start()

    def _swap(self, build: Callable[[], Snapshot]) -> None:
        """Put what `build` makes in the place of the present snapshot, brought to the state of that moment."""
        try:
            made = build()
            with self._changing:
                present = self._snapshot
                if present is None or present.embedder != made.embedder:
                    return
                self._snapshot = self._caught_up(made)
            self.save()
        except Cancelled:
            return
        except Exception:
            # The old index goes on answering.
            logger.exception("the index of space %s could not be built", self._space_id)
            self._failed_at = self._snapshot.count if self._snapshot is not None else 0


def _other_embedder(embedder: str) -> KnowledgeIndexError:
    return KnowledgeIndexError("knowledge.other_embedder", made_with=embedder.split("@")[0])
