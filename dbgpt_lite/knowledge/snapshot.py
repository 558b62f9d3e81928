"""One state of a space's vectors, held by readers without a lock: a big base, what was deleted, what came since."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dbgpt_lite.knowledge.ann import Base, candidates
from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.vector_index import Hit

NO_IDS: Ids = np.zeros(0, dtype=np.int64)
# Ids -> their vectors as the catalogue has them; those it no longer has are left out.
Fetch = Callable[[Ids], VectorRows]


class _Buffer:
    """Room for rows. A row is written once, before any reader can see it, and never changes."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self.ids = np.empty(capacity, dtype=np.int64)
        self.vectors = np.empty((capacity, dimension), dtype=np.float32)
        self.used = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """Vectors beside the base, searched exactly: the first `count` rows of a buffer that may be longer."""

    count: int = 0
    _buffer: _Buffer | None = None

    @property
    def rows(self) -> VectorRows:
        """Ids and vectors, not copied."""
        if self._buffer is None:
            return VectorRows(NO_IDS, np.zeros((0, 0), dtype=np.float32))
        return VectorRows(self._buffer.ids[: self.count], self._buffer.vectors[: self.count])

    def with_rows(self, rows: VectorRows) -> "Delta":
        """This one and `rows`. For one writer: what follows the last row of the buffer is written in place."""
        total, buffer = self.count + len(rows.ids), self._buffer
        if buffer is None or buffer.used != self.count or total > len(buffer.ids):
            buffer = _Buffer(2 * total, rows.vectors.shape[1])
            buffer.ids[: self.count], buffer.vectors[: self.count] = self.rows.ids, _fitting(self.rows.vectors, buffer)
        buffer.ids[self.count : total], buffer.vectors[self.count : total] = rows.ids, rows.vectors
        buffer.used = total
        return Delta(total, buffer)

    def without(self, gone: Ids) -> "Delta":
        """A copy that lacks the ids `gone`."""
        kept = ~np.isin(self.rows.ids, gone)
        if kept.all():
            return self
        return Delta().with_rows(VectorRows(self.rows.ids[kept], self.rows.vectors[kept])) if kept.any() else Delta()

    def search(self, query: Vectors, limit: int) -> tuple[Ids, Vectors]:
        """Ids and scores of the nearest, best first."""
        import faiss

        if not self.count:
            return NO_IDS, np.zeros(0, dtype=np.float32)
        rows = self.rows
        scores, at = faiss.knn(query, rows.vectors, min(limit, self.count), metric=faiss.METRIC_INNER_PRODUCT)
        return rows.ids[at[0]], scores[0]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The vectors of a space at a generation of the catalogue. Nothing in it changes.

    gone: ids that the base still holds and that were deleted, ascending; no search returns them.
    """

    embedder: str
    generation: int = 0
    base: Base | None = None
    gone: Ids = field(default_factory=lambda: NO_IDS)
    delta: Delta = field(default_factory=Delta)
    selector: Any = None

    @property
    def base_count(self) -> int:
        """Vectors in the base, deleted ones included."""
        return len(self.base.ids) if self.base is not None else 0

    @property
    def count(self) -> int:
        """Vectors that a search can find."""
        return self.base_count - len(self.gone) + self.delta.count

    @property
    def loose(self) -> int:
        """Vectors that stand outside the base or in it for nothing: what folding the delta in would tidy up."""
        return self.delta.count + len(self.gone)

    def with_rows(self, rows: VectorRows) -> "Snapshot":
        """This state and more vectors."""
        return replace(self, delta=self.delta.with_rows(rows)) if len(rows.ids) else self

    def with_only(self, visible: Ids) -> "Snapshot":
        """This state without the ids that are not in `visible` (ascending)."""
        delta = self.delta.without(np.setdiff1d(self.delta.rows.ids, visible))
        if self.base is None:
            return replace(self, delta=delta)
        gone = np.setdiff1d(self.base.ids, visible, assume_unique=True)
        return replace(self, delta=delta, gone=gone, selector=_all_but(gone))

    def at(self, generation: int) -> "Snapshot":
        """This state as that of another generation."""
        return replace(self, generation=generation)

    def search(self, query: Vectors, limit: int, fetch: Fetch) -> list[Hit]:
        """The nearest to `query` (float32, (dimension,)), best first; the scores are true cosines.

        Candidates of an inexact base are ranked anew by their vectors in the catalogue.
        """
        import faiss

        # With two OpenMP threads a single query gets slower; the setting is each thread's own.
        faiss.omp_set_num_threads(1)
        query = query.reshape(1, -1)
        ids, scores = self._search_base(query, limit, fetch)
        new_ids, new_scores = self.delta.search(query, limit)
        ids, scores = np.concatenate([ids, new_ids]), np.concatenate([scores, new_scores])
        best = np.argsort(-scores, kind="stable")[:limit]
        return [Hit(int(ids[at]), min(1.0, float(scores[at]))) for at in best]

    def _search_base(self, query: Vectors, limit: int, fetch: Fetch) -> tuple[Ids, Vectors]:
        if self.base is None or self.base_count == len(self.gone):
            return NO_IDS, np.zeros(0, dtype=np.float32)
        exact = self.base.exact
        scores, ids = self.base.search(query, limit if exact else candidates(limit), self.selector)
        found = ids[0] >= 0
        if exact:
            return ids[0][found], scores[0][found]
        rows = fetch(ids[0][found])
        return rows.ids, (rows.vectors @ query[0] if len(rows.ids) else np.zeros(0, dtype=np.float32))


def _all_but(gone: Ids) -> Any:
    import faiss

    return faiss.IDSelectorNot(faiss.IDSelectorBatch(gone)) if len(gone) else None


def _fitting(vectors: Vectors, buffer: _Buffer) -> Vectors:
    """No rows have no width either."""
    return vectors if len(vectors) else np.zeros((0, buffer.vectors.shape[1]), dtype=np.float32)
