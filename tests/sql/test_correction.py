"""Values in the wrong column, in SQLite and MariaDB: what is found, what the corrected query gives, what is left alone.

The queries are ones that the small SQL model wrote for these questions.
"""

import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import Busy, Cancelled, QueryFailed, QueryTimeout, UserError
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.correction import Corrector, Doubt, outer_column
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.lookup import SCANNED, Place, ValueFinder
from dbgpt_lite.sql.schema import Schema

JOINED = "SELECT COUNT(*) FROM customers AS T1 JOIN cities AS T2 ON T1.city_id = T2.id WHERE "
IN_CITIES = "SELECT COUNT(*) FROM customers AS a JOIN cities AS b ON a.city_id = b.id WHERE "

RUN = [
    ("How many customers live in germany?", f"{JOINED}T2.country = 'germany'", f"{IN_CITIES}b.country = 'Germany'"),
    ("Customers in Germany?", f"{JOINED}T2.name = 'Germany'", f"{IN_CITIES}b.country = 'Germany'"),
    ("Customers in North America?", f"{JOINED}T2.name = 'North America'", f"{IN_CITIES}b.region = 'North America'"),
    ("Customers in 上海?", f"{JOINED}T2.name = '上海'", f"{IN_CITIES}b.name = 'Shanghai'"),
    ("Customers in the USA?", f"{JOINED}T2.name = 'USA'", f"{IN_CITIES}b.country = 'United States'"),
    ("German customers?", f"{JOINED}T2.country = 'German'", f"{IN_CITIES}b.country = 'Germany'"),
    ("How many Gold customers?", "SELECT COUNT(*) FROM customers WHERE level = 'Gold'",
     "SELECT COUNT(*) FROM customers WHERE level = 'gold'"),
    ("Orders paid by alipay?",
     "SELECT COUNT(*) FROM orders AS T1 JOIN employees AS T2 ON T1.employee_id = T2.id WHERE T2.name = 'alipay'",
     "SELECT COUNT(*) FROM orders WHERE id IN (SELECT order_id FROM payments WHERE method = 'Alipay')"),
    ("Orders that customers from London placed?",
     "SELECT COUNT(*) FROM orders AS T1 JOIN customers AS T2 ON T1.customer_id = T2.id WHERE T2.email = 'London'",
     "SELECT COUNT(*) FROM orders o JOIN customers c ON o.customer_id = c.id JOIN cities t ON c.city_id = t.id "
     "WHERE t.name = 'London'"),
    ("Which employees are Store managers?", "SELECT name FROM employees WHERE name = 'Store'",
     "SELECT name FROM employees WHERE job_title = 'Store Manager'"),
    ("Which products are called Longjing?", "SELECT name FROM products WHERE name = 'Longjing'",
     "SELECT name FROM products WHERE name LIKE '%Longjing%'"),
    ("Delivered orders that are not Gold?",
     "SELECT COUNT(*) FROM orders AS o JOIN customers AS c ON o.customer_id = c.id "
     "WHERE o.status = 'Delivered' AND c.level <> 'Gold'",
     "SELECT COUNT(*) FROM orders AS o JOIN customers AS c ON o.customer_id = c.id "
     "WHERE o.status = 'delivered' AND c.level <> 'gold'"),
    ("Customers in london or Paris?", f"{JOINED}T2.name IN ('london', 'PARIS')",
     f"{IN_CITIES}b.name IN ('London', 'Paris')"),
]  # fmt: skip
KEYS = [
    ("Which suppliers are in france?",
     "SELECT name FROM suppliers WHERE city_id IN (SELECT city_id FROM employees WHERE city_id = 'france')",
     "SELECT s.name FROM suppliers s JOIN cities c ON s.city_id = c.id WHERE c.country = 'France'"),
    ("How many orders did customers from London place?",
     "SELECT COUNT(*) FROM orders AS T1 JOIN customers AS T2 ON T1.customer_id = T2.id WHERE T2.city_id = 'London'",
     "SELECT COUNT(*) FROM orders o JOIN customers c ON o.customer_id = c.id JOIN cities t ON c.city_id = t.id "
     "WHERE t.name = 'London'"),
]  # fmt: skip
REFUSED = [
    ("Which suppliers are in france?",
     "SELECT name FROM suppliers WHERE city_id IN (SELECT city_id FROM products WHERE type_id = 'france')",
     "SELECT s.name FROM suppliers s JOIN cities c ON s.city_id = c.id WHERE c.country = 'France'"),
    ("How many orders were paid with Credit Card?", "SELECT count(*) FROM orders WHERE salary = 'Credit Card'",
     "SELECT COUNT(*) FROM orders WHERE id IN (SELECT order_id FROM payments WHERE method = 'credit card')"),
    ("How many reviews do Coffee products have?",
     "SELECT count(*) FROM reviews WHERE category_id IN "
     "(SELECT category_id FROM products WHERE category_id = 'Coffee')",
     "SELECT COUNT(*) FROM reviews r JOIN products p ON r.product_id = p.id JOIN categories c ON p.category_id = c.id "
     "WHERE c.name = 'Coffee'"),
]  # fmt: skip


def finder(database: Database) -> ValueFinder:
    return ValueFinder(database.schema(), database.dialect, database.run)


def corrector(database: Database, question: str) -> Corrector:
    return Corrector(database.schema(), database.dialect, finder(database), question)


def doubt(database: Database, question: str, sql: str) -> Doubt | None:
    """The doubt about a query whose result held nothing."""
    return corrector(database, question).doubt(database.check(sql), empty=True)


def rows(database: Database, sql: str) -> list[tuple[object, ...]]:
    return sorted(database.run(sql).rows, key=repr)


@pytest.mark.parametrize(("question", "written", "meant"), RUN + KEYS)
def test_a_value_is_led_to_its_place(shop: Database, question: str, written: str, meant: str) -> None:
    found = doubt(shop, question, written)
    assert found
    assert rows(shop, found.sql) == rows(shop, meant) != []
    assert all(reason.render(language) for reason in found.reasons for language in ("en", "zh"))


@pytest.mark.parametrize(("question", "written", "meant"), RUN)
def test_the_same_in_mariadb(reader: Database, question: str, written: str, meant: str) -> None:
    found = doubt(reader, question, written)
    assert found
    assert rows(reader, found.sql) == rows(reader, meant) != []


@pytest.mark.parametrize(("question", "written", "meant"), REFUSED)
def test_a_refused_condition_is_led_to_its_value(shop: Database, question: str, written: str, meant: str) -> None:
    fixed = corrector(shop, question).refused(written, "sqlite")
    assert rows(shop, shop.check(fixed)) == rows(shop, meant) != []


def test_reasons_say_where_the_value_is(shop: Database) -> None:
    found = doubt(shop, "", f"{JOINED}T2.name = 'brazil' OR T2.name = 'germany'")
    assert found
    assert [reason.render("en") for reason in found.reasons] == [
        "No value “germany” in cities.name; “Germany” occurs in cities.country."
    ]
    assert found.missing == ("brazil",)


@pytest.mark.parametrize(
    "sql",
    [
        f"{JOINED}T2.name = 'Paris' AND T1.level = 'gold'",
        "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2031-%'",
        "SELECT name FROM products WHERE price > 100000",
        "SELECT name FROM products WHERE name LIKE '%Tea%' AND stock < 0",
        "SELECT n FROM (SELECT name AS n FROM cities) AS part WHERE n = 'Nowhere'",
        "SELECT COUNT(*) FROM orders WHERE customer_id = '17'",
    ],
)
def test_values_that_are_where_they_are_looked_up_are_left_alone(shop: Database, sql: str) -> None:
    assert doubt(shop, "", sql) is None


def test_a_value_that_occurs_nowhere_is_said_and_nothing_is_changed(shop: Database) -> None:
    found = doubt(shop, "Customers in Brazil?", f"{JOINED}T2.name = 'Brazil'")
    assert found == Doubt(missing=("Brazil",))


def test_a_result_with_rows_is_not_searched_except_for_what_it_excludes(shop: Database) -> None:
    sent: list[str] = []

    def run(sql: str) -> ResultTable:
        sent.append(sql)
        return shop.run(sql)

    judge = Corrector(shop.schema(), "sqlite", ValueFinder(shop.schema(), "sqlite", run), "")
    assert judge.doubt("SELECT name FROM customers WHERE level IN ('gold', 'Silver')", empty=False) is None
    assert sent == []
    excluded = judge.doubt("SELECT name FROM customers WHERE level <> 'Silver'", empty=False)
    assert excluded
    assert excluded.sql.endswith("level <> 'silver'")


def test_hostile_values_are_text_and_every_look_up_is_a_bounded_select(shop: Database) -> None:
    sent: list[str] = []

    def run(sql: str) -> ResultTable:
        sent.append(sql)
        return shop.run(sql)

    places = ValueFinder(shop.schema(), "sqlite", run)
    for value in ("x' OR 1=1 --", "'; DROP TABLE cities; --", "%", "_", '"', "\\", "a" * 500, ""):
        assert places.places(value) == ()
        places.parts(value)
    bounds = (f"LIMIT {SCANNED})", f"LIMIT 1 OFFSET {SCANNED}")
    assert all(sql.startswith("SELECT ") and any(bound in sql for bound in bounds) for sql in sent)
    assert shop.run("SELECT count(*) FROM cities").rows == ((38,),)


def test_a_slow_database_is_asked_once_and_nothing_is_claimed(shop_schema: Schema) -> None:
    asked: list[str] = []

    def slow(sql: str) -> ResultTable:
        asked.append(sql)
        raise QueryTimeout("sql.timeout", seconds="10")

    places = ValueFinder(shop_schema, "sqlite", slow)
    judge = Corrector(shop_schema, "sqlite", places, "")
    assert judge.doubt(f"{JOINED}T2.name = 'Brazil'", empty=True) is None
    assert len(asked) == 1
    assert not places.thorough


def test_look_ups_end_when_their_time_is_used_up(shop: Database) -> None:
    now = [0.0]
    sent: list[str] = []

    def run(sql: str) -> ResultTable:
        sent.append(sql)
        now[0] += 2.0
        return shop.run(sql)

    places = ValueFinder(shop.schema(), "sqlite", run, seconds=5.0, clock=lambda: now[0])
    assert places.places("nowhere at all") == ()
    assert sum("LOWER" in sql for sql in sent) == 2
    assert not places.thorough


def test_the_time_a_model_takes_is_not_counted(shop: Database) -> None:
    now = [0.0]
    places = ValueFinder(shop.schema(), "sqlite", shop.run, seconds=5.0, clock=lambda: now[0])
    now[0] = 60.0
    assert places.places("germany")
    assert places.thorough


def test_what_stands_behind_the_rows_that_are_read_is_not_called_missing(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbgpt_lite.sql.lookup.SCANNED", 5)
    places = ValueFinder(shop.schema(), "sqlite", shop.run)
    assert places.occurs("cities", "name", "Nowhere at all")
    assert not places.thorough


def test_stop_is_felt_and_a_failed_look_up_is_not(shop_schema: Schema) -> None:
    cancel = threading.Event()

    errors: list[UserError] = [QueryFailed("sql.failed", code=1), Busy("sql.busy")]

    def failing(sql: str) -> ResultTable:
        if cancel.is_set():
            raise Cancelled
        raise errors[0]

    places = ValueFinder(shop_schema, "sqlite", failing)
    assert places.places("x") == ()
    del errors[0]
    assert places.places("z") == ()
    cancel.set()
    with pytest.raises(Cancelled):
        places.places("y")


OUTER = [
    ("SELECT name FROM customers WHERE city_id IN (SELECT city_id FROM cities WHERE country = 'Germany')",
     "SELECT name FROM customers WHERE city_id IN (SELECT id FROM cities WHERE country = 'Germany')"),
    ("SELECT name FROM cities WHERE id IN (SELECT region FROM suppliers)",
     "SELECT name FROM cities WHERE id IN (SELECT city_id FROM suppliers)"),
    ("SELECT name FROM cities WHERE region IN (SELECT country FROM suppliers)", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "fixed"), OUTER)
def test_a_subquery_that_selects_a_column_of_the_outer_query(shop: Database, sql: str, fixed: str) -> None:
    found = outer_column(shop.check(sql), shop.schema(), "sqlite")
    assert found
    assert found.sql == fixed
    assert "subquery" in found.reasons[0].render("en")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM customers WHERE city_id IN (SELECT id FROM cities)",
        "SELECT name FROM cities WHERE id IN (SELECT city_id FROM suppliers)",
        "SELECT name FROM cities AS c WHERE 3 IN (SELECT s.id FROM suppliers AS s WHERE s.city_id = c.id)",
        "SELECT name FROM cities WHERE EXISTS (SELECT region FROM suppliers WHERE city_id = cities.id)",
        "SELECT name FROM cities WHERE id IN (SELECT n FROM (SELECT city_id AS n FROM suppliers) AS part)",
    ],
)
def test_other_subqueries_are_no_doubt(shop: Database, sql: str) -> None:
    assert outer_column(shop.check(sql), shop.schema(), "sqlite") is None


TEXT = [("cities", "country"), ("cities", "chinese_name"), ("categories", "name"), ("customers", "level"),
        ("payments", "method"), ("orders", "status"), ("employees", "job_title")]  # fmt: skip


@pytest.fixture(scope="session")
def values(shop: Database) -> dict[tuple[str, str], list[str]]:
    return {(t, c): [str(row[0]) for row in shop.run(f"SELECT DISTINCT {c} FROM {t}").rows] for t, c in TEXT}


Change = Callable[[str], str]


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_value_that_occurs_is_never_doubted_and_in_another_case_is_found(
    data: st.DataObject, shop: Database, values: dict[tuple[str, str], list[str]]
) -> None:
    table, column = data.draw(st.sampled_from(TEXT))
    value = data.draw(st.sampled_from(values[table, column]))
    right = f"SELECT id FROM {table} WHERE {column} = '{value}'"
    assert doubt(shop, "", right) is None
    change: Change = data.draw(st.sampled_from([str.upper, str.lower, str.swapcase]))
    other = change(value)
    found = doubt(shop, "", right.replace(f"'{value}'", f"'{other}'"))
    if other == value:
        assert found is None
    else:
        assert found
        assert rows(shop, found.sql) == rows(shop, right)
    assert Place(table, column, value) in finder(shop).places(other)
