"""A space of made vectors in a real catalogue, for tests of indexes: no model, no files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_documents import Arrival
from dbgpt_lite.knowledge.records import Chunk
from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore

Vectors = NDArray[np.float32]
EMBEDDER = "made@1"
DIMENSION = 24
# Thresholds that 2,000 vectors cross.
OPTIONS = IndexOptions(exact_limit=1500, small=100, target=0.99)
LARGE = 2000


def made_vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> Vectors:
    """Unit vectors around the same few directions whatever the seed, as float16 holds them."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(4711).normal(size=(30, dimension))
    vectors = centres[random.integers(0, 30, count)] + 0.7 * random.normal(size=(count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


class VectorSpace:
    """One space; documents come and go as in the app. `truth` searches what is visible exactly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog(folder / "catalog.sqlite3")
        self.id = self.catalog.add_space("s")
        self._number = 0

    def add(self, vectors: Vectors, embedder: str = EMBEDDER) -> str:
        """Publish a document with these vectors; its id."""
        self._number += 1
        document = f"document{self._number}"
        self.catalog.enter(self.id, Arrival(document, f"{document}.txt", document, 1))
        self.catalog.stage(document, [Chunk("text", 0, 4)] * len(vectors), vectors, embedder)
        self.catalog.publish(self.id, document, 0, "", embedder)
        return document

    def delete(self, document: str) -> None:
        self.catalog.delete_document(self.id, document)

    def visible(self) -> tuple[NDArray[np.int64], Vectors]:
        """Ids and vectors of all chunks, of one moment."""
        with self.catalog.vectors_since(self.id, 0) as (_, blocks):
            found = list(blocks)
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros((0, DIMENSION), dtype=np.float32)
        return np.concatenate([rows.ids for rows in found]), np.concatenate([rows.vectors for rows in found])

    def truth(self, query: Vectors, limit: int) -> list[tuple[int, float]]:
        """The nearest by exact search, best first."""
        ids, vectors = self.visible()
        scores = np.minimum(vectors @ query, 1)
        return [(int(ids[at]), float(scores[at])) for at in np.argsort(-scores, kind="stable")[:limit]]


def recall(space: VectorSpace, search: Callable[[Vectors], list[int]], queries: Vectors, limit: int = 10) -> float:
    """The share of the true neighbours that `search` finds."""
    hits = [len({id_ for id_, _ in space.truth(query, limit)} & set(search(query))) for query in queries]
    return sum(hits) / (limit * len(queries))


def store_of(space: VectorSpace, options: IndexOptions = OPTIONS) -> VectorStore:
    """A store of that space, as the app makes it."""
    return VectorStore(space.folder, space.id, space.catalog, options)


def ids_found(store: VectorStore, query: np.ndarray, limit: int = 10) -> list[int]:
    """Ids of the hits."""
    return [hit.id for hit in store.search(query, EMBEDDER, limit)]


def agrees(store: VectorStore, space: VectorSpace, seed: int = 77) -> bool:
    """Whether the store finds what exact search finds, with the same scores."""
    for query in made_vectors(10, seed=seed):
        hits, truth = store.search(query, EMBEDDER, 10), space.truth(query, 10)
        if [hit.score for hit in hits] != pytest.approx([score for _, score in truth], abs=1e-5):
            return False
        if {hit.id for hit in hits} != {id_ for id_, _ in truth}:
            return False
    return True


def manifest_of(space: VectorSpace) -> dict[str, object]:
    """The newest manifest."""
    content: dict[str, object] = json.loads((space.folder / f"{space.id}.json").read_text())
    return content
