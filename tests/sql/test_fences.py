"""Each fence around a database alone with the others off, against the whole refused corpus, and all of them together.

Data is compared by checksum before and after. What a fence is not meant to hold is said where it is left out.
"""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from dbgpt_lite.errors import DatabaseError, QueryRefused
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql import guard, mysql
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.rules import parse_rules
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.sqlite import SqliteBackend, allow_reading
from tests.sql.corpus import refused

SHORT = Limits(rows=10, seconds=0.2)
# A read-only session protects data. These act on the server, on other sessions or on files: an account with SELECT
# alone is what holds them.
_NOT_ABOUT_DATA = re.compile(
    r"SHUTDOWN|KILL|FLUSH|LOCK TABLES|LOCK INSTANCE|UNLOCK|BACKUP|GLOBAL |PERSIST|RESET|PURGE|SLAVE|MASTER_HOST|INSTALL"
    r"|CLONE|OUTFILE|DUMPFILE|BINLOG|CACHE|XA |PASSWORD =",
    re.IGNORECASE,
)


class Recorder:
    """A backend that runs nothing and keeps what it was asked."""

    def __init__(self, schema: Schema, dialect: str) -> None:
        self.dialect = dialect
        self.asked: list[str] = []
        self._schema = schema

    def schema(self) -> Schema:
        return self._schema

    def query(self, sql: str, _limits: Limits, _cancel: threading.Event) -> ResultTable:
        self.asked.append(sql)
        return ResultTable(("n",), ((1,),), False, 0.0)

    def grants(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass


def _queries(dialect: str) -> list[str]:
    return [sql for own, sql in refused() if own == dialect]


@pytest.fixture
def no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard lets every text through as it is."""
    monkeypatch.setattr(guard, "check", lambda sql, *_: sql)


# --- the guard


@pytest.mark.parametrize("dialect", ["sqlite", "mysql"])
@pytest.mark.parametrize("way", ["run", "explain", "check"])
def test_nothing_refused_reaches_the_driver(shop_schema, shop_path, monkeypatch, dialect, way):
    recorder = Recorder(shop_schema, dialect)
    monkeypatch.setattr(Database, "_make_backend", lambda _: recorder)
    database = Database("x", f"sqlite:///{shop_path}")
    for sql in _queries(dialect):
        with pytest.raises(QueryRefused):
            getattr(database, way)(sql)
    assert recorder.asked == []
    database.run("SELECT count(*) FROM customers")
    assert recorder.asked == ["SELECT COUNT(*) FROM customers LIMIT 1001"]


def test_names_alone_are_a_fence(shop_schema, monkeypatch):
    """With every kind of node allowed, a table or column that is not in the schema is still refused."""
    monkeypatch.setattr(guard, "_check_node", lambda *_: None)
    for sql in (
        "SELECT * FROM mysql.user",
        "SELECT user FROM information_schema.tables",
        "SELECT * FROM customers, sqlite_master",
        "SELECT password FROM customers",
        "SELECT name FROM secrets",
        "WITH x AS (SELECT * FROM secrets) SELECT * FROM x",
        "SELECT name FROM customers WHERE EXISTS (SELECT 1 FROM secrets)",
        "SELECT name FROM customers WHERE id IN (SELECT id FROM secrets)",
        "SELECT name FROM customers ORDER BY (SELECT max(id) FROM secrets)",
        "WITH user AS (SELECT 1 AS id) SELECT * FROM mysql.user",
    ):
        with pytest.raises(QueryRefused):
            guard.check(sql, shop_schema, "mysql", 10)


# --- MariaDB


@pytest.fixture
def unchanged(maria_shop) -> Iterator[None]:
    """Tables, their rows and definitions, accounts, routines and triggers are as before."""
    before = _state(maria_shop)
    yield
    assert _state(maria_shop) == before


def _state(server) -> list[object]:
    with server.connect("shop") as connection, connection.cursor() as cursor:

        def rows(sql: str) -> list[object]:
            cursor.execute(sql)
            return sorted(cursor.fetchall(), key=repr)

        tables = rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'")
        names = ", ".join(f"`{row[0]}`" for row in tables)
        return [
            tables,
            rows(f"CHECKSUM TABLE {names}"),
            [rows(f"SHOW CREATE TABLE `{row[0]}`") for row in tables],
            rows("SHOW DATABASES"),
            rows("SELECT user, host, priv FROM mysql.global_priv"),
            rows("SELECT * FROM mysql.db"),
            rows("SELECT name FROM mysql.proc WHERE db = 'shop'"),
            rows("SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = 'shop'"),
            rows("SELECT event_name FROM information_schema.events"),
        ]


def _try_all(database: Database, queries: list[str]) -> int:
    """Run each; returns how many ended without an error."""
    ended = 0
    for sql in queries:
        with suppress(DatabaseError):
            database.run(sql)
            ended += 1
    return ended


@pytest.mark.usefixtures("unchanged")
def test_all_fences_on_an_account_with_all_rights(connect):
    """Statements of both dialects: some of SQLite's are harmless queries for MariaDB, and may run."""
    database = connect("owner", timeout_s=0.2)
    assert _try_all(database, _queries("mysql")) == 0
    _try_all(database, _queries("sqlite"))


@pytest.mark.usefixtures("unchanged", "no_guard")
def test_session_alone_on_an_account_with_all_rights(connect):
    """Guard off, all rights: the read-only session keeps the data, the time limit ends what waits."""
    database = connect("owner", timeout_s=0.1)
    queries = [sql for sql in _queries("mysql") if not _NOT_ABOUT_DATA.search(sql)]
    assert len(queries) > 400
    assert _try_all(database, queries) > 50


@pytest.mark.usefixtures("unchanged", "no_guard")
def test_account_alone(connect, monkeypatch):
    """Guard and session off: an account with SELECT alone changes nothing, neither data nor server nor files.

    It may change its own password: that is the guard's to refuse, and left out here.
    """
    monkeypatch.setattr(mysql.MysqlBackend, "_fence", lambda *_: None)
    monkeypatch.setattr(mysql, "_GRACE_SECONDS", 0.0)
    database = connect("reader", timeout_s=0.1)
    assert _try_all(database, [sql for sql in _queries("mysql") if "SET PASSWORD" not in sql]) > 50


@pytest.mark.usefixtures("no_guard")
def test_account_alone_writes_no_file(connect, maria_shop, tmp_path):
    target = tmp_path / "stolen"
    tmp_path.chmod(0o777)
    for user, written in (("reader", False), ("owner", True)):
        with suppress(DatabaseError):
            connect(user).run(f"SELECT name FROM customers INTO OUTFILE '{target}'")
        assert target.exists() is written


# --- SQLite


@pytest.fixture
def copy(shop_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.db"
    path.write_bytes(shop_path.read_bytes())
    return path


def _content(path: Path) -> tuple[str, ...]:
    with closing(sqlite3.connect(path)) as connection:
        return tuple(connection.iterdump())


def test_all_fences_of_sqlite(copy):
    before = copy.read_bytes()
    database = Database("x", f"sqlite:///{copy}", timeout_s=0.2)
    assert _try_all(database, _queries("sqlite")) == 0
    _try_all(database, _queries("mysql"))
    assert copy.read_bytes() == before
    assert [file.name for file in copy.parent.iterdir()] == ["copy.db"]


@pytest.mark.usefixtures("no_guard")
def test_session_of_sqlite_alone(copy):
    """Guard off: read-only file, `query_only` and authorizer together."""
    before = copy.read_bytes()
    database = Database("x", f"sqlite:///{copy}", timeout_s=0.2)
    for sql in [*_queries("sqlite"), *_queries("mysql")]:
        with suppress(DatabaseError, sqlite3.Warning, sqlite3.ProgrammingError, ValueError):
            database.run(sql)
    assert copy.read_bytes() == before
    assert [file.name for file in copy.parent.iterdir()] == ["copy.db"]


def _read_only_file(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)


def _query_only(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _authorizer(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.set_authorizer(partial(allow_reading))
    return connection


@pytest.mark.parametrize("fence", [_read_only_file, _query_only, _authorizer])
def test_one_fence_of_sqlite_alone(copy, fence: Callable[[Path], sqlite3.Connection]):
    """Each on a connection of its own, as in the app: a session that lifts its own fence does so for itself.

    Other files are the authorizer's to protect: a read-only file may still be copied by VACUUM INTO.
    """
    before = _content(copy)
    for sql in _queries("sqlite"):
        if fence is not _authorizer and re.search(r"VACUUM|ATTACH", sql, re.IGNORECASE):
            continue
        with closing(fence(copy)) as connection, suppress(sqlite3.Error, sqlite3.Warning, ValueError):
            # randomblob and the like: nothing here bounds what one step may build
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
            connection.set_progress_handler(_after(500), 1000)
            connection.execute(sql).fetchmany(10)
            connection.commit()
    assert _content(copy) == before


def _after(steps: int) -> Callable[[], int]:
    counted = iter(range(steps))
    return lambda: int(next(counted, None) is None)


def test_authorizer_hides_what_the_rules_hide_though_the_guard_lets_it_through(copy):
    rules = parse_rules("x:-employees,-customers.email")["x"]
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("CREATE VIEW contacts AS SELECT name, email FROM customers")
        connection.commit()
    backend = SqliteBackend("x", copy, rules)
    for sql in (
        "SELECT email FROM customers",
        "SELECT * FROM customers",
        'SELECT c."Email" FROM Customers AS c',
        "SELECT count(email) FROM customers",
        "SELECT name FROM customers WHERE email LIKE 'a%'",
        "SELECT * FROM contacts",
        "SELECT count(*) FROM employees",
        "WITH x AS (SELECT * FROM employees) SELECT 1 FROM x",
    ):
        with pytest.raises(QueryRefused):
            backend.query(sql, SHORT, threading.Event())
    assert backend.query("SELECT count(*) FROM customers", SHORT, threading.Event()).rows == ((1400,),)
    assert backend.query("SELECT name FROM customers WHERE id = 1", SHORT, threading.Event()).rows
