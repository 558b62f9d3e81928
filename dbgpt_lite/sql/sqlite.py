"""SQLite behind its own fences: opened read-only, an authorizer that allows reading only, a time limit, size limits."""

import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dbgpt_lite.errors import Cancelled, DatabaseError, QueryFailed, QueryTimeout
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.allowed import is_system_table
from dbgpt_lite.sql.cells import Limits, collect
from dbgpt_lite.sql.faults import sqlite_fault
from dbgpt_lite.sql.reflect import reflect
from dbgpt_lite.sql.rules import Rules
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.sqlite_functions import TextFunctions, builds_texts

# Virtual-machine steps between two looks at the clock: about a millisecond.
_STEPS = 20_000
# The same where one step may handle a megabyte.
_STEPS_WITH_TEXTS = 200
_MOST_SCHEMA_TEXT = 2**30
_FILES = ("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "eval")
# They build a value of any size, or compare all with all, within one step, where no clock is looked at.
_GROWING = ("randomblob", "zeroblob", "printf", "format", "json_patch")
_EVERYTHING = Rules()
_DENIED_FUNCTIONS = frozenset((*_FILES, *_GROWING))


def allow_reading(
    action: int,
    first: str | None,
    second: str | None,
    _database: str | None,
    _by: str | None,
    rules: Rules = _EVERYTHING,
) -> int:
    """SQLite authorizer, https://sqlite.org/c3ref/set_authorizer.html: reading and harmless functions.

    What the rules hide is not read, be it by way of a view. Of the columns that USING and NATURAL compare SQLite does
    not ask here: those only the guard keeps hidden.
    """
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_READ:
        return sqlite3.SQLITE_OK if _may_read(rules, first or "", second or "") else sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in _DENIED_FUNCTIONS else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _may_read(rules: Rules, table: str, column: str) -> bool:
    """`column` is "" when rows are only counted."""
    if is_system_table(table) or not rules.allows_table(table):
        return False
    return not column or rules.allows(table, column)


class _Text:
    """Text of one result, up to `most` bytes; the driver reads a row of any number of values into memory."""

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, raw: bytes) -> str:
        """SQLite stores text unchecked; bytes that are no UTF-8 must not make a table unreadable."""
        self._left -= len(raw)
        if self._left < 0:
            raise QueryFailed("sql.db_too_big")
        return raw.decode("utf-8", "replace")


class SqliteBackend:
    """One SQLite file. Each query has a connection of its own, so none sees another's settings or lock."""

    dialect = "sqlite"

    def __init__(self, name: str, path: Path, rules: Rules | None = None) -> None:
        self._name = name
        self._path = path
        self._authorize = partial(allow_reading, rules=rules or _EVERYTHING)

    def schema(self) -> Schema:
        """Reflect the tables. Raises DatabaseError."""
        engine = create_engine("sqlite://", creator=self._open, poolclass=NullPool)
        try:
            with engine.connect() as connection:
                return reflect(connection)
        except DBAPIError as error:
            raise sqlite_fault(error.orig or error, self._name) from None
        finally:
            engine.dispose()

    def query(self, sql: str, limits: Limits, cancel: threading.Event) -> ResultTable:
        """Run `sql` behind the fences of this file. Raises Cancelled, QueryTimeout, QueryFailed, DatabaseError."""
        if cancel.is_set():
            raise Cancelled
        started = time.monotonic()
        must_stop = partial(self._must_stop, started, limits, cancel)
        builds = builds_texts(sql)
        with closing(self._open()) as connection, closing(TextFunctions(must_stop)) as functions:
            if builds:
                functions.install(connection)
            connection.text_factory = _Text(limits.bytes_read)
            connection.set_authorizer(self._authorize)
            connection.set_progress_handler(must_stop, _STEPS_WITH_TEXTS if builds else _STEPS)
            try:
                cursor = connection.execute(sql)
                names = [column[0] for column in cursor.description or ()]
                table = collect(names, cursor, limits, started)
            except sqlite3.Error as error:
                self._raise_if_over(started, limits, cancel)
                raise functions.problem or sqlite_fault(error, self._name) from None
            self._raise_if_over(started, limits, cancel)
            return table

    def grants(self) -> tuple[str, ...]:
        """SQLite has no accounts."""
        return ()

    def close(self) -> None:
        """Nothing is held open."""

    @staticmethod
    def _must_stop(started: float, limits: Limits, cancel: threading.Event) -> bool:
        return cancel.is_set() or time.monotonic() - started >= limits.seconds

    @staticmethod
    def _raise_if_over(started: float, limits: Limits, cancel: threading.Event) -> None:
        """Also of a statement that came to its end: between two looks at the clock much can happen."""
        if cancel.is_set():
            raise Cancelled
        if time.monotonic() - started >= limits.seconds:
            raise QueryTimeout("sql.timeout", seconds=f"{limits.seconds:g}")

    def _open(self) -> sqlite3.Connection:
        if not self._path.is_file():
            raise DatabaseError("sql.no_file", name=self._name)
        address = f"file:{quote(str(self._path))}?mode=ro"
        try:
            connection = sqlite3.connect(address, uri=True, check_same_thread=False, timeout=5)
        except sqlite3.Error as error:
            raise sqlite_fault(error, self._name) from None
        connection.text_factory = _Text(_MOST_SCHEMA_TEXT)
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 16 * 2**20)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500)
        return connection
