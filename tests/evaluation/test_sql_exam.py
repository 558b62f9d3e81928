"""The exam over the sample database: every known query runs and tells something, and its order has no ties."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
from sqlglot import exp, parse_one

from dbgpt_lite.evaluation.sql_dataset import EXAMPLES, SqlQuestion, read_questions, shipped_questions
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.sample_shop import build

QUESTIONS = shipped_questions()
ANSWERABLE = [one for one in QUESTIONS if one.answerable]
PAIRS = read_questions(EXAMPLES)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shop") / "shop.db")


@pytest.fixture(scope="module")
def shop(file: Path) -> Iterator[Database]:
    with closing(Database("shop", f"sqlite:///{file}")) as database:
        yield database


def of(language: str) -> list[SqlQuestion]:
    return [one for one in QUESTIONS if one.language == language]


def test_counts() -> None:
    for language, levels, without in (
        ("en", {"easy": 50, "medium": 50, "hard": 35, "extra": 15}, 12),
        ("zh", {"easy": 15, "medium": 15, "hard": 10, "extra": 5}, 6),
    ):
        found = Counter(one.difficulty for one in of(language) if one.answerable)
        assert found.keys() == levels.keys()
        assert all(found[level] >= least for level, least in levels.items())
        assert sum(not one.answerable for one in of(language)) >= without
    assert sum(one.answerable for one in of("en")) >= 150
    assert sum(one.answerable for one in of("zh")) >= 50
    assert len(PAIRS) == 20


def test_nothing_is_asked_twice() -> None:
    shown = resources.files("dbgpt_lite") / "samples" / "questions.json"
    suggestions = [text for asked in json.loads(shown.read_text("utf-8"))["database"].values() for text in asked]
    texts = [one.question.casefold() for one in (*QUESTIONS, *PAIRS)] + [text.casefold() for text in set(suggestions)]
    assert len(set(texts)) == len(texts)
    queries = [" ".join(one.sql.casefold().split()) for one in (*of("en"), *PAIRS) if one.answerable]
    assert len(set(queries)) == len(queries)
    assert not {one.sql for one in of("zh") if one.answerable} & {one.sql for one in PAIRS}
    ids = [one.id for one in (*QUESTIONS, *PAIRS)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("question", [*ANSWERABLE, *PAIRS], ids=lambda one: one.id)
def test_the_known_query_runs_and_tells_something(shop: Database, question: SqlQuestion) -> None:
    rows = shop.run(shop.check(question.sql)).rows
    assert rows
    assert any(cell not in (None, 0, "") for row in rows for cell in row)


@pytest.mark.parametrize("question", [one for one in ANSWERABLE if "ORDER BY" in one.sql], ids=lambda one: one.id)
def test_what_is_ordered_has_no_ties(file: Path, question: SqlQuestion) -> None:
    """Else another right query could bring other rows, or the same ones in another order."""
    tree = parse_one(question.sql, read="sqlite")
    order = tree.args.get("order")
    if order is None:
        return
    assert isinstance(tree, exp.Select)
    named = {item.alias: item.this for item in tree.expressions if item.alias}
    keys = [named.get(key.this.name, key.this) for key in order.expressions]
    first, count = len(tree.expressions), int(tree.args["limit"].expression.name) if tree.args.get("limit") else None
    last = count + int(tree.args["offset"].expression.name if tree.args.get("offset") else 0) + 1 if count else None
    tree.set("expressions", [*tree.expressions, *(exp.alias_(key.copy(), f"key{n}") for n, key in enumerate(keys))])
    tree.set("limit", None)
    tree.set("offset", None)
    with closing(sqlite3.connect(file)) as connection:
        found = [row[first:] for row in connection.execute(tree.sql("sqlite")).fetchall()[:last]]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("question", [one for one in ANSWERABLE if "ROW_NUMBER" in one.sql], ids=lambda one: one.id)
def test_what_is_numbered_has_no_ties(shop: Database, question: SqlQuestion) -> None:
    if "ORDER BY order_date, id" in question.sql:
        return
    assert shop.run(question.sql).rows == shop.run(question.sql.replace("ROW_NUMBER", "RANK")).rows
