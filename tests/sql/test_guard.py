"""The guard alone: no connection in sight."""

import subprocess
import sys

import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.guard import MAX_LENGTH, check
from dbgpt_lite.sql.schema import ColumnInfo, Schema, TableInfo
from tests.sql.corpus import SMALL, allowed, refused, table


def _reason(sql: str, dialect: str = "mysql", schema: Schema = SMALL) -> QueryRefused:
    with pytest.raises(QueryRefused) as caught:
        check(sql, schema, dialect, 1000)
    return caught.value


@pytest.mark.parametrize(("dialect", "sql"), refused())
def test_corpus_is_refused_with_a_reason_in_both_languages(shop_schema, dialect, sql):
    reason = _reason(sql, dialect, shop_schema)
    assert len(reason.render("en")) > 20
    assert len(reason.render("zh")) > 8


@pytest.mark.parametrize("sql", allowed())
def test_ordinary_queries_pass_in_both_dialects_and_again(shop_schema, sql):
    for dialect in ("sqlite", "mysql"):
        once = check(sql, shop_schema, dialect, 1000, "sqlite")
        assert check(once, shop_schema, dialect, 1000) == once


def test_corpus_is_large_enough():
    assert len(refused()) >= 660
    assert len({*allowed(), *allowed("mysql"), *allowed("sqlite")}) >= 300


@pytest.mark.parametrize(
    ("sql", "limit"),
    [
        ("SELECT name FROM customers", 11),
        ("SELECT name FROM customers LIMIT 3", 3),
        ("SELECT name FROM customers LIMIT 11", 11),
        ("SELECT name FROM customers LIMIT 5000", 11),
        ("SELECT name FROM customers LIMIT -1", 11),
        ("SELECT name FROM customers LIMIT 5000 OFFSET 20", 11),
        ("SELECT name FROM customers UNION SELECT city FROM customers", 11),
        ("SELECT name FROM customers WHERE id IN (SELECT id FROM customers LIMIT 500)", 11),
        ("WITH x AS (SELECT name FROM customers LIMIT 500) SELECT * FROM x", 11),
    ],
)
def test_outer_limit_is_one_more_than_the_rows_allowed(sql, limit):
    for dialect in ("sqlite", "mysql"):
        tree = sqlglot.parse_one(check(sql, SMALL, dialect, 10), read=dialect)
        assert tree.args["limit"].expression.name == str(limit)


def test_without_row_limit_the_query_keeps_its_own():
    assert check("SELECT name FROM customers", SMALL, "sqlite") == "SELECT name FROM customers"


def test_comments_and_the_original_text_are_gone():
    text = check("select name /* a */ from customers -- b", SMALL, "mysql")
    assert text == "SELECT name FROM customers"


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELECT amout FROM orders", "There is no column amout in orders; did you mean amount?"),
        ("SELECT o.amout FROM orders AS o", "There is no column amout in orders; did you mean amount?"),
        (
            "SELECT city FROM orders",
            "There is no column city in orders; it is in customers. Join that table, or use its name.",
        ),
        ("SELECT colour FROM orders", "There is no column colour in orders. Pick one of its columns."),
        ("SELECT name FROM custmers", "There is no table custmers; did you mean customers?"),
        ("SELECT name FROM invoices_2019", "There is no table invoices_2019. Pick one from the schema."),
        (
            "SELECT T2.name FROM orders AS T1",
            "The query uses T2.name, but T2 is not one of its tables (T1). Add it to FROM or correct the name.",
        ),
        ("SELECT x.b FROM (SELECT id AS a FROM orders) AS x", "There is no column b in x. Pick one of its columns."),
        (
            "WITH x AS (SELECT amount FROM orders) SELECT amont FROM x",
            "There is no column amont in x; did you mean amount?",
        ),
        (
            "SELECT SLEEP(1)",
            "The function SLEEP is not available here. Use ordinary aggregate, text, number and date functions.",
        ),
        ("DELETE FROM orders", "Only SELECT can be run here; DELETE cannot. Databases are opened for reading only."),
    ],
)
def test_reasons_say_what_was_meant(sql, text):
    assert str(_reason(sql)) == text


def test_names_take_the_spelling_of_the_schema_and_the_query():
    schema = Schema((table("Orders", "Id INTEGER*", "Total REAL"),))
    assert check("SELECT ORDERS.total FROM orders", schema, "mysql") == "SELECT Orders.total FROM Orders"
    assert check("SELECT t1.Total FROM orders AS T1", schema, "mysql") == "SELECT T1.Total FROM Orders AS T1"


def test_names_that_need_quotes_get_them():
    schema = Schema((TableInfo("order", (ColumnInfo("Order Date"), ColumnInfo("rank"), ColumnInfo("金额", "REAL"))),))
    sql = 'SELECT "Order Date", rank, 金额 FROM "order"'
    assert check(sql, schema, "mysql", None, "sqlite") == "SELECT `Order Date`, `rank`, `金额` FROM `order`"
    assert check(sql, schema, "sqlite") == 'SELECT "Order Date", rank, "金额" FROM "order"'


def test_double_quoted_text_is_a_string_only_in_comparisons():
    assert check('SELECT name FROM customers WHERE city = "Leeds"', SMALL, "sqlite").endswith("city = 'Leeds'")
    assert check("SELECT name FROM customers WHERE \"city\" = 'Leeds'", SMALL, "sqlite").endswith("city = 'Leeds'")
    assert _reason('SELECT "nme" FROM customers', "sqlite").key == "sql.no_column_similar"


@pytest.mark.parametrize(
    "text", ["a\\", "\\'; DROP TABLE orders; -- ", "''", "a;b", "\\\\", "%s", "/* x */", "\\n", "–", "名'"]
)
def test_text_values_survive_and_stay_values(text):
    written = check(
        f"SELECT name FROM customers WHERE city = '{text.replace(chr(39), chr(39) * 2)}'", SMALL, "mysql", 9, "sqlite"
    )
    values = [node.name for node in sqlglot.parse_one(written, read="mysql").find_all(exp.Literal) if node.is_string]
    assert values == [text]


def test_backslash_string_of_mysql_is_one_value():
    assert check("SELECT 'a\\' ; DROP TABLE orders; -- '", SMALL, "mysql") == "SELECT 'a'' ; DROP TABLE orders; -- '"


def test_alias_is_known_where_it_may_be_used():
    sql = "SELECT city AS place, count(*) AS n FROM customers GROUP BY place HAVING n > 1 ORDER BY n"
    assert check(sql, SMALL, "mysql")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT avg(totl) FROM (SELECT totl FROM orders) AS x",
        "SELECT * FROM (SELECT nope FROM customers) AS x",
        "SELECT x.nope FROM (SELECT nope FROM customers) AS x",
        "SELECT * FROM (SELECT * FROM (SELECT nope FROM customers) AS y) AS x",
        "SELECT * FROM (SELECT x.id FROM customers) AS x",
        "SELECT x.level, x.n FROM (SELECT level, count(*) AS n FROM customers WHERE totl > 3 GROUP BY level) AS x",
        "SELECT * FROM (SELECT total FROM customers) AS x JOIN orders ON 1 = 1",
        "SELECT * FROM orders JOIN (SELECT total FROM customers) AS x ON 1 = 1",
        "SELECT * FROM orders AS o JOIN (SELECT o.total FROM customers) AS x ON 1 = 1",
        "WITH x AS (SELECT nope FROM customers) SELECT nope FROM x",
        "WITH x AS (SELECT nope FROM customers), y AS (SELECT nope FROM x) SELECT nope FROM y",
        "WITH x AS (SELECT total FROM customers) SELECT x.total FROM x JOIN orders ON 1 = 1",
        "SELECT nope FROM (SELECT nope FROM customers UNION SELECT name FROM customers) AS x",
        "SELECT nope FROM customers UNION SELECT name FROM customers",
        "SELECT * FROM (SELECT nope FROM (SELECT name FROM customers) AS y UNION SELECT name FROM customers) AS x",
        "SELECT name FROM customers WHERE id IN (SELECT n FROM (SELECT nope AS n FROM orders) AS x)",
    ],
)
def test_a_subquery_in_from_sees_neither_itself_nor_what_stands_beside_it(shop_schema, sql):
    for dialect in ("sqlite", "mysql"):
        assert _reason(sql, dialect, shop_schema).key.startswith("sql.no_")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM customers AS c WHERE EXISTS (SELECT 1 FROM orders WHERE customer_id = c.id)",
        "SELECT (SELECT max(n) FROM (SELECT count(*) AS n FROM orders AS o WHERE o.customer_id = c.id) AS x) "
        "FROM customers AS c",
        "SELECT (SELECT max(n) FROM (SELECT n FROM (SELECT total AS n FROM orders WHERE customer_id = c.id) AS y) AS x)"
        " FROM customers AS c",
        "SELECT name FROM (SELECT id, name FROM customers) AS x WHERE id IN (SELECT customer_id FROM orders "
        "WHERE customer_id = x.id)",
        "SELECT (WITH t AS (SELECT total FROM orders WHERE customer_id = c.id) SELECT max(total) FROM t) "
        "FROM customers AS c",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT n.i + 1 FROM n WHERE n.i < 9) SELECT i FROM n",
        "WITH a AS (SELECT id AS k FROM customers), b AS (SELECT k FROM a) SELECT b.k FROM b JOIN a ON a.k = b.k",
        "SELECT name AS n FROM customers UNION SELECT status FROM orders ORDER BY n",
        "SELECT name AS n FROM customers AS c WHERE EXISTS (SELECT 1 FROM orders AS o WHERE o.customer_id = c.id "
        "AND o.id IN (SELECT x.id FROM (SELECT id FROM orders WHERE customer_id = c.id) AS x))",
    ],
)
def test_queries_within_queries_see_those_around_them(shop, sql):
    shop.explain(sql)
    assert shop.check(shop.check(sql)) == shop.check(sql)


def test_cte_is_not_visible_outside_its_query():
    assert _reason("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) AS a JOIN x ON 1 = 1").key == "sql.no_table"


def test_full_join_has_no_counterpart_in_mysql():
    sql = "SELECT c.id FROM customers AS c FULL JOIN orders AS o ON o.id = c.id"
    assert check(sql, SMALL, "sqlite")
    assert _reason(sql).key == "sql.not_in_dialect"


def test_huge_and_deep_queries_are_refused_quickly():
    assert _reason("SELECT '" + "x" * MAX_LENGTH + "'").key == "sql.too_long"
    assert _reason("SELECT " + "(" * 4000 + "1" + ")" * 4000).key in ("sql.too_complex", "sql.not_parsed")
    assert _reason("SELECT " + "+".join("1" * 5000)).key in ("sql.too_complex", "sql.not_parsed")


def test_nothing_of_the_query_is_logged(caplog):
    _reason("GRANT ALL ON *.* TO 'secret-name'")
    assert "secret-name" not in caplog.text


_FRAGMENTS = r"""
SELECT FROM WHERE customers orders name id city , * ( ) ; ' " ` -- /* */ /*! # @a @@x := UNION ALL INTO OUTFILE
FOR UPDATE DELETE DROP TABLE SLEEP(1) LOAD_FILE('x') mysql.user WITH x AS 1 = JOIN ON LIMIT \ \'
"""
_PIECES = st.sampled_from([*_FRAGMENTS.split(), "\x00", "\ufeff", "\n"])


def _holds(sql: str, dialect: str) -> None:
    """The truth: what passes is one SELECT over known tables that calls nothing unknown, with a limit."""
    try:
        written = check(sql, SMALL, dialect, 10)
    except QueryRefused:
        return
    statements = sqlglot.parse(written, read=dialect)
    assert len(statements) == 1
    tree = statements[0]
    assert isinstance(tree, exp.Select | exp.SetOperation)
    assert int(tree.args["limit"].expression.name) <= 11
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    assert {node.name for node in tree.find_all(exp.Table)} <= {"customers", "orders"} | ctes
    assert not list(
        tree.find_all(exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Parameter, exp.SessionParameter)
    )
    assert check(written, SMALL, dialect, 10) == written


@given(st.lists(_PIECES, max_size=14), st.sampled_from(["sqlite", "mysql"]))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_mix_of_sql_is_refused_or_one_harmless_select(pieces, dialect):
    _holds(" ".join(pieces), dialect)


@given(st.sampled_from(allowed()), st.integers(0, 400), _PIECES, st.sampled_from(["sqlite", "mysql"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_insertion_into_a_good_query_is_refused_or_harmless(sql, place, piece, dialect):
    _holds(sql[:place] + " " + piece + " " + sql[place:], dialect)


@given(st.text(max_size=60), st.sampled_from(["sqlite", "mysql"]))
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_or_harmless(text, dialect):
    _holds(text, dialect)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=30).filter(lambda text: "/*" not in text))
@settings(max_examples=200, deadline=None)
def test_any_value_comes_through_to_both_dialects(value):
    sql = "SELECT id FROM customers WHERE name = '" + value.replace("'", "''") + "'"
    for dialect in ("sqlite", "mysql"):
        written = check(sql, SMALL, dialect, None, "sqlite")
        values = [node.name for node in sqlglot.parse_one(written, read=dialect).find_all(exp.Literal)]
        assert values == [value]


def test_guard_imports_without_drivers_or_torch():
    heavy = ("torch", "pymysql", "sqlalchemy", "gradio")
    code = f"import sys, dbgpt_lite.sql.guard; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
