"""The LangChain adapters: langchain's own suites for vector stores and retrievers, and what they say about files."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.integration_tests.vectorstores import VectorStoreIntegrationTests

from dbgpt_lite.errors import KnowledgeIndexError, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.langchain import KnowledgeEmbeddings, KnowledgeRetriever, KnowledgeVectorStore
from dbgpt_lite.knowledge.records import Upload

PAGES = {
    "office.md": "# Opening hours\n\nThe office opens at nine.\n\n# Holidays\n\nIt is closed on the first of May.",
    "cats.txt": "Cats sleep for most of the day.",
}


class TestStandardVectorStore(VectorStoreIntegrationTests):
    """Every test of langchain's suite for vector stores."""

    @pytest.fixture(params=["", "qdrant"])
    def vectorstore(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[VectorStore]:
        engine = f"qdrant+file://{tmp_path}/engine" if request.param else ""
        store = KnowledgeVectorStore.open(tmp_path / "knowledge", "s", self.get_embeddings(), engine)
        yield store
        store.close()


class TestStandardRetriever(RetrieversIntegrationTests):
    """Every test of langchain's suite for retrievers."""

    @pytest.fixture(autouse=True)
    def _space(self, tmp_path: Path, embedder: Embedder) -> Iterator[None]:
        self._base = KnowledgeBase(tmp_path / "knowledge", embedder)
        self._space_id = fill(self._base, tmp_path)
        yield
        self._base.close()

    @property
    def retriever_constructor(self) -> type[KnowledgeRetriever]:
        return KnowledgeRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"base": self._base, "space_ids": [self._space_id]}

    @property
    def retriever_query_example(self) -> str:
        return "When does the office open?"


class TestStandardEmbeddings(EmbeddingsIntegrationTests):
    """Every test of langchain's suite for embeddings."""

    @property
    def embeddings_class(self) -> type[KnowledgeEmbeddings]:
        return KnowledgeEmbeddings


def fill(base: KnowledgeBase, folder: Path) -> str:
    space = base.create("Handbook")
    uploads = []
    for name, text in PAGES.items():
        (folder / name).write_text(text)
        uploads.append(Upload(folder / name, name))
    for _ in base.ingest(space.id, uploads, threading.Event()):
        pass
    return space.id


@pytest.fixture
def folder(tmp_path: Path, embedder: Embedder) -> Path:
    """A knowledge base with a space "Handbook" of two files."""
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    fill(base, tmp_path)
    base.close()
    return tmp_path / "knowledge"


def test_three_lines_find_what_the_app_has_indexed(folder: Path) -> None:
    store = KnowledgeVectorStore.open(folder, "Handbook")
    [(found, score)] = store.similarity_search_with_score("When does the office open?", k=1)
    assert "opens at nine" in found.page_content
    assert {"document", "page", "heading", "start", "end", "space"} == set(found.metadata)
    assert (found.metadata["document"], found.metadata["heading"]) == ("office.md", "Opening hours")
    assert 0.3 < score <= 1
    assert store.get_by_ids([str(found.id)]) == [found]
    with pytest.raises(ValueError, match="part of a file"):
        store.delete([str(found.id)])
    store.close()


def test_what_is_added_is_seen_by_the_app_and_survives(folder: Path, embedder: Embedder) -> None:
    embedding = KnowledgeEmbeddings(embedder)
    store = KnowledgeVectorStore.open(folder, "Handbook", embedding)
    store.add_documents(
        [Document(id="p1", page_content="Parking costs two euros.", metadata={"floor": 3, "who": ["a"]})]
    )
    store.add_texts(["Parking costs five euros."], [{"floor": 4}], ids=["p1"])
    base = KnowledgeBase(folder, embedder)
    space_id = base.spaces()[0].id
    assert [p.text for p in base.search(space_id, "What does parking cost?", 1)] == ["Parking costs five euros."]
    assert sorted(d.name for d in base.documents(space_id)) == ["cats.txt", "office.md", "p1"]
    base.close()
    store.close()
    store = KnowledgeVectorStore.open(folder, "Handbook", embedding)
    expected = Document(id="p1", page_content="Parking costs five euros.", metadata={"floor": 4})
    assert store.similarity_search("parking", k=1) == [expected]
    assert store.max_marginal_relevance_search("parking", k=2, fetch_k=5)[0] == expected
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("parking") == [expected]
    store.delete(["p1", "not there"])
    assert store.get_by_ids(["p1", "../p1", "p1/99"]) == []
    assert {d.metadata["document"] for d in store.similarity_search("parking", k=9)} == {"cats.txt", "office.md"}
    store.close()


def test_a_space_of_another_model_is_refused(folder: Path) -> None:
    other = KnowledgeVectorStore.open(folder, "Handbook", VectorStoreIntegrationTests.get_embeddings())
    for use in (lambda: other.add_texts(["x"]), lambda: other.similarity_search("x")):
        with pytest.raises(KnowledgeIndexError, match="another embedding model"):
            use()
    other.close()


def test_a_bundled_space_takes_no_texts(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "a.txt").write_text("Bundled words.")
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    base.ensure_folder("Samples", tmp_path / "bundled")
    base.close()
    store = KnowledgeVectorStore.open(tmp_path / "knowledge", "Samples", KnowledgeEmbeddings(embedder))
    with pytest.raises(UserError, match="Samples"):
        store.add_texts(["x"])
    store.close()


def test_from_texts_and_metadata_that_json_cannot_hold(tmp_path: Path, embedder: Embedder) -> None:
    embedding = KnowledgeEmbeddings(embedder)
    store = KnowledgeVectorStore.from_texts(["one", "two"], embedding, folder=tmp_path / "k", space="mine")
    with pytest.raises(TypeError):
        store.add_texts(["three"], [{"when": object()}])
    assert len(store.similarity_search("one", k=9)) == 2
    store.close()


def test_the_retriever_says_where_a_passage_stands(folder: Path) -> None:
    retriever = KnowledgeRetriever.open(folder, "handbook", k=1)
    [found] = retriever.invoke("Which holidays are there in May?")
    assert {"document", "page", "heading", "score", "start", "end", "space"} == set(found.metadata)
    assert found.metadata["heading"] == "Holidays"
    assert found.metadata["space"] == retriever.space_ids[0]
    retriever.close()
    with pytest.raises(ValueError, match="no space"):
        KnowledgeRetriever.open(folder, "Nowhere")
