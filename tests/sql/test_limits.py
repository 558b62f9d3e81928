"""Time, rows and bytes: a query stops at its limit or at Cancel, in the server too, and others go on meanwhile."""

import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.errors import Busy, Cancelled, QueryFailed, QueryTimeout
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.places import EACH, Places

# Whole queries as a user may write them: they pass the guard.
CROSS = "SELECT count(*) FROM order_items a, order_items b, order_items c, orders d, orders e WHERE a.id + b.id > c.id"
RECURSION = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
    "SELECT count(*) FROM n a JOIN n b ON a.i <= b.i JOIN n c ON b.i <= c.i"
)
SLOW = (
    "SELECT count(*) FROM reviews a JOIN reviews b ON a.comment LIKE concat('%', b.comment, '%') "
    "JOIN reviews c ON b.comment LIKE concat('%', c.comment, '%')"
)
SLOW_SQLITE = SLOW.replace("concat('%', b.comment, '%')", "'%' || b.comment || '%'").replace(
    "concat('%', c.comment, '%')", "'%' || c.comment || '%'"
)
LONG = 600.0


@pytest.fixture
def file(shop_path) -> Callable[..., Database]:
    return lambda **settings: Database("shop", f"sqlite:///{shop_path}", **settings)


@pytest.fixture
def cancel() -> Iterator[threading.Event]:
    """Set when a test is over, so that one that fails leaves no slow query to the next."""
    event = threading.Event()
    yield event
    event.set()


@contextmanager
def others_are_answered(database: Database) -> Iterator[Callable[[], None]]:
    """Another user asks all the time; the function yielded waits until five more answers came."""
    answers = threading.Semaphore(0)
    done = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        while not done.is_set():
            rows = database.run("SELECT count(*) FROM orders").rows
            if rows != ((3600,),):
                wrong.append(rows)
            answers.release()

    def five_more() -> None:
        for _ in range(5):
            assert answers.acquire(timeout=60)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        five_more()
        yield five_more
        five_more()
    finally:
        done.set()
        asking.join()
    assert wrong == []


def _in_background(run: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def call() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, raised


def _running(server) -> int:
    """How many sessions of the server execute a slow query: only those name what is looked for here."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM information_schema.processlist "
            "WHERE command = 'Query' AND id <> connection_id() "
            "AND (info LIKE '%order_items%' OR info LIKE '%reviews%' OR info LIKE '%recursive%')"
        )
        return cursor.fetchone()[0]


def _until(found: Callable[[], int], wanted: int) -> None:
    """Wait until `found` is `wanted`; a busy machine may take its time."""
    end = time.monotonic() + 60
    while (last := found()) != wanted:
        assert time.monotonic() < end, f"{last} instead of {wanted} after a minute"
        time.sleep(0.025)


@pytest.mark.parametrize("sql", [SLOW, CROSS, RECURSION], ids=["slow", "cross", "recursive"])
def test_time_limit_on_mariadb_while_others_are_answered(connect, maria_shop, sql):
    database = connect(timeout_s=0.4)
    database.schema()
    with others_are_answered(connect()), pytest.raises(QueryTimeout):
        database.run(sql)
    _until(lambda: _running(maria_shop), 0)  # it would run for minutes
    assert database.run("SELECT 1").rows == ((1,),)


@pytest.mark.parametrize("sql", [SLOW, CROSS, RECURSION], ids=["slow", "cross", "recursive"])
def test_cancel_on_mariadb_ends_the_query_in_the_server_while_others_are_answered(connect, cancel, maria_shop, sql):
    database = connect(timeout_s=LONG)
    database.schema()
    with others_are_answered(connect()) as five_more:
        thread, raised = _in_background(lambda: database.run(sql, cancel))
        five_more()
        _until(lambda: _running(maria_shop), 1)
        cancel.set()
        thread.join(60)
    assert [type(error) for error in raised] == [Cancelled]
    _until(lambda: _running(maria_shop), 0)  # it would run for minutes
    assert database.run("SELECT 1").rows == ((1,),)


@pytest.mark.parametrize("sql", [SLOW_SQLITE, CROSS, RECURSION], ids=["slow", "cross", "recursive"])
def test_time_limit_on_sqlite_while_others_are_answered(file, sql):
    with others_are_answered(file()), pytest.raises(QueryTimeout):
        file(timeout_s=0.4).run(sql)


@pytest.mark.parametrize("sql", [SLOW_SQLITE, CROSS, RECURSION], ids=["slow", "cross", "recursive"])
def test_cancel_on_sqlite_while_others_are_answered(file, cancel, sql):
    database = file(timeout_s=LONG)
    with others_are_answered(file()) as five_more:
        thread, raised = _in_background(lambda: database.run(sql, cancel))
        five_more()
        assert thread.is_alive()
        cancel.set()
        thread.join(60)
    assert [type(error) for error in raised] == [Cancelled]


def test_every_connection_busy_and_still_cancelled(connect, cancel, maria_shop):
    """Ten slow queries hold all connections of the pool: a kill needs none of them."""
    database = connect(timeout_s=LONG)
    database.schema()
    started = [_in_background(lambda: database.run(CROSS, cancel)) for _ in range(10)]
    _until(lambda: _running(maria_shop), 10)
    cancel.set()
    for thread, _ in started:
        thread.join(60)
    assert [type(error) for _, raised in started for error in raised] == [Cancelled] * 10
    _until(lambda: _running(maria_shop), 0)  # it would run for minutes
    assert database.run("SELECT 1").rows == ((1,),)


@pytest.mark.parametrize("system", ["mariadb", "sqlite"])
def test_one_person_at_the_limit_stops_nobody_else(connect, file, cancel, system):
    """Twenty slow queries of one person: three run, the rest are refused at once, and others are answered."""
    database = (connect if system == "mariadb" else file)(timeout_s=LONG)
    slow = CROSS if system == "mariadb" else SLOW_SQLITE
    database.schema()
    started = [_in_background(lambda: database.run(slow, cancel, who="user:ana")) for _ in range(20)]
    _until(lambda: sum(thread.is_alive() for thread, _ in started), EACH)
    assert [type(error) for _, raised in started for error in raised] == [Busy] * (20 - EACH)
    for ask in (database.run, database.explain):
        with pytest.raises(Busy, match=f"{EACH} of your queries"):
            ask("SELECT 1", who="user:ana")
        ask("SELECT 1", who="user:ben")
    cancel.set()
    for thread, _ in started:
        thread.join(60)
    assert [type(error) for _, raised in started for error in raised].count(Cancelled) == EACH
    assert database.run("SELECT 1", who="user:ana").rows == ((1,),)


@pytest.mark.parametrize("system", ["mariadb", "sqlite"])
def test_row_cap(connect, file, system):
    database = connect(row_limit=7) if system == "mariadb" else file(row_limit=7)
    for sql in ("SELECT id FROM orders", "SELECT id FROM orders LIMIT 500", "SELECT a.id FROM orders a, orders b"):
        result = database.run(sql)
        assert (len(result.rows), result.truncated) == (7, True)
    exact = database.run("SELECT id FROM orders LIMIT 7")
    assert (len(exact.rows), exact.truncated) == (7, False)


@pytest.mark.parametrize("system", ["mariadb", "sqlite"])
def test_byte_cap(connect, file, system):
    database = connect() if system == "mariadb" else file()
    database._limits = Limits(rows=10**6, seconds=60, bytes=20_000)
    result = database.run("SELECT a.name FROM customers a, (SELECT 1 AS one) b")
    assert result.truncated
    assert 20_000 < sum(len(row[0]) * 2 + 50 for row in result.rows) < 21_000
    assert database.run("SELECT 1").rows == ((1,),)


_MEGABYTE = "repeat('x', 1000000)"
_SQLITE_MEGABYTE = "replace(hex('" + "x" * 500 + "'), '7', '" + "x" * 1999 + "')"


@pytest.mark.parametrize("system", ["mariadb", "sqlite"])
def test_one_row_of_any_size_does_not_fill_the_memory(connect, file, system):
    """A thousand columns of a megabyte each, in one row: the cap ends it after a few."""
    database = connect() if system == "mariadb" else file()
    value = _MEGABYTE if system == "mariadb" else _SQLITE_MEGABYTE
    database._limits = Limits(rows=10, seconds=60, bytes=2**20)
    columns = ", ".join(f"s AS c{number}" for number in range(1000))
    tracemalloc.start()
    try:
        with pytest.raises(QueryFailed, match="too large"):
            database.run(f"SELECT {columns} FROM (SELECT {value} AS s) AS t")
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert database.run("SELECT 1").rows == ((1,),)


@given(st.lists(st.tuples(st.sampled_from(["", "ana", "ben"]), st.booleans()), max_size=40), st.integers(1, 4))
def test_places_are_counted_for_each_person(steps, each):
    places, held = Places("shop", each), {"": [], "ana": [], "ben": []}
    for who, takes in steps:
        if not takes:
            held[who].pop().__exit__(None, None, None) if held[who] else None
            continue
        place = places.taken(who)
        if who and len(held[who]) == each:
            with pytest.raises(Busy):
                place.__enter__()
        else:
            place.__enter__()
            held[who].append(place)
    for place in itertools.chain(*held.values()):
        place.__exit__(None, None, None)
    assert not places._taken
