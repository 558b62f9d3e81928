"""SQLite: the fences of the file alone, without the guard, and the whole way of a query."""

import hashlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from dbgpt_lite.errors import Cancelled, ConfigError, DatabaseError, NotFound, QueryFailed, QueryRefused, QueryTimeout
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.database import Database, Databases
from dbgpt_lite.sql.sqlite import SqliteBackend, allow_reading
from tests.sql.corpus import allowed, refused

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
CROSS = "SELECT count(*) FROM order_items a, order_items b, order_items c, orders d, orders e, orders f"
FREE = Limits(rows=1000, seconds=20)


@pytest.fixture
def backend(shop_path: Path) -> SqliteBackend:
    return SqliteBackend("shop", shop_path)


@pytest.mark.parametrize("sql", allowed())
def test_ordinary_queries_run(shop, sql):
    checked = shop.check(sql)
    shop.explain(checked)
    table = shop.run(checked)
    assert table.columns
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_corpus_leaves_the_file_as_it_was(shop, shop_path):
    before = hashlib.sha256(shop_path.read_bytes()).hexdigest()
    for _, sql in refused():
        with pytest.raises(QueryRefused):
            shop.run(sql)
    assert hashlib.sha256(shop_path.read_bytes()).hexdigest() == before
    assert shop.run("SELECT count(*) FROM customers").rows == ((1400,),)


def test_authorizer_and_read_only_file_hold_without_the_guard(backend, shop_path, tmp_path):
    before = hashlib.sha256(shop_path.read_bytes()).hexdigest()
    stolen = tmp_path / "stolen.db"
    for sql in (
        "DELETE FROM customers",
        "DROP TABLE customers",
        "CREATE TABLE x (a)",
        "CREATE TEMP TABLE x (a)",
        "INSERT INTO cities VALUES (99, 'x', 'x', 'x', 'x')",
        "UPDATE customers SET name = 'x'",
        f"ATTACH DATABASE '{stolen}' AS x",
        f"VACUUM INTO '{stolen}'",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA table_info(customers)",
        "BEGIN IMMEDIATE",
        "SELECT sql FROM sqlite_master",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT randomblob(100)",
        "WITH x AS (SELECT 1) DELETE FROM customers",
    ):
        with pytest.raises((QueryRefused, QueryFailed)):
            backend.query(sql, FREE, threading.Event())
    with pytest.raises((QueryFailed, sqlite3.Warning, sqlite3.ProgrammingError)):
        backend.query("SELECT 1; DELETE FROM customers", FREE, threading.Event())
    assert not stolen.exists()
    assert hashlib.sha256(shop_path.read_bytes()).hexdigest() == before


def test_read_only_file_holds_without_the_authorizer(backend):
    with closing(backend._open()) as connection:
        connection.execute("PRAGMA query_only = OFF")
        for sql in ("DELETE FROM customers", "CREATE TABLE x (a)", "ATTACH DATABASE ':memory:' AS x"):
            with pytest.raises(sqlite3.OperationalError):
                connection.execute(sql)


def test_authorizer_alone_allows_reading_only(shop_path, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_bytes(shop_path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.set_authorizer(allow_reading)
        for sql in ("DELETE FROM customers", "CREATE TABLE x (a)", "ATTACH ':memory:' AS x", "PRAGMA user_version = 9"):
            with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
                connection.execute(sql)
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (1400,)


@pytest.mark.parametrize("sql", [ENDLESS, CROSS])
def test_time_limit_alone_stops_a_query_and_the_next_one_works(backend, sql):
    with pytest.raises(QueryTimeout, match=r"stopped after 0\.2 seconds"):
        backend.query(sql, Limits(rows=10, seconds=0.2), threading.Event())
    assert backend.query("SELECT 1", FREE, threading.Event()).rows == ((1,),)


def test_cancel_stops_a_running_query(backend):
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(Cancelled):
        backend.query(ENDLESS, Limits(rows=10, seconds=60), cancel)


def test_row_cap_alone(backend):
    table = backend.query("SELECT id FROM orders", Limits(rows=7, seconds=5), threading.Event())
    assert len(table.rows) == 7
    assert table.truncated


def test_byte_cap_alone(backend):
    limits = Limits(rows=10**6, seconds=5, bytes=10_000)
    table = backend.query("SELECT comment FROM reviews", limits, threading.Event())
    assert table.truncated
    assert len(table.rows) < 200


def test_value_of_unbounded_size_is_refused(backend):
    with pytest.raises(QueryRefused):
        backend.query("SELECT printf('%.*c', 900000000, 'x')", FREE, threading.Event())
    grown = "'xxxxxxxxxx'"
    for _ in range(8):
        grown = f"replace({grown}, 'x', 'xxxxxxxxxx')"
    with pytest.raises(QueryFailed, match="too large"):
        backend.query(f"SELECT length({grown})", FREE, threading.Event())


def test_truncation_is_told_only_when_rows_were_cut(shop_path):
    database = Database("shop", f"sqlite:///{shop_path}", row_limit=12)
    exact = database.run("SELECT id FROM categories")
    assert (len(exact.rows), exact.truncated) == (12, False)
    cut = database.run("SELECT id FROM cities")
    assert (len(cut.rows), cut.truncated) == (12, True)


def test_values_of_every_kind(tmp_path):
    path = tmp_path / "kinds.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            'CREATE TABLE "客户 表" '
            '(id INTEGER PRIMARY KEY, "姓名" TEXT, big INTEGER, r REAL, b BLOB, n, "Order Date" DATE)'
        )
        connection.execute(
            'INSERT INTO "客户 表" VALUES (1, ?, ?, 1.5, ?, NULL, ?)',
            ("王芳 <img>", 2**62 + 1, b"\x00\xff", "2024-05-01"),
        )
        connection.execute('CREATE VIEW names AS SELECT "姓名" FROM "客户 表"')
        connection.commit()
    database = Database("x", f"sqlite:///{path}")
    table = database.run("SELECT * FROM \"客户 表\" WHERE 姓名 LIKE '王%'")
    assert table.columns == ("id", "姓名", "big", "r", "b", "n", "Order Date")
    assert table.rows == ((1, "王芳 <img>", 2**62 + 1, 1.5, "<2 bytes>", None, "2024-05-01"),)
    assert database.run("SELECT * FROM names").rows == (("王芳 <img>",),)
    assert database.schema().table("NAMES").is_view


def test_text_that_is_not_utf8_is_read_all_the_same(tmp_path):
    path = tmp_path / "latin.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.execute("INSERT INTO t VALUES (CAST(x'636166e9' AS TEXT))")
        connection.commit()
    assert Database("x", f"sqlite:///{path}").run("SELECT a FROM t").rows == (("caf\ufffd",),)


def test_changed_tables_are_noticed(tmp_path):
    path = tmp_path / "change.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE a (x)")
    database = Database("x", f"sqlite:///{path}")
    database.schema()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE b (y)")
    database._known._read_at -= 3600
    assert database.run("SELECT y FROM b").rows == ()


@pytest.mark.parametrize(
    ("sql", "key"),
    [
        ("SELECT name FROM customers AS a JOIN cities AS b ON a.city_id = b.id", "sql.db_ambiguous"),
        ("SELECT id FROM orders WHERE count(*) > 1", "sql.db_aggregate"),
        ("SELECT id FROM orders UNION SELECT id, total FROM orders", "sql.db_column_count"),
        ("SELECT substr(name) FROM customers", "sql.db_arguments"),
        ("SELECT name FROM customers WHERE id = (SELECT id, total FROM orders)", "sql.db_one_column"),
    ],
)
def test_explain_tells_what_the_database_objects_to(shop, sql, key):
    with pytest.raises(QueryFailed) as caught:
        shop.explain(sql)
    assert caught.value.key == key
    assert caught.value.render("zh")


def test_explain_that_was_cancelled_plans_nothing(shop):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        shop.explain("SELECT id FROM orders", cancel)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(DatabaseError, match="is not there") as caught:
        Database("x", f"sqlite:///{tmp_path}/none.db").run("SELECT 1")
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(DatabaseError, match="cannot be read as a SQLite database"):
        Database("x", f"sqlite:///{tmp_path}/text.db").schema()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("postgresql://u:pw-Secret@h/d", "sql.other_driver"),
        ("mysql+mysqldb://u:pw-Secret@h/d", "sql.other_driver"),
        ("duckdb:///x", "sql.other_driver"),
        ("not a url pw-Secret", "sql.bad_url"),
        ("", "sql.bad_url"),
        ("mysql+pymysql://u:pw-Secret@h:port/d", "sql.bad_url"),
        ("mysql+pymysql://u:pw-Secret@h", "sql.no_database"),
        ("mysql+pymysql://u:pw-Secret@h/mysql", "sql.no_database"),
        ("mysql+pymysql://u:pw-Secret@h/information_schema", "sql.no_database"),
        ("mysql+pymysql://u:pw-Secret@h/d?local_infile=1", "sql.bad_option"),
        ("mysql+pymysql://u:pw-Secret@h/d?init_command=x", "sql.bad_option"),
        ("mysql+pymysql://u:pw-Secret@h/d?read_default_file=/etc/x", "sql.bad_option"),
        ("sqlite://", "sql.bad_sqlite_url"),
        ("sqlite:///:memory:", "sql.bad_sqlite_url"),
        ("sqlite:///x.db?mode=rwc", "sql.bad_sqlite_url"),
    ],
)
def test_urls_that_are_not_accepted(url, key):
    with pytest.raises(ConfigError) as caught:
        Databases({"main": url})
    assert caught.value.key == key
    for language in ("en", "zh"):
        text = caught.value.render(language)
        assert "main" in text
        assert "pw-Secret" not in text
    assert "pw-Secret" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_databases_by_name(shop_path):
    databases = Databases({"shop": f"sqlite:///{shop_path}", "other": "sqlite:///none.db"})
    assert databases.names() == ["shop", "other"]
    assert databases.default is databases.get("shop") is databases.get("")
    assert databases.default.account_warning() is None
    with pytest.raises(NotFound):
        databases.get("x")
    with pytest.raises(NotFound):
        _ = Databases({}).default
    databases.close()


def test_many_threads_at_once(shop):
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(shop.run("SELECT count(*) FROM orders").rows)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [((3600,),)] * 16
