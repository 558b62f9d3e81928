"""The names under which a space holds its documents.

A document is its bytes, so several names may stand for one. What was last uploaded under a name counts: once that can
be searched, older documents lose the name, and a document without a name left goes. An address is held the same way: a
page fetched again under another title takes the place of the old one. Names of one kind never touch those of another.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from dbgpt_lite.knowledge.catalog_spaces import number_of, raise_generation, unindex
from dbgpt_lite.knowledge.connections import Connections

NEXT = "(SELECT coalesce(max(sequence), 0) + 1 FROM documents)"
_OLDER = """SELECT older.document, older.name FROM names newer
    JOIN documents d ON d.id = newer.document AND d.status = 'ready'
    JOIN names older ON older.space = newer.space AND older.{same} = newer.{same} AND older.{same} <> ''
    AND older.sequence < newer.sequence JOIN documents o ON o.id = older.document AND o.kind = d.kind
    WHERE newer.{same} <> '' AND {where}"""


@dataclass(frozen=True, slots=True)
class Removed:
    """A document that is gone because its last name stands for other bytes now."""

    document_id: str
    name: str


class NameTable(Connections):
    """Names by space."""

    def settle(self, space_id: str) -> tuple[Removed, ...]:
        """Take names from the documents that have been replaced under them; returns those that went with their last.

        Entering a known file leaves this for the end of its upload, so that files that swap their names are not
        removed and embedded again. Raises NotFound.
        """
        with self.writing() as db:
            return settle(db, number_of(db, space_id))

    def unsettled(self) -> list[str]:
        """Ids of the spaces in which a killed process has left a replaced document."""
        with self.reading() as db:
            older = _superseded("1")
            found = db.execute(
                f"SELECT DISTINCT s.id FROM ({older}) r JOIN documents d ON d.id = r.document"
                " JOIN spaces s ON s.number = d.space"
            )
            return [row[0] for row in found]

    def held(self, space_id: str) -> dict[str, str]:
        """Name -> hash of the searchable document that it stands for, "" when there is none. Raises NotFound."""
        with self.reading() as db:
            rows = db.execute(
                """SELECT n.name, iif(d.status = 'ready', d.sha256, '') FROM names n JOIN documents d
                   ON d.id = n.document WHERE n.space = ? ORDER BY d.status = 'ready', n.sequence""",
                (number_of(db, space_id),),
            )
            return dict(rows.fetchall())

    def drop_names(self, space_id: str, names: Iterable[str]) -> tuple[Removed, ...]:
        """Forget names, and the documents that only they stood for; returns those. Raises NotFound."""
        with self.writing() as db:
            number = number_of(db, space_id)
            rows = [
                row
                for name in names
                for row in db.execute("SELECT document, name FROM names WHERE space = ? AND name = ?", (number, name))
            ]
            return _let_go(db, number, rows)


def give_name(db: sqlite3.Connection, number: int, document_id: str, name: str, source: str) -> None:
    """Let a name stand for a document from now on; it is also the one that is shown."""
    db.execute(
        f"""INSERT INTO names(document, space, name, source, sequence) VALUES (?, ?, ?, ?, {NEXT})
            ON CONFLICT (document, name) DO UPDATE SET source = excluded.source, sequence = excluded.sequence""",
        (document_id, number, name, source),
    )
    db.execute(
        f"UPDATE documents SET name = ?, source = ?, sequence = {NEXT} WHERE id = ?", (name, source, document_id)
    )


def settle(db: sqlite3.Connection, number: int, document_id: str = "") -> tuple[Removed, ...]:
    """Take replaced names away, in the whole space or as far as one document has to do with them: see NameTable."""
    if not document_id:
        return _let_go(db, number, db.execute(_superseded("newer.space = :id"), {"id": number}).fetchall())
    rows: set[tuple[str, str]] = set()
    for side in ("newer", "older"):
        rows.update(db.execute(_superseded(f"{side}.document = :id"), {"id": document_id}).fetchall())
    return _let_go(db, number, sorted(rows))


def remove_documents(db: sqlite3.Connection, number: int, where: str, *values: object) -> tuple[str, ...]:
    """Remove the documents of space `number` that the condition names; returns their ids."""
    chosen = f"SELECT id FROM documents WHERE space = ? AND {where}"
    found = tuple(row[0] for row in db.execute(chosen, (number, *values)))
    if found:
        unindex(db, chosen, number, *values)
        db.execute(f"DELETE FROM documents WHERE id IN ({chosen})", (number, *values))
        raise_generation(db, number)
    return found


def _superseded(where: str) -> str:
    """The query for the names that newer searchable documents have taken over, as (document, name)."""
    return " UNION ".join(_OLDER.format(same=same, where=where) for same in ("name", "source"))


def _let_go(db: sqlite3.Connection, number: int, rows: Iterable[tuple[str, str]]) -> tuple[Removed, ...]:
    """Take names from documents: each is shown under the last one left to it, or goes."""
    last = dict(rows)
    db.executemany("DELETE FROM names WHERE document = ? AND name = ?", rows)
    removed: list[Removed] = []
    for document_id, name in last.items():
        left = db.execute(
            "SELECT name, source FROM names WHERE document = ? ORDER BY sequence DESC LIMIT 1", (document_id,)
        ).fetchone()
        if left:
            db.execute("UPDATE documents SET name = ?, source = ? WHERE id = ?", (*left, document_id))
        elif remove_documents(db, number, "id = ?", document_id):
            removed.append(Removed(document_id, name))
    return tuple(removed)
