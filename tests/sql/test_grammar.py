"""The grammar of a schema's queries: what it generates runs, what people write is in it, what is of no schema is not.

Sentences are drawn by walking the grammar with the starter model's tokens, each step among those that may come next.
"""

import random
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import llguidance
import numpy as np
import pytest
from llguidance.hf import from_tokenizer
from transformers import AutoTokenizer

from dbgpt_lite.config import ROOT
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.grammar import select_grammar
from dbgpt_lite.sql.schema import Schema

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
)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(ROOT / "models" / "starter-sql"))


@cache
def library_tokenizer() -> Any:
    return from_tokenizer(tokenizer(), len(tokenizer()))


@cache
def pieces() -> tuple[str, ...]:
    return tuple(tokenizer().decode([number]) for number in range(len(tokenizer())))


def matcher(grammar: str) -> Any:
    found = llguidance.LLMatcher(
        library_tokenizer(),
        llguidance.LLMatcher.grammar_from_lark(grammar),
        log_level=0,
        limits=llguidance.LLParserLimits(**LIMITS),  # type: ignore[arg-type]
    )
    assert not found.is_error(), found.get_error()[:300]
    return found


def accepts(start: Any, text: str) -> bool:
    walk, ids = start.deep_copy(), tokenizer()(text, add_special_tokens=False).input_ids
    return walk.try_consume_tokens(ids) == len(ids) and bool(walk.is_accepting())


def sentence(start: Any, draw: random.Random) -> str:
    """One sentence of the grammar, "" when it grows beyond LONGEST tokens."""
    walk, ids = start.deep_copy(), []
    for step in range(LONGEST):
        bits = np.unpackbits(np.frombuffer(walk.compute_bitmask(), dtype=np.uint8), bitorder="little")
        assert not walk.is_error(), walk.get_error()[:300]
        if walk.is_accepting() and draw.random() < (0.25 if step < LONGEST // 2 else 0.9):
            return str(tokenizer().decode(ids))
        # By their first letters, so that the many letters of a text in quotes do not drown the rest.
        groups: dict[str, list[int]] = defaultdict(list)
        for number in np.flatnonzero(bits[: len(pieces())]):
            if int(number) != tokenizer().eos_token_id:
                groups[pieces()[number][:2]].append(int(number))
        if not groups:
            assert walk.is_accepting(), f"dead end: {tokenizer().decode(ids)}"
            return str(tokenizer().decode(ids))
        ids.append(draw.choice(groups[draw.choice(sorted(groups))]))
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
        "SELECT count(*) FROM orders",
    ):
        assert accepts(start, text), text
    assert not accepts(start, "I cannot answer")
    assert not accepts(matcher(select_grammar(shop_schema, "sqlite")), "-- cannot answer")


def test_a_schema_without_tables_has_no_grammar() -> None:
    assert select_grammar(Schema(()), "sqlite") == ""
