"""The grammar of a schema's queries: what it generates runs, what people write is in it, what is of no schema is not.

Sentences are drawn by walking the grammar with the starter model's tokens, each step among those that may come next.
"""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import pytest
from llguidance.hf import from_tokenizer
from transformers import AutoTokenizer

from dbgpt_lite.config import ROOT
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.grammar import select_grammar
from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo

SENTENCES = 12
LONGEST = 60
LIMITS = {
    "max_items_in_row": 100_000,
    "step_max_items": 5_000_000,
    "initial_lexer_fuel": 20_000_000,
    "step_lexer_fuel": 5_000_000,
    "max_grammar_size": 2_000_000,
}
INSIDE = (
    "SELECT count(*) FROM orders",
    "SELECT name FROM customers WHERE level = 'gold'",
    "SELECT name, price FROM products ORDER BY price DESC LIMIT 5",
    "SELECT T1.name FROM customers AS T1 JOIN cities AS T2 ON T1.city_id = T2.id WHERE T2.name = 'Berlin'",
    "SELECT status, COUNT(*) FROM orders GROUP BY status HAVING COUNT(*) > 10",
    "SELECT avg(price) FROM products WHERE category_id IN (SELECT id FROM categories WHERE name = 'Tea')",
    "SELECT name FROM products WHERE price > (SELECT avg(price) FROM products)",
    "SELECT name FROM cities UNION SELECT name FROM suppliers",
    "SELECT DISTINCT method FROM payments WHERE amount BETWEEN 10 AND 20.5",
    "SELECT name FROM employees WHERE name LIKE 'A%'",
    "SELECT c.name, count(*) AS n FROM customers c LEFT JOIN orders AS o ON o.customer_id = c.id GROUP BY c.id "
    "HAVING n > 2 ORDER BY n DESC, c.name LIMIT 5",
    "SELECT customers.name, country FROM customers INNER JOIN cities ON customers.city_id = cities.id",
    "SELECT a.name, b.name FROM categories AS a JOIN categories AS b ON a.id < b.id",
    "SELECT strftime('%Y-%m', order_date) AS month, round(sum(total), 2) FROM orders GROUP BY month ORDER BY month",
    "SELECT c.name, (SELECT count(*) FROM orders AS o WHERE o.customer_id = c.id) AS n FROM customers AS c",
    "SELECT name FROM customers AS c WHERE NOT EXISTS (SELECT 1 FROM orders AS o WHERE o.customer_id = c.id)",
    "SELECT name, rank() OVER (PARTITION BY category_id ORDER BY price DESC) AS position FROM products",
    "SELECT sum(CASE WHEN status = 'returned' THEN 1 ELSE 0 END) * 100.0 / count(*) FROM orders",
    "SELECT avg(n) FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) AS t",
    "SELECT * FROM (SELECT name, row_number() OVER (ORDER BY price DESC) AS rn FROM products) AS t WHERE rn <= 3",
    "SELECT T1.*, T2.name FROM products AS T1 JOIN categories AS T2 ON T1.category_id = T2.id WHERE T1.id = 5",
    "SELECT city_id FROM employees EXCEPT SELECT city_id FROM suppliers",
    "select cast(price as integer) from products where name = date('now', '-30 days')",
)
OUTSIDE = (
    "DELETE FROM orders",
    "SELECT * FROM sqlite_master",
    "SELECT colour FROM products",
    "SELECT load_extension('x') FROM orders",
    "SELECT name FROM products; DROP TABLE orders",
    "SELECT level FROM orders",
    "SELECT T1.level FROM orders AS T1",
    "SELECT name FROM products FOR UPDATE",
    "SELECT name FROM products INTO OUTFILE '/tmp/x'",
    "SELECT @@version FROM products",
    "SELECT sleep(9) FROM products",
    "SELECT T1.name, T2.level FROM customers AS T1 JOIN orders AS T2 ON T1.id = T2.customer_id",
    "SELECT name FROM customers AS T1 JOIN cities AS T2 ON T1.city_id = T2.id",
    "SELECT T1.name, T2.name FROM customers AS T1",
    "SELECT name FROM customers WHERE city_id IN (SELECT city_id FROM cities)",
    "SELECT name FROM customers WHERE city_id IN (SELECT id, name FROM cities)",
    "SELECT name, level FROM customers UNION SELECT name FROM cities",
    "SELECT name FROM customers WHERE count(*) > 1",
    "SELECT name AS n FROM customers GROUP BY level ORDER BY total_spent",
    "SELECT count(*) AS n FROM customers GROUP BY n",
    "SELECT price FROM products ORDER BY max(price)",
    "SELECT max(n) FROM (SELECT count(*) AS m FROM orders GROUP BY customer_id) AS t",
    "SELECT 1 + products.* FROM products",
    "SELECT rank() OVER (PARTITION BY level) FROM customers",
    "SELECT c.name FROM customers AS c WHERE EXISTS (SELECT 1 FROM cities AS c WHERE c.id = c.city_id)",
)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(ROOT / "models" / "starter-sql"))


@cache
def library_tokenizer() -> Any:
    return from_tokenizer(tokenizer(), len(tokenizer()))


@cache
def beginnings() -> Any:
    """For each token, a number of its first two letters, in the order of the letters; -1 for the end."""
    pieces = [tokenizer().decode([number])[:2] for number in range(len(tokenizer()))]
    numbers = {letters: number for number, letters in enumerate(sorted(set(pieces)))}
    found = np.array([numbers[letters] for letters in pieces])
    found[tokenizer().eos_token_id] = -1
    return found


def matcher(grammar: str) -> Any:
    found = llguidance.LLMatcher(
        library_tokenizer(),
        llguidance.LLMatcher.grammar_from_lark(grammar.replace("<stop>", f"<[{tokenizer().eos_token_id}]>")),
        log_level=0,
        limits=llguidance.LLParserLimits(**LIMITS),  # type: ignore[arg-type]
    )
    assert not found.is_error(), found.get_error()[:300]
    return found


def accepts(start: Any, text: str) -> bool:
    walk, ids = start.deep_copy(), tokenizer()(text, add_special_tokens=False).input_ids
    return walk.try_consume_tokens(ids) == len(ids) and may_end(walk)


def may_come(walk: Any) -> Any:
    """Which tokens may come next, as bits."""
    bits = np.unpackbits(np.frombuffer(walk.compute_bitmask(), dtype=np.uint8), bitorder="little")
    assert not walk.is_error(), walk.get_error()[:300]
    return bits


def may_end(walk: Any) -> bool:
    return bool(may_come(walk)[tokenizer().eos_token_id])


def sentence(start: Any, draw: random.Random) -> str:
    """One sentence of the grammar, "" when it grows beyond LONGEST tokens."""
    walk, ids = start.deep_copy(), []
    for step in range(LONGEST):
        bits = may_come(walk)
        if bits[tokenizer().eos_token_id] and draw.random() < (0.25 if step < LONGEST // 2 else 0.9):
            return str(tokenizer().decode(ids))
        # By their first letters, so that the many letters of a text in quotes do not drown the rest.
        allowed = np.where(bits[: len(beginnings())], beginnings(), -1)
        groups = np.unique(allowed[allowed >= 0]).tolist()
        if not groups:
            assert may_end(walk), f"dead end: {tokenizer().decode(ids)}"
            return str(tokenizer().decode(ids))
        ids.append(draw.choice(np.flatnonzero(allowed == draw.choice(groups)).tolist()))
        walk.consume_token(ids[-1])
    return ""


@pytest.fixture(scope="module")
def shop_grammar(shop_schema: Schema) -> Any:
    return matcher(select_grammar(shop_schema, "sqlite"))


@pytest.mark.parametrize("sql", INSIDE)
def test_what_people_write_is_in_it(shop_grammar: Any, sql: str) -> None:
    assert accepts(shop_grammar, sql)


@pytest.mark.parametrize("sql", OUTSIDE)
def test_what_is_no_query_over_the_schema_is_not(shop_grammar: Any, sql: str) -> None:
    assert not accepts(shop_grammar, sql)


def drawn_run(start: Any, seed: int, runs: Callable[[str], None]) -> int:
    draw, count = random.Random(seed), 0
    while count < SENTENCES:
        text = sentence(start, draw)
        if text:
            count += 1
            runs(text)
    return count


def test_everything_it_generates_runs_on_sqlite(shop_grammar: Any, shop: Database) -> None:
    def run(text: str) -> None:
        shop.explain(shop.check(text))

    assert drawn_run(shop_grammar, 1, run) == SENTENCES


@pytest.mark.parametrize("dialect", ["sqlite", "mysql"])
def test_everything_it_generates_runs_on_mariadb(shop_schema: Schema, reader: Database, dialect: str) -> None:
    """Written in SQLite's dialect, as the starter model does, and translated, or in MySQL's own."""

    def run(text: str) -> None:
        reader.explain(reader.check(text, written_in=dialect))

    assert drawn_run(matcher(select_grammar(shop_schema, dialect)), 2, run) == SENTENCES


def test_what_may_be_said_instead_of_a_query(shop_schema: Schema) -> None:
    start = matcher(select_grammar(shop_schema, "sqlite", "-- cannot answer"))
    for text in (
        "-- cannot answer",
        "-- cannot answer: the weather",
        "```sql\n-- cannot answer\n```",
        "```sql\nSELECT count(*) FROM orders\n```",
    ):
        assert accepts(start, text), text
    assert not accepts(start, "I cannot answer")
    # What would end a fence that was not opened would be taken for the answer.
    assert not accepts(start, "SELECT count(*) FROM orders\n```")
    assert not accepts(matcher(select_grammar(shop_schema, "sqlite")), "-- cannot answer")


def test_a_schema_without_tables_has_no_grammar() -> None:
    assert select_grammar(Schema(()), "sqlite") == ""


ODD = {
    "one table": (("people", "id", "name", "age"),),
    "two tables": (("people", "id", "name", "team_id"), ("teams", "id", "title")),
    "names that need quotes": (
        ("订单", "编号", "客户 名", "金额", "rank"),
        ("order", "select", "a b", "key", "编号", "Date"),
        ("group-members", "id", "Name", "range", "it's", "order id"),
        ("T1", "c", "T2", "count", "lead"),
        ("c", "x", "编号"),
    ),
}


def made(folder: Path, tables: tuple[tuple[str, ...], ...]) -> Database:
    with closing(sqlite3.connect(folder / "odd.db")) as connection:
        for name, *columns in tables:
            parts = [f'"{column}" {("INTEGER", "TEXT")[at % 2]}' for at, column in enumerate(columns)]
            connection.execute(f'CREATE TABLE "{name}" ({", ".join(parts)})')
    return Database("odd", f"sqlite:///{folder / 'odd.db'}")


@pytest.mark.parametrize("tables", ODD.values(), ids=ODD)
def test_everything_runs_over_odd_schemas(tmp_path: Path, tables: tuple[tuple[str, ...], ...]) -> None:
    database = made(tmp_path, tables)

    def run(text: str) -> None:
        database.explain(database.check(text))

    assert drawn_run(matcher(select_grammar(database.schema(), "sqlite")), 3, run) == SENTENCES


@pytest.mark.parametrize("letter", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u200b", "\u2028", "\ufeff"])
def test_names_with_control_characters_are_left_out(letter: str) -> None:
    """One of them would have turned the whole grammar off."""
    odd = f"a{letter}b"
    good, bad = ColumnInfo("name", "TEXT"), ColumnInfo(odd, "TEXT")
    tables = (
        TableInfo("people", (ColumnInfo("id", "INTEGER", True), good, bad)),
        TableInfo(odd, (good,), (ForeignKey(("name",), "people", ("id",)),)),
        TableInfo("empty", (bad,)),
        TableInfo("teams", (ColumnInfo("title", "TEXT"),), (ForeignKey((odd,), odd, (odd,)),)),
    )
    start = matcher(select_grammar(Schema(tables), "sqlite"))
    for sql in ("SELECT name FROM people", "SELECT title FROM teams"):
        assert accepts(start, sql)
    for sql in (f'SELECT "{odd}" FROM people', f'SELECT name FROM "{odd}"', "SELECT count(*) FROM empty"):
        assert not accepts(start, sql)
    assert select_grammar(Schema(tables[1:3]), "sqlite") == ""


def test_a_large_schema_has_a_grammar_that_can_be_followed() -> None:
    """Columns that every table has are what makes a grammar slow: an alias may then mean any table."""
    names = [f"thing{chr(97 + at // 8)}{chr(97 + at % 8)}" for at in range(40)]
    columns = (ColumnInfo("id", "INT", True), ColumnInfo("name", "TEXT"), ColumnInfo("parent_id", "INT"))
    schema = Schema(
        tuple(
            TableInfo(name, columns, (ForeignKey(("parent_id",), names[at // 2], ("id",)),))
            for at, name in enumerate(names)
        )
    )
    start = matcher(select_grammar(schema, "sqlite"))
    last, parent = names[-1], names[(len(names) - 1) // 2]
    sql = f"SELECT T1.name, T2.name FROM {parent} AS T1 JOIN {last} AS T2 ON T1.id = T2.parent_id WHERE T2.id > 3"
    walk = start.deep_copy()
    for token in tokenizer()(sql, add_special_tokens=False).input_ids:
        assert may_come(walk)[token]
        walk.consume_token(token)
    assert may_end(walk)


def test_no_more_tables_than_can_be_counted() -> None:
    tables = tuple(TableInfo(f"t_{number}", (ColumnInfo("id", "INT"),)) for number in range(64))
    assert select_grammar(Schema(tables), "sqlite") == ""
    assert select_grammar(Schema(tables[:63]), "sqlite")
