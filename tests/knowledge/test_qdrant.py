"""Vectors in Qdrant: its embedded engine for what is stored, a small HTTP server for what goes wrong."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import models

from dbgpt_lite.errors import ConfigError, KnowledgeIndexError, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.qdrant_store import PREFIX, Address, QdrantEngine, QdrantIndex, read_address
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.knowledge.vector_index import index_maker
from tests.knowledge.vector_space import EMBEDDER, VectorSpace, made_vectors

KEY = "a-Secret-43"


@pytest.fixture
def engine(space: VectorSpace, tmp_path: Path) -> Iterator[QdrantEngine]:
    engine = QdrantEngine(f"qdrant+file://{tmp_path}/engine", space.catalog)
    yield engine
    engine.close()


def agrees(index: QdrantIndex, space: VectorSpace) -> bool:
    for query in made_vectors(10, seed=77):
        hits, truth = index.search(query, EMBEDDER, 10), space.truth(query, 10)
        if [hit.score for hit in hits] != pytest.approx([score for _, score in truth], abs=1e-3):
            return False
    return True


def collections(engine: QdrantEngine) -> list[str]:
    with engine.client() as client:
        return sorted(found.name for found in client.get_collections().collections)


# --- addresses


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("qdrant+http://127.0.0.1", Address("http://127.0.0.1:6333")),
        ("qdrant+https://db.example.org:443/qdrant/", Address("https://db.example.org:443/qdrant")),
        ("qdrant+http://[::1]:7000", Address("http://[::1]:7000")),
        ("qdrant+https://:k%2Fy@db.example.org", Address("https://db.example.org:6333", key="k/y")),
        ("qdrant+https://key@db.example.org", Address("https://db.example.org:6333", key="key")),
        ("qdrant+http://db.example.org?api_key=abc", Address("http://db.example.org:6333", key="abc")),
        ("qdrant+file:///srv/my%20vectors", Address(path="/srv/my vectors")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert read_address(url) == address
    assert address.key not in repr(address) or not address.key


@pytest.mark.parametrize(
    "url",
    ["qdrant+http://", "qdrant+file://", "qdrant+file://host/path", "qdrant+ftp://host", "qdrant+http://h:port",
     "qdrant+", "milvus+http://host", "http://host:6333", "qdrant"],
)  # fmt: skip
def test_other_addresses_are_refused(url: str, space: VectorSpace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VECTOR_STORE"):
        index_maker(url, tmp_path, space.catalog)


def test_nothing_is_connected_before_it_is_needed(space: VectorSpace, tmp_path: Path) -> None:
    maker = index_maker("qdrant+http://127.0.0.1:9", tmp_path, space.catalog)
    maker(space.id).save()
    maker.close()


# --- what is stored


def test_the_engine_follows_the_catalogue(
    space: VectorSpace, engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbgpt_lite.knowledge.qdrant_store.PUSHED_AT_ONCE", 70)
    monkeypatch.setattr("dbgpt_lite.knowledge.qdrant_store.IDS_AT_ONCE", 50)
    index = engine(space.id)
    assert index.search(made_vectors(1)[0], EMBEDDER, 5) == []
    documents = [space.add(made_vectors(60, seed=seed)) for seed in range(3)]
    assert agrees(index, space)
    space.delete(documents[0])
    assert agrees(index, space)
    space.add(made_vectors(200, seed=5))
    assert agrees(index, space)
    assert len(index.search(made_vectors(1)[0], EMBEDDER, 5000)) == 320
    assert index.search(made_vectors(1)[0], EMBEDDER, 0) == []
    ids, vectors = space.visible()
    assert index.vectors([int(ids[7])])[int(ids[7])].tolist() == vectors[7].tolist()
    with engine.client() as client:
        [point] = client.retrieve(collections(engine)[0], [int(ids[-1])])
    assert point.payload == {"generation": space.catalog.version(space.id).generation}


def test_what_another_process_did_is_seen(space: VectorSpace, engine: QdrantEngine) -> None:
    mine, theirs = engine(space.id), engine(space.id)
    first = space.add(made_vectors(30))
    assert agrees(mine, space)
    space.add(made_vectors(30, seed=1))
    assert agrees(theirs, space)
    space.delete(first)
    assert agrees(mine, space)
    assert agrees(theirs, space)


def test_a_fresh_process_pushes_nothing_that_is_there(
    space: VectorSpace, engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.add(made_vectors(50))
    engine(space.id).refresh(EMBEDDER)
    pushed: list[int] = []
    push = QdrantIndex._push
    monkeypatch.setattr(QdrantIndex, "_push", lambda *given: (pushed.append(len(given[3].ids)), push(*given)))
    index = engine(space.id)
    assert agrees(index, space)
    assert pushed == []
    space.add(made_vectors(3, seed=1))
    assert agrees(index, space)
    assert pushed == [3]


def test_a_push_that_broke_off_is_finished(
    space: VectorSpace, engine: QdrantEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbgpt_lite.knowledge.qdrant_store.PUSHED_AT_ONCE", 20)
    push, index = QdrantIndex._push, engine(space.id)
    turns = iter(range(99))

    def break_off(*given: object) -> None:
        if next(turns) == 2:
            raise ConnectionError
        push(*given)  # type: ignore[arg-type]

    space.add(made_vectors(90))
    monkeypatch.setattr(QdrantIndex, "_push", break_off)
    with pytest.raises(KnowledgeIndexError, match="does not answer"):
        index.search(made_vectors(1)[0], EMBEDDER, 5)
    assert agrees(index, space)


def test_another_embedder_gets_a_collection_of_its_own(space: VectorSpace, engine: QdrantEngine) -> None:
    space.add(made_vectors(40))
    index = engine(space.id)
    assert agrees(index, space)
    with pytest.raises(KnowledgeIndexError, match="another embedding model"):
        index.search(made_vectors(1)[0], "other@2", 5)
    old = collections(engine)
    ids, _ = space.visible()
    other = made_vectors(40, seed=3, dimension=12)
    space.catalog.add_vectors(ids.tolist(), other, "other@2")
    space.catalog.switch_embedder(space.id, "other@2")
    assert index.search(other[4], "other@2", 1)[0].score == pytest.approx(1, abs=1e-3)
    assert len(collections(engine)) == 1
    assert collections(engine) != old, "the vectors of the embedder before are gone"


def test_a_deleted_space_leaves_nothing(space: VectorSpace, engine: QdrantEngine) -> None:
    other = space.catalog.add_space("other")
    space.add(made_vectors(5))
    index = engine(space.id)
    index.refresh(EMBEDDER)
    with engine.client() as client:
        vectors = models.VectorParams(size=4, distance=models.Distance.COSINE)
        for name in (f"{PREFIX}-{other}-abc", "somebody-elses"):
            client.create_collection(name, vectors_config=vectors)
    index.forget()
    assert collections(engine) == sorted([f"{PREFIX}-{other}-abc", "somebody-elses"])


def test_threads_search_while_documents_come_and_go(space: VectorSpace, engine: QdrantEngine) -> None:
    index, stop, wrong = engine(space.id), threading.Event(), []
    space.add(made_vectors(100))
    mark = made_vectors(1, seed=50)

    def read() -> None:
        while not stop.is_set():
            found = sum(hit.score > 0.995 for hit in index.search(mark[0], EMBEDDER, 5))
            if found not in (0, 5):
                wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for _ in range(10):
        document = space.add(np.repeat(mark, 5, axis=0))
        index.refresh(EMBEDDER)
        space.delete(document)
        index.refresh(EMBEDDER)
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []


# --- what goes wrong


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the server's `status` and notes the key it came with."""

    def answer(self) -> None:
        self.server.keys.append(self.headers.get("api-key"))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"status": {"error": "no"}}')

    do_GET = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[[int], ThreadingHTTPServer]]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
        server.status, server.keys = status, []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "says"), [(401, "refused the key"), (403, "refused the key"), (500, "an error")])
def test_an_engine_that_refuses(
    space: VectorSpace,
    answering: Callable[[int], ThreadingHTTPServer],
    status: int,
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server = answering(status)
    engine = QdrantEngine(f"qdrant+http://:{KEY}@127.0.0.1:{server.server_port}", space.catalog)
    space.add(made_vectors(5))
    with pytest.raises(KnowledgeIndexError, match=says) as caught:
        engine(space.id).search(made_vectors(1)[0], EMBEDDER, 5)
    engine.close()
    assert KEY in server.keys  # type: ignore[attr-defined]
    assert KEY not in caplog.text + str(caught.value) + repr(caught.value) + repr(engine._address)
    assert caught.value.__cause__ is None


def test_an_engine_that_is_down_costs_no_document(
    tmp_path: Path, embedder: Embedder, answering: Callable[[int], ThreadingHTTPServer]
) -> None:
    server = answering(500)
    port = server.server_port
    server.shutdown()
    server.server_close()
    base = KnowledgeBase(tmp_path / "knowledge", embedder, vector_store=f"qdrant+http://:{KEY}@127.0.0.1:{port}")
    space = base.create("s")
    (tmp_path / "a.txt").write_text("Cats sleep for most of the day.")
    reports = list(base.ingest(space.id, [Upload(tmp_path / "a.txt", "a.txt")], threading.Event()))
    assert reports[-1].state == "done"
    with pytest.raises(UserError, match=f"127.0.0.1:{port}") as caught:
        base.search(space.id, "cats", 1)
    assert KEY not in caught.value.render("en") + caught.value.render("zh")
    base.close()
    engine = f"qdrant+file://{tmp_path}/engine"
    again = KnowledgeBase(tmp_path / "knowledge", embedder, vector_store=engine)
    assert again.search(space.id, "cats", 1)[0].document == "a.txt"
    again.delete(space.id)
    again.close()


def test_the_embedded_engine_serves_one_process(space: VectorSpace, engine: QdrantEngine, tmp_path: Path) -> None:
    space.add(made_vectors(5))
    engine(space.id).refresh(EMBEDDER)
    second = QdrantEngine(f"qdrant+file://{tmp_path}/engine", space.catalog)
    with pytest.raises(KnowledgeIndexError, match="Another process"):
        second(space.id).search(made_vectors(1)[0], EMBEDDER, 5)
    second.close()


def test_a_missing_client_says_what_to_install(space: VectorSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "qdrant_client"] or ["qdrant_client"]:
        monkeypatch.setitem(sys.modules, name, None)
    space.add(made_vectors(5))
    with pytest.raises(ConfigError, match="pip install"):
        QdrantEngine("qdrant+http://127.0.0.1", space.catalog)(space.id).search(made_vectors(1)[0], EMBEDDER, 5)
