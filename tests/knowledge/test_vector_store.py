"""The FAISS index of a space: exact, then trained in the background; checked files; many threads; no pickle."""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.errors import KnowledgeIndexError
from dbgpt_lite.knowledge import ann
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore
from tests.knowledge.vector_space import (
    DIMENSION,
    EMBEDDER,
    LARGE,
    VectorSpace,
    agrees,
    ids_found,
    made_vectors,
    manifest_of,
    recall,
    store_of,
)


def kind_of(store: VectorStore) -> str:
    store.settle()
    assert store.snapshot is not None
    assert store.snapshot.base is not None
    return store.snapshot.base.kind


# --- searching and changing


def test_an_empty_space_has_no_hits_and_no_files(space: VectorSpace) -> None:
    store = store_of(space)
    assert store.search(made_vectors(1)[0], EMBEDDER, 5) == []
    store.close()
    assert not list(space.folder.glob(f"{space.id}.*"))


def test_small_spaces_are_exact_through_every_change(space: VectorSpace) -> None:
    store = store_of(space)
    documents = [space.add(made_vectors(40, seed=seed)) for seed in range(4)]
    assert agrees(store, space)
    space.delete(documents[1])
    assert agrees(store, space)
    space.add(made_vectors(700, seed=9))
    assert agrees(store, space)
    assert kind_of(store) == "Flat"
    for document in (documents[0], documents[2], documents[3]):
        space.delete(document)
    assert agrees(store, space)


def test_limits_beyond_what_there_is(space: VectorSpace) -> None:
    space.add(made_vectors(3))
    store = store_of(space)
    assert len(store.search(made_vectors(1)[0], EMBEDDER, 99)) == 3
    assert store.search(made_vectors(1)[0], EMBEDDER, 0) == []


def test_a_large_space_gets_a_trained_index_while_the_old_one_answers(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_train, trained = threading.Event(), ann.trained

    def slowly(kind: str, *arguments: object) -> object:
        if not ann.is_exact(kind):
            assert may_train.wait(60)
        return trained(kind, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ann, "trained", slowly)
    store = store_of(space)
    space.add(made_vectors(1000))
    assert agrees(store, space)
    space.add(made_vectors(LARGE, seed=1))
    assert agrees(store, space), "exact until the trained one is there"
    added = space.add(made_vectors(50, seed=2))
    gone = space.add(made_vectors(50, seed=3))
    assert agrees(store, space), "changes are seen while it is trained"
    space.delete(gone)
    may_train.set()
    assert kind_of(store) == "IVF256,SQ8"
    assert recall(space, lambda query: ids_found(store, query), made_vectors(40, seed=5)) >= 0.95
    assert store.snapshot is not None
    assert store.snapshot.count == 3050
    space.delete(added)
    own = made_vectors(50, seed=2)
    assert all(hit.score < 0.995 for query in own for hit in store.search(query, EMBEDDER, 3))
    assert store.snapshot.count == 3000
    store.close()


def test_a_large_space_without_an_index_answers_exactly_at_once(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.add(made_vectors(LARGE))
    store = store_of(space)
    monkeypatch.setattr(VectorStore, "_tend", lambda *_: None)
    assert agrees(store, space)
    assert kind_of(store) == "SQfp16"


def test_changes_of_a_trained_index_stand_beside_it_and_are_folded_in(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbgpt_lite.knowledge.builder.LEAST_LOOSE", 150)
    documents = [space.add(made_vectors(200, seed=seed)) for seed in range(10)]
    store = store_of(space, IndexOptions(exact_limit=1500, small=100, kind="IVF16,SQ8", effort=16))
    store.refresh(EMBEDDER)
    assert kind_of(store) == "IVF16,SQ8"
    first = store.snapshot
    new = space.add(made_vectors(60, seed=20))
    space.delete(documents[0])
    assert agrees(store, space)
    # 60 beside it and 200 hidden: more than a tenth.
    store.settle()
    second = store.snapshot
    assert first is not None
    assert second is not None
    assert second.base is not first.base
    assert (second.loose, second.count, len(second.base.ids)) == (0, 1860, 1860)  # type: ignore[union-attr]
    assert second.base.trained_on == 2000, "folding in trains nothing"  # type: ignore[union-attr]
    assert agrees(store, space)
    assert (first.count, first.base_count) == (2000, 2000), "whoever still reads the old state sees it whole"
    space.delete(new)
    assert agrees(store, space)
    store.close()


def test_a_graph_that_cannot_delete_is_built_anew(space: VectorSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbgpt_lite.knowledge.builder.LEAST_LOOSE", 100)
    documents = [space.add(made_vectors(400, seed=seed)) for seed in range(5)]
    store = store_of(space, IndexOptions(small=100, kind="HNSW16,SQ8", effort=200))
    store.refresh(EMBEDDER)
    assert kind_of(store) == "HNSW16,SQ8"
    space.delete(documents[0])
    store.refresh(EMBEDDER)
    store.settle()
    assert store.snapshot is not None
    assert (store.snapshot.loose, store.snapshot.base_count) == (0, 1600)
    assert recall(space, lambda query: ids_found(store, query), made_vectors(20, seed=5)) >= 0.95
    store.close()


def test_a_space_that_shrinks_becomes_exact_again(space: VectorSpace) -> None:
    most = space.add(made_vectors(1500))
    space.add(made_vectors(500, seed=1))
    store = store_of(space)
    store.refresh(EMBEDDER)
    assert kind_of(store).startswith("IVF")
    space.delete(most)
    store.refresh(EMBEDDER)
    assert kind_of(store) == "Flat"
    assert agrees(store, space)
    store.close()


def test_an_index_that_cannot_be_built_leaves_the_old_one(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trained, tries = ann.trained, []

    def fail(kind: str, *arguments: object) -> object:
        if not ann.is_exact(kind):
            tries.append(kind)
            raise MemoryError
        return trained(kind, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ann, "trained", fail)
    space.add(made_vectors(LARGE))
    store = store_of(space)
    for seed in range(5):
        assert agrees(store, space, seed)
        store.settle()
        space.add(made_vectors(3, seed=seed))
    assert len(tries) == 1, "not again and again at the same size"
    assert "could not be built" in caplog.text


def test_closing_stops_the_training(space: VectorSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, centroids = threading.Event(), ann._centroids

    def wait_for_close(lists: int, sample: np.ndarray, cancel: threading.Event) -> np.ndarray:
        begun.set()
        assert cancel.wait(60)
        return centroids(lists, sample, cancel)

    monkeypatch.setattr(ann, "_centroids", wait_for_close)
    space.add(made_vectors(LARGE))
    store = store_of(space)
    store.refresh(EMBEDDER)
    assert begun.wait(60)
    store.close()
    assert manifest_of(space)["kind"] == "SQfp16", "what answered is kept"
    with closing(store_of(space)) as again:
        assert agrees(again, space)


def test_vectors_come_as_they_are_stored(space: VectorSpace) -> None:
    vectors = made_vectors(20)
    document = space.add(vectors)
    store = store_of(space)
    ids, _ = space.visible()
    found = store.vectors([int(ids[3]), int(ids[7]), 999])
    assert {id_: vector.tolist() for id_, vector in found.items()} == {
        int(ids[3]): vectors[3].tolist(),
        int(ids[7]): vectors[7].tolist(),
    }
    space.delete(document)
    assert store.vectors(ids.tolist()) == {}


def test_many_threads_search_while_documents_come_and_go(space: VectorSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer must be what exact search gives at some moment between its begin and its end: no half states."""
    monkeypatch.setattr("dbgpt_lite.knowledge.builder.LEAST_LOOSE", 60)
    space.add(made_vectors(1600))
    # Every list is visited, so that the truth is exact while training, folding and swapping go on underneath.
    store = store_of(space, IndexOptions(exact_limit=1500, small=50, kind="IVF16,SQ8", effort=16))
    store.refresh(EMBEDDER)
    # Each document is five copies of one direction: a search for it finds all five or none.
    marks = made_vectors(24, seed=50, dimension=DIMENSION)
    lock, log, stop, wrong = threading.Lock(), dict.fromkeys(range(24), ()), threading.Event(), []
    clock = iter(range(10**9))

    def write() -> None:
        here: dict[int, str] = {}
        random = np.random.default_rng(0)
        for _ in range(120):
            which = int(random.integers(24))
            with lock:
                begin = next(clock)
                log[which] = (*log[which], ("changing", begin))
            if which in here:
                space.delete(here.pop(which))
            else:
                here[which] = space.add(np.repeat(marks[which : which + 1], 5, axis=0))
            store.refresh(EMBEDDER)
            with lock:
                log[which] = (*log[which], ("there" if which in here else "gone", next(clock)))
        stop.set()

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            which = int(random.integers(24))
            with lock:
                before = log[which]
            hits = store.search(marks[which], EMBEDDER, 5)
            own = sum(hit.score > 0.995 for hit in hits)
            with lock:
                after = log[which]
            if own not in (0, 5):
                wrong.append(f"{own} of 5")
            settled = before == after and (not before or before[-1][0] != "changing")
            expected = 5 if before and before[-1][0] == "there" else 0
            if settled and own != expected:
                wrong.append(f"{own} instead of {expected}")

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in readers:
        thread.start()
    write()
    for thread in readers:
        thread.join()
    store.settle()
    assert wrong == []
    assert agrees(store, space)
    store.close()


def test_a_search_does_not_wait_for_another_threads_refresh(space: VectorSpace) -> None:
    space.add(made_vectors(200))
    store = store_of(space)
    store.refresh(EMBEDDER)
    space.add(made_vectors(200, seed=1))
    with store._changing:
        assert len(ids_found(store, made_vectors(1)[0])) == 10
    assert agrees(store, space)


# --- embedders


def test_another_embedder_is_refused_and_its_vectors_replace_the_old(space: VectorSpace) -> None:
    space.add(made_vectors(300))
    store = store_of(space)
    assert agrees(store, space)
    with pytest.raises(KnowledgeIndexError, match="another embedding model"):
        store.search(made_vectors(1)[0], "other@2", 5)
    ids, _ = space.visible()
    other = made_vectors(300, seed=8, dimension=12)
    space.catalog.add_vectors(ids.tolist(), other, "other@2")
    assert agrees(store, space), "the old ones answer until the switch"
    space.catalog.switch_embedder(space.id, "other@2")
    assert store.search(other[5], "other@2", 1)[0].score == pytest.approx(1, abs=1e-3)
    with pytest.raises(KnowledgeIndexError):
        store.search(made_vectors(1)[0], EMBEDDER, 5)
    store.close()
    assert (manifest_of(space)["embedder"], manifest_of(space)["dimension"]) == ("other@2", 12)


# --- in the app


def test_scores_are_cosines_of_the_stored_vectors(
    base: KnowledgeBase, take_in: Callable[..., object], embedder: Embedder
) -> None:
    space = base.create("s")
    topics = ("cats", "rain", "tax")
    take_in(space.id, {f"{topic}.txt": f"This report is about {topic}." for topic in topics})
    question = embedder.embed(["About tax"], "query")[0]
    for found in base.search(space.id, "About tax", 3):
        expected = float(embedder.embed([found.text])[0] @ question)
        assert found.score == pytest.approx(expected, abs=0.02)
        assert np.isfinite(found.score)


def test_the_store_needs_numpy_and_nothing_heavier() -> None:
    heavy = (
        "{'torch', 'transformers', 'sentence_transformers', 'jieba', 'pydantic', 'httpx', 'langchain_core', 'faiss'}"
    )
    code = f"import sys, dbgpt_lite.knowledge.vector_store\nsys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
