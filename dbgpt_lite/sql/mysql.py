"""MySQL and MariaDB behind the session's fences: read-only transaction, the server's time limit, a client-side timer,
no local files, one statement at a time, KILL QUERY on cancel.

The session's fences are not a boundary by themselves (a session may lift its own limits); the guard keeps such
statements out, and an account with SELECT only is the boundary that holds without either.
"""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.cursors import SSCursor
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from dbgpt_lite.errors import Busy, Cancelled, DatabaseError, QueryFailed, QueryTimeout
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.cells import Limits, collect
from dbgpt_lite.sql.faults import is_lost, mysql_fault
from dbgpt_lite.sql.grants import granted_roles
from dbgpt_lite.sql.reflect import reflect
from dbgpt_lite.sql.schema import Schema

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.pool import PoolProxiedConnection

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
# Also how long a server may take to greet: the driver's connect_timeout ends with the TCP connection.
SCHEMA_READ_SECONDS = 10
# The server ends a query itself; the client waits this much longer before it does.
_GRACE_SECONDS = 1.0
_POLL_SECONDS = 0.05
# The text we send is written for these modes; ANSI_QUOTES or NO_BACKSLASH_ESCAPES would give it another meaning.
_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"


class _TooMuch(Exception):
    """More came from the server than a result may be."""


class _Meter:
    """Counts what a connection reads while one result is fetched: the driver reads a row of any size into memory."""

    def __init__(self, raw: Any, most: int) -> None:
        self._raw, self._most = raw, most
        self._read = raw._read_bytes
        self.used = 0

    def __enter__(self) -> "_Meter":
        self._raw._read_bytes = self._counted
        return self

    def __exit__(self, *_: object) -> None:
        del self._raw._read_bytes

    def _counted(self, size: int) -> bytes:
        self.used += size
        if self.used > self._most:
            raise _TooMuch
        return self._read(size)  # type: ignore[no-any-return]


class _Watch:
    """Ends a running query from a second connection when it is cancelled or overdue."""

    def __init__(self, backend: "MysqlBackend", thread_id: int, deadline: float, cancel: threading.Event) -> None:
        self._backend, self._thread_id, self._deadline, self._cancel = backend, thread_id, deadline, cancel
        self._done = threading.Event()
        self._lock = threading.Lock()
        self.killed = False
        self.enough = False
        self._thread = threading.Thread(target=self._run, name="sql-watch", daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Under the lock no kill can start after the query's end, when it would hit the connection's next user.
        with self._lock:
            self._done.set()

    def stop(self, enough: bool = False) -> None:
        """End the query now; `enough`: because more rows came than are wanted."""
        with self._lock:
            if not self._done.is_set() and not self.killed:
                self.killed, self.enough = True, enough
                self._backend.kill(self._thread_id)

    def _run(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            if self._cancel.is_set() or time.monotonic() > self._deadline:
                self.stop()
                return


class MysqlBackend:
    """One database of a MySQL or MariaDB server, through SQLAlchemy's pool over pymysql."""

    dialect = "mysql"

    def __init__(self, name: str, url: "URL", seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._engine = create_engine(
            url,
            pool_size=5,
            max_overflow=5,
            pool_timeout=10,
            pool_pre_ping=True,
            pool_recycle=1800,
            hide_parameters=True,
            # A server that hangs or a cut network: the socket gives up after both time limits passed.
            connect_args=_connect_args(math.ceil(seconds + 10)),
        )
        # Apart from the pool, so that reading a schema neither waits for queries nor has their long time limit.
        self._schema_engine = create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=_connect_args(SCHEMA_READ_SECONDS)
        )

    def schema(self) -> Schema:
        """Reflect the tables. Raises DatabaseError."""
        try:
            with self._schema_engine.connect() as connection:
                return reflect(connection)
        except DBAPIError as error:
            raise self._fault(error.orig or error) from None
        except (SQLAlchemyError, pymysql.Error, OSError) as error:
            raise self._fault(error) from None

    def query(self, sql: str, limits: Limits, cancel: threading.Event) -> ResultTable:
        """Run `sql` behind the session's fences; a connection that broke is replaced once.

        Raises Cancelled, QueryTimeout, QueryFailed, QueryRefused, Busy, DatabaseError.
        """
        started = time.monotonic()
        try:
            return self._query(sql, limits, cancel)
        except UnicodeDecodeError:
            raise QueryFailed("sql.bad_text") from None
        except (pymysql.Error, OSError) as error:
            if time.monotonic() - started > limits.seconds and is_lost(error):
                raise self._timeout(limits) from None
            if not is_lost(error):
                raise self._fault(error) from None
        log.info("connection %r was lost; connecting again", self._name)
        try:
            return self._query(sql, limits, cancel)
        except (pymysql.Error, OSError) as error:
            raise self._fault(error) from None

    def grants(self) -> tuple[str, ...]:
        """Lines of SHOW GRANTS for this account and for the roles it was granted, as far as it may see them."""
        try:
            # A connection of its own that is closed afterwards, for a role taken on stays with its connection.
            with self._checkout(self._schema_engine) as connection:
                cursor = connection.cursor()
                lines = _show_grants(cursor)
                for role in granted_roles(lines):
                    # An account may look into a role only while it has it on. The name is as the server quoted it.
                    with suppress(pymysql.OperationalError, pymysql.ProgrammingError):
                        cursor.execute(f"SET ROLE {role}")
                        # MySQL lists a role's rights as the account's, so say that it was looked into.
                        lines += [*_show_grants(cursor), f"GRANT USAGE ON *.* TO {role}"]
                return tuple(dict.fromkeys(lines))
        except (pymysql.Error, OSError) as error:
            raise self._fault(error) from None

    def kill(self, thread_id: int) -> None:
        """KILL QUERY from a connection of its own, so that it works when the pool is exhausted."""
        arguments = dict(self._engine.dialect.create_connect_args(self._engine.url)[1])
        arguments |= {"connect_timeout": CONNECT_SECONDS, "read_timeout": CONNECT_SECONDS, "local_infile": False}
        try:
            with pymysql.connect(**arguments) as connection, connection.cursor() as cursor:
                cursor.execute("KILL QUERY %s", (thread_id,))
        except (pymysql.Error, OSError) as error:
            log.warning("a query of connection %r could not be stopped: %s", self._name, type(error).__name__)

    def close(self) -> None:
        """Close the pool's connections."""
        self._engine.dispose()
        self._schema_engine.dispose()

    def _query(self, sql: str, limits: Limits, cancel: threading.Event) -> ResultTable:
        if cancel.is_set():
            raise Cancelled
        with self._checkout() as connection:
            raw: Any = connection.dbapi_connection
            self._fence(raw, limits.seconds)
            watch = _Watch(self, raw.thread_id(), time.monotonic() + limits.seconds + _GRACE_SECONDS, cancel)
            try:
                with watch:
                    table = self._fetch(raw, sql, limits, watch)
            except (pymysql.Error, OSError):
                if not watch.killed:
                    raise
            finally:
                self._finish(connection, watch)
            # A query that was stopped may end without an error, e.g. inside SLEEP.
            if watch.killed and cancel.is_set():
                raise Cancelled
            if watch.killed and not watch.enough:
                raise self._timeout(limits)
            return table

    def _fetch(self, raw: Any, sql: str, limits: Limits, watch: _Watch) -> ResultTable:
        started = time.monotonic()
        cursor = raw.cursor(SSCursor)
        with _Meter(raw, limits.bytes_read):
            try:
                cursor.execute(sql)
                names = [column[0] for column in cursor.description or ()]
                table = collect(names, cursor, limits, started)
                if table.truncated and cursor.fetchone() is not None:
                    watch.stop(enough=True)
                return table
            except _TooMuch:
                watch.stop(enough=True)
                raise QueryFailed("sql.db_too_big") from None
            finally:
                if watch.killed and raw._result is not None:
                    # The driver would read what is left, of any size; a killed connection is given up instead.
                    raw._result.unbuffered_active = False
                with suppress(pymysql.Error, OSError, _TooMuch):
                    cursor.close()

    @staticmethod
    def _finish(connection: "PoolProxiedConnection", watch: _Watch) -> None:
        """End the transaction; a connection whose query was killed is not used again."""
        if watch.killed:
            connection.invalidate()
            return
        with suppress(pymysql.Error, OSError):
            connection.rollback()

    def _fence(self, raw: Any, seconds: float) -> None:
        """Set every limit of the session anew, whatever the last user of the connection left."""
        mariadb = "MariaDB" in raw.get_server_info()
        limit = (
            f"max_statement_time = {seconds:.3f}" if mariadb else f"max_execution_time = {math.ceil(seconds * 1000)}"
        )
        with raw.cursor() as cursor:
            cursor.execute(f"SET SESSION sql_mode = '{_SQL_MODE}', lock_wait_timeout = {math.ceil(seconds)}, {limit}")
            cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.execute("START TRANSACTION READ ONLY")

    @contextmanager
    def _checkout(self, engine: "Engine | None" = None) -> Iterator["PoolProxiedConnection"]:
        try:
            connection = (engine or self._engine).raw_connection()
        except PoolTimeout:
            raise Busy("sql.busy", name=self._name) from None
        except DBAPIError as error:
            raise self._fault(error.orig or error) from None
        try:
            yield connection
        finally:
            connection.close()

    @staticmethod
    def _timeout(limits: Limits) -> QueryTimeout:
        return QueryTimeout("sql.timeout", seconds=f"{limits.seconds:g}")

    def _fault(self, error: BaseException) -> DatabaseError:
        return mysql_fault(error, self._name, self._seconds)


def _show_grants(cursor: Any) -> list[str]:
    cursor.execute("SHOW GRANTS")
    return [str(row[0]) for row in cursor.fetchall()]


def _connect_args(read_timeout: float) -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": read_timeout,
        "write_timeout": 10,
        "local_infile": False,
        "charset": "utf8mb4",
    }
