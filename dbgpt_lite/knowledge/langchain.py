"""The knowledge base as LangChain sees it: VectorStore, Embeddings and BaseRetriever of langchain-core.

from dbgpt_lite.knowledge.langchain import KnowledgeVectorStore
store = KnowledgeVectorStore.open("data/knowledge", "Handbook")
documents = store.similarity_search("When is the office closed?", k=4)
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder, Vectors
from dbgpt_lite.knowledge.space_texts import SpaceTexts, TextRecord
from dbgpt_lite.messages import Passage


class KnowledgeEmbeddings(Embeddings):
    """The app's embedding model. embedder: None is the embedded all-MiniLM-L6-v2."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self.embedder = embedder or Embedder()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of passages."""
        vectors: list[list[float]] = self.embedder.embed(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Unit vector of a question."""
        vector: list[float] = self.embedder.embed([text], "query")[0].tolist()
        return vector


class KnowledgeVectorStore(VectorStore):
    """One space of a knowledge base by vectors alone (KnowledgeRetriever adds BM25).

    Texts that were added come back with their own metadata and id. Passages of files have the metadata document, page,
    heading, start, end and space, and cannot be deleted one by one.
    """

    def __init__(self, texts: SpaceTexts, embedding: Embeddings) -> None:
        self._texts = texts
        self._embedding = embedding

    @classmethod
    def open(
        cls, folder: str | Path, space: str, embedding: Embeddings | None = None, vector_store: str = ""
    ) -> "KnowledgeVectorStore":
        """The space of that name, made when missing. folder: ``DATA_DIR/knowledge``. vector_store: as VECTOR_STORE.

        Raises UserError for a bad name, KnowledgeIndexError (at the first use) for a space of another embedding model.
        """
        embedding = embedding or KnowledgeEmbeddings()
        return cls(SpaceTexts(Path(folder), space, _embedder_of(embedding), vector_store), embedding)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        folder: str | Path = "data/knowledge",
        space: str = "LangChain",
        **kwargs: Any,
    ) -> "KnowledgeVectorStore":
        """Open a space and add texts to it."""
        store = cls.open(folder, space, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        """The embedding model in use."""
        return self._embedding

    def close(self) -> None:
        """Save the index and close the files."""
        self._texts.close()

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str | None] | list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts and return their ids. An id that is there already is replaced. Metadata must suit JSON."""
        held = list(texts)
        facts = metadatas or [{}] * len(held)
        chosen = [id_ or uuid.uuid4().hex for id_ in ids or [None] * len(held)]
        last = {id_: TextRecord(id_, text, fact) for id_, text, fact in zip(chosen, held, facts, strict=True)}
        self._texts.add(list(last.values()))
        return chosen

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete texts by id. Raises ValueError without ids, and for a passage of a file."""
        if ids is None:
            raise ValueError("ids are needed; a whole space is deleted in the app")
        self._texts.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of those ids that are there."""
        return [self._document(record) for record in self._texts.get(list(ids))]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Up to `k` documents nearest to a question, best first."""
        return [document for document, _ in self.similarity_search_with_score(query, k)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same with the cosine of each (-1 to 1)."""
        return [(self._document(record), record.score) for record in self._nearest(self._question(query), k)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The same for a vector."""
        return [self._document(record) for record in self._nearest(_unit(embedding), k)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Up to `k` of the `fetch_k` nearest, chosen to be unlike each other."""
        question = self._question(query)
        records = [record for record in self._nearest(question, fetch_k) if record.vector is not None]
        vectors = [record.vector.tolist() for record in records if record.vector is not None]
        chosen = maximal_marginal_relevance(question, vectors, lambda_mult, k) if records else []
        return [self._document(records[at]) for at in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: (cosine + 1) / 2

    def _question(self, query: str) -> Vectors:
        return _unit(self._embedding.embed_query(query))

    def _nearest(self, vector: Vectors, k: int) -> list[TextRecord]:
        return self._texts.nearest(vector, k)

    def _document(self, record: TextRecord) -> Document:
        if record.passage is None:
            return Document(id=record.id, page_content=record.text, metadata=dict(record.facts))
        return Document(
            id=record.id, page_content=record.text, metadata=_metadata(record.passage, self._texts.space_id)
        )


class KnowledgeRetriever(BaseRetriever):
    """What the app itself finds for a question in the spaces `space_ids`: vectors and BM25 fused, repeats dropped.

    covered_only: nothing when the documents do not cover the question, as in the app's chat. Otherwise the best `k`.
    The metadata of a document: document, page, heading, score, start, end, space.
    """

    base: Any
    space_ids: list[str]
    k: int = 5
    covered_only: bool = False

    @classmethod
    def open(cls, folder: str | Path, space: str, **kwargs: Any) -> "KnowledgeRetriever":
        """The space of that name in ``DATA_DIR/knowledge``. Raises ValueError when there is none."""
        base = KnowledgeBase(Path(folder), Embedder())
        found = [one.id for one in base.spaces() if one.name.casefold() == space.casefold()]
        if not found:
            base.close()
            raise ValueError(f"there is no space called {space}")
        return cls(base=base, space_ids=found, **kwargs)

    def close(self) -> None:
        """Close the knowledge base; for a retriever that opened it."""
        self.base.close()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        wanted = self.k if k is None else k
        if self.covered_only:
            passages = [("", passage) for passage in self.base.retrieve(self.space_ids, query, wanted).passages]
        else:
            passages = [(one, passage) for one in self.space_ids for passage in self.base.search(one, query, wanted)]
            passages.sort(key=lambda found: -found[1].score)
        return [
            Document(
                id=f"{passage.document_id}/{passage.id}",
                page_content=passage.text,
                metadata={**_metadata(passage, space or self._space_of(passage)), "score": passage.score},
            )
            for space, passage in passages[:wanted]
        ]

    def _space_of(self, passage: Passage) -> str:
        if len(self.space_ids) == 1:
            return self.space_ids[0]
        return next(one for one in self.space_ids if any(d.id == passage.document_id for d in self.base.documents(one)))


class _Foreign:
    """Any LangChain embedding model as the catalogue knows embedders."""

    def __init__(self, embedding: Embeddings) -> None:
        self._embedding = embedding
        self._identity = ""

    @property
    def identity(self) -> str:
        """Its class and what it makes of one text, to two places: models are told apart, devices are not."""
        if not self._identity:
            probe = np.round(_unit(self._embedding.embed_documents(["What is this model?"])[0]), 2) + 0.0
            digest = hashlib.sha256(probe.tobytes()).hexdigest()[:32]
            self._identity = f"{type(self._embedding).__name__}@{digest}"
        return self._identity

    def embed(self, texts: Sequence[str], kind: Literal["query", "passage"] = "passage") -> Vectors:
        """Unit vectors."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        if kind == "query":
            return np.stack([_unit(self._embedding.embed_query(text)) for text in texts])
        return np.stack([_unit(vector) for vector in self._embedding.embed_documents(list(texts))])


def _embedder_of(embedding: Embeddings) -> Embedder | _Foreign:
    return embedding.embedder if isinstance(embedding, KnowledgeEmbeddings) else _Foreign(embedding)


def _unit(vector: Sequence[float]) -> Vectors:
    found = np.asarray(vector, dtype=np.float32)
    return np.asarray(found / max(float(np.linalg.norm(found)), 1e-12), dtype=np.float32)


def _metadata(passage: Passage, space_id: str) -> dict[str, Any]:
    return {
        "document": passage.document,
        "page": passage.page,
        "heading": passage.heading,
        "start": passage.start,
        "end": passage.end,
        "space": space_id,
    }
