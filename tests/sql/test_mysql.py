"""MariaDB: each fence alone on a real server, and SQLite's SQL on it."""

import contextlib
import datetime
import logging
import threading

import pymysql
import pytest

from dbgpt_lite.errors import Cancelled, DatabaseError, QueryFailed, QueryRefused, QueryTimeout
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database
from tests.sql.corpus import allowed, refused

FREE = Limits(rows=1000, seconds=20)
CROSS = "SELECT count(*) FROM order_items a, order_items b, order_items c, orders d, orders e"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


_KINDS = """
CREATE TABLE kinds.`客户` (
  id BIGINT UNSIGNED PRIMARY KEY, `姓名` VARCHAR(20) COMMENT '客户全名', money DECIMAL(30,10), price DECIMAL(8,2),
  whole DECIMAL(20,0), d DATE, t DATETIME(3), h TIME, b BLOB, yes BOOLEAN, f DOUBLE, j JSON, y YEAR, bits BIT(8), n INT,
  `Order Date` DATE, `rank` INT
) COMMENT '所有客户'
"""
_KINDS_ROW = """
INSERT INTO kinds.`客户` VALUES (
  18446744073709551615, '王芳😀', 12345678901234567890.0123456789, 19.90,
  5, '2024-02-29', '2024-02-29 10:11:12.345', '10:11:12', x'00ff', TRUE, 1.5, '{"a": 1}', 2024, b'101', NULL,
  '2024-01-01', 3
)
"""


def _checksums(server) -> list[tuple[object, ...]]:
    with server.connect("shop") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'")
        names = ", ".join(sorted(f"`{row[0]}`" for row in cursor.fetchall()))
        cursor.execute(f"CHECKSUM TABLE {names}")
        return list(cursor.fetchall())


def _running(server) -> int:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM information_schema.processlist "
            "WHERE db = 'shop' AND command = 'Query' AND id <> connection_id()"
        )
        return cursor.fetchone()[0]


def _comparable(rows):
    def plain(value):
        return round(float(value), 4) if isinstance(value, int | float) else value

    return sorted(repr([plain(value) for value in row]) for row in rows)


@pytest.mark.parametrize("sql", allowed())
def test_sqlite_queries_give_the_same_rows_on_mariadb(shop, reader, sql):
    checked = reader.check(sql, "sqlite")
    reader.explain(checked)
    assert _comparable(reader.run(checked).rows) == _comparable(shop.run(sql).rows)


def test_schema_is_the_same_on_both_systems(shop, connect):
    ours, theirs = shop.schema(), connect().schema()
    assert [table.name for table in ours.tables] == [table.name for table in theirs.tables]
    for one, other in zip(ours.tables, theirs.tables, strict=True):
        assert [(c.name, c.kind, c.primary_key) for c in one.columns] == [
            (c.name, c.kind, c.primary_key) for c in other.columns
        ]
        assert set(one.foreign_keys) == set(other.foreign_keys)


def test_corpus_changes_nothing_on_an_account_with_all_rights(connect, maria_shop):
    database = connect("owner")
    database.schema()
    before = _checksums(maria_shop)
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
        selects = cursor.fetchone()
        for sql in (query for dialect, query in refused() if dialect == "mysql"):
            with pytest.raises(QueryRefused):
                database.run(sql)
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
        assert cursor.fetchone() == selects
    assert _checksums(maria_shop) == before
    assert database.run("SELECT count(*) FROM customers").rows == ((1400,),)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM payments",
        "INSERT INTO categories VALUES (99, 'x', 'x')",
        "UPDATE customers SET name = 'x'",
        "REPLACE INTO categories VALUES (1, 'x', 'x')",
        "TRUNCATE TABLE payments",
        "DROP TABLE payments",
        "CREATE TABLE x (a INT)",
        "ALTER TABLE payments ADD COLUMN x INT",
        "CREATE USER x",
        "SELECT 1; DELETE FROM payments",
    ],
)
def test_read_only_session_alone_holds_on_an_account_with_all_rights(connect, maria_shop, sql):
    backend = connect("owner")._backend
    before = _checksums(maria_shop)
    with pytest.raises((QueryRefused, QueryFailed)):
        backend.query(sql, FREE, threading.Event())
    assert _checksums(maria_shop) == before
    assert backend.query("SELECT 1", FREE, threading.Event()).rows == ((1,),)


def test_local_files_cannot_be_sent_to_the_server(connect, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("1,stolen,stolen\n")
    sql = f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE categories"
    with pytest.raises((QueryFailed, QueryRefused, DatabaseError)):
        connect("owner")._backend.query(sql, FREE, threading.Event())


@pytest.mark.parametrize("sql", ["SELECT SLEEP(30)", CROSS])
def test_time_limit_alone_stops_a_query_and_the_pool_serves_on(connect, maria_shop, sql):
    backend = connect(timeout_s=0.3)._backend
    with pytest.raises(QueryTimeout):
        backend.query(sql, Limits(rows=10, seconds=0.3), threading.Event())
    assert backend.query("SELECT 1", FREE, threading.Event()).rows == ((1,),)
    assert _running(maria_shop) == 0


@pytest.mark.parametrize("sql", [ENDLESS, "SELECT BENCHMARK(1000000000, MD5('x'))"])
def test_endless_work_that_the_server_may_cut_short_ends_too(connect, maria_shop, sql):
    # MariaDB caps recursion, and lets BENCHMARK return early instead of failing.
    with contextlib.suppress(QueryTimeout):
        connect()._backend.query(sql, Limits(rows=10, seconds=0.3), threading.Event())
    assert _running(maria_shop) == 0


def test_client_timer_alone_stops_a_query(connect, maria_shop, monkeypatch):
    backend = connect()._backend
    monkeypatch.setattr(backend, "_fence", lambda raw, seconds: None)
    with pytest.raises(QueryTimeout):
        backend.query(CROSS, Limits(rows=10, seconds=0.2), threading.Event())
    assert _running(maria_shop) == 0


@pytest.mark.parametrize("sql", [CROSS, "SELECT SLEEP(30)"])
def test_cancel_stops_in_the_server(connect, maria_shop, sql):
    backend = connect()._backend
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Cancelled):
        backend.query(sql, FREE, cancel)
    assert _running(maria_shop) == 0
    for _ in range(10):
        assert backend.query("SELECT 1", FREE, threading.Event()).rows == ((1,),)


def test_cancel_before_the_start_runs_nothing(connect):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        connect().run("SELECT count(*) FROM orders", cancel)


def test_row_cap_alone(connect):
    backend = connect()._backend
    table = backend.query("SELECT a.id FROM orders a, orders b", Limits(rows=7, seconds=20), threading.Event())
    assert len(table.rows) == 7
    assert table.truncated
    assert backend.query("SELECT 1", FREE, threading.Event()).rows == ((1,),)


def test_byte_cap_alone(connect):
    limits = Limits(rows=10**6, seconds=20, bytes=20_000)
    table = connect()._backend.query("SELECT a.name FROM customers a, customers b", limits, threading.Event())
    assert table.truncated
    assert len(table.rows) < 400


def test_more_questions_than_connections_all_get_answers(connect):
    database = connect()
    database.schema()
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(database.run("SELECT count(*) FROM orders").rows))
        for _ in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [((3600,),)] * 24


def test_values_of_every_kind(connect, maria_shop):
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE kinds CHARACTER SET utf8mb4")
        cursor.execute("GRANT SELECT ON kinds.* TO 'reader'@'%'")
        cursor.execute(_KINDS)
        cursor.execute(_KINDS_ROW)
    database = connect(database="kinds")
    sql = "SELECT *, rank FROM \"客户\" WHERE 姓名 LIKE '王%' AND \"Order Date\" < '2025-01-01'"
    row = database.run(database.check(sql, "sqlite")).rows[0]
    assert row[:4] == (18446744073709551615, "王芳😀", "12345678901234567890.0123456789", 19.9)
    assert row[4:9] == (5, "2024-02-29", "2024-02-29 10:11:12.345000", "10:11:12", "<2 bytes>")
    assert row[9:13] == (1, 1.5, '{"a": 1}', 2024)
    assert row[13:] == ("<1 bytes>", None, "2024-01-01", 3, 3)
    table = database.schema().table("客户")
    assert table.comment == "所有客户"
    assert table.column("姓名").comment == "客户全名"
    assert [table.column(name).kind for name in ("id", "money", "d", "yes", "y")] == [
        "INTEGER",
        "REAL",
        "TEXT",
        "INTEGER",
        "INTEGER",
    ]


def test_composite_keys_and_views(connect, maria_shop):
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE keyed")
        cursor.execute("GRANT SELECT, SHOW VIEW ON keyed.* TO 'reader'@'%'")
        cursor.execute("CREATE TABLE keyed.a (x INT, y INT, PRIMARY KEY (x, y))")
        cursor.execute(
            "CREATE TABLE keyed.b (id INT PRIMARY KEY, ax INT, ay INT, FOREIGN KEY (ax, ay) REFERENCES a(x, y))"
        )
        cursor.execute("CREATE VIEW keyed.v AS SELECT x FROM keyed.a")
    schema = connect(database="keyed").schema()
    assert [column.primary_key for column in schema.table("a").columns] == [True, True]
    assert schema.table("b").foreign_keys[0].columns == ("ax", "ay")
    assert schema.table("b").foreign_keys[0].target_columns == ("x", "y")
    assert schema.table("v").is_view


@pytest.mark.parametrize(
    "mode", ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "PIPES_AS_CONCAT", "ONLY_FULL_GROUP_BY", "ORACLE"]
)
def test_sql_mode_of_the_server_does_not_change_what_a_query_means(connect, maria_shop, mode):
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@global.sql_mode")
        usual = cursor.fetchone()[0]
        cursor.execute("SET GLOBAL sql_mode = %s", (mode,))
        try:
            database = connect()
            sql = database.check(
                "SELECT 'a\\', name || '!' FROM categories WHERE name <> '\\'' OR 1=1 --' ORDER BY id", "sqlite"
            )
            assert database.run(sql).rows[0] == ("a\\", "Tea!")
            assert database.run("SELECT level, name FROM customers GROUP BY level").rows
        finally:
            cursor.execute("SET GLOBAL sql_mode = %s", (usual,))


def test_lost_connection_is_replaced(connect, maria_shop):
    database = connect()
    database.run("SELECT 1")
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'reader'")
        for (thread,) in cursor.fetchall():
            cursor.execute("KILL %s", (thread,))
    assert database.run("SELECT 2").rows == ((2,),)


def test_connection_lost_in_the_middle_is_tried_once_more(connect, monkeypatch):
    backend = connect()._backend
    real, calls = backend._fetch, []

    def lose_once(raw, *rest):
        calls.append(raw)
        if len(calls) == 1:
            raw._force_close()
            raise pymysql.OperationalError(2013, "Lost connection to MySQL server during query")
        return real(raw, *rest)

    monkeypatch.setattr(backend, "_fetch", lose_once)
    assert backend.query("SELECT 3", FREE, threading.Event()).rows == ((3,),)
    assert len(calls) == 2


def _texts(error: DatabaseError) -> str:
    causes = repr(error) + repr(error.__cause__) + repr(error.facts)
    return error.render("en") + error.render("zh") + causes


def test_wrong_password_and_server_down_say_what_to_do_and_no_secret(mariadb, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = Database("main", f"mysql+pymysql://reader:wrong-Secret-77@127.0.0.1:{mariadb.port}/shop")
    with pytest.raises(DatabaseError, match="refused the login") as denied:
        wrong.run("SELECT 1")
    down = Database("main", "mysql+pymysql://reader:wrong-Secret-77@127.0.0.1:9/shop")
    with pytest.raises(DatabaseError, match="does not answer") as unreachable:
        down.schema()
    absent = Database("main", mariadb.url("owner", "no_such_database"))
    with pytest.raises(DatabaseError, match="no such database") as missing:
        absent.schema()
    for caught in (denied, unreachable, missing):
        text = _texts(caught.value)
        assert "Secret" not in text
        assert "127.0.0.1" not in text.replace("mysql+pymysql://reader:password@127.0.0.1", "")
    assert "Secret" not in caplog.text


@pytest.mark.parametrize(
    ("sql", "key"),
    [
        ("SELECT name FROM customers AS a JOIN cities AS b ON a.city_id = b.id", "sql.db_ambiguous"),
        ("SELECT id FROM orders WHERE count(*) > 1", "sql.db_aggregate"),
        ("SELECT id FROM orders UNION SELECT id, total FROM orders", "sql.db_column_count"),
        ("SELECT name FROM customers WHERE id = (SELECT id, total FROM orders LIMIT 1)", "sql.db_types"),
    ],
)
def test_explain_tells_what_the_database_objects_to(connect, sql, key):
    with pytest.raises(QueryFailed) as caught:
        connect().explain(sql)
    assert caught.value.key == key


def test_cancel_is_felt_while_explain_waits_for_a_lock(connect, maria_shop):
    database = connect(timeout_s=60)
    database.schema()
    cancel = threading.Event()
    with maria_shop.connect("shop") as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES orders WRITE")
        threading.Timer(0.3, cancel.set).start()
        with pytest.raises(Cancelled):
            database.explain("SELECT id FROM orders", cancel)
    assert _running(maria_shop) == 0


def test_subquery_of_several_rows(connect):
    with pytest.raises(QueryFailed, match="several rows"):
        connect().run("SELECT name FROM customers WHERE id = (SELECT customer_id FROM orders)")


def test_account_that_can_write_gets_the_statements_for_one_that_cannot(connect, maria_shop):
    assert connect("reader").account_warning() is None
    warning = connect("owner").account_warning()
    assert "ALL PRIVILEGES" in warning.privileges
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP USER IF EXISTS 'dbgpt_reader'@'%'")
        for statement in warning.statements:
            cursor.execute(statement.rstrip(";"))
    url = f"mysql+pymysql://dbgpt_reader:choose-a-password@127.0.0.1:{maria_shop.port}/shop"
    database = Database("reader", url)
    assert database.account_warning() is None
    assert len(database.run("SELECT id FROM categories").rows) == 12
    database.close()


def test_roles_of_an_account_count_as_its_own_rights(connect, maria_shop):
    with maria_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE ROLE `shop looker`")
        cursor.execute("CREATE OR REPLACE ROLE keeper")
        cursor.execute("GRANT SELECT ON shop.* TO `shop looker`")
        cursor.execute("GRANT `shop looker` TO reader")
        try:
            assert connect("reader").account_warning() is None
            cursor.execute("GRANT INSERT ON shop.* TO keeper")
            cursor.execute("GRANT keeper TO `shop looker`")
            assert connect("reader").account_warning().privileges == ("INSERT",)
        finally:
            cursor.execute("DROP ROLE `shop looker`, keeper")


def test_dates_are_text_without_time_zone_surprises(connect):
    row = connect().run("SELECT CURRENT_DATE").rows[0]
    datetime.date.fromisoformat(row[0])
