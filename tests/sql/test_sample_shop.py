"""The sample shop: always the same, whole, and pleasant to ask."""

import hashlib
import sqlite3
import threading
from contextlib import closing

import pytest

from dbgpt_lite.sql.sample_shop import VERSION, build


@pytest.fixture
def connection(shop_path):
    with closing(sqlite3.connect(shop_path)) as opened:
        yield opened


def _one(connection, sql):
    return connection.execute(sql).fetchone()[0]


def _content(path) -> str:
    with closing(sqlite3.connect(path)) as opened:
        return hashlib.sha256("\n".join(opened.iterdump()).encode()).hexdigest()


def test_two_builds_are_equal_and_the_second_call_does_nothing(shop_path, tmp_path):
    other = build(tmp_path / "deep" / "shop.db")
    assert _content(other) == _content(shop_path)
    stamp = other.stat().st_mtime_ns
    build(other)
    assert other.stat().st_mtime_ns == stamp
    assert [file.name for file in other.parent.iterdir()] == ["shop.db"]


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_damaged_or_old_file_is_built_again(tmp_path, content):
    path = tmp_path / "shop.db"
    path.write_bytes(content)
    build(path)
    with closing(sqlite3.connect(path)) as opened:
        assert _one(opened, "PRAGMA user_version") == VERSION


def test_two_builders_at_once_do_not_disturb_each_other(tmp_path, shop_path):
    path = tmp_path / "shop.db"
    threads = [threading.Thread(target=build, args=(path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _content(path) == _content(shop_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_size_and_integrity(connection):
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert len(tables) == 10
    assert 18_000 < sum(_one(connection, f"SELECT count(*) FROM {name}") for name in tables) < 22_000
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert _one(connection, "PRAGMA integrity_check") == "ok"


def test_numbers_agree_with_each_other(connection):
    wrong = """SELECT count(*) FROM orders AS o WHERE abs(total -
        (SELECT sum(quantity * unit_price) FROM order_items WHERE order_id = o.id)) > 0.011"""
    assert _one(connection, wrong) == 0
    assert (
        _one(
            connection,
            "SELECT count(*) FROM payments p JOIN orders o ON o.id = p.order_id WHERE o.status = 'cancelled'",
        )
        == 0
    )
    assert _one(connection, "SELECT count(*) FROM products WHERE price <= 0") == 0
    early = "SELECT count(*) FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.order_date < c.joined_on"
    assert _one(connection, early) == 0
    span = connection.execute("SELECT min(order_date), max(order_date) FROM orders").fetchone()
    assert span[0].startswith("2023-01")
    assert span[1].startswith("2025-12")


def test_values_are_english_and_chinese(connection):
    assert _one(connection, "SELECT count(*) FROM customers WHERE name GLOB '*[一-龥]*'") > 400
    assert _one(connection, "SELECT count(*) FROM customers WHERE name GLOB '[A-Z]*'") > 400
    assert _one(connection, "SELECT chinese_name FROM cities WHERE name = 'Shanghai'") == "上海"
    assert _one(connection, "SELECT count(*) FROM reviews WHERE comment GLOB '*[一-龥]*'") > 600


def test_demo_questions_have_clear_answers(connection):
    years = connection.execute("SELECT substr(order_date, 1, 4), sum(total) FROM orders GROUP BY 1").fetchall()
    assert [year for year, _ in years] == ["2023", "2024", "2025"]
    assert years[0][1] < years[1][1] < years[2][1]
    cities = "SELECT c.name, count(*) AS n FROM customers JOIN cities AS c ON c.id = city_id GROUP BY c.id"
    top = connection.execute(f"{cities} ORDER BY n DESC LIMIT 2").fetchall()
    assert top[0][0] == "Shanghai"
    assert top[0][1] > top[1][1]
