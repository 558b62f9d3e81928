"""The documents of a catalogue: entered, restarted, failed, removed."""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge.catalog_names import NEXT, NameTable, give_name, remove_documents
from dbgpt_lite.knowledge.catalog_rows import document_of, error_json
from dbgpt_lite.knowledge.catalog_spaces import number_of
from dbgpt_lite.knowledge.records import Document

_COLUMNS = "d.id, d.name, d.size, d.pages, d.chunks, d.status, d.error, d.encoding, d.added, d.source"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file whose bytes are kept, on its way into a space. encoding is the one its owner chose, "" for none.

    kind is "" for a file; what a program puts in under names of its own has another one.
    """

    document_id: str
    name: str
    sha256: str
    size: int
    encoding: str = ""
    source: str = ""
    kind: str = ""

    @property
    def content(self) -> str:
        """Its bytes, as those of its kind."""
        return f"{self.kind}:{self.sha256}" if self.kind else self.sha256

    @property
    def key(self) -> str:
        """What makes it one and the same document: its bytes, read in the chosen way."""
        return f"{self.content}:{self.encoding}" if self.encoding else self.content


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of an arrival.

    new: it is the pending document `document_id`. ready: the space has it already, searchable under that id. Else an
    earlier attempt at it, failed or interrupted, is pending again under that id.
    """

    document_id: str
    new: bool = False
    ready: bool = False


class DocumentTable(NameTable):
    """Documents by space."""

    def documents(self, space_id: str) -> list[Document]:
        """Documents of a space, newest first. Raises NotFound."""
        with self.reading() as db:
            number = number_of(db, space_id)
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM documents d WHERE d.space = ? ORDER BY d.added DESC, d.name", (number,)
            )
            return [document_of(row) for row in rows]

    def document(self, space_id: str, document_id: str) -> Document:
        """One document of that space. Raises NotFound."""
        with self.reading() as db:
            row = db.execute(
                f"""SELECT {_COLUMNS} FROM documents d JOIN spaces s ON s.number = d.space
                    WHERE s.id = ? AND d.id = ?""",
                (space_id, document_id),
            ).fetchone()
        if row is None:
            raise NotFound("knowledge.no_document")
        return document_of(row)

    def chosen_encoding(self, document_id: str) -> str:
        """The encoding that the owner of a document chose for it, "" for none."""
        with self.reading() as db:
            row = db.execute("SELECT chosen FROM documents WHERE id = ?", (document_id,)).fetchone()
        return str(row[0]) if row else ""

    def document_ids(self, space_id: str) -> set[str]:
        """Ids of all documents of a space. Raises NotFound."""
        with self.reading() as db:
            rows = db.execute("SELECT id FROM documents WHERE space = ?", (number_of(db, space_id),))
            return {row[0] for row in rows}

    def enter(self, space_id: str, arrival: Arrival) -> Entered:
        """Enter a file as a pending document, unless the space has it: see Entered. Raises NotFound.

        Either way its name stands for it from now on. Others of the name stay until it is published; if it is
        searchable already, until the upload is settled.
        """
        with self.writing() as db:
            number = number_of(db, space_id)
            known = _same(db, number, arrival)
            if known is None:
                _insert(db, number, arrival)
                give_name(db, number, arrival.document_id, arrival.name, arrival.source)
                return Entered(arrival.document_id, new=True)
            document_id, ready = known
            if not ready:
                _begin_again(db, document_id, arrival)
            give_name(db, number, document_id, arrival.name, arrival.source)
            return Entered(document_id, ready=ready)

    def stop_documents(self, space_id: str, stopped: bool, ids: Iterable[str] | None = None) -> None:
        """Note whether pending documents of a space (all or `ids`) are unfinished by their owner's wish."""
        with self.writing() as db:
            number = number_of(db, space_id)
            rows = db.execute("SELECT id FROM documents WHERE space = ? AND status = 'pending'", (number,)).fetchall()
            chosen = [row[0] for row in rows] if ids is None else list(ids)
            db.executemany(
                "UPDATE documents SET stopped = ? WHERE space = ? AND status = 'pending' AND id = ?",
                [(stopped, number, id_) for id_ in chosen],
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
            if not remove_documents(db, number_of(db, space_id), "id = ?", document_id):
                raise NotFound("knowledge.no_document")

    def delete_documents(self, space_id: str) -> tuple[str, ...]:
        """Remove all documents of a space in one transaction; returns their ids. Raises NotFound."""
        with self.writing() as db:
            return remove_documents(db, number_of(db, space_id), "1")


def _insert(db: sqlite3.Connection, number: int, arrival: Arrival) -> None:
    db.execute(
        f"""INSERT INTO documents(id, space, name, sha256, size, added, source, chosen, kind, sequence)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {NEXT})""",
        (
            arrival.document_id,
            number,
            arrival.name,
            arrival.key,
            arrival.size,
            time.time(),
            arrival.source,
            arrival.encoding,
            arrival.kind,
        ),
    )


def _begin_again(db: sqlite3.Connection, document_id: str, arrival: Arrival) -> None:
    """Make an earlier attempt pending again; one that failed is read in the way that is chosen now."""
    db.execute(
        "UPDATE documents SET chosen = ?, sha256 = ? WHERE id = ? AND status = 'failed'",
        (arrival.encoding, arrival.key, document_id),
    )
    db.execute("UPDATE documents SET status = 'pending', error = '', stopped = 0 WHERE id = ?", (document_id,))


def _same(db: sqlite3.Connection, number: int, arrival: Arrival) -> tuple[str, bool] | None:
    """Id of the document that has the same bytes, and whether it is searchable.

    Whoever chooses no encoding takes the document as it was read; whoever chooses one wants it read in that one.
    """
    row = db.execute(
        """SELECT id, status = 'ready' FROM documents WHERE space = ? AND (sha256 = ?
           OR (? = '' AND sha256 LIKE ? || ':%') OR (sha256 = ? AND status = 'ready' AND encoding = ?))
           ORDER BY status = 'ready' DESC, sha256 = ? DESC, sequence DESC LIMIT 1""",
        (number, arrival.key, arrival.encoding, arrival.content, arrival.content, arrival.encoding, arrival.key),
    ).fetchone()
    return (str(row[0]), bool(row[1])) if row else None
