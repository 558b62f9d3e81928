"""Whatever is made from the corpora is refused, or changes nothing though nothing but the guard stands before it.

HYPOTHESIS_PROFILE=explore looks for new examples, and for many more of them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress

import pymysql
import pytest
from hypothesis import HealthCheck, event, given, settings

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.guard import check
from dbgpt_lite.sql.sqlite import allow_reading
from tests.sql.mutations import statements

_FEW = settings(
    max_examples=max(250, settings.default.max_examples),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def small(shop_schema, shop_path) -> Iterator[sqlite3.Connection]:
    """Five rows of every table of the shop, writable; its authorizer lets everything through and takes notes."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS shop", (str(shop_path),))
        for table in shop_schema.tables:
            connection.execute(f"CREATE TABLE {table.name} AS SELECT * FROM shop.{table.name} LIMIT 5")
        connection.execute("DETACH shop")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
        yield connection


@pytest.fixture(scope="module")
def all_rights(mariadb, shop_schema, maria_shop) -> Iterator["pymysql.Connection[pymysql.cursors.Cursor]"]:
    """The same on MariaDB, through an account with all rights and no session's fence but a short time limit."""
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE DATABASE small CHARACTER SET utf8mb4")
        for table in shop_schema.tables:
            cursor.execute(f"CREATE TABLE small.{table.name} AS SELECT * FROM shop.{table.name} LIMIT 5")
        cursor.execute("USE small")
        cursor.execute("SET SESSION max_statement_time = 0.3, lock_wait_timeout = 1")
        yield connection
        cursor.execute("DROP DATABASE small")


@given(statements("sqlite"))
@_FEW
def test_what_passes_changes_nothing_in_sqlite(shop_schema, small, sql):
    try:
        text = check(sql, shop_schema, "sqlite", 100)
    except QueryRefused:
        return
    event("passed")
    before = list(small.iterdump())
    other_than_reading: list[tuple[object, ...]] = []
    small.set_authorizer(lambda *action: other_than_reading.append(action) or 0 if allow_reading(*action) else 0)
    small.set_progress_handler(_after(2000), 1000)
    with suppress(sqlite3.Error):
        small.execute(text).fetchmany(200)
    small.set_progress_handler(None, 0)
    small.set_authorizer(None)
    assert other_than_reading == []
    assert not small.in_transaction
    assert list(small.iterdump()) == before
    assert [row[1] for row in small.execute("PRAGMA database_list")] == ["main"]


@given(statements("mysql"))
@_FEW
def test_what_passes_changes_nothing_in_mariadb_with_all_rights(shop_schema, all_rights, sql):
    try:
        text = check(sql, shop_schema, "mysql", 100)
    except QueryRefused:
        return
    event("passed")
    with all_rights.cursor() as cursor:
        before = _checksums(cursor, shop_schema)
        with suppress(pymysql.Error):
            cursor.execute(text)
            assert len(cursor.fetchall()) <= 101
        assert _checksums(cursor, shop_schema) == before


@given(statements("sqlite"))
@_FEW
def test_what_passes_from_one_dialect_to_the_other_changes_nothing(shop_schema, all_rights, sql):
    try:
        text = check(sql, shop_schema, "mysql", 100, "sqlite")
    except QueryRefused:
        return
    event("passed")
    with all_rights.cursor() as cursor:
        before = _checksums(cursor, shop_schema)
        with suppress(pymysql.Error):
            cursor.execute(text)
        assert _checksums(cursor, shop_schema) == before


def _checksums(cursor, schema) -> list[tuple[object, ...]]:
    """Of all tables, with what else a statement could leave behind: variables, locks, a changed session."""
    cursor.execute("SHOW TABLES")
    tables = [row[0] for row in cursor.fetchall()]
    cursor.execute(f"CHECKSUM TABLE {', '.join(table.name for table in schema.tables)}")
    sums = list(cursor.fetchall())
    cursor.execute("SELECT @a, @n, @@max_statement_time, @@sql_mode, @@in_transaction, IS_USED_LOCK('a'), DATABASE()")
    return [tuple(tables), *sums, *cursor.fetchall()]


def _after(steps: int):
    counted = iter(range(steps))
    return lambda: int(next(counted, None) is None)
