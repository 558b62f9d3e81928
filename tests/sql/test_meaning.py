"""The guard writes a query anew: what it sends must give what the text as it stands gives, on a real database."""

import sqlite3
from contextlib import closing

import pytest

from tests.sql.corpus import allowed, comparable

_SAME_MODE = "SET sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"


@pytest.mark.parametrize("sql", [*allowed("sqlite"), *(sql for sql in allowed() if sql[0] != "(")])
def test_sqlite_gives_what_the_text_itself_gives(shop, shop_path, sql):
    with closing(sqlite3.connect(shop_path)) as plain:
        expected = plain.execute(sql).fetchmany(shop.row_limit)
    checked = shop.check(sql)
    assert shop.check(checked) == checked
    shop.explain(checked)
    assert comparable(shop.run(checked).rows) == comparable(expected)


@pytest.mark.parametrize("sql", allowed("mysql"))
def test_mariadb_gives_what_the_text_itself_gives(reader, maria_shop, sql):
    with maria_shop.connect("shop") as plain, plain.cursor() as cursor:
        cursor.execute(_SAME_MODE)
        cursor.execute(sql)
        expected = cursor.fetchmany(reader.row_limit)
    checked = reader.check(sql)
    assert reader.check(checked) == checked
    reader.explain(checked)
    assert comparable(reader.run(checked).rows) == comparable(expected)
