"""The catalogue of a knowledge base: one SQLite file with spaces, documents, chunks, vectors and the BM25 index.

It is the only truth: FAISS files are caches made from it. A document's chunks are staged while it is being indexed and
become visible in the one transaction that publishes it, so a killed process leaves whole documents or resumable ones.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows, document_of, error_json, space_of, vector_rows
from dbgpt_lite.knowledge.connections import Connections
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.migrations import migrate
from dbgpt_lite.knowledge.records import Chunk, Document, Space
from dbgpt_lite.messages import Passage

_SPACE_COLUMNS = """s.id, s.name, s.readonly, s.hidden, s.chunks,
    (SELECT count(*) FROM documents d WHERE d.space = s.number AND d.status = 'ready')"""
_DOCUMENT_COLUMNS = "d.id, d.name, d.size, d.pages, d.chunks, d.status, d.error, d.encoding, d.added"
_PASSAGE_COLUMNS = "c.id, c.text, d.id, d.name, c.page, c.heading, c.start, c.end"


@dataclass(frozen=True, slots=True)
class Version:
    """State of a space: every publication and deletion raises the generation; chunks counts the visible ones."""

    generation: int
    chunks: int
    embedder: str


class Catalog(Connections):
    """The catalogue file at `path`, made or brought to the newest schema when opened. Safe for many threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self.connection() as db:
            migrate(db)

    # --- spaces

    def spaces(self, hidden: bool = False) -> list[Space]:
        """Spaces by name; the hidden ones only when asked for."""
        with self.reading() as db:
            rows = db.execute(
                f"SELECT {_SPACE_COLUMNS} FROM spaces s WHERE s.hidden <= ? ORDER BY s.readonly DESC, s.name", (hidden,)
            )
            return [space_of(row) for row in rows]

    def space(self, space_id: str) -> Space:
        """One space. Raises NotFound."""
        with self.reading() as db:
            row = db.execute(f"SELECT {_SPACE_COLUMNS} FROM spaces s WHERE s.id = ?", (space_id,)).fetchone()
        if row is None:
            raise NotFound("knowledge.no_space")
        return space_of(row)

    def space_named(self, name: str, hidden: bool = False) -> Space | None:
        """The space of that name, upper and lower case alike."""
        with self.reading() as db:
            row = db.execute(
                f"SELECT {_SPACE_COLUMNS} FROM spaces s WHERE s.folded = ?", (_folded(name, hidden),)
            ).fetchone()
        return space_of(row) if row else None

    def add_space(self, name: str, readonly: bool = False, hidden: bool = False) -> str:
        """Make a space and return its id. Raises UserError when the name is taken."""
        space_id = secrets.token_hex(8)
        with self.writing() as db:
            self._refuse_taken(db, name, hidden, "")
            db.execute(
                "INSERT INTO spaces(id, name, folded, readonly, hidden, added) VALUES (?, ?, ?, ?, ?, ?)",
                (space_id, name, _folded(name, hidden), readonly, hidden, time.time()),
            )
        return space_id

    def rename_space(self, space_id: str, name: str) -> None:
        """Give a space another name. Raises NotFound, UserError when the name is taken."""
        with self.writing() as db:
            self._number(db, space_id)
            self._refuse_taken(db, name, False, space_id)
            db.execute("UPDATE spaces SET name = ?, folded = ? WHERE id = ?", (name, _folded(name), space_id))

    def delete_space(self, space_id: str) -> None:
        """Remove a space with all it holds."""
        with self.writing() as db:
            number = self._number(db, space_id)
            _unindex(db, "SELECT id FROM documents WHERE space = ?", number)
            db.execute("DELETE FROM spaces WHERE number = ?", (number,))

    def version(self, space_id: str) -> Version:
        """Generation, visible chunks and embedder of a space. Raises NotFound."""
        with self.reading() as db:
            return _version(db, space_id)

    # --- documents

    def documents(self, space_id: str) -> list[Document]:
        """Documents of a space, newest first. Raises NotFound."""
        with self.reading() as db:
            number = self._number(db, space_id)
            rows = db.execute(
                f"SELECT {_DOCUMENT_COLUMNS} FROM documents d WHERE d.space = ? ORDER BY d.added DESC, d.name",
                (number,),
            )
            return [document_of(row) for row in rows]

    def document(self, space_id: str, document_id: str) -> Document:
        """One document of that space. Raises NotFound."""
        with self.reading() as db:
            row = db.execute(
                f"""SELECT {_DOCUMENT_COLUMNS} FROM documents d JOIN spaces s ON s.number = d.space
                    WHERE s.id = ? AND d.id = ?""",
                (space_id, document_id),
            ).fetchone()
        if row is None:
            raise NotFound("knowledge.no_document")
        return document_of(row)

    def document_with_hash(self, space_id: str, sha256: str) -> Document | None:
        """The document of a space that has these bytes, whatever its status."""
        with self.reading() as db:
            row = db.execute(
                f"""SELECT {_DOCUMENT_COLUMNS} FROM documents d JOIN spaces s ON s.number = d.space
                    WHERE s.id = ? AND d.sha256 = ?""",
                (space_id, sha256),
            ).fetchone()
        return document_of(row) if row else None

    def hashes(self, space_id: str) -> dict[str, str]:
        """sha256 -> document id of a space."""
        with self.reading() as db:
            rows = db.execute("SELECT sha256, id FROM documents WHERE space = ?", (self._number(db, space_id),))
            return dict(rows.fetchall())

    def add_document(self, space_id: str, document_id: str, name: str, sha256: str, size: int) -> None:
        """Enter a pending document. Raises sqlite3.IntegrityError when the space has these bytes already."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO documents(id, space, name, sha256, size, added) VALUES (?, ?, ?, ?, ?, ?)",
                (document_id, self._number(db, space_id), name, sha256, size, time.time()),
            )

    def restart_document(self, document_id: str, name: str) -> None:
        """Make a failed or interrupted document pending again, under the name it now came with."""
        with self.writing() as db:
            db.execute(
                "UPDATE documents SET status = 'pending', error = '', name = ? WHERE id = ?", (name, document_id)
            )

    def fail_document(self, document_id: str, error: UserError) -> None:
        """Note why a document cannot be searched; its staged chunks go."""
        with self.writing() as db:
            db.execute("DELETE FROM chunks WHERE document = ?", (document_id,))
            db.execute(
                "UPDATE documents SET status = 'failed', error = ? WHERE id = ?", (error_json(error), document_id)
            )

    def delete_document(self, space_id: str, document_id: str) -> None:
        """Remove a document, its chunks, vectors and words. Raises NotFound."""
        with self.writing() as db:
            number = self._number(db, space_id)
            _unindex(db, "SELECT id FROM documents WHERE space = ? AND id = ?", number, document_id)
            removed = db.execute("DELETE FROM documents WHERE space = ? AND id = ?", (number, document_id))
            if removed.rowcount == 0:
                raise NotFound("knowledge.no_document")
            _raise_generation(db, number)

    # --- chunks

    def staged(self, document_id: str, embedder: str) -> list[tuple[int, int]]:
        """Offsets of a pending document's chunks that were stored with `embedder` before it was interrupted."""
        with self.reading() as db:
            return db.execute(
                """SELECT c.start, c.end FROM chunks c JOIN vectors v ON v.chunk = c.id AND v.embedder = ?
                   WHERE c.document = ? ORDER BY c.id""",
                (embedder, document_id),
            ).fetchall()

    def unstage(self, document_id: str) -> None:
        """Forget the chunks of a document that is not published."""
        with self.writing() as db:
            db.execute("DELETE FROM chunks WHERE document = ?", (document_id,))

    def stage(self, document_id: str, chunks: Sequence[Chunk], vectors: Vectors, embedder: str) -> None:
        """Store the next chunks of a pending document with their vectors; nobody sees them yet.

        Raises NotFound when the document or its space was deleted meanwhile.
        """
        with self.writing() as db:
            if not db.execute("SELECT 1 FROM documents WHERE id = ?", (document_id,)).fetchone():
                raise NotFound("knowledge.no_document")
            for chunk, vector in zip(chunks, vectors, strict=True):
                row = db.execute(
                    """INSERT INTO chunks(document, text, page, heading, start, end, words)
                       VALUES (?, ?, ?, ?, ?, ?, ?)""",
                    (document_id, chunk.text, chunk.page, chunk.heading, chunk.start, chunk.end, chunk.words),
                )
                db.execute(
                    "INSERT INTO vectors(chunk, embedder, vector) VALUES (?, ?, ?)",
                    (row.lastrowid, embedder, vector.astype(np.float16).tobytes()),
                )

    def publish(self, space_id: str, document_id: str, pages: int, encoding: str, embedder: str) -> None:
        """Make a pending document searchable, all of it at once."""
        with self.writing() as db:
            number = self._number(db, space_id)
            db.execute("UPDATE spaces SET embedder = ? WHERE number = ? AND embedder = ''", (embedder, number))
            chunks = db.execute("SELECT count(*) FROM chunks WHERE document = ?", (document_id,)).fetchone()[0]
            published = db.execute(
                """UPDATE documents SET status = 'ready', error = '', pages = ?, encoding = ?, chunks = ?,
                   generation = (SELECT generation + 1 FROM spaces WHERE number = ?) WHERE id = ?""",
                (pages, encoding, chunks, number, document_id),
            )
            if published.rowcount == 0:
                raise NotFound("knowledge.no_document")
            db.execute(
                """INSERT INTO chunk_words(rowid, words, space)
                   SELECT id, words, space FROM chunk_search WHERE document = ?""",
                (document_id,),
            )
            _raise_generation(db, number)

    def chunks(self, space_id: str, document_id: str) -> list[Passage]:
        """The chunks of a searchable document in reading order. Raises NotFound."""
        self.document(space_id, document_id)
        with self.reading() as db:
            rows = db.execute(
                f"""SELECT {_PASSAGE_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document
                    WHERE d.id = ? AND d.status = 'ready' ORDER BY c.start, c.id""",
                (document_id,),
            )
            return [Passage(*row) for row in rows]

    def passages(self, space_id: str, ids: Iterable[int]) -> dict[int, Passage]:
        """The visible chunks among `ids` that belong to the space."""
        wanted = [int(id_) for id_ in ids]
        marks = ",".join("?" * len(wanted))
        with self.reading() as db:
            rows = db.execute(
                f"""SELECT {_PASSAGE_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document
                    JOIN spaces s ON s.number = d.space
                    WHERE s.id = ? AND d.status = 'ready' AND c.id IN ({marks})""",
                (space_id, *wanted),
            )
            return {row[0]: Passage(*row) for row in rows}

    # --- vectors

    def vectors_since(self, space_id: str, generation: int) -> tuple[Version, VectorRows]:
        """The space's version and the vectors of what was published after `generation`, of one moment."""
        with self.reading() as db:
            version = _version(db, space_id)
            cursor = db.execute(
                """SELECT v.chunk, v.vector FROM documents d JOIN spaces s ON s.number = d.space
                   JOIN chunks c ON c.document = d.id JOIN vectors v ON v.chunk = c.id AND v.embedder = s.embedder
                   WHERE s.id = ? AND d.status = 'ready' AND d.generation > ?""",
                (space_id, generation),
            )
            return version, vector_rows(cursor)

    def visible_ids(self, space_id: str, generation: int) -> Ids:
        """Ids of the chunks published up to `generation` and still there, ascending."""
        with self.reading() as db:
            rows = db.execute(
                """SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document JOIN spaces s ON s.number = d.space
                   WHERE s.id = ? AND d.status = 'ready' AND d.generation <= ? ORDER BY c.id""",
                (space_id, generation),
            ).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def unembedded(self, space_id: str, embedder: str, limit: int) -> list[tuple[int, str, str]]:
        """Up to `limit` visible chunks without a vector of `embedder`: (id, heading, text)."""
        with self.reading() as db:
            return db.execute(
                """SELECT c.id, c.heading, c.text FROM chunks c JOIN documents d ON d.id = c.document
                   JOIN spaces s ON s.number = d.space
                   WHERE s.id = ? AND d.status = 'ready'
                   AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.chunk = c.id AND v.embedder = ?)
                   ORDER BY c.id LIMIT ?""",
                (space_id, embedder, limit),
            ).fetchall()

    def unembedded_count(self, space_id: str, embedder: str) -> int:
        """How many visible chunks have no vector of `embedder`."""
        with self.reading() as db:
            row = db.execute(
                """SELECT count(*) FROM chunks c JOIN documents d ON d.id = c.document
                   JOIN spaces s ON s.number = d.space
                   WHERE s.id = ? AND d.status = 'ready'
                   AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.chunk = c.id AND v.embedder = ?)""",
                (space_id, embedder),
            ).fetchone()
        return int(row[0])

    def add_vectors(self, ids: Sequence[int], vectors: Vectors, embedder: str) -> None:
        """Store vectors of another embedder beside those in use."""
        with self.writing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO vectors(chunk, embedder, vector) SELECT id, ?, ? FROM chunks WHERE id = ?",
                [(embedder, v.astype(np.float16).tobytes(), id_) for id_, v in zip(ids, vectors, strict=True)],
            )

    def switch_embedder(self, space_id: str, embedder: str) -> None:
        """Search the space by the vectors of `embedder` from now on; the others go."""
        with self.writing() as db:
            number = self._number(db, space_id)
            db.execute("UPDATE spaces SET embedder = ? WHERE number = ?", (embedder, number))
            db.execute(
                """DELETE FROM vectors WHERE embedder <> ? AND chunk IN
                   (SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document WHERE d.space = ?)""",
                (embedder, number),
            )
            db.execute(
                "UPDATE documents SET generation = (SELECT generation + 1 FROM spaces WHERE number = ?)"
                " WHERE space = ? AND status = 'ready'",
                (number, number),
            )
            _raise_generation(db, number)

    @staticmethod
    def _number(db: sqlite3.Connection, space_id: str) -> int:
        row = db.execute("SELECT number FROM spaces WHERE id = ?", (space_id,)).fetchone()
        if row is None:
            raise NotFound("knowledge.no_space")
        return int(row[0])

    @staticmethod
    def _refuse_taken(db: sqlite3.Connection, name: str, hidden: bool, space_id: str) -> None:
        taken = db.execute(
            "SELECT 1 FROM spaces WHERE folded = ? AND id <> ?", (_folded(name, hidden), space_id)
        ).fetchone()
        if taken:
            raise UserError("knowledge.name_taken", name=name)


def _folded(name: str, hidden: bool = False) -> str:
    """What makes a name unique; a hidden space never stands in the way of a user's."""
    return ("\x00" if hidden else "") + name.casefold()


def _raise_generation(db: sqlite3.Connection, number: int) -> None:
    db.execute(
        """UPDATE spaces SET generation = generation + 1,
           chunks = (SELECT coalesce(sum(chunks), 0) FROM documents WHERE space = spaces.number AND status = 'ready')
           WHERE number = ?""",
        (number,),
    )


def _unindex(db: sqlite3.Connection, documents: str, *values: object) -> None:
    """Take the words of the searchable documents that the query `documents` names out of the BM25 index."""
    db.execute(
        f"""INSERT INTO chunk_words(chunk_words, rowid, words, space)
            SELECT 'delete', c.id, c.words, c.space FROM chunk_search c JOIN documents d ON d.id = c.document
            WHERE d.status = 'ready' AND c.document IN ({documents})""",
        values,
    )


def _version(db: sqlite3.Connection, space_id: str) -> Version:
    row = db.execute("SELECT generation, chunks, embedder FROM spaces WHERE id = ?", (space_id,)).fetchone()
    if row is None:
        raise NotFound("knowledge.no_space")
    return Version(*row)
