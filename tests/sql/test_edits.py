"""Queries changed as a follow-up asks. What the rules do not understand stays with the model."""

import pytest

from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.edits import edited
from dbgpt_lite.sql.lookup import ValueFinder

PER_YEAR = "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2024-%'"
GOLD = "SELECT name FROM customers WHERE level = 'gold'"
ALL = "SELECT name, price FROM products"
EXPENSIVE = "SELECT name, price FROM products ORDER BY price DESC LIMIT 10"
BY_METHOD = "SELECT method, SUM(amount) AS total_paid FROM payments GROUP BY method"
COUNT = "SELECT COUNT(*) FROM customers"

CHANGED = [
    (PER_YEAR, "and in 2023?", "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2023-%'"),
    (PER_YEAR, "What about 2025?", "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2025-%'"),
    (PER_YEAR, "那2023年呢？", "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2023-%'"),
    (GOLD, "and silver?", "SELECT name FROM customers WHERE level = 'silver'"),
    (GOLD, "What about the Platinum ones?", "SELECT name FROM customers WHERE level = 'platinum'"),
    (GOLD, "那silver的呢", "SELECT name FROM customers WHERE level = 'silver'"),
    (GOLD, "only the first 3", "SELECT name FROM customers WHERE level = 'gold' LIMIT 3"),
    (GOLD, "前五个", "SELECT name FROM customers WHERE level = 'gold' LIMIT 5"),
    (GOLD, "just the top ten", "SELECT name FROM customers WHERE level = 'gold' LIMIT 10"),
    (ALL, "sort by price", "SELECT name, price FROM products ORDER BY price"),
    (ALL, "sort them by price descending", "SELECT name, price FROM products ORDER BY price DESC"),
    (ALL, "order by stock, highest first", "SELECT name, price FROM products ORDER BY stock DESC"),
    (ALL, "按price降序排序", "SELECT name, price FROM products ORDER BY price DESC"),
    (BY_METHOD, "sort by total paid, largest first", f"{BY_METHOD} ORDER BY total_paid DESC"),
    (BY_METHOD, "only PayPal",
     "SELECT method, SUM(amount) AS total_paid FROM payments WHERE method = 'PayPal' GROUP BY method"),
    (COUNT, "only Germany", f"{COUNT} WHERE city_id IN (SELECT id FROM cities WHERE country = 'Germany')"),
    (f"{COUNT} WHERE city_id IN (SELECT id FROM cities WHERE country = 'Germany')", "and London?",
     f"{COUNT} WHERE city_id IN (SELECT id FROM cities WHERE name = 'London')"),
    (COUNT, "just those in London", f"{COUNT} WHERE city_id IN (SELECT id FROM cities WHERE name = 'London')"),
    (COUNT, "只看上海的", f"{COUNT} WHERE city_id IN (SELECT id FROM cities WHERE chinese_name = '上海')"),
    (GOLD, "only the ones from France",
     "SELECT name FROM customers WHERE level = 'gold' AND city_id IN (SELECT id FROM cities WHERE country = 'France')"),
]  # fmt: skip
LEFT = [
    (GOLD, "How many orders were placed in 2024?"),
    (GOLD, "and in 2023?"),
    (GOLD, "and their emails?"),
    (GOLD, "why?"),
    (GOLD, "sort by weather"),
    (GOLD, "only Brazil"),
    (GOLD, "by level"),
    (EXPENSIVE, "by name"),
    (BY_METHOD, "sort by order_id"),
    ("SELECT name FROM cities UNION SELECT name FROM suppliers", "only Germany"),
    ("SELECT name FROM orders WHERE a = '2023-%' OR b = '2024-%'", "and in 2022?"),
    ("DROP TABLE cities", "only the first 3"),
    (COUNT, ""),
]


def change(shop: Database, sql: str, asked: str) -> str:
    return edited(sql, asked, shop.schema(), "sqlite", ValueFinder(shop.schema(), "sqlite", shop.run))


@pytest.mark.parametrize(("sql", "asked", "meant"), CHANGED)
def test_follow_ups_change_the_query(shop: Database, sql: str, asked: str, meant: str) -> None:
    made = change(shop, sql, asked)
    assert made
    assert shop.run(made).rows == shop.run(meant).rows


@pytest.mark.parametrize(("sql", "asked"), LEFT)
def test_what_the_rules_do_not_understand_is_left(shop: Database, sql: str, asked: str) -> None:
    assert change(shop, sql, asked) == ""


def test_in_mariadb(reader: Database) -> None:
    places = ValueFinder(reader.schema(), "mysql", reader.run)
    made = edited("SELECT COUNT(*) FROM customers", "only germany", reader.schema(), "mysql", places)
    assert reader.run(made).rows == ((60,),)
