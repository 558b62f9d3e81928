"""When the base of an index is made anew, and how it is made from the catalogue."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dbgpt_lite.knowledge import ann
from dbgpt_lite.knowledge.ann import Base
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_rows import VectorRows, joined
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.snapshot import Snapshot

# What has changed stands beside the base until it is a tenth of it; searching 20,000 vectors exactly takes 3 to 5 ms,
# so it never gets longer.
LOOSE_SHARE, LEAST_LOOSE, MOST_LOOSE = 0.1, 2000, 20_000
# An inverted index is trained anew when the space has grown this many times since.
GROWTH = 2.0


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How a space's index is made.

    exact_limit: up to here search is exact. small: up to here the index is made anew at each change. kind: FAISS's
    factory string, "" chooses by size. effort: lists visited or length of the queue, 0 calibrates it until `target` of
    the true neighbours are found. threads: cores for training, 0 takes half of them. splitter: what the manifest says
    about the chunking.
    """

    exact_limit: int = ann.EXACT_LIMIT
    small: int = 4096
    kind: str = ""
    effort: int = 0
    target: float = ann.TARGET
    threads: int = 0
    splitter: str = ""

    def kind_for(self, count: int) -> str:
        """The kind of index for `count` vectors."""
        return self.kind or ann.kind_for(count, self.exact_limit)

    def kind_at_once(self, count: int) -> str:
        """The exact kind that answers until the one for `count` vectors is trained."""
        return "Flat" if count <= self.exact_limit or self.kind == "Flat" else ann.INTERIM_KIND


def wanted_kind(snapshot: Snapshot, options: IndexOptions) -> str:
    """The kind that a new base should have, "" while the present one will do."""
    base, count = snapshot.base, snapshot.count
    if base is None or count <= options.small:
        return ""
    kind = options.kind_for(count)
    if ann.is_exact(kind):
        # Not back and forth at the limit: a document more, a document less.
        return kind if not base.exact and count < options.exact_limit / 2 else ""
    return kind if base.exact or count > GROWTH * base.trained_on else ""


def is_loose(snapshot: Snapshot) -> bool:
    """Whether so much stands beside the base that it should be folded in."""
    return snapshot.loose > min(max(LOOSE_SHARE * snapshot.base_count, LEAST_LOOSE), MOST_LOOSE)


class Builder:
    """Makes bases of one space; raises Cancelled when `cancel` is set.

    seconds: what the parts of the last trained base took.
    """

    def __init__(self, catalog: Catalog, space_id: str, options: IndexOptions, cancel: threading.Event) -> None:
        self._catalog = catalog
        self._space_id = space_id
        self._options = options
        self._cancel = cancel
        self.seconds: dict[str, float] = {}

    def whole(self, embedder: str) -> Snapshot:
        """All that the space holds in an exact base, in as long as it takes to read: 1,000,000 vectors in seconds."""
        with self._catalog.vectors_since(self._space_id, 0) as (version, blocks):
            kind = self._options.kind_at_once(version.chunks)
            base = ann.exact_base(kind, blocks, version.generation, self._cancel)
        return Snapshot(version.embedder or embedder, version.generation, base)

    def rebuilt(self, kind: str) -> Snapshot:
        """All that the space holds in a base of that kind, trained and calibrated on it."""
        self._use_cores()
        if ann.is_exact(kind):
            return self.whole("")
        with self._timed("sample"):
            sample, queries = self._sample(kind)
        with self._timed("train"):
            index = ann.trained(kind, sample, self._cancel)
        truth = ann.Truth(queries)
        effort, recall = self._options.effort, 0.0
        with self._timed("add"), self._catalog.vectors_since(self._space_id, 0) as (version, blocks):
            ids = ann.filled(index, blocks if effort else truth.watch(blocks), self._cancel)
        if not effort:
            with self._timed("calibrate"):
                effort, recall = truth.calibrated(index, kind, self._options.target)
        base = Base(index, kind, ids, version.generation, effort, len(ids), recall)
        return Snapshot(version.embedder, version.generation, base)

    def folded(self, snapshot: Snapshot) -> Snapshot:
        """The same vectors, all of them in the base."""
        assert snapshot.base is not None
        self._use_cores()
        if not ann.can_extend(snapshot.base.kind):
            return self.rebuilt(snapshot.base.kind)
        base = ann.extended(snapshot.base, snapshot.generation, snapshot.gone, snapshot.delta.rows)
        return Snapshot(snapshot.embedder, snapshot.generation, base)

    def _sample(self, kind: str) -> tuple[Vectors, VectorRows]:
        """Vectors to train on, and others to calibrate with, drawn evenly from the space."""
        with self._catalog.vectors_since(self._space_id, 0) as (version, blocks):
            random = np.random.default_rng(version.chunks)
            wanted = min(version.chunks, ann.sample_size(kind, version.chunks) + ann.QUERIES)
            chosen = np.zeros(version.chunks, dtype=bool)
            chosen[random.choice(version.chunks, wanted, replace=False)] = True
            rows, first = [], 0
            for block in blocks:
                ann.check(self._cancel)
                taken = chosen[first : first + len(block.ids)]
                rows.append(VectorRows(block.ids[taken], block.vectors[taken]))
                first += len(block.ids)
        drawn = joined(rows)
        held_out = np.zeros(len(drawn.ids), dtype=bool)
        held_out[random.choice(len(drawn.ids), min(ann.QUERIES, len(drawn.ids) // 10), replace=False)] = True
        return drawn.vectors[~held_out], VectorRows(drawn.ids[held_out], drawn.vectors[held_out])

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[part] = time.monotonic() - started

    def _use_cores(self) -> None:
        """The setting is this thread's own; the chat beside needs cores too."""
        import faiss

        faiss.omp_set_num_threads(self._options.threads or max(1, (os.cpu_count() or 2) // 2))
