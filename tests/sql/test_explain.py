"""Queries in plain words, English and Chinese; and that every legitimate query gets some."""

from pathlib import Path

import pytest

from dbgpt_lite.sql.explain import steps

CASES = [
    (
        "SELECT T2.name, COUNT(*) AS n FROM orders AS T1 JOIN customers AS T2 ON T1.customer_id = T2.id "
        "WHERE T1.status = 'delivered' AND T2.city_id IN (SELECT id FROM cities WHERE country = 'France') "
        "GROUP BY T2.name HAVING COUNT(*) > 3 ORDER BY n DESC, T2.name LIMIT 5",
        [
            "Reads the table orders.",
            "Adds to each row the rows of customers where orders.customer_id is customers.id.",
            "Keeps only rows where orders.status is 'delivered' and customers.city_id is one of "
            "(id of cities where country is 'France').",
            "Makes one row for each customers.name.",
            "Keeps only groups where the number of rows is over 3.",
            "Shows customers.name, the number of rows as “n”.",
            "Sorts by n, highest first, then by customers.name, lowest first.",
            "Keeps the first 5 rows.",
        ],
        [
            "读取表 orders。",
            "为每一行加上 customers 中满足“orders.customer_id 等于 customers.id”的行。",
            "只保留满足以下条件的行：orders.status 等于 'delivered' 且 customers.city_id 是 "
            "（cities 中 country 等于 'France' 的 id） 之一。",
            "按 customers.name 分组，每组一行。",
            "只保留满足以下条件的组：行数 大于 3。",
            "显示 customers.name、行数（记作“n”）。",
            "按 n（从高到低），再按 customers.name（从低到高） 排序。",
            "只取前 5 行。",
        ],
    ),
    (
        "SELECT DISTINCT a.name, b.name FROM employees a LEFT JOIN employees b ON a.city_id = b.city_id "
        "WHERE NOT EXISTS (SELECT 1 FROM orders WHERE employee_id = a.id) AND a.name NOT LIKE 'A%'",
        [
            "Reads the table employees.",
            "Adds to each row the rows of b where a.city_id is b.city_id; rows without one stay.",
            "Keeps only rows where there is no row of orders (where employee_id is a.id) and a.name does not match "
            "'A%'.",
            "Shows a.name, b.name, each combination once.",
        ],
        None,
    ),
    (
        "WITH x AS (SELECT level, COUNT(DISTINCT city_id) AS n FROM customers GROUP BY 1) "
        "SELECT level FROM x WHERE n BETWEEN 1 AND 9 UNION ALL SELECT name FROM cities WHERE region IS NOT NULL",
        [
            "First works out “x”:",
            "— Reads the table customers.",
            "— Makes one row for each level.",
            "— Shows level, the number of different city_id as “n”.",
            "Reads the table x.",
            "Keeps only rows where n is from 1 to 9.",
            "Shows level.",
            "Adds the rows of a second query:",
            "— Reads the table cities.",
            "— Keeps only rows where region is recorded.",
            "— Shows name.",
        ],
        None,
    ),
]


@pytest.mark.parametrize(("sql", "english", "chinese"), CASES)
def test_steps(sql: str, english: list[str], chinese: list[str] | None) -> None:
    assert list(steps(sql, "sqlite", "en")) == english
    if chinese:
        assert list(steps(sql, "sqlite", "zh")) == chinese


def test_what_is_no_query_has_no_steps() -> None:
    assert steps("DROP TABLE x", "sqlite", "en") == ()
    assert steps("SELECT FROM WHERE", "sqlite", "en") == ()


ALLOWED = Path(__file__).parent.parent / "fixtures" / "sql" / "allowed.txt"


def test_every_legitimate_query_is_told_in_both_languages() -> None:
    lines = [line.strip() for line in ALLOWED.read_text(encoding="utf-8").splitlines()]
    queries = [line for line in lines if line and not line.startswith(("#", "--", "["))]
    assert len(queries) > 30
    for query in queries:
        for language in ("en", "zh"):
            told = steps(query, "sqlite", language)
            assert told, query
            assert all(step.strip() and "{" not in step for step in told if "{" not in query)
