"""Vectors in a Qdrant engine (https://qdrant.tech), for more than one machine on one catalogue.

The catalogue stays the truth: the engine is brought to its state before a search whenever it has changed. A collection
belongs to one space and one embedder; a point's id is its chunk's.
"""

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from dbgpt_lite.errors import ConfigError, KnowledgeIndexError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.vector_index import Hit

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

PREFIX = "dbgpt-lite"
TIMEOUT_S = 30
PORT = 6333
# Points of one request: 1000 vectors of 384 numbers are some 8 MB of JSON. Ids alone are short.
PUSHED_AT_ONCE, IDS_AT_ONCE = 1000, 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the engine is: `url` without any secret, or `path` of the embedded one; `key` is never logged."""

    url: str = ""
    path: str = ""
    key: str = ""

    def __repr__(self) -> str:
        return f"Address({self.url or self.path})"


def read_address(url: str) -> Address:
    """qdrant+http(s)://[:KEY@]host[:6333][/prefix][?api_key=KEY] or qdrant+file:///folder. Raises ConfigError."""
    try:
        parts = urlsplit(url.removeprefix("qdrant+"))
        port = parts.port or PORT
    except ValueError:
        raise ConfigError("knowledge.vector_store_unknown") from None
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return Address(path=unquote(parts.path))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("knowledge.vector_store_unknown")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    key = parse_qs(parts.query).get("api_key", [""])[0] or unquote(parts.password or parts.username or "")
    return Address(url=f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}", key=key)


class QdrantEngine:
    """One connection, made at the first use and shared by the indexes of all spaces; a call gives a space's index."""

    def __init__(self, url: str, catalog: Catalog) -> None:
        self._address = read_address(url)
        self._catalog = catalog
        self._client: QdrantClient | None = None
        self._connecting = threading.Lock()
        # The embedded engine is plain Python lists, for one thread at a time.
        self._turn = threading.RLock() if self._address.path else None

    def __call__(self, space_id: str) -> "QdrantIndex":
        """The index of a space."""
        return QdrantIndex(self, space_id, self._catalog)

    @contextmanager
    def client(self) -> Iterator["QdrantClient"]:
        """The client; what goes wrong with it is told as KnowledgeIndexError, without address details or keys."""
        try:
            from qdrant_client.http.exceptions import ApiException, UnexpectedResponse
        except ImportError:
            raise ConfigError("knowledge.vector_store_no_client") from None
        try:
            with self._turn or _nothing():
                yield self._connected()
        except UnexpectedResponse as error:
            logger.warning("the vector engine %r answered %s", self._address, error.status_code)
            refused = error.status_code in (401, 403)
            raise self._error(
                "knowledge.vector_store_refused" if refused else "knowledge.vector_store_failed"
            ) from None
        except (ApiException, OSError) as error:
            logger.warning("the vector engine %r cannot be reached: %s", self._address, type(error).__name__)
            raise self._error("knowledge.vector_store_down") from None

    def close(self) -> None:
        """Close the connection."""
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connected(self) -> "QdrantClient":
        with self._connecting:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> "QdrantClient":
        from qdrant_client import QdrantClient

        if not self._address.path:
            return QdrantClient(
                url=self._address.url,
                port=None,
                api_key=self._address.key or None,
                timeout=TIMEOUT_S,
                check_compatibility=False,
            )
        try:
            Path(self._address.path).mkdir(mode=0o700, parents=True, exist_ok=True)
            return QdrantClient(path=self._address.path, force_disable_check_same_thread=True)
        except RuntimeError:
            # The folder is locked: the embedded engine serves one process.
            raise self._error("knowledge.vector_store_locked") from None

    def _error(self, key: str) -> KnowledgeIndexError:
        return KnowledgeIndexError(key, host=urlsplit(self._address.url).netloc or "file")


class QdrantIndex:
    """The vectors of one space in the engine. Many threads and processes may search and refresh at once."""

    def __init__(self, engine: QdrantEngine, space_id: str, catalog: Catalog) -> None:
        self._engine = engine
        self._space_id = space_id
        self._catalog = catalog
        self._changing = threading.Lock()
        # The embedder and the catalogue's generation that the engine is known to hold.
        self._holds: tuple[str, int] | None = None

    def search(self, query: Vectors, embedder: str, limit: int) -> list[Hit]:
        """The chunks nearest to `query` (unit vector, float32, shape (dimension,)), best first; scores are cosines.

        Raises KnowledgeIndexError when the space was made with another embedder or the engine does not answer.
        """
        self.refresh(embedder)
        if limit < 1 or not self._catalog.version(self._space_id).chunks:
            return []
        with self._engine.client() as client:
            found = client.query_points(self._collection(embedder), query=query.tolist(), limit=limit)
        return [Hit(int(point.id), min(1.0, point.score)) for point in found.points]

    def vectors(self, ids: Sequence[int]) -> dict[int, Vectors]:
        """The stored unit vectors, float32 of shape (dimension,), of those `ids` that are in the space."""
        embedder = self._catalog.version(self._space_id).embedder
        rows = self._catalog.vectors_of(self._space_id, ids, embedder)
        return dict(zip(rows.ids.tolist(), rows.vectors, strict=True))

    def refresh(self, embedder: str) -> None:
        """Push what the engine lacks and remove what is gone. One look at the catalogue when nothing changed."""
        version = self._catalog.version(self._space_id)
        if version.embedder not in ("", embedder):
            raise KnowledgeIndexError("knowledge.other_embedder", made_with=version.embedder.split("@")[0])
        if self._holds == (embedder, version.generation):
            return
        with self._changing, self._engine.client() as client:
            version = self._catalog.version(self._space_id)
            if self._holds != (embedder, version.generation):
                self._bring_up(client, embedder)
                self._holds = (embedder, version.generation)

    def save(self) -> None:
        """The engine keeps what it is given."""

    def forget(self) -> None:
        """Remove the collections of a space that was deleted; an engine that is down keeps them."""
        self._holds = None
        try:
            with self._engine.client() as client:
                self._drop(client, keep="")
        except KnowledgeIndexError as error:
            logger.warning("the vectors of space %s stay in the engine: %s", self._space_id, error)

    def close(self) -> None:
        """Nothing runs in the background."""

    def _bring_up(self, client: "QdrantClient", embedder: str) -> None:
        collection = self._collection(embedder)
        held = self._held_ids(client, collection)
        # Read after the engine's: what another process publishes and pushes between the two must not look gone.
        version = self._catalog.version(self._space_id)
        visible = self._catalog.visible_ids(self._space_id, version.generation)
        if gone := np.setdiff1d(held, visible).tolist():
            for first in range(0, len(gone), IDS_AT_ONCE):
                client.delete(collection, points_selector=gone[first : first + IDS_AT_ONCE], wait=True)
        missing = np.setdiff1d(visible, held)
        for first in range(0, len(missing), PUSHED_AT_ONCE):
            ids = missing[first : first + PUSHED_AT_ONCE].tolist()
            rows = self._catalog.vectors_of(self._space_id, ids, embedder)
            self._push(client, collection, rows, version.generation)

    def _held_ids(self, client: "QdrantClient", collection: str) -> Ids:
        if not client.collection_exists(collection):
            return np.zeros(0, dtype=np.int64)
        ids: list[Any] = []
        offset: Any = None
        while True:
            points, offset = client.scroll(
                collection, limit=IDS_AT_ONCE, offset=offset, with_payload=False, with_vectors=False
            )
            ids.extend(point.id for point in points)
            if offset is None:
                return np.array(sorted(ids), dtype=np.int64)

    def _push(self, client: "QdrantClient", collection: str, rows: VectorRows, generation: int) -> None:
        from qdrant_client import models

        if not len(rows.ids):
            return
        self._ensure(client, collection, rows.vectors.shape[1])
        client.upsert(
            collection,
            models.Batch(
                ids=rows.ids.tolist(),
                vectors=rows.vectors.tolist(),
                payloads=[{"generation": generation}] * len(rows.ids),
            ),
            wait=True,
        )

    def _ensure(self, client: "QdrantClient", collection: str, dimension: int) -> None:
        """Make the collection unless it is there; those of other embedders go."""
        from qdrant_client import models
        from qdrant_client.http.exceptions import UnexpectedResponse

        if client.collection_exists(collection):
            return
        # The catalogue holds float16: nothing is lost by storing no more.
        vectors = models.VectorParams(
            size=dimension, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16, on_disk=True
        )
        try:
            client.create_collection(collection, vectors_config=vectors)
        except (UnexpectedResponse, ValueError):
            # Another process was faster.
            if not client.collection_exists(collection):
                raise
        self._drop(client, keep=collection)

    def _drop(self, client: "QdrantClient", keep: str) -> None:
        for found in client.get_collections().collections:
            if found.name.startswith(f"{PREFIX}-{self._space_id}-") and found.name != keep:
                client.delete_collection(found.name)

    def _collection(self, embedder: str) -> str:
        return f"{PREFIX}-{self._space_id}-{hashlib.sha256(embedder.encode()).hexdigest()[:12]}"


@contextmanager
def _nothing() -> Iterator[None]:
    yield
