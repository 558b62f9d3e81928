"""The chunks of a catalogue: staged unseen, published whole, read as passages."""

from collections.abc import Iterable, Sequence

import numpy as np

from dbgpt_lite.errors import NotFound
from dbgpt_lite.knowledge.catalog_documents import DocumentTable
from dbgpt_lite.knowledge.catalog_names import settle
from dbgpt_lite.knowledge.catalog_spaces import number_of, raise_generation
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.records import Chunk
from dbgpt_lite.messages import Passage

_COLUMNS = "c.id, c.text, d.id, d.name, c.page, c.heading, c.start, c.end"


class ChunkTable(DocumentTable):
    """Chunks by document. Their ids follow no order; `start` does."""

    def staged(self, document_id: str, embedder: str) -> list[tuple[int, int]]:
        """Offsets of a pending document's chunks that were stored with `embedder` before it was interrupted."""
        with self.reading() as db:
            return db.execute(
                """SELECT c.start, c.end FROM chunks c JOIN vectors v ON v.chunk = c.id AND v.embedder = ?
                   WHERE c.document = ? ORDER BY c.start, c.id""",
                (embedder, document_id),
            ).fetchall()

    def staged_count(self, document_id: str) -> int:
        """How many chunks of a pending document were stored, with whatever embedder."""
        with self.reading() as db:
            row = db.execute("SELECT count(*) FROM chunks WHERE document = ?", (document_id,)).fetchone()
        return int(row[0])

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

    def publish(self, space_id: str, document_id: str, pages: int, encoding: str, embedder: str) -> tuple[str, ...]:
        """Make a pending document searchable, all of it at once, and remove those it replaces with it.

        Returns the ids of those removed, whose bytes may go now; a document whose names all stand for later ones is
        among them itself. Raises NotFound when the document is gone.
        """
        with self.writing() as db:
            number = number_of(db, space_id)
            db.execute("UPDATE spaces SET embedder = ? WHERE number = ? AND embedder = ''", (embedder, number))
            published = db.execute(
                """UPDATE documents SET status = 'ready', error = '', pages = ?, encoding = ?, stopped = 0,
                   chunks = (SELECT count(*) FROM chunks WHERE document = documents.id) WHERE id = ?
                   RETURNING id""",
                (pages, encoding, document_id),
            ).fetchone()
            if published is None:
                raise NotFound("knowledge.no_document")
            db.execute(
                """INSERT INTO chunk_words(rowid, words, space)
                   SELECT id, words, space FROM chunk_search WHERE document = ?""",
                (document_id,),
            )
            removed = settle(db, number, document_id)
            raise_generation(db, number)
            db.execute(
                "UPDATE documents SET generation = (SELECT generation FROM spaces WHERE number = ?) WHERE id = ?",
                (number, document_id),
            )
            return tuple(one.document_id for one in removed)

    def chunks(self, space_id: str, document_id: str) -> list[Passage]:
        """The chunks of a searchable document in reading order. Raises NotFound."""
        self.document(space_id, document_id)
        with self.reading() as db:
            rows = db.execute(
                f"""SELECT {_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document
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
                f"""SELECT {_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document
                    JOIN spaces s ON s.number = d.space
                    WHERE s.id = ? AND d.status = 'ready' AND c.id IN ({marks})""",
                (space_id, *wanted),
            )
            return {row[0]: Passage(*row) for row in rows}
