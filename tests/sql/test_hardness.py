"""Spider's hardness levels and whether an order is asked for."""

import pytest

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.hardness import shape_of


@pytest.mark.parametrize(
    ("level", "sql"),
    [
        # Queries of Spider's kind. Its paper calls the third one hard; its code, which is what counts, extra.
        ("easy", "SELECT count(*) FROM cars_data WHERE cylinders > 4"),
        (
            "medium",
            "SELECT T2.name, COUNT(*) FROM concert AS T1 JOIN stadium AS T2 ON T1.stadium_id = T2.stadium_id "
            "GROUP BY T1.stadium_id",
        ),
        (
            "extra",
            "SELECT T1.country_name FROM countries AS T1 JOIN continents AS T2 ON T1.continent = T2.cont_id JOIN "
            "car_makers AS T3 ON T1.country_id = T3.country WHERE T2.continent = 'Europe' GROUP BY T1.country_name "
            "HAVING COUNT(*) >= 3",
        ),
        (
            "extra",
            "SELECT AVG(life_expectancy) FROM country WHERE name NOT IN (SELECT T1.name FROM country AS T1 JOIN "
            "country_language AS T2 ON T1.code = T2.country_code WHERE T2.language = 'English' AND "
            "T2.is_official = 'T')",
        ),
        # By the rules, one clause at a time.
        ("easy", "SELECT a FROM t"),
        ("easy", "SELECT max(a) FROM t GROUP BY b"),
        ("medium", "SELECT a, b FROM t"),
        ("medium", "SELECT a FROM t WHERE b LIKE 'x%'"),
        ("medium", "SELECT a FROM t ORDER BY b LIMIT 1"),
        ("medium", "SELECT a, b FROM t WHERE c = 1 AND d = 2"),
        ("hard", "SELECT a FROM t JOIN u ON t.id = u.id WHERE b = 1 ORDER BY c"),
        ("hard", "SELECT a, count(*), max(b) FROM t WHERE c = 1 AND d = 2 GROUP BY a, b"),
        ("hard", "SELECT a FROM t WHERE b = (SELECT max(b) FROM t)"),
        ("hard", "SELECT a FROM t EXCEPT SELECT a FROM u"),
        ("extra", "SELECT a, b FROM t EXCEPT SELECT a, b FROM u"),
        ("hard", "SELECT a FROM t WHERE b = 1 OR c = 2 OR d = 3"),
        ("extra", "SELECT a FROM t WHERE b = 1 OR c = 2 OR d = 3 OR e LIKE 'x'"),
        ("extra", "SELECT a FROM t WHERE b = 1 UNION SELECT a FROM u WHERE c IN (SELECT d FROM v) ORDER BY a"),
        # What Spider does not have.
        ("hard", "SELECT rank() OVER (ORDER BY a) FROM t"),
        ("hard", "WITH x AS (SELECT a FROM t) SELECT a FROM x"),
    ],
)
def test_hardness(level: str, sql: str) -> None:
    assert shape_of(sql, "sqlite").hardness == level


@pytest.mark.parametrize(
    ("ordered", "sql"),
    [
        (True, "SELECT a FROM t ORDER BY a"),
        (True, "(SELECT a FROM t UNION SELECT b FROM t ORDER BY a)"),
        (True, "WITH x AS (SELECT a FROM t) SELECT a FROM x ORDER BY a LIMIT 3"),
        (False, "SELECT a FROM t"),
        (False, "SELECT max(a) FROM (SELECT a FROM t ORDER BY a LIMIT 3)"),
        (False, "SELECT sum(a) OVER (ORDER BY b) FROM t"),
        (False, "SELECT group_concat(a ORDER BY b) FROM t"),
    ],
)
def test_order_of_the_whole_result(ordered: bool, sql: str) -> None:
    assert shape_of(sql, "sqlite").ordered is ordered


@pytest.mark.parametrize("sql", ["", "no query", "DROP TABLE t", "SELECT (", "SELECT 1; SELECT 2"])
def test_what_is_no_query(sql: str) -> None:
    with pytest.raises(QueryRefused):
        shape_of(sql, "sqlite")
