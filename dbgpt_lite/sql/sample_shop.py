"""The sample database: a shop with ten tables and about 20,000 rows, the same ones every time.

Names are plain English words in lower case, values English and Chinese; dates are ISO text from 2023 to 2025.
"""

import datetime
import os
import random
import sqlite3
import tempfile
from bisect import bisect
from contextlib import closing, suppress
from itertools import accumulate
from pathlib import Path

from dbgpt_lite.sql import sample_words as words

# Raise it when the content changes: a file of an older version is built again.
VERSION = 1
_SEED = 20_230_101
_FIRST_DAY, _LAST_DAY = datetime.date(2023, 1, 1), datetime.date(2025, 12, 31)
_CUSTOMERS, _ORDERS, _EMPLOYEES, _REVIEWS = 1400, 3600, 36, 2000
# Sales over the year, January to December: spring festival, summer sale, November sales, gifts.
_MONTHS = (9, 6, 7, 7, 8, 10, 7, 7, 8, 9, 15, 12)

_TABLES = """
CREATE TABLE cities (id INTEGER PRIMARY KEY, name TEXT NOT NULL, chinese_name TEXT NOT NULL, country TEXT NOT NULL,
  region TEXT NOT NULL);
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, level TEXT NOT NULL,
  joined_on TEXT NOT NULL, city_id INTEGER NOT NULL REFERENCES cities(id));
CREATE TABLE employees (id INTEGER PRIMARY KEY, name TEXT NOT NULL, job_title TEXT NOT NULL, salary INTEGER NOT NULL,
  hired_on TEXT NOT NULL, city_id INTEGER NOT NULL REFERENCES cities(id));
CREATE TABLE suppliers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
  city_id INTEGER NOT NULL REFERENCES cities(id));
CREATE TABLE categories (id INTEGER PRIMARY KEY, name TEXT NOT NULL, chinese_name TEXT NOT NULL);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, chinese_name TEXT NOT NULL, price REAL NOT NULL,
  stock INTEGER NOT NULL, category_id INTEGER NOT NULL REFERENCES categories(id),
  supplier_id INTEGER NOT NULL REFERENCES suppliers(id));
CREATE TABLE orders (id INTEGER PRIMARY KEY, order_date TEXT NOT NULL, status TEXT NOT NULL, total REAL NOT NULL,
  customer_id INTEGER NOT NULL REFERENCES customers(id), employee_id INTEGER REFERENCES employees(id));
CREATE TABLE order_items (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(id),
  product_id INTEGER NOT NULL REFERENCES products(id), quantity INTEGER NOT NULL, unit_price REAL NOT NULL);
CREATE TABLE payments (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL REFERENCES orders(id), method TEXT NOT NULL,
  amount REAL NOT NULL, paid_on TEXT NOT NULL);
CREATE TABLE reviews (id INTEGER PRIMARY KEY, product_id INTEGER NOT NULL REFERENCES products(id),
  customer_id INTEGER NOT NULL REFERENCES customers(id), rating INTEGER NOT NULL, comment TEXT,
  written_on TEXT NOT NULL);
CREATE INDEX customers_city ON customers(city_id);
CREATE INDEX products_category ON products(category_id);
CREATE INDEX orders_customer ON orders(customer_id);
CREATE INDEX orders_date ON orders(order_date);
CREATE INDEX order_items_order ON order_items(order_id);
CREATE INDEX order_items_product ON order_items(product_id);
CREATE INDEX payments_order ON payments(order_id);
CREATE INDEX reviews_product ON reviews(product_id);
"""

_Row = tuple[object, ...]


def build(path: Path) -> Path:
    """Make the shop at `path` unless this version of it is there; returns `path`.

    Written beside it and then moved, so that a reader never sees half of it.
    """
    if _version(path) == VERSION:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        with closing(sqlite3.connect(part)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.executescript(_TABLES)
            for table, rows in _Shop(random.Random(_SEED)).tables().items():
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.commit()
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    return path


def _version(path: Path) -> int:
    if not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0


class _Shop:
    """Rows of every table, drawn from one random generator in a fixed order."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._city_weights = [city[4] for city in words.CITIES]
        self._days = self._sales_days()

    def tables(self) -> dict[str, list[_Row]]:
        cities: list[_Row] = [(n, c[0], c[1], c[3], c[2]) for n, c in enumerate(words.CITIES, 1)]
        categories: list[_Row] = [(n, name, zh) for n, (name, zh, _) in enumerate(words.CATEGORIES, 1)]
        customers, joined = self._customers()
        products, prices = self._products()
        orders, items, payments, bought = self._orders(joined, prices)
        return {
            "cities": cities,
            "customers": customers,
            "employees": self._employees(),
            "suppliers": self._suppliers(),
            "categories": categories,
            "products": products,
            "orders": orders,
            "order_items": items,
            "payments": payments,
            "reviews": self._reviews(bought),
        }

    def _sales_days(self) -> tuple[list[datetime.date], list[float]]:
        """Every day and its cumulated weight: busier months, busier weekends, a business that grows."""
        days = [_FIRST_DAY + datetime.timedelta(n) for n in range((_LAST_DAY - _FIRST_DAY).days + 1)]
        weights = (
            _MONTHS[day.month - 1] * (1.4 if day.weekday() > 4 else 1) * (1 + 0.35 * (day.year - 2023)) for day in days
        )
        return days, list(accumulate(weights))

    def _sales_day(self) -> datetime.date:
        days, weights = self._days
        return days[bisect(weights, self._draw.random() * weights[-1])]

    def _city(self) -> int:
        return self._draw.choices(range(1, len(words.CITIES) + 1), self._city_weights)[0]

    def _person(self, city: int) -> tuple[str, str]:
        """A name and its Latin spelling, usual for the city."""
        draw = self._draw
        if words.CITIES[city - 1][3] == "China" or draw.random() < 0.06:
            (last, last_latin), (first, first_latin) = draw.choice(words.SURNAMES), draw.choice(words.GIVEN_NAMES)
            return last + first, f"{first_latin}.{last_latin}"
        first, last = draw.choice(words.FIRST_NAMES), draw.choice(words.LAST_NAMES)
        return f"{first} {last}", f"{first}.{last}".lower()

    def _day(self, first: datetime.date, last: datetime.date) -> datetime.date:
        return first + datetime.timedelta(self._draw.randrange(max(1, (last - first).days)))

    def _customers(self) -> tuple[list[_Row], list[str]]:
        rows: list[_Row] = []
        joined_on = []
        for number in range(1, _CUSTOMERS + 1):
            city = self._city()
            name, latin = self._person(city)
            level = self._draw.choices(("bronze", "silver", "gold", "platinum"), (60, 25, 11, 4))[0]
            joined = self._day(datetime.date(2021, 6, 1), datetime.date(2025, 10, 1)).isoformat()
            rows.append((number, name, f"{latin}{number}@example.com", level, joined, city))
            joined_on.append(joined)
        return rows, joined_on

    def _employees(self) -> list[_Row]:
        rows: list[_Row] = []
        for number in range(1, _EMPLOYEES + 1):
            city = self._draw.choice((1, 1, 6, 10, 14, 18, 29, 34))
            job, pay = words.JOBS[(number - 1) % len(words.JOBS)]
            hired = self._day(datetime.date(2018, 1, 1), datetime.date(2024, 12, 1)).isoformat()
            rows.append((number, self._person(city)[0], job, pay + 50 * self._draw.randrange(20), hired, city))
        return rows

    def _suppliers(self) -> list[_Row]:
        numbers = {city[0]: number for number, city in enumerate(words.CITIES, 1)}
        return [
            (n, name, f"sales@{name.lower().replace(' ', '-')}.example", numbers[city])
            for n, (name, city) in enumerate(words.SUPPLIERS, 1)
        ]

    def _products(self) -> tuple[list[_Row], list[float]]:
        rows: list[_Row] = []
        prices = []
        for category, (_, _, products) in enumerate(words.CATEGORIES, 1):
            makers = self._draw.sample(range(1, len(words.SUPPLIERS) + 1), 4)
            for name, chinese, price in products:
                stock = 0 if self._draw.random() < 0.05 else self._draw.randrange(5, 400)
                rows.append((len(rows) + 1, name, chinese, price, stock, category, self._draw.choice(makers)))
                prices.append(price)
        return rows, prices

    def _orders(
        self, joined: list[str], prices: list[float]
    ) -> tuple[list[_Row], list[_Row], list[_Row], list[tuple[int, int, datetime.date]]]:
        """Orders by date, their items and payments, and what was delivered: (product, customer, day)."""
        draw = self._draw
        popularity = [draw.paretovariate(1.3) for _ in prices]
        regulars = list(accumulate(draw.paretovariate(2.2) for _ in joined))
        orders: list[_Row] = []
        items: list[_Row] = []
        payments: list[_Row] = []
        bought: list[tuple[int, int, datetime.date]] = []
        for number, day in enumerate(sorted(self._sales_day() for _ in range(_ORDERS)), 1):
            date = day.isoformat()
            customer = self._customer(joined, regulars, date)
            total = 0.0
            for product in self._basket(popularity):
                quantity = draw.choices((1, 2, 3, 4, 6), (62, 22, 8, 5, 3))[0]
                price = round(prices[product - 1] * (1 - 0.04 * (2025 - day.year)), 2)
                items.append((len(items) + 1, number, product, quantity, price))
                bought.append((product, customer, day))
                total += quantity * price
            status = self._status(day)
            seller = draw.randrange(1, _EMPLOYEES + 1) if draw.random() < 0.8 else None
            orders.append((number, date, status, round(total, 2), customer, seller))
            if status != "cancelled":
                method = draw.choices(words.PAYMENT_METHODS, (30, 28, 24, 13, 5))[0]
                paid = min(day + datetime.timedelta(draw.choice((0, 0, 0, 1, 2))), _LAST_DAY).isoformat()
                payments.append((len(payments) + 1, number, method, round(total, 2), paid))
        return orders, items, payments, bought

    def _customer(self, joined: list[str], regulars: list[float], date: str) -> int:
        """A customer who had joined by then; `regulars` are cumulated weights, heavier for those who buy often."""
        while True:
            customer = self._draw.choices(range(len(joined)), cum_weights=regulars)[0]
            if joined[customer] <= date:
                return customer + 1

    def _basket(self, popularity: list[float]) -> list[int]:
        size = self._draw.choices((1, 2, 3, 4, 5, 6), (28, 26, 20, 13, 8, 5))[0]
        return list(dict.fromkeys(self._draw.choices(range(1, len(popularity) + 1), popularity, k=size)))

    def _status(self, day: datetime.date) -> str:
        if day > _LAST_DAY - datetime.timedelta(4):
            return "paid"
        if day > _LAST_DAY - datetime.timedelta(12):
            return "shipped"
        return self._draw.choices(("delivered", "returned", "cancelled"), (91, 4, 5))[0]

    def _reviews(self, bought: list[tuple[int, int, datetime.date]]) -> list[_Row]:
        draw = self._draw
        rows: list[_Row] = []
        for product, customer, day in sorted(draw.sample(bought, _REVIEWS), key=lambda entry: entry[2]):
            rating = draw.choices((5, 4, 3, 2, 1), (44, 31, 14, 7, 4))[0]
            comment = None if draw.random() < 0.12 else draw.choice(words.REVIEWS[rating][draw.random() < 0.55])
            written = min(day + datetime.timedelta(draw.randrange(3, 40)), _LAST_DAY).isoformat()
            rows.append((len(rows) + 1, product, customer, rating, comment, written))
        return rows
