"""Connections to one SQLite file, shared by threads."""

import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbgpt_lite.errors import NotFound

BUSY_TIMEOUT_MS = 30_000


class Connections:
    """A pool of connections to the SQLite file at `path`: many readers (WAL) and one writer, in any thread.

    Other processes may use the file too; a writer waits BUSY_TIMEOUT_MS for theirs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._writing = threading.Lock()
        self._mine = threading.local()
        self._closed = False

    def close(self) -> None:
        """Close the idle connections; a later call raises sqlite3.ProgrammingError."""
        self._closed = True
        while not self._pool.empty():
            self._pool.get_nowait().close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one read transaction: all its queries see one moment."""
        with self.connection() as db:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one write transaction, committed unless the block raises.

        Within another `writing` of the same thread it is a part of that one: it is undone alone when it raises, and
        is on disk when the outer one ends.
        """
        outer: sqlite3.Connection | None = getattr(self._mine, "db", None)
        if outer is not None:
            with _part(outer):
                yield outer
            return
        with self._writing, self.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            self._mine.db = db
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            finally:
                self._mine.db = None

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection outside any transaction."""
        if self._closed:
            raise sqlite3.ProgrammingError("the catalogue is closed")
        try:
            connection = self._pool.get_nowait()
        except queue.Empty:
            connection = self._connect()
        try:
            yield connection
        except UnicodeEncodeError:
            # SQLite holds UTF-8: an id with half of a surrogate pair in it, as JSON can carry, is nobody's.
            raise NotFound("knowledge.no_space") from None
        finally:
            if self._closed:
                connection.close()
            else:
                self._pool.put(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection


@contextmanager
def _part(db: sqlite3.Connection) -> Iterator[None]:
    """A savepoint. SQLite ends the whole transaction by itself when the disk is full; then none is left to undo."""
    db.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK TO part")
            db.execute("RELEASE part")
        raise
    db.execute("RELEASE part")
