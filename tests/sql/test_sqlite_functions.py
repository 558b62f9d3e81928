"""The text functions of statements that build texts: SQLite's own values, and an end whatever they are given."""

import sqlite3
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import Cancelled, QueryFailed, QueryRefused, QueryTimeout
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.sqlite import SqliteBackend
from dbgpt_lite.sql.sqlite_functions import TextFunctions, builds_texts


def big(count: int) -> str:
    """SQL for 64 ** (count + 1) letters a."""
    text = f"'{'a' * 64}'"
    for _ in range(count):
        text = f"replace({text}, 'a', '{'a' * 64}')"
    return text


LARGE = f"(SELECT {big(2)} || {big(2)} || {big(2)} AS s) AS t"
HALF = f"substr({big(2)} || {big(2)}, 1, 250000)"
SLOW = {
    "instr": f"SELECT sum(instr(s, {HALF} || 'b')) FROM orders, {LARGE}",
    "replace": f"SELECT sum(length(replace(s || o.id, {HALF} || 'b', 'x'))) FROM orders AS o, {LARGE}",
    "trim": f"SELECT sum(length(trim(s || o.id, replace({HALF}, 'a', 'bc') || 'a'))) FROM orders AS o, {LARGE}",
    "like": f"SELECT sum((s || o.id) LIKE '%{'a' * 400}b') FROM orders AS o, {LARGE}",
    "like_places": f"SELECT sum((s || o.id) LIKE '%{'a_' * 200}b%') FROM orders AS o, {LARGE}",
    "glob": f"SELECT sum((s || o.id) GLOB '*{'a?' * 200}b*') FROM orders AS o, {LARGE}",
    "upper": f"SELECT sum(length(upper(hex(s || o.id)))) FROM orders AS o, {LARGE}",
    "one_row": "SELECT " + ", ".join(f"length(upper(s || {n}))" for n in range(700)) + f" FROM {LARGE}",
    "order": f"SELECT length(s) FROM (SELECT s || o.id AS s FROM orders AS o, {LARGE}) AS x ORDER BY s COLLATE NOCASE",
    "distinct": f"SELECT count(DISTINCT s || o.id) FROM orders AS o, {LARGE}",
    "group": f"SELECT length(group_concat(DISTINCT s || o.id)) FROM orders AS o, {LARGE}",
}


def _end_of(run) -> BaseException | None:
    """What it raised; fails when it did not end."""
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            run()
            raised.append(None)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it did not end"
    return raised[0]


@pytest.mark.parametrize("sql", SLOW.values(), ids=list(SLOW))
def test_the_time_limit_holds_within_a_step(shop_path, sql):
    database = Database("shop", f"sqlite:///{shop_path}", timeout_s=0.1)
    assert isinstance(_end_of(lambda: database.run(sql)), QueryTimeout | QueryFailed)


@pytest.mark.parametrize(
    "body",
    [
        "SELECT x FROM c{0} UNION ALL SELECT x FROM c{0}",
        "SELECT a.x FROM c{0} AS a JOIN c{0} AS b ON a.x = b.x",
        "SELECT * FROM c{0} AS a JOIN c{0} AS b ON 1 = 1",
    ],
)
def test_ctes_that_double_each_other_are_refused(shop_path, body):
    """Planning them takes the database, and reading their stars the guard, twice as long with each."""
    doubled = ", ".join(f"c{number + 1} AS ({body.format(number)})" for number in range(40))
    database = Database("shop", f"sqlite:///{shop_path}", timeout_s=1.0)
    sql = f"WITH c0 AS (SELECT 1 AS x), {doubled} SELECT count(*) FROM c40"
    assert isinstance(_end_of(lambda: database.run(sql)), QueryRefused)
    few = ", ".join(f"c{number + 1} AS (SELECT x FROM c{number})" for number in range(40))
    assert database.run(f"WITH c0 AS (SELECT 1 AS x), {few} SELECT count(*) FROM c40").rows == ((1,),)


def test_functions_that_compare_all_with_all_are_denied(shop_path):
    backend = SqliteBackend("shop", shop_path)
    with pytest.raises(QueryRefused):
        backend.query("SELECT json_patch('{}', '{}')", Limits(rows=10, seconds=20), threading.Event())


@pytest.mark.parametrize("kind", ["instr", "trim", "like"])
def test_stop_holds_within_a_step(shop_path, kind):
    database, cancel = Database("shop", f"sqlite:///{shop_path}", timeout_s=600), threading.Event()
    database.schema()
    threading.Timer(0.5, cancel.set).start()
    assert isinstance(_end_of(lambda: database.run(SLOW[kind], cancel)), Cancelled)


def test_rows_that_came_after_the_limit_are_not_given(shop_path):
    backend = SqliteBackend("shop", shop_path)
    with pytest.raises(QueryTimeout):
        backend.query("SELECT 1", Limits(rows=10, seconds=0.0), threading.Event())


def test_a_text_beyond_a_megabyte_is_refused_in_words(shop_path):
    database = Database("shop", f"sqlite:///{shop_path}")
    for sql in (f"SELECT length({big(3)})", f"SELECT length({big(2)} || {' || '.join([big(2)] * 4)})"):
        with pytest.raises(QueryFailed, match="too large"):
            database.run(sql)


@pytest.mark.parametrize(
    ("sql", "builds"),
    [
        ("SELECT name FROM customers WHERE name LIKE '%a%' AND id IN (SELECT customer_id FROM orders)", False),
        ("SELECT COUNT(*), ROUND(AVG(total), 2) FROM orders WHERE (status = 'open') GROUP BY LOWER(status)", False),
        ("SELECT first || last FROM t", True),
        ("SELECT replace(a, 'b', 'c') FROM t", True),
        ('SELECT "replace"(a, 1, 2) FROM t', True),
        ("SELECT replace/**/(a, 1, 2) FROM t", True),
        ("SELECT GROUP_CONCAT(name) FROM t", True),
        ("SELECT a_function_of_tomorrow(name) FROM t", True),
    ],
)
def test_which_statements_build_texts(sql, builds):
    assert builds_texts(sql) is builds


_LETTERS = st.text("aAbBäÄ%_*?[]^-!\\é\U0001f600\0 1.", max_size=8)
_VALUES = st.one_of(
    st.none(), _LETTERS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), _LETTERS.map(str.encode)
)
_CALLS = (
    "instr(?1, ?2)", "replace(?1, ?2, ?3)", "trim(?1)", "ltrim(?1)", "rtrim(?1)", "trim(?1, ?2)", "ltrim(?1, ?2)",
    "rtrim(?1, ?2)", "?1 LIKE ?2", "?1 NOT LIKE ?2", "?1 LIKE ?2 ESCAPE ?3", "?1 GLOB ?2",
)  # fmt: skip


@pytest.fixture(scope="module")
def both():
    """SQLite as it is, and with these functions."""
    with (
        closing(sqlite3.connect(":memory:")) as plain,
        closing(sqlite3.connect(":memory:")) as ours,
        closing(TextFunctions(lambda: False)) as functions,
    ):
        functions.install(ours)
        yield plain, ours


def _value(connection, call: str, values) -> object:
    padded = (*values, None, None)[:3]
    parts = sum(f"?{n}" in call for n in (1, 2, 3))
    try:
        return connection.execute(f"SELECT {call} AS v, typeof({call})", padded[:parts]).fetchone()
    except sqlite3.OperationalError:
        return "failed"


@settings(max_examples=1500)
@given(st.sampled_from(_CALLS), _VALUES, _VALUES, _VALUES)
def test_values_are_those_of_sqlite(both, call, first, second, third):
    plain, ours = both
    assert _value(ours, call, (first, second, third)) == _value(plain, call, (first, second, third))


@settings(max_examples=1500)
@given(st.sampled_from(["LIKE", "GLOB"]), st.text("aAb", max_size=9), st.text("aAbB%_*?[]^-", max_size=8))
def test_patterns_match_as_those_of_sqlite(both, word, text, pattern):
    plain, ours = both
    call = f"?1 {word} ?2"
    assert _value(ours, call, (text, pattern)) == _value(plain, call, (text, pattern))
