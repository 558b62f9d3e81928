"""The spaces of a catalogue."""

import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge.catalog_rows import space_of
from dbgpt_lite.knowledge.connections import Connections
from dbgpt_lite.knowledge.records import Space

_COLUMNS = """s.id, s.name, s.readonly, s.hidden, s.chunks, s.temporary, s.owner,
    (SELECT count(*) FROM documents d WHERE d.space = s.number AND d.status = 'ready'),
    (SELECT count(*) FROM documents d WHERE d.space = s.number AND d.status = 'pending')"""


@dataclass(frozen=True, slots=True)
class Version:
    """State of a space: every publication and deletion raises the generation; chunks counts the visible ones."""

    generation: int
    chunks: int
    embedder: str


class SpaceTable(Connections):
    """Spaces: shared ones, hidden ones and the temporary ones of an owner."""

    def spaces(self, hidden: bool = False, owner: str = "") -> list[Space]:
        """Spaces by name: the shared ones, the temporary ones of `owner`, and hidden ones only when asked for."""
        return self._spaces("s.hidden <= ? AND (NOT s.temporary OR s.owner = ?)", hidden, owner)

    def all_spaces(self) -> list[Space]:
        """Every space there is, by name."""
        return self._spaces("1")

    def interrupted(self) -> list[str]:
        """Ids of the spaces with a document that a crash left pending, not its owner's wish."""
        with self.reading() as db:
            rows = db.execute(
                """SELECT id FROM spaces s WHERE EXISTS (SELECT 1 FROM documents d
                   WHERE d.space = s.number AND d.status = 'pending' AND NOT d.stopped) ORDER BY name"""
            )
            return [row[0] for row in rows]

    def abandoned(self, before: float, in_use: Iterable[str]) -> list[str]:
        """Ids of the temporary spaces made before that time (seconds since 1970) that are not in use."""
        with self.reading() as db:
            rows = db.execute("SELECT id FROM spaces WHERE temporary AND added < ?", (before,)).fetchall()
        return [row[0] for row in rows if row[0] not in set(in_use)]

    def space(self, space_id: str) -> Space:
        """One space. Raises NotFound."""
        found = self._spaces("s.id = ?", space_id)
        if not found:
            raise NotFound("knowledge.no_space")
        return found[0]

    def space_named(self, name: str, hidden: bool = False) -> Space | None:
        """The space of that name, upper and lower case alike."""
        found = self._spaces("s.folded = ?", _folded(name, hidden))
        return found[0] if found else None

    def add_space(self, name: str, readonly: bool = False, hidden: bool = False) -> str:
        """Make a space and return its id. Raises UserError when the name is taken."""
        space_id = secrets.token_hex(8)
        with self.writing() as db:
            _refuse_taken(db, name, hidden, "")
            db.execute(
                "INSERT INTO spaces(id, name, folded, readonly, hidden, added) VALUES (?, ?, ?, ?, ?, ?)",
                (space_id, name, _folded(name, hidden), readonly, hidden, time.time()),
            )
        return space_id

    def add_temporary_space(self, name: str, owner: str) -> str:
        """Make a space that only `owner` sees, under any name, and return its id."""
        # The name is no secret: whoever holds this id may read the space through a conversation.
        space_id = secrets.token_hex(16)
        with self.writing() as db:
            db.execute(
                "INSERT INTO spaces(id, name, folded, temporary, owner, added) VALUES (?, ?, ?, 1, ?, ?)",
                (space_id, name, f"\x01{space_id}", owner, time.time()),
            )
        return space_id

    def rename_space(self, space_id: str, name: str) -> None:
        """Give a space another name. Raises NotFound, UserError when the name is taken.

        A temporary one stays temporary: its name need not be unique.
        """
        with self.writing() as db:
            temporary = db.execute("SELECT temporary FROM spaces WHERE id = ?", (space_id,)).fetchone()
            if temporary and temporary[0]:
                db.execute("UPDATE spaces SET name = ? WHERE id = ?", (name, space_id))
                return
            number_of(db, space_id)
            _refuse_taken(db, name, False, space_id)
            db.execute("UPDATE spaces SET name = ?, folded = ? WHERE id = ?", (name, _folded(name), space_id))

    def keep_space(self, space_id: str, name: str) -> None:
        """Make a temporary space a shared one. Raises NotFound, UserError when the name is taken."""
        with self.writing() as db:
            number_of(db, space_id)
            _refuse_taken(db, name, False, space_id)
            db.execute(
                "UPDATE spaces SET temporary = 0, owner = '', name = ?, folded = ? WHERE id = ?",
                (name, _folded(name), space_id),
            )

    def delete_space(self, space_id: str) -> None:
        """Remove a space with all it holds."""
        with self.writing() as db:
            number = number_of(db, space_id)
            unindex(db, "SELECT id FROM documents WHERE space = ?", number)
            db.execute("DELETE FROM spaces WHERE number = ?", (number,))

    def version(self, space_id: str) -> Version:
        """Generation, visible chunks and embedder of a space. Raises NotFound."""
        with self.reading() as db:
            return version_of(db, space_id)

    def _spaces(self, where: str, *values: object) -> list[Space]:
        with self.reading() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM spaces s WHERE {where} ORDER BY s.readonly DESC, s.name", values)
            return [space_of(row) for row in rows]


def number_of(db: sqlite3.Connection, space_id: str) -> int:
    """The number under which other tables know a space. Raises NotFound."""
    row = db.execute("SELECT number FROM spaces WHERE id = ?", (space_id,)).fetchone()
    if row is None:
        raise NotFound("knowledge.no_space")
    return int(row[0])


def version_of(db: sqlite3.Connection, space_id: str) -> Version:
    """The version of a space as the transaction sees it. Raises NotFound."""
    row = db.execute("SELECT generation, chunks, embedder FROM spaces WHERE id = ?", (space_id,)).fetchone()
    if row is None:
        raise NotFound("knowledge.no_space")
    return Version(*row)


def raise_generation(db: sqlite3.Connection, number: int) -> None:
    """Note that what can be searched in a space has changed."""
    db.execute(
        """UPDATE spaces SET generation = generation + 1,
           chunks = (SELECT coalesce(sum(chunks), 0) FROM documents WHERE space = spaces.number AND status = 'ready')
           WHERE number = ?""",
        (number,),
    )


def unindex(db: sqlite3.Connection, documents: str, *values: object) -> None:
    """Take the words of the searchable documents that the query `documents` names out of the BM25 index."""
    db.execute(
        f"""INSERT INTO chunk_words(chunk_words, rowid, words, space)
            SELECT 'delete', c.id, c.words, c.space FROM chunk_search c JOIN documents d ON d.id = c.document
            WHERE d.status = 'ready' AND c.document IN ({documents})""",
        values,
    )


def _refuse_taken(db: sqlite3.Connection, name: str, hidden: bool, space_id: str) -> None:
    taken = db.execute(
        "SELECT 1 FROM spaces WHERE folded = ? AND id <> ?", (_folded(name, hidden), space_id)
    ).fetchone()
    if taken:
        raise UserError("knowledge.name_taken", name=name)


def _folded(name: str, hidden: bool = False) -> str:
    """What makes a name unique; a hidden space never stands in the way of a user's."""
    return ("\x00" if hidden else "") + name.casefold()
