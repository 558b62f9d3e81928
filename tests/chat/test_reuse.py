"""A remembered query with other values, or none."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.chat.reuse import reused


@dataclass(frozen=True)
class Kept:
    question: str
    sql: str
    score: float = 1.0


YEAR = Kept("How many orders were placed in 2024?", "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2024-%'")
LEVEL = Kept("Which gold customers live in Paris?", "SELECT name FROM c WHERE level = 'gold' AND city = 'Paris'")
TOP = Kept("The 5 most expensive products", "SELECT name FROM products ORDER BY price DESC LIMIT 5")
CHINESE = Kept("上海有多少客户？", "SELECT COUNT(*) FROM c WHERE city = '上海'")
HALF_OPEN = Kept(
    "How many orders were placed in 2023?",
    "SELECT COUNT(*) FROM orders WHERE order_date >= '2023-01-01' AND order_date < '2024-01-01'",
)
DAY = Kept(
    "How many orders came on 2024-03-05?",
    "SELECT COUNT(*) FROM orders WHERE order_date >= '2024-03-05' AND order_date < '2024-03-06'",
)
SPAN = Kept(
    "How many orders from 2022 to 2023?",
    "SELECT COUNT(*) FROM orders WHERE order_date BETWEEN '2022-01-01' AND '2023-12-31'",
)
YEARS = Kept("Sales of 2023", "SELECT SUM(total) FROM s WHERE year = 2023 AND made <= 2024")


@pytest.mark.parametrize(
    ("question", "kept", "sql"),
    [
        ("how many orders were placed in 2024", YEAR, YEAR.sql),
        ("How many orders were placed in 2023?", YEAR, "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2023-%'"),
        ("Which silver customers live in New York?", LEVEL,
         "SELECT name FROM c WHERE level = 'silver' AND city = 'New York'"),
        ("Which gold customers live in Xi'an?", LEVEL, "SELECT name FROM c WHERE level = 'gold' AND city = 'Xi''an'"),
        ("the 10 most expensive products", TOP, "SELECT name FROM products ORDER BY price DESC LIMIT 10"),
        ("北京有多少客户？", CHINESE, "SELECT COUNT(*) FROM c WHERE city = '北京'"),
        ("How many payments were made in 2024?", YEAR, ""),
        ("How many orders were placed in Berlin?", YEAR, ""),
        ("How many orders were placed in 2024 in Berlin?", YEAR, ""),
        ("How many orders were returned in 2023?", YEAR, ""),
        ("Which gold suppliers live in Paris?", LEVEL, ""),
        ("The 5 cheapest products", TOP, ""),
        ("How many orders were placed in 2022?", HALF_OPEN, ""),
        ("How many orders came on 2024-03-07?", DAY, ""),
        ("Sales of 2022", YEARS, ""),
        ("How many orders from 2023 to 2024?", SPAN, SPAN.sql.replace("2023", "2024").replace("2022", "2023")),
        ("", YEAR, ""),
    ],
)  # fmt: skip
def test_values_are_exchanged_and_nothing_else(question: str, kept: Kept, sql: str) -> None:
    assert reused(question, [kept]) == sql


def test_the_first_example_that_fits_is_taken() -> None:
    assert reused(TOP.question, [YEAR, LEVEL, TOP]) == TOP.sql
    assert reused(TOP.question, []) == ""


@given(st.from_regex(r"[A-Za-z'][A-Za-z' ]{0,12}[A-Za-z']", fullmatch=True))
def test_a_value_stays_one_text(value: str) -> None:
    made = reused(f"Customers in {value}", [Kept("Customers in Paris", "SELECT 1 FROM c WHERE city = 'Paris'")])
    if made:
        inside = made.removeprefix("SELECT 1 FROM c WHERE city = '").removesuffix("'")
        assert "'" not in inside.replace("''", "")


@pytest.mark.parametrize(
    ("known", "sql", "question"),
    [
        ("Orders with amount > 100?", "SELECT count(*) FROM orders WHERE amount > 100", "Orders with amount < 100?"),
        ("Orders below -5?", "SELECT count(*) FROM orders WHERE amount < -5", "Orders below 5?"),
        ("Top 5 with more than 5 items", "SELECT a FROM t WHERE n > 5 LIMIT 5", "Top 10 with more than 5 items"),
        ("Customers with 1 order", "SELECT c FROM t HAVING COUNT(*) = 1 LIMIT 1", "Customers with 3 order"),
    ],
)
def test_what_differs_in_more_than_one_value_is_not_reused(known: str, sql: str, question: str) -> None:
    assert reused(question, (Kept(known, sql, 0.97),)) == ""
