"""Cells, caps, account rights and driver errors, without a server."""

import datetime
import decimal
import re
import time
from pathlib import Path

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dbgpt_lite.sql
from dbgpt_lite.errors import DatabaseError, QueryFailed, QueryRefused, QueryTimeout
from dbgpt_lite.sql.cells import Limits, cell, collect
from dbgpt_lite.sql.faults import mysql_fault
from dbgpt_lite.sql.grants import read_grants
from dbgpt_lite.texts import section_texts


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63, 2**63),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("王", "王"),
        (decimal.Decimal("19.90"), 19.9),
        (decimal.Decimal("5"), 5),
        (decimal.Decimal("12345678901234567.12"), "12345678901234567.12"),
        (decimal.Decimal("NaN"), "NaN"),
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3), "2024-02-29 01:02:03"),
        (datetime.timedelta(hours=30, minutes=5, seconds=6), "30:05:06"),
        (-datetime.timedelta(minutes=1), "-00:01:00"),
        (b"abc", "<3 bytes>"),
        ({"b"}, "{'b'}"),
    ],
)
def test_cell(value, expected):
    assert cell(value) == expected
    assert type(cell(value)) is type(expected)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**22), max_value=10**22))
def test_decimals_keep_their_value(value):
    kept = cell(value)
    assert decimal.Decimal(repr(kept) if isinstance(kept, float) else str(kept)) == value


def test_collect_reads_no_more_rows_than_needed():
    taken: list[int] = []

    def rows():
        for number in range(100):
            taken.append(number)
            yield (number,)

    table = collect(["n"], rows(), Limits(rows=5, seconds=1), time.monotonic())
    assert len(table.rows) == 5
    assert table.truncated
    assert len(taken) == 6


@pytest.mark.parametrize(
    ("lines", "privileges"),
    [
        (
            [
                "GRANT USAGE ON *.* TO `r`@`%` IDENTIFIED BY PASSWORD '*AB'",
                "GRANT SELECT, SHOW VIEW ON `shop`.* TO `r`@`%`",
            ],
            None,
        ),
        (["GRANT SELECT (`a`, `b`) ON `shop`.`t` TO `r`@`%`"], None),
        (["GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION"], ("ALL PRIVILEGES",)),
        (["GRANT SELECT, INSERT, DROP ON `shop`.* TO `r`@`%`"], ("INSERT", "DROP")),
        (["GRANT SELECT, UPDATE (`a`) ON `shop`.`t` TO `r`@`%`"], ("UPDATE",)),
        (["GRANT FILE ON *.* TO `r`@`%`", "GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `r`@`%`"], ("FILE", "EXECUTE")),
        (["GRANT INSERT ON `my shop`.* TO `r`@`%`"], ("INSERT",)),
        (["GRANT `role` TO `r`@`%`"], ("ROLE role",)),
        (["GRANT `a b`@`%`,`c`@`local` TO `r`@`%`"], ("ROLE a b", "ROLE c@local")),
        (["GRANT 'old' TO 'r'@'%'", "GRANT plain TO 'r'@'%' WITH ADMIN OPTION"], ("ROLE old", "ROLE plain")),
        (["GRANT `role` TO `r`@`%`", "GRANT USAGE ON *.* TO `role`", "GRANT SELECT ON `shop`.* TO `role`"], None),
        (["GRANT `role`@`%` TO `r`@`%`", "GRANT DROP ON `shop`.* TO `role`@`%`"], ("DROP",)),
    ],
)
def test_read_grants(lines, privileges):
    warning = read_grants(lines, "my`shop")
    assert (warning.privileges if warning else None) == privileges
    if warning:
        assert warning.statements[1] == "GRANT SELECT, SHOW VIEW ON `my``shop`.* TO 'dbgpt_reader'@'%';"


@pytest.mark.parametrize(
    ("code", "message", "kind", "part"),
    [
        (1045, "Access denied for user 'bob'@'10.0.0.9' (using password: YES)", DatabaseError, "refused the login"),
        (1049, "Unknown database 'hidden'", DatabaseError, "no such database"),
        (2003, "Can't connect to MySQL server on '10.0.0.9'", DatabaseError, "does not answer"),
        (2013, "Lost connection to MySQL server during query", DatabaseError, "does not answer"),
        (1142, "SELECT command denied to user 'bob'@'10.0.0.9' for table 'x'", QueryFailed, "may not read"),
        (1969, "Query execution was interrupted (max_statement_time exceeded)", QueryTimeout, "after 3 seconds"),
        (3024, "Query execution was interrupted, maximum statement execution time exceeded", QueryTimeout, "after 3"),
        (1792, "Cannot execute statement in a READ ONLY transaction", QueryRefused, "reading only"),
        (1054, "Unknown column 'o.amout' in 'field list'", QueryFailed, "no column o.amout"),
        (1146, "Table 'hidden.orderz' doesn't exist", QueryFailed, "no table orderz"),
        (1064, "You have an error near 'bob 10.0.0.9'", QueryFailed, "syntax"),
        (9999, "something about bob at 10.0.0.9", QueryFailed, "error 9999"),
    ],
)
def test_errors_of_the_server_become_ours_without_names_of_hosts_or_users(code, message, kind, part):
    fault = mysql_fault(pymysql.OperationalError(code, message), "main", 3.0)
    assert type(fault) is kind
    for text in (fault.render("en"), fault.render("zh")):
        assert "bob" not in text
        assert "10.0.0.9" not in text
        assert "hidden" not in text
    assert part in str(fault)


def test_every_text_is_used_and_every_key_exists():
    package = Path(dbgpt_lite.sql.__file__).parent
    used = set(re.findall(r'"sql\.([a-z_]+)"', "".join(file.read_text() for file in package.glob("*.py")))) - {"no_"}
    assert used == set(section_texts("sql", "en")) == set(section_texts("sql", "zh"))
