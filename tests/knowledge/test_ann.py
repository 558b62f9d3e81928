"""Indexes by kind: chosen by size, trained, calibrated, changed as copies; snapshots that never change."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.knowledge import ann
from dbgpt_lite.knowledge.ann import Base
from dbgpt_lite.knowledge.catalog_rows import VectorRows
from dbgpt_lite.knowledge.snapshot import Delta, Snapshot
from tests.knowledge.vector_space import DIMENSION, made_vectors

COUNT = 2000
IDS = np.arange(COUNT, dtype=np.int64) * 3 + 5
GO = threading.Event()
INEXACT = ("IVF32,SQ8", "IVF32,SQfp16", "IVF64_HNSW16,SQ8", "HNSW16,SQ8", "SQ8")


def base_of(kind: str, vectors: np.ndarray, effort: int = 0) -> Base:
    if ann.is_exact(kind):
        base = ann.exact_base(kind, iter([VectorRows(IDS, vectors)]), 1, GO)
        assert base is not None
        return base
    index = ann.trained(kind, vectors, GO)
    ids = ann.filled(index, [VectorRows(IDS[:900], vectors[:900]), VectorRows(IDS[900:], vectors[900:])], GO)
    return Base(index, kind, ids, 1, effort)


@pytest.mark.parametrize(
    ("count", "kind"),
    [(1, "Flat"), (100_000, "Flat"), (100_001, "IVF1024,SQ8"), (1_000_000, "IVF4096,SQ8"), (9_000_000, "IVF16384,SQ8")],
)
def test_the_kind_follows_the_size(count: int, kind: str) -> None:
    assert ann.kind_for(count) == kind


def test_the_training_sample_is_bounded() -> None:
    assert ann.sample_size("IVF4096,SQ8", 50_000_000) == 40 * 4096
    assert ann.sample_size("IVF4096,SQ8", 1000) == 1000
    assert ann.sample_size("Flat", 1000) == 0


@pytest.mark.parametrize("kind", ["Flat", "SQfp16"])
def test_exact_kinds_give_true_cosines(kind: str) -> None:
    vectors, queries = made_vectors(COUNT), made_vectors(20, seed=1)
    scores, ids = base_of(kind, vectors).search(queries, 10)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    assert np.array_equal(ids, IDS[truth])
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, truth, axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", INEXACT)
def test_inexact_kinds_are_calibrated_on_vectors_held_out(kind: str) -> None:
    vectors = made_vectors(COUNT)
    queries = VectorRows(IDS[:200], vectors[:200])
    truth = ann.Truth(queries)
    index = ann.trained(kind, vectors, GO)
    ann.filled(
        index, truth.watch([VectorRows(IDS[at : at + 500], vectors[at : at + 500]) for at in (0, 500, 1000, 1500)]), GO
    )
    effort, recall = truth.calibrated(index, kind, 0.9)
    assert recall >= 0.9
    # What calibration says is what a search finds.
    _, found = ann.search_index(index, kind, vectors[:200], 41, effort)
    true = np.argsort(-(vectors[:200] @ vectors.T), axis=1)[:, 1:11]
    again = np.mean([np.isin(IDS[wanted], ids).mean() for wanted, ids in zip(true, found, strict=True)])
    assert again == pytest.approx(recall, abs=0.01)


def test_more_effort_is_taken_until_the_target_is_met() -> None:
    vectors = made_vectors(COUNT)
    efforts = []
    for target in (0.5, 0.9, 1.01):
        truth = ann.Truth(VectorRows(IDS[:100], vectors[:100]))
        index = ann.trained("IVF32,SQ8", vectors, GO)
        ann.filled(index, truth.watch([VectorRows(IDS, vectors)]), GO)
        efforts.append(truth.calibrated(index, "IVF32,SQ8", target)[0])
    assert efforts == sorted(efforts)
    assert efforts[-1] == 32, "an aim out of reach visits every list"


@pytest.mark.parametrize("kind", ["Flat", "SQfp16", "IVF32,SQ8", "IVF64_HNSW16,SQ8", "SQ8"])
def test_a_changed_copy_leaves_the_index_alone(kind: str) -> None:
    vectors = made_vectors(COUNT)
    base = base_of(kind, vectors, 32)
    gone, new = IDS[:500], VectorRows(np.array([1, 2], dtype=np.int64), made_vectors(2, seed=9))
    changed = ann.extended(base, 7, gone, new)
    assert changed.generation == 7
    assert np.array_equal(changed.ids, np.sort(np.concatenate([IDS[500:], new.ids])))
    assert np.array_equal(ann.ids_of(changed.index, kind), changed.ids)
    assert np.array_equal(ann.ids_of(base.index, kind), IDS)
    assert not np.isin(changed.search(vectors[:500], 5)[1], gone).any()
    assert changed.search(new.vectors, 1)[1][:, 0].tolist() == [1, 2]


def test_a_graph_cannot_lose_vectors() -> None:
    assert not ann.can_extend("HNSW16,SQ8")
    with pytest.raises(RuntimeError):
        ann.extended(base_of("HNSW16,SQ8", made_vectors(COUNT), 64), 1, IDS[:5], VectorRows(IDS[:0], made_vectors(0)))


@pytest.mark.parametrize("kind", ["Flat", *INEXACT])
def test_deleted_ids_are_hidden_in_every_kind(kind: str) -> None:
    vectors = made_vectors(COUNT)
    snapshot = Snapshot("e", 1, base_of(kind, vectors, 32)).with_only(IDS[1000:])
    rows = dict(zip(IDS.tolist(), vectors, strict=True))
    for query in vectors[:50]:
        hits = snapshot.search(query, 10, lambda ids: VectorRows(ids, np.stack([rows[id_] for id_ in ids.tolist()])))
        assert len(hits) == 10
        assert all(hit.id in IDS[1000:] for hit in hits)


def test_scores_of_a_compressed_index_are_true_cosines() -> None:
    vectors = made_vectors(COUNT)
    rows = dict(zip(IDS.tolist(), vectors, strict=True))
    snapshot = Snapshot("e", 1, base_of("IVF32,SQ8", vectors, 32))
    query = made_vectors(1, seed=4)[0]
    hits = snapshot.search(query, 10, lambda ids: VectorRows(ids, np.stack([rows[id_] for id_ in ids.tolist()])))
    assert [hit.score for hit in hits] == pytest.approx([float(rows[hit.id] @ query) for hit in hits], abs=1e-6)
    true = IDS[np.argsort(-(vectors @ query))[:10]]
    assert [hit.id for hit in hits] == true.tolist()


def test_training_stops_when_asked() -> None:
    stop = threading.Event()
    stop.set()
    vectors = made_vectors(COUNT)
    for begin in (
        lambda: ann.trained("IVF32,SQ8", vectors, stop),
        lambda: ann.filled(ann.trained("Flat", vectors, GO), [VectorRows(IDS, vectors)], stop),
    ):
        with pytest.raises(Cancelled):
            begin()


STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 9), st.integers(1, 7)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_delta_is_the_list_of_its_rows_and_older_ones_stay(steps: list[tuple[str, int, int]]) -> None:
    delta, expected, next_id = Delta(), {}, 1
    history: list[tuple[Delta, dict[int, bytes]]] = []
    for step, seed, count in steps:
        if step == "add":
            rows = VectorRows(np.arange(next_id, next_id + count), made_vectors(count, seed=seed))
            delta, next_id = delta.with_rows(rows), next_id + count
            expected = expected | {int(i): v.tobytes() for i, v in zip(rows.ids, rows.vectors, strict=True)}
        else:
            gone = np.array([id_ for id_ in expected if id_ % 10 == seed], dtype=np.int64)
            delta = delta.without(gone)
            expected = {id_: vector for id_, vector in expected.items() if id_ not in gone}
        history.append((delta, expected))
    for old, contents in history:
        rows = old.rows
        assert {int(i): v.tobytes() for i, v in zip(rows.ids, rows.vectors, strict=True)} == contents
        ids, scores = old.search(np.ones((1, DIMENSION), dtype=np.float32), 5)
        best = sorted((float(np.frombuffer(v, dtype=np.float32).sum()) for v in contents.values()), reverse=True)[:5]
        assert scores.tolist() == pytest.approx(best, abs=1e-4)
        assert set(ids.tolist()) <= contents.keys()


def test_two_states_grown_from_one_do_not_share_rows() -> None:
    first = Delta().with_rows(VectorRows(np.array([1]), made_vectors(1)))
    left = first.with_rows(VectorRows(np.array([2]), made_vectors(1, seed=2)))
    right = first.with_rows(VectorRows(np.array([3]), made_vectors(1, seed=3)))
    assert (left.rows.ids.tolist(), right.rows.ids.tolist()) == ([1, 2], [1, 3])
    assert np.array_equal(left.rows.vectors[1], made_vectors(1, seed=2)[0])
