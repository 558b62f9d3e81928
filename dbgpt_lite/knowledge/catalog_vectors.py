"""The vectors of a catalogue: what an index is made from, and the change to another embedder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dbgpt_lite.knowledge.catalog_rows import Ids, VectorRows, joined, vector_blocks
from dbgpt_lite.knowledge.catalog_spaces import Version, number_of, raise_generation, version_of
from dbgpt_lite.knowledge.connections import Connections
from dbgpt_lite.knowledge.embeddings import Vectors

# How many values one query may name; SQLite allows 32,766.
MOST_MARKS = 5000


class VectorTable(Connections):
    """Vectors by chunk and embedder; those of a space's own embedder are the ones in use."""

    @contextmanager
    def vectors_since(self, space_id: str, generation: int) -> Iterator[tuple[Version, Iterator[VectorRows]]]:
        """The space's version and the vectors of what was published after `generation`, of one moment, in blocks."""
        with self.reading() as db:
            version = version_of(db, space_id)
            cursor = db.execute(
                """SELECT v.chunk, v.vector FROM documents d JOIN spaces s ON s.number = d.space
                   JOIN chunks c ON c.document = d.id JOIN vectors v ON v.chunk = c.id AND v.embedder = s.embedder
                   WHERE s.id = ? AND d.status = 'ready' AND d.generation > ?""",
                (space_id, generation),
            )
            yield version, vector_blocks(cursor)

    def vectors_of(self, space_id: str, ids: Sequence[int], embedder: str) -> VectorRows:
        """The vectors by `embedder` of those chunks of a space among `ids` that are visible, in no order."""
        blocks: list[VectorRows] = []
        with self.reading() as db:
            for first in range(0, len(ids), MOST_MARKS):
                part = [int(id_) for id_ in ids[first : first + MOST_MARKS]]
                cursor = db.execute(
                    f"""SELECT v.chunk, v.vector FROM chunks c JOIN documents d ON d.id = c.document
                        JOIN spaces s ON s.number = d.space JOIN vectors v ON v.chunk = c.id AND v.embedder = ?
                        WHERE s.id = ? AND d.status = 'ready' AND c.id IN ({",".join("?" * len(part))})""",
                    (embedder, space_id, *part),
                )
                blocks.extend(vector_blocks(cursor))
        return joined(blocks)

    def visible_ids(self, space_id: str, generation: int) -> Ids:
        """Ids of the chunks published up to `generation` and still there, ascending."""
        with self.reading() as db:
            rows = db.execute(
                """SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document JOIN spaces s ON s.number = d.space
                   WHERE s.id = ? AND d.status = 'ready' AND d.generation <= ? ORDER BY c.id""",
                (space_id, generation),
            )
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

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
            number = number_of(db, space_id)
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
            raise_generation(db, number)

    def know_embedder(self, identity: str, folder: str) -> None:
        """Remember where the model of an embedder lies."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO embedders(identity, folder) VALUES (?, ?)", (identity, folder))

    def embedder_folder(self, identity: str) -> str | None:
        """Where the model of an embedder lay when it was last used, "" for the embedded one; None: nobody knows."""
        with self.reading() as db:
            row = db.execute("SELECT folder FROM embedders WHERE identity = ?", (identity,)).fetchone()
        return str(row[0]) if row else None

    def uses_embedder(self, identity: str) -> bool:
        """Whether a space is made with that embedder."""
        with self.reading() as db:
            return db.execute("SELECT 1 FROM spaces WHERE embedder = ? LIMIT 1", (identity,)).fetchone() is not None
