"""Texts with facts of their own put into a space one by one, beside its files: what a program does, not a person.

Each is a document of one chunk, named after its id; the kept bytes are a JSON object with id, text and facts. A text of
an id that the space has replaces the old one, never a file that has the id for its name.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge import names
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_documents import Arrival
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.index_files import write_durably
from dbgpt_lite.knowledge.lexical import index_words
from dbgpt_lite.knowledge.locks import held
from dbgpt_lite.knowledge.records import Chunk, Document
from dbgpt_lite.knowledge.vector_index import index_maker
from dbgpt_lite.messages import Passage

# What the catalogue notes as the encoding of such a document; no file of a person can have it.
ENCODING = "text-record"
# Their kind in the catalogue, which keeps their names apart from those of files.
KIND = "text"


class TextEmbedder(Protocol):
    """The part of an Embedder that is needed here."""

    @property
    def identity(self) -> str:
        """Two embedders of one identity give the same vectors."""

    def embed(self, texts: Sequence[str], kind: Literal["query", "passage"] = "passage") -> Vectors:
        """Unit vectors, float32 of shape (len(texts), dimension)."""


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A text as it was put in, or a chunk of a file: then `id` is ``document/chunk`` and passage says where it is."""

    id: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    passage: Passage | None = None
    score: float = 0.0
    vector: Vectors | None = None


class SpaceTexts:
    """The space called `name` of the knowledge base in `root`; both are made when missing. Safe for many threads.

    Raises KnowledgeIndexError when the space was made with another embedder, once it is searched or added to.
    """

    def __init__(self, root: Path, name: str, embedder: TextEmbedder, vector_store: str = "") -> None:
        self._files, self._locks, indexes = root / "files", root / "locks", root / "indexes"
        for folder in (root, self._files, self._locks, indexes):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._catalog = Catalog(root / "catalog.sqlite3")
        tidy = names.space_name(name)
        found = self._catalog.space_named(tidy)
        self.space_id = found.id if found is not None else self._catalog.add_space(tidy)
        self._embedder = embedder
        self._engine = index_maker(vector_store, indexes, self._catalog)
        self._index = self._engine(self.space_id)

    def close(self) -> None:
        """Save the index and close the files."""
        self._index.close()
        self._engine.close()
        self._catalog.close()

    def add(self, records: Sequence[TextRecord]) -> None:
        """Put texts in, once nobody else is writing to the space.

        Facts must be what JSON can hold. Raises TypeError, UserError for a bundled space.
        """
        self._refuse_bundled()
        contents = [_content(record) for record in records]
        self._index.refresh(self._embedder.identity)
        vectors = self._embedder.embed([record.text for record in records])
        with held(self._locks / f"{self.space_id}.lock"):
            for record, content, vector in zip(records, contents, vectors, strict=True):
                self._add(record, content, vector)
        self._index.refresh(self._embedder.identity)

    def delete(self, ids: Sequence[str]) -> None:
        """Take texts out; an id that is not there is left alone. Raises ValueError for a chunk of a file."""
        self._refuse_bundled()
        known = self._by_id(ids)
        for id_ in ids:
            if id_ not in known and "/" in id_ and self.get([id_]):
                raise ValueError(f"{id_} is a part of a file; delete the file")
        for document in known.values():
            with suppress(NotFound):
                self._catalog.delete_document(self.space_id, document.id)
            self._path(document.id).unlink(missing_ok=True)

    def get(self, ids: Sequence[str]) -> list[TextRecord]:
        """The texts of those `ids` that are there, in their order."""
        known, found = self._by_id(ids), []
        for id_ in ids:
            if id_ in known:
                passages = self._catalog.chunks(self.space_id, known[id_].id)
            else:
                chunk = id_.rpartition("/")[2]
                passages = list(
                    self._catalog.passages(self.space_id, [int(chunk)] if chunk.isdecimal() else []).values()
                )
            found += [record for passage in passages if (record := self._record(passage)).id == id_]
        return found

    def nearest(self, vector: Vectors, limit: int) -> list[TextRecord]:
        """Up to `limit` texts nearest to a unit vector (float32, (dimension,)), best first, with score and vector."""
        if not self._catalog.version(self.space_id).chunks:
            return []
        hits = self._index.search(vector, self._embedder.identity, limit)
        ids = [hit.id for hit in hits]
        passages, vectors = self._catalog.passages(self.space_id, ids), self._index.vectors(ids)
        return [self._record(passages[hit.id], hit.score, vectors.get(hit.id)) for hit in hits if hit.id in passages]

    def _add(self, record: TextRecord, content: bytes, vector: Vectors) -> None:
        digest = hashlib.sha256(content).hexdigest()
        arrival = Arrival(secrets.token_hex(16), record.id, digest, len(content), kind=KIND)
        path = self._path(arrival.document_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_durably(path, content)
        try:
            gone = self._publish(arrival, record.text, vector)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for document in gone:
            self._path(document).unlink(missing_ok=True)

    def _publish(self, arrival: Arrival, text: str, vector: Vectors) -> tuple[str, ...]:
        """Make a text searchable, all in one transaction; returns the ids of the documents whose bytes may go."""
        identity = self._embedder.identity
        chunk = Chunk(text, 0, len(text), words=index_words(text))
        with self._catalog.writing():
            entered = self._catalog.enter(self.space_id, arrival)
            if entered.ready:
                return (arrival.document_id,)
            self._catalog.stage(entered.document_id, [chunk], vector.reshape(1, -1), identity)
            return self._catalog.publish(self.space_id, entered.document_id, 0, ENCODING, identity)

    def _record(self, passage: Passage, score: float = 0.0, vector: Vectors | None = None) -> TextRecord:
        document = self._catalog.document(self.space_id, passage.document_id)
        if document.encoding != ENCODING:
            return TextRecord(f"{passage.document_id}/{passage.id}", passage.text, {}, passage, score, vector)
        content = json.loads(self._path(document.id).read_bytes())
        return TextRecord(document.name, passage.text, content["facts"], None, score, vector)

    def _by_id(self, ids: Sequence[str]) -> dict[str, Document]:
        wanted = set(ids)
        documents = self._catalog.documents(self.space_id)
        return {d.name: d for d in documents if d.encoding == ENCODING and d.status == "ready" and d.name in wanted}

    def _path(self, document_id: str) -> Path:
        return self._files / self.space_id / document_id

    def _refuse_bundled(self) -> None:
        space = self._catalog.space(self.space_id)
        if space.readonly or space.hidden:
            raise UserError("knowledge.readonly", name=space.name)


def _content(record: TextRecord) -> bytes:
    return json.dumps({"id": record.id, "text": record.text, "facts": dict(record.facts)}, ensure_ascii=False).encode()
