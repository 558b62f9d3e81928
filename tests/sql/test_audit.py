"""No statement reaches a driver without its audit entry, whatever becomes of it."""

import ast
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import Cancelled, DatabaseError, DbgptError, QueryFailed, QueryRefused, QueryTimeout
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database, Databases
from dbgpt_lite.sql.sqlite import SqliteBackend


@dataclass
class Log:
    """An AuditLog in memory. `broken`: nothing can be written."""

    entries: list[dict[str, object]] = field(default_factory=list)
    broken: bool = False

    def begin(self, *, connection: str, statement: str, asked: str, owner: str, origin: str) -> int:
        if self.broken:
            raise DatabaseError("queries.no_audit")
        entry = {"connection": connection, "statement": statement, "asked": asked, "owner": owner, "origin": origin}
        self.entries.append(entry)
        return len(self.entries) - 1

    def end(self, entry: int, *, outcome: str, seconds: float, rows: int) -> None:
        assert "outcome" not in self.entries[entry]
        self.entries[entry] |= {"outcome": outcome, "rows": rows}


class Recording(SqliteBackend):
    """A real backend that looks into the audit log before it runs anything."""

    def __init__(self, path: Path, log: Log) -> None:
        super().__init__("shop", path)
        self.log = log
        self.reached: list[str] = []
        self.error: Exception | None = None

    def query(self, sql: str, limits: Limits, cancel: threading.Event) -> ResultTable:
        last = self.log.entries[-1]
        assert last["statement"] == sql
        assert "outcome" not in last
        self.reached.append(sql)
        if self.error:
            raise self.error
        return super().query(sql, limits, cancel)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Database, Recording, Log]]:
    file, log = tmp_path / "shop.db", Log()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT)")
        db.executemany("INSERT INTO city(name) VALUES (?)", [("上海",), ("Leeds",)])
    database = Database("shop", f"sqlite:///{file}", audit=log)
    backend = Recording(file, log)
    database._backend = backend
    database.schema()
    log.entries.clear()
    yield database, backend, log
    database.close()


def test_what_was_asked_and_what_was_sent_are_both_kept(world: tuple[Database, Recording, Log]) -> None:
    database, _, log = world
    database.run("  select name from city ", who="user:ana", origin="model")
    database.explain("select name from city", who="user:ana")
    ran, planned = log.entries
    assert ran == {
        "connection": "shop", "statement": "SELECT name FROM city LIMIT 1001", "asked": "select name from city",
        "owner": "user:ana", "origin": "model", "outcome": "ok", "rows": 2,
    }  # fmt: skip
    assert planned["statement"] == "EXPLAIN QUERY PLAN SELECT name FROM city LIMIT 1001"
    assert (planned["origin"], planned["owner"]) == ("explain", "user:ana")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Cancelled(), "cancelled"),
        (QueryTimeout("sql.timeout", seconds="1"), "timeout"),
        (QueryFailed("sql.db_syntax"), "QueryFailed"),
        (DatabaseError("sql.unreachable", name="shop"), "DatabaseError"),
        (RuntimeError("a fault of our own"), "RuntimeError"),
    ],
)
def test_every_end_is_written_down(world: tuple[Database, Recording, Log], error: Exception, outcome: str) -> None:
    database, backend, log = world
    backend.error = error
    with pytest.raises(type(error)):
        database.run("SELECT name FROM city", who="cli", origin="cli")
    assert [(one["outcome"], one["rows"]) for one in log.entries] == [(outcome, 0)]


def test_a_log_that_cannot_be_written_lets_nothing_through(world: tuple[Database, Recording, Log]) -> None:
    database, backend, log = world
    log.broken = True
    for ask in (database.run, database.explain):
        with pytest.raises(DatabaseError):
            ask("SELECT name FROM city")
    assert backend.reached == []


def test_what_a_fence_refuses_is_no_entry(world: tuple[Database, Recording, Log]) -> None:
    database, backend, log = world
    for sql in ("DROP TABLE city", "SELECT nothing FROM city", ""):
        for ask in (database.run, database.explain):
            with pytest.raises(QueryRefused):
                ask(sql)
    assert backend.reached == []
    assert log.entries == []


_STATEMENTS = [
    "SELECT 1",
    "SELECT name FROM city",
    "SELECT nmae FROM city",
    "SELECT abs(-9223372036854775808)",
    "WITH n(i) AS (SELECT 1) SELECT i FROM n",
    "SELECT 1; SELECT 2",
    "DROP TABLE city",
    "garbage (",
    "",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(_STATEMENTS), st.booleans(), st.booleans()), max_size=8))
def test_what_reached_the_driver_is_what_the_log_holds(
    world: tuple[Database, Recording, Log], asked: list[tuple[str, bool, bool]]
) -> None:
    database, backend, log = world
    log.entries.clear()
    backend.reached.clear()
    for sql, plan, stopped in asked:
        cancel = threading.Event()
        if stopped:
            cancel.set()
        try:
            database.explain(sql, cancel) if plan else database.run(sql, cancel)
        except DbgptError:
            continue
    assert [one["statement"] for one in log.entries] == backend.reached
    assert all("outcome" in one for one in log.entries)


def test_one_place_only_calls_a_drivers_query() -> None:
    calls = [
        (file.name, function.name)
        for file in sorted((ROOT / "dbgpt_lite").rglob("*.py"))
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "query"
    ]
    assert calls == [("database.py", "_send")]


def test_a_schema_is_one_entry_and_every_statement_that_reads_values_is_one(tmp_path: Path) -> None:
    file, log = tmp_path / "shop.db", Log()
    with sqlite3.connect(file) as db:
        for table in ("city", "land"):
            db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, kind TEXT)")
            db.executemany(f"INSERT INTO {table}(kind) VALUES (?)", [("big",), ("big",), ("small",)] * 3)
    database = Database("shop", f"sqlite:///{file}", audit=log, sample_values=5)
    backend = Recording(file, log)
    database._backend = backend
    assert database.schema().tables[0].columns[1].values == ("big", "small")
    assert {(one["owner"], one["origin"], one["outcome"]) for one in log.entries} == {("app", "schema", "ok")}
    names, *values = log.entries
    assert (names["statement"], names["rows"]) == (
        "-- names, types, keys and comments of all tables and views",
        2,
    )
    assert [one["statement"] for one in values] == backend.reached
    assert len(values) == 2
    log.broken = True
    with pytest.raises(DatabaseError, match="audit"):
        database.schema(refresh=True)
    assert len(backend.reached) == 2
    database.close()


def test_what_an_account_may_do_is_asked_in_the_log(connect: Callable[..., Database]) -> None:
    log = Log()
    assert connect("reader", audit=log).account_warning() is None
    (entry,) = log.entries
    assert (entry["statement"], entry["owner"], entry["origin"]) == ("SHOW GRANTS", "app", "schema")


def test_a_page_reads_a_schema_again_only_when_it_is_old(world: tuple[Database, Recording, Log]) -> None:
    database, _, log = world
    now = time.monotonic()
    database._known._clock = lambda: now
    assert database.schema(refresh=True)
    for _ in range(20):
        assert database.recent_schema()
    assert len(log.entries) == 1
    now += 61
    assert database.recent_schema()
    assert len(log.entries) == 2


def test_all_connections_share_the_log(tmp_path: Path) -> None:
    log = Log()
    for name in ("a", "b"):
        sqlite3.connect(tmp_path / f"{name}.db").execute("CREATE TABLE t (x)").connection.close()
    databases = Databases({name: f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")}, audit=log)
    for name in databases.names():
        databases.get(name).run("SELECT x FROM t", who=name)
    asked = [(one["connection"], one["owner"]) for one in log.entries if one["origin"] == "editor"]
    assert asked == [("a", "a"), ("b", "b")]
    assert [one["connection"] for one in log.entries if one["origin"] == "schema"] == ["a", "b"]
    databases.close()
