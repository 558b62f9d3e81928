"""Rules of a connection: what they hide is in no schema, and no query reaches it."""

import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ConfigError, DatabaseError, QueryFailed, QueryRefused
from dbgpt_lite.sql.database import Database, Databases
from dbgpt_lite.sql.rules import Rules, parse_rules, rules_for
from dbgpt_lite.sql.schema import Schema, ddl
from tests.sql.corpus import allowed, comparable, table

WHOLE = Schema(
    (
        table("customers", "id INTEGER*", "name TEXT", "Email TEXT"),
        table("orders", "id INTEGER*", "customer_id INTEGER", refers=("customer_id", "customers")),
        table("secrets", "id INTEGER*", "email TEXT"),
        table("客户", "编号 INTEGER*", "电话 TEXT"),
    )
)


def _left(text: str) -> dict[str, list[str]]:
    schema = parse_rules(f"x:{text}")["x"].apply(WHOLE)
    return {found.name: [column.name for column in found.columns] for found in schema.tables}


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("-secrets", {"customers": 3, "orders": 2, "客户": 2}),
        ("-SECRETS", {"customers": 3, "orders": 2, "客户": 2}),
        ("-s*", {"customers": 3, "orders": 2, "客户": 2}),
        ("-?ecrets", {"customers": 3, "orders": 2, "客户": 2}),
        ("-*.email", {"customers": 2, "orders": 2, "secrets": 1, "客户": 2}),
        ("-*.e*,-客户.电话", {"customers": 2, "orders": 2, "secrets": 1, "客户": 1}),
        ("-secrets.*", {"customers": 3, "orders": 2, "客户": 2}),
        ("+orders", {"orders": 2}),
        ("+orders,+customers.name", {"customers": 1, "orders": 2}),
        ("+*,-*.email,-secrets", {"customers": 2, "orders": 2, "客户": 2}),
        ("+*.id", {"customers": 1, "orders": 1, "secrets": 1}),
        ("-*", {}),
        ("-email", {"customers": 3, "orders": 2, "secrets": 2, "客户": 2}),
        ("-customer", {"customers": 3, "orders": 2, "secrets": 2, "客户": 2}),
    ],
)
def test_what_rules_leave(text, tables):
    assert {name: len(columns) for name, columns in _left(text).items()} == tables


def test_hidden_things_are_in_no_text_of_the_schema():
    schema = parse_rules("x:-secrets,-*.email,-customers.id")["x"].apply(WHOLE)
    for text in (ddl(schema), ddl(schema, comments=True)):
        assert "ecret" not in text
        assert "mail" not in text
        assert "REFERENCES" not in text
    assert schema.similar_table("secret") == ""
    assert not {"secrets", "email"} & schema.words


def test_no_rules_change_nothing():
    assert Rules().apply(WHOLE) is WHOLE
    assert parse_rules("") == {}


def test_rules_of_every_connection_come_to_ones_own():
    rules = parse_rules("*:-*.email shop:-secrets shop:-orders")
    assert [rule.text for rule in rules_for("shop", rules).rules] == ["-secrets", "-orders", "-*.email"]
    assert [rule.text for rule in rules_for("main", rules).rules] == ["-*.email"]


@pytest.mark.parametrize(
    "text", ["secrets", "x:", "x:secrets", ":-secrets", "x:-", "x:-a.", "x:-a.b.c", "x:-a,b", "x:-.a"]
)
def test_rules_that_cannot_be_read_stop_the_start(text):
    with pytest.raises(ConfigError) as caught:
        parse_rules(text)
    assert "DATABASE_RULES" in caught.value.render("en")
    assert "DATABASE_RULES" in caught.value.render("zh")


def test_rules_for_a_connection_that_there_is_not_stop_the_start(shop_path):
    with pytest.raises(ConfigError, match="shoop"):
        Databases({"shop": f"sqlite:///{shop_path}"}, rules=parse_rules("shoop:-employees"))


def test_rules_that_name_nothing_are_told(shop_path, caplog):
    databases = Databases({"shop": f"sqlite:///{shop_path}"}, rules=parse_rules("shop:-employes,-customers.email"))
    databases.default.schema()
    assert "-employes " in caplog.text
    assert "email" not in caplog.text


# --- crossing them

RULES = parse_rules("shop:-employees,-customers.email,-suppliers.email,-orders.total")["shop"]
# (query, the columns that come back). "": it must be refused. None: refused, an error of the database, or no rows.
CROSSINGS = [
    ("SELECT email FROM customers", ""),
    ("SELECT EMAIL FROM customers", ""),
    ("SELECT `email` FROM customers", ""),
    ("SELECT customers.email FROM customers", ""),
    ("SELECT c.email FROM customers AS c", ""),
    ("SELECT c.email FROM Customers c", ""),
    ("SELECT name FROM customers WHERE email LIKE 'a%'", ""),
    ("SELECT name FROM customers ORDER BY email", ""),
    ("SELECT count(*) FROM customers GROUP BY email", ""),
    ("SELECT level FROM customers GROUP BY level HAVING max(email) > 'm'", ""),
    ("SELECT count(DISTINCT email) FROM customers", ""),
    ("SELECT max(email) OVER (ORDER BY id) FROM customers", ""),
    ("SELECT id FROM customers WINDOW w AS (ORDER BY email)", ""),
    ("SELECT * FROM customers WHERE id = 1", "id,name,level,joined_on,city_id"),
    ("SELECT customers.* FROM customers WHERE id = 1", "id,name,level,joined_on,city_id"),
    ("SELECT c.* FROM customers c WHERE id = 1", "id,name,level,joined_on,city_id"),
    ("SELECT * FROM (SELECT * FROM customers) AS t WHERE id = 1", "id,name,level,joined_on,city_id"),
    ("SELECT email FROM (SELECT * FROM customers) AS t", ""),
    ("SELECT t.email FROM (SELECT * FROM customers) AS t", ""),
    ("WITH t AS (SELECT * FROM customers) SELECT * FROM t WHERE id = 1", "id,name,level,joined_on,city_id"),
    ("WITH t AS (SELECT * FROM customers) SELECT email FROM t", ""),
    ("WITH customers AS (SELECT * FROM suppliers) SELECT * FROM customers WHERE id = 1", "id,name,city_id"),
    ("WITH customers AS (SELECT 1 AS email) SELECT email FROM customers", "email"),
    ("SELECT count(*) FROM customers", "COUNT(*)"),
    ("SELECT * FROM suppliers UNION ALL SELECT * FROM suppliers WHERE id < 0 LIMIT 1", "id,name,city_id"),
    ("SELECT name FROM customers UNION SELECT email FROM customers", ""),
    ("SELECT 1 AS email FROM customers WHERE email LIKE '%@%'", None),
    ("SELECT name AS email FROM customers WHERE id = 1 ORDER BY email", "email"),
    ("SELECT count(*) FROM customers JOIN suppliers USING (email)", ""),
    ("SELECT count(*) FROM customers AS a JOIN customers AS b USING (email)", ""),
    ("SELECT a.name FROM customers a JOIN suppliers b ON a.email = b.email", ""),
    ("SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM suppliers s WHERE s.id = c.id AND c.email > '')", ""),
    ("SELECT name FROM customers c WHERE EXISTS (SELECT 1 FROM cities WHERE email > '')", ""),
    ("SELECT (SELECT email) FROM customers", ""),
    ("SELECT (SELECT max(email) FROM customers)", ""),
    ("SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE total > 100)", ""),
    ("SELECT name FROM customers WHERE (id, email) IN (SELECT 1, 'a')", ""),
    ("SELECT CASE WHEN email > 'm' THEN 1 END FROM customers", ""),
    ("SELECT sum(total) FROM orders", ""),
    ("SELECT * FROM employees", ""),
    ("SELECT name FROM Employees", ""),
    ("SELECT 1 FROM `employees`", ""),
    ("SELECT count(*) FROM customers, employees", ""),
    ("SELECT 1 UNION SELECT salary FROM employees", ""),
    ("WITH x AS (SELECT salary FROM employees) SELECT * FROM x", ""),
    ("WITH employees AS (SELECT * FROM employees) SELECT * FROM employees", ""),
    ("WITH Employees AS (SELECT 1 AS id) SELECT * FROM employees", ""),
    ("WITH RECURSIVE employees AS (SELECT 1 AS id UNION ALL SELECT id FROM employees) SELECT * FROM employees", ""),
    ("SELECT * FROM (WITH employees AS (SELECT 1) SELECT 1) AS x, employees", ""),
    ("SELECT employees.salary FROM customers AS employees", ""),
    ("SELECT employees.name FROM customers AS employees WHERE id = 1", "name"),
    ("SELECT email.name FROM customers AS email WHERE id = 1", "name"),
    ("SELECT email FROM customers AS email", ""),
    ("SELECT t.x FROM (SELECT email AS x FROM customers) AS t", ""),
    ("SELECT * FROM customers AS a (id, name, email, level, joined_on, city_id)", ""),
    (
        "SELECT r.rating, c.* FROM (reviews r JOIN customers c ON c.id = r.customer_id) WHERE r.id = 1",
        "rating,id,name,level,joined_on,city_id",
    ),
    ("SELECT name, level FROM (customers) WHERE id = 1", "name,level"),
    ("SELECT email FROM (customers)", ""),
    ("SELECT d FROM (SELECT * FROM customers) AS t (a, b, c, d, e, f)", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def limited(shop_path: Path) -> Database:
    return Database("shop", f"sqlite:///{shop_path}", rules=RULES)


@pytest.fixture
def limited_maria(maria_shop):
    database = Database("shop", maria_shop.url("owner"), rules=RULES)
    yield database
    database.close()


def _cross(database: Database, sql: str, columns: str | None) -> None:
    if columns is None:
        with suppress(QueryRefused, QueryFailed):
            assert database.run(sql).rows == ()
    elif columns == "":
        with pytest.raises(QueryRefused):
            database.run(sql)
        with pytest.raises(QueryRefused):
            database.explain(sql)
    else:
        result = database.run(sql)
        assert ",".join(result.columns).lower() == columns.lower()
        assert "@" not in repr(result.rows)
        assert database.run(database.check(sql)).rows == result.rows


@pytest.mark.parametrize(("sql", "columns"), CROSSINGS)
def test_no_query_crosses_the_rules_on_sqlite(limited, sql, columns):
    _cross(limited, sql, columns)


@pytest.mark.parametrize(("sql", "columns"), CROSSINGS)
def test_no_query_crosses_the_rules_on_mariadb(limited_maria, sql, columns):
    _cross(limited_maria, sql, columns)


@pytest.mark.parametrize("which", ["limited", "limited_maria"])
def test_natural_join_compares_visible_columns_only(which, request):
    """Of customers and suppliers id, name and city_id are left in common: with `email` compared too, nothing fits."""
    database = request.getfixturevalue(which)
    sql = "SELECT count(*) FROM customers NATURAL JOIN (SELECT id, city_id FROM customers) AS other"
    assert database.run(sql).rows == ((1400,),)
    assert database.run("SELECT a.id FROM customers a NATURAL JOIN customers b WHERE a.id < 3 ORDER BY a.id").rows == (
        (1,),
        (2,),
    )


@pytest.mark.parametrize(("which", "dialect"), [("limited", "sqlite"), ("limited", ""), ("limited_maria", "mysql")])
def test_queries_that_touch_nothing_hidden_give_what_they_gave(request, shop, reader, which, dialect):
    database, whole = request.getfixturevalue(which), reader if dialect == "mysql" else shop
    compared = 0
    for sql in allowed(dialect):
        if re.search(r"SELECT \*|\w\.\*|NATURAL|\brand|RAND", sql):
            continue
        try:
            rows = database.run(sql).rows
        except QueryRefused:
            continue
        assert comparable(rows) == comparable(whole.run(sql).rows), sql
        compared += "customers" in sql or "orders" in sql
    assert compared > 10


def test_deep_nesting_hides_no_name(limited):
    nested = "SELECT id FROM customers"
    for level in range(30):
        nested = f"SELECT * FROM ({nested}) AS t{level}"
    for sql in (f"SELECT email FROM ({nested}) AS d, customers", f"SELECT d.email FROM ({nested}) AS d"):
        with pytest.raises(QueryRefused):
            limited.run(sql)


def test_views_are_tables_to_the_rules(tmp_path):
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people (id, phone)")
        connection.execute("INSERT INTO people VALUES (1, '555')")
        connection.execute("CREATE VIEW phones AS SELECT * FROM people")
        connection.commit()
    hidden = Database("x", f"sqlite:///{path}", rules=parse_rules("x:-phones")["x"])
    assert hidden.run("SELECT phone FROM people").rows == (("555",),)
    with pytest.raises(QueryRefused):
        hidden.run("SELECT phone FROM phones")
    # The rule does not name the view's column, yet SQLite does not read through it.
    for_the_table = Database("x", f"sqlite:///{path}", rules=parse_rules("x:-people.phone")["x"])
    with pytest.raises(QueryRefused, match="hide"):
        for_the_table.run("SELECT phone FROM phones")


_WORDS = """
SELECT FROM WHERE email customers c employees salary name id * , ( ) AS JOIN NATURAL USING ON = 1 UNION ALL WITH x
GROUP BY ORDER HAVING EXISTS IN t . c.email customers.email t.* (SELECT ) (email)
"""


@given(st.lists(st.sampled_from(_WORDS.split()), min_size=3, max_size=16))
@settings(max_examples=300)
def test_no_mix_of_words_crosses_the_rules(limited, words):
    """The truth is the file itself: every address in it has an @, and every name of an employee is hidden."""
    try:
        result = limited.run("SELECT " + " ".join(words))
    except DatabaseError:
        return
    assert "@" not in repr(result.rows)
