"""Which FAISS index suits how many vectors, how it is trained and calibrated, and how it is searched.

Inner product of unit vectors throughout. An index is never changed once others can see it: a change makes a copy.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows
from dbgpt_lite.knowledge.embeddings import Vectors

# FAISS's own type stubs lack half of what is used here.
Index = Any
Selector = Any

# Exact search in this many vectors of 384 dimensions takes about 20 ms on one core; beyond, an inverted index is used.
EXACT_LIMIT = 100_000
# Exact too: the catalogue's vectors are float16. Half the size of Flat; what answers while the first index is trained.
INTERIM_KIND = "SQfp16"
# Training vectors a list (FAISS asks for 39 at least) and rounds of k-means.
SAMPLE_PER_LIST = 40
ROUNDS = 10
# Held-out vectors that calibrate the effort, and the share of their true RECALL_AT nearest that must be found.
QUERIES, RECALL_AT, TARGET = 500, 10, 0.99
EFFORTS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Candidates that an inexact index hands over to be ranked by their true cosines.
MIN_CANDIDATES, CANDIDATES_PER_HIT = 40, 2


@dataclass(frozen=True, slots=True)
class Base:
    """A FAISS index and how to search it.

    kind: FAISS's factory string. effort: lists to visit (IVF) or the length of the queue (HNSW), 0 for exact kinds.
    trained_on: how many vectors the space had when it was trained. recall: what calibration found. ids: ascending.
    generation: the catalogue's, up to which it was filled.
    """

    index: Index
    kind: str
    ids: Ids
    generation: int = 0
    effort: int = 0
    trained_on: int = 0
    recall: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether the scores are true cosines and nothing is missed."""
        return is_exact(self.kind)

    def search(self, queries: Vectors, count: int, selector: Selector = None, effort: int = 0) -> tuple[Vectors, Ids]:
        """Scores and ids, both of shape (len(queries), count), best first; a place without a hit has the id -1."""
        return search_index(self.index, self.kind, queries, count, effort or self.effort, selector)


def is_exact(kind: str) -> bool:
    """Whether an index of that kind compares a query with every vector as the catalogue has it."""
    return kind in ("Flat", INTERIM_KIND)


def kind_for(count: int, exact_limit: int = EXACT_LIMIT) -> str:
    """The kind of index for `count` vectors: about 4 sqrt(count) lists, as a power of two."""
    if count <= exact_limit:
        return "Flat"
    lists = 2 ** round(np.log2(4 * np.sqrt(count)))
    return f"IVF{lists},SQ8"


def sample_size(kind: str, count: int) -> int:
    """How many of `count` vectors an index of that kind is trained on."""
    lists = _lists(kind)
    return 0 if is_exact(kind) else min(count, SAMPLE_PER_LIST * lists if lists else 100_000)


def candidates(limit: int) -> int:
    """How many candidates of an inexact index are ranked anew for `limit` hits."""
    return max(MIN_CANDIDATES, CANDIDATES_PER_HIT * limit)


def search_index(
    index: Index,
    kind: str,
    queries: Vectors,
    count: int,
    effort: int,
    selector: Selector = None,
) -> tuple[Vectors, Ids]:
    """Search with parameters of this call only: FAISS changes the object in place while an IDMap is searched."""
    faiss = _faiss()
    count = max(1, min(count, index.ntotal))
    if kind.startswith("IVF"):
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=effort)
    elif kind.startswith("HNSW"):
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, count))
    else:
        parameters = faiss.SearchParameters(sel=selector)
    scores, ids = index.search(queries, count, params=parameters)
    return scores, ids


def trained(kind: str, sample: Vectors, cancel: threading.Event) -> Index:
    """An empty index that takes ids, trained on `sample` (float32, (n, dimension)). Raises Cancelled."""
    faiss = _faiss()
    dimension = sample.shape[1]
    index = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
    if not is_exact(kind):
        if lists := _lists(kind):
            index.quantizer.add(_centroids(lists, sample, cancel))
            _widen_quantizer(index)
        index.train(sample)
    check(cancel)
    return index if kind.startswith("IVF") else faiss.IndexIDMap2(index)


def exact_base(kind: str, blocks: Iterator[VectorRows], generation: int, cancel: threading.Event) -> Base | None:
    """An exact base of all `blocks`, None when there are none. Raises Cancelled."""
    first = next(blocks, None)
    if first is None:
        return None
    index = trained(kind, first.vectors, cancel)
    return Base(index, kind, filled(index, chain([first], blocks), cancel), generation)


def filled(index: Index, blocks: Iterable[VectorRows], cancel: threading.Event) -> Ids:
    """Add `blocks` to an index; their ids, ascending. Raises Cancelled."""
    ids: list[Ids] = [np.zeros(0, dtype=np.int64)]
    for rows in blocks:
        check(cancel)
        index.add_with_ids(rows.vectors, rows.ids)
        ids.append(rows.ids)
    return np.sort(np.concatenate(ids))


def extended(base: Base, generation: int, gone: Ids, rows: VectorRows) -> Base:
    """A copy of `base` without the ids `gone` and with `rows`; its training stays. Not for HNSW: it cannot delete."""
    faiss = _faiss()
    index = faiss.clone_index(base.index)
    if len(gone):
        index.remove_ids(faiss.IDSelectorBatch(gone))
    if len(rows.ids):
        index.add_with_ids(rows.vectors, rows.ids)
    ids = np.union1d(np.setdiff1d(base.ids, gone, assume_unique=True), rows.ids)
    return replace(base, index=index, ids=ids, generation=generation)


def can_extend(kind: str) -> bool:
    """Whether vectors can be taken out of an index of that kind."""
    return not kind.startswith("HNSW")


def ids_of(index: Index, kind: str) -> Ids:
    """The ids an index holds, ascending."""
    faiss = _faiss()
    if not kind.startswith("IVF"):
        return np.sort(faiss.vector_to_array(index.id_map))
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
        for number in range(index.nlist)
        if (size := lists.list_size(number))
    ]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))


class Truth:
    """The true nearest neighbours of `queries` among the blocks that pass through it."""

    def __init__(self, queries: VectorRows) -> None:
        faiss = _faiss()
        self._queries = queries
        self._heap = faiss.ResultHeap(len(queries.ids), RECALL_AT + 1, keep_max=True)

    def watch(self, blocks: Iterable[VectorRows]) -> Iterator[VectorRows]:
        """The same blocks; each is compared with the queries as it passes."""
        faiss = _faiss()
        for rows in blocks:
            count = min(RECALL_AT + 1, len(rows.ids))
            scores, at = faiss.knn(self._queries.vectors, rows.vectors, count, metric=faiss.METRIC_INNER_PRODUCT)
            self._heap.add_result(scores, rows.ids[at])
            yield rows

    def calibrated(self, index: Index, kind: str, target: float = TARGET) -> tuple[int, float]:
        """The least effort that finds `target` of the neighbours, and what it finds; the most when none does."""
        self._heap.finalize()
        most = _lists(kind) or EFFORTS[-1]
        effort, recall = most, 0.0
        for effort in [effort for effort in EFFORTS if effort < most] + ([most] if most < EFFORTS[-1] else []):
            _, found = search_index(index, kind, self._queries.vectors, candidates(RECALL_AT) + 1, effort)
            recall = self._recall(found)
            if recall >= target:
                break
        return effort, recall

    def _recall(self, found: Ids) -> float:
        """Each query is a stored vector: that it finds itself says nothing."""
        hits = total = 0
        for own, true_ids, ids in zip(self._queries.ids, self._heap.I, found, strict=True):
            wanted = [id_ for id_ in true_ids if id_ not in (own, -1)][:RECALL_AT]
            hits += int(np.isin(wanted, ids).sum())
            total += len(wanted)
        return hits / max(1, total)


def check(cancel: threading.Event) -> None:
    """Raises Cancelled when it is set, or the program is ending without a word."""
    if cancel.is_set() or not threading.main_thread().is_alive():
        raise Cancelled


def _centroids(lists: int, sample: Vectors, cancel: threading.Event) -> Vectors:
    """k-means a round at a time: FAISS cannot be interrupted within one."""
    faiss = _faiss()
    centroids = None
    for _ in range(ROUNDS):
        check(cancel)
        kmeans = faiss.Kmeans(
            sample.shape[1],
            lists,
            niter=1,
            spherical=True,
            seed=1,
            min_points_per_centroid=1,
            max_points_per_centroid=SAMPLE_PER_LIST * 10,
        )
        kmeans.train(sample, init_centroids=centroids)
        centroids = kmeans.centroids
    return np.asarray(centroids, dtype=np.float32)


def _widen_quantizer(index: Index) -> None:
    """A graph over the centroids must look further than the lists that are asked of it."""
    quantizer = _faiss().downcast_index(index.quantizer)
    if hasattr(quantizer, "hnsw"):
        quantizer.hnsw.efSearch = 2 * EFFORTS[-1]


def _faiss() -> Any:
    import faiss

    return faiss


def _lists(kind: str) -> int:
    """Lists of an inverted index, 0 for the other kinds."""
    if not kind.startswith("IVF"):
        return 0
    return int(kind.removeprefix("IVF").split(",")[0].split("_")[0])
