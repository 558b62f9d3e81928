"""What the retriever needs of an index of vectors, and which engine a VECTOR_STORE address names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Vectors


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk and the cosine of its vector to the question's."""

    id: int
    score: float


class VectorIndex(Protocol):
    """The vectors of one space. Made from the catalogue, which stays the truth; safe for many threads."""

    def search(self, query: Vectors, embedder: str, limit: int) -> list[Hit]:
        """The chunks nearest to `query` (unit vector, float32, shape (dimension,)), best first, of the present state.

        Raises KnowledgeIndexError when the space was made with another embedder, NotFound when it is gone.
        """

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """The stored unit vectors, float32 of shape (dimension,), of those `ids` that are in the space."""

    def refresh(self, embedder: str) -> None:
        """Bring the index to the state of the catalogue. Cheap when nothing changed."""

    def save(self) -> None:
        """Write what is kept on disk, if anything changed."""

    def forget(self) -> None:
        """Remove all that is kept; for a space that was deleted."""

    def close(self) -> None:
        """Stop what runs in the background and save."""


class IndexMaker(Protocol):
    """Space id -> its index in one engine. close() lets go of the engine, after the indexes are closed."""

    def __call__(self, space_id: str) -> VectorIndex:
        """The index of a space."""

    def close(self) -> None:
        """Close the connection, if there is one."""


@dataclass(frozen=True)
class _Local:
    """FAISS files in a folder."""

    folder: Path
    catalog: Catalog
    splitter: str

    def __call__(self, space_id: str) -> VectorIndex:
        from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore

        return VectorStore(self.folder, space_id, self.catalog, IndexOptions(splitter=self.splitter))

    def close(self) -> None:
        """Nothing is held."""


def index_maker(url: str, folder: Path, catalog: Catalog, splitter: str = "") -> IndexMaker:
    """The engine that `url` names; "" is FAISS in `folder`. Raises ConfigError for an address it cannot read."""
    if not url:
        return _Local(folder, catalog, splitter)
    if not url.startswith("qdrant+"):
        raise ConfigError("knowledge.vector_store_unknown")
    from dbgpt_lite.knowledge.qdrant_store import QdrantEngine

    return QdrantEngine(url, catalog)
