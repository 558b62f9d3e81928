"""Remembered examples and terms: the same question leads, what the schema no longer bears is left out."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dbgpt_lite.chat.examples import (
    MAX_COMPARED,
    ExampleMemory,
    SimilarExample,
    occurs,
)
from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.errors import NotFound, QueryRefused
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.query_store import NewExample, NewTerm, QueryStore, one_line, question_key
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.sql.sample_shop import build
from dbgpt_lite.store import ConversationStore

QUESTIONS = json.loads((Path(__file__).parent / "example_questions.json").read_text(encoding="utf-8"))
ANA, BEN = "user:ana", "user:ben"


@dataclass
class Near:
    """Similarities as the test sets them; remembers how many texts it was asked about."""

    cosines: Sequence[float] = (0.5,)
    asked: list[int] = field(default_factory=list)

    def __call__(self, text: str, others: Sequence[str]) -> list[float]:
        self.asked.append(len(others))
        return [self.cosines[n % len(self.cosines)] for n in range(len(others))]


@dataclass
class World:
    """A shop with its memory."""

    memory: ExampleMemory
    queries: QueryStore
    databases: Databases
    near: Near


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shop") / "shop.db")


@pytest.fixture
def world(shop: Path, tmp_path: Path) -> Iterator[World]:
    store = ConversationStore(f"sqlite:///{tmp_path / 'store.db'}")
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE staff (id INTEGER PRIMARY KEY, name TEXT, wage REAL)")
    databases = Databases({"shop": f"sqlite:///{shop}", "other": f"sqlite:///{tmp_path / 'other.db'}"})
    queries, near = QueryStore(store.engine), Near()
    yield World(ExampleMemory(queries, databases, near), queries, databases, near)
    databases.close()
    store.close()


@pytest.fixture(scope="module")
def quoter() -> ExtractiveEngine:
    return ExtractiveEngine(Embedder("", "cpu").embed)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_question_in_other_words_finds_its_example_and_a_foreign_one_finds_none(
    world: World, quoter: ExtractiveEngine, language: str
) -> None:
    memory = ExampleMemory(world.queries, world.databases, quoter.near)
    asked = QUESTIONS[language]
    for one in asked["remembered"]:
        memory.remember(ANA, "shop", one["question"], one["sql"], "thumbs")
    first = {one["held"]: memory.similar("shop", one["held"]) for one in asked["remembered"]}
    wrong = [held for held, found in first.items() if not found or found[0].question != _question(asked, held)]
    assert wrong == []
    assert [q for q in asked["unrelated"]["held"] if memory.similar("shop", q)] == []


def _question(asked: dict[str, list[dict[str, str]]], held: str) -> str:
    return next(one["question"] for one in asked["remembered"] if one["held"] == held)


def test_examples_are_checked_and_kept_as_the_connection_runs_them(world: World) -> None:
    made = world.memory.remember(ANA, "", "一共有多少订单？", "select COUNT(id) from orders;", "edited")
    assert (made.connection, made.language, made.origin) == ("shop", "zh", "edited")
    assert made.sql == "SELECT COUNT(id) FROM orders"
    for sql in ("DROP TABLE orders", "SELECT amout FROM orders", "SELECT 1; SELECT 2"):
        with pytest.raises(QueryRefused):
            world.memory.remember(ANA, "shop", "bad", sql, "thumbs")
    with pytest.raises(NotFound):
        world.memory.remember(ANA, "nowhere", "bad", "SELECT 1", "thumbs")
    assert [one.question for one in world.queries.examples.all()] == ["一共有多少订单？"]


_question_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=30).filter(
    one_line
)
_word = st.sampled_from(["orders", "customers", "in", "2023", "每个", "城市", "多少", "product", "the", "average"])
_sentence = st.one_of(_question_text, st.lists(_word, min_size=1, max_size=6).map(" ".join))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(_sentence, min_size=1, max_size=12, unique_by=question_key),
    st.integers(0, 11),
    st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_the_same_question_is_always_first(
    world: World, questions: list[str], which: int, cosines: list[float], count: int
) -> None:
    assume(which < len(questions))
    for example in world.queries.examples.all():
        world.queries.examples.remove(example.id)
    new = [NewExample("shop", question, f"SELECT {n} FROM orders") for n, question in enumerate(questions)]
    world.queries.examples.add_all(ANA, new)
    world.near.cosines = cosines
    found = world.memory.similar("shop", f" {questions[which]}  ?", count)
    assert found[0] == SimilarExample(one_line(questions[which]), f"SELECT {which} FROM orders", 1.0)
    assert len(found) <= count
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(0 < one.score <= 1 for one in found)


def test_ones_own_query_for_a_question_goes_before_anothers_and_both_stay(world: World) -> None:
    question = "How many orders are there?"
    for owner, sql in ((ANA, "SELECT COUNT(id) FROM orders"), (BEN, "SELECT COUNT(*) FROM orders")):
        world.memory.remember(owner, "shop", question, sql, "edited")
        world.memory.remember(owner, "shop", f"{question} please", "SELECT 1 FROM orders", "thumbs")

    def first(who: str) -> str:
        return world.memory.similar("shop", question, who=who)[0].sql

    assert [first(who) for who in (ANA, BEN, "cli")] == [
        "SELECT COUNT(id) FROM orders", "SELECT COUNT(*) FROM orders", "SELECT COUNT(*) FROM orders",
    ]  # fmt: skip
    world.memory.forget(ANA, "shop", question, "SELECT COUNT(*) FROM orders")
    assert first(BEN) == "SELECT COUNT(*) FROM orders"
    world.memory.forget(BEN, "", question, "SELECT COUNT(*) FROM orders")
    assert first(BEN) == "SELECT COUNT(id) FROM orders"
    assert len(world.queries.examples.all("shop")) == 3


def test_what_one_person_found_wrong_is_left_out_for_that_person(world: World) -> None:
    world.near.cosines = (0.9,)
    question, wrong, right = "How many orders?", "SELECT COUNT(*) FROM customers", "SELECT COUNT(*) FROM orders"
    world.memory.remember(BEN, "shop", question, wrong, "thumbs")
    world.memory.remember(BEN, "shop", "How many customers?", wrong.lower(), "thumbs")
    assert [one.sql for one in world.memory.similar("shop", question, who=ANA)][:1] == [wrong]
    world.memory.refuse(ANA, "shop", "how many orders", wrong)
    assert world.memory.similar("shop", question, who=ANA) == ()
    assert [one.question for one in world.memory.similar("shop", "How many customers?", who=ANA)] == [
        "How many customers?"
    ]
    assert world.memory.similar("shop", question, who=BEN)[0].sql == wrong
    world.memory.remember(ANA, "shop", question, right, "edited")
    assert [one.sql for one in world.memory.similar("shop", question, who=ANA)] == [right]
    world.memory.forget(ANA, "shop", question, wrong)
    assert [one.sql for one in world.memory.similar("shop", question, who=ANA)] == [right, wrong]


def test_one_question_fills_no_prompt(world: World) -> None:
    """However many people taught it, each in another way: the newest two, and room for others."""
    world.near.cosines = (0.9,)
    world.memory.remember(ANA, "shop", "How many products?", "SELECT COUNT(*) FROM products", "thumbs")
    for number in range(40):
        sql = f"SELECT COUNT(*) FROM orders WHERE id > {number}"
        world.memory.remember(f"user:{number}", "shop", "How many orders?", sql, "thumbs")
    found = world.memory.similar("shop", "How many orders?", count=5, who="user:7")
    assert [one.sql[-3:].strip() for one in found] == ["> 7", "39", "cts"]


def test_an_example_whose_table_has_gone_is_left_out_and_says_why(world: World, tmp_path: Path) -> None:
    world.memory.remember(ANA, "other", "What is the highest wage?", "SELECT max(wage) FROM staff", "thumbs")
    world.memory.remember(ANA, "other", "What is the wage of everybody?", "SELECT name FROM staff", "thumbs")
    world.queries.examples.add(ANA, NewExample("closed", "What?", "SELECT 1"))
    world.near.cosines = [0.9]
    assert len(world.memory.similar("other", "What is the lowest wage?")) == 2
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("ALTER TABLE staff RENAME COLUMN wage TO pay")
    world.databases.get("other").schema(refresh=True)
    assert [one.sql for one in world.memory.similar("other", "What is the lowest wage?")] == ["SELECT name FROM staff"]
    problems = {one.example.question: str(one.problem) if one.problem else "" for one in world.memory.listed()}
    assert "wage" in problems["What is the highest wage?"]
    assert problems["What is the wage of everybody?"] == ""
    assert "closed" in problems["What?"]


def test_examples_of_another_connection_and_twins_stay_out(world: World) -> None:
    world.queries.examples.add(ANA, NewExample("other", "How many orders are there?", "SELECT 1"))
    for question in ("How many orders are there?", "Number of all the orders", "Orders: how many?"):
        world.queries.examples.add(ANA, NewExample("shop", question, "SELECT count(id) FROM orders"))
    world.near.cosines = [0.9]
    found = world.memory.similar("shop", "How many orders are there?")
    assert [(one.question, one.score) for one in found] == [("How many orders are there?", 1.0)]


def test_however_many_there_are_only_so_many_are_compared_by_meaning(world: World) -> None:
    filler = [NewExample("shop", f"filler number {n}", f"SELECT {n}") for n in range(3 * MAX_COMPARED)]
    wanted = NewExample("shop", "Which suppliers deliver lanterns?", "SELECT name FROM suppliers")
    world.queries.examples.add_all(ANA, [wanted, *filler])
    world.near.cosines = [0.6]
    found = world.memory.similar("shop", "Which suppliers deliver the lanterns here?", 1)
    assert [one.question for one in found] == [wanted.question]
    assert max(world.near.asked) == MAX_COMPARED
    world.memory.warm()
    assert max(world.near.asked) == MAX_COMPARED


@pytest.mark.parametrize(
    ("term", "question", "expected"),
    [
        ("churn", "What was the churn in May?", True),
        ("churn", "Which customers are churning?", False),
        ("active customer", "How many Active  Customers do we have?", True),
        ("active customer", "active and other customers", False),
        ("GMV", "本月GMV是多少？", True),
        ("GMV", "GMVX by month", False),
        ("毛利", "每月毛利率是多少", True),
        ("毛利", "毛 利", False),
        ("VIP客户", "有多少vip客户？", True),
        ("客户VIP", "客户VIPX", False),
        ("ＡＲＲ", "show arr per year", True),
        ("C++", "developers who know C++?", True),
        ("p.a.", "interest p.a. by account", True),
        ("p.a.", "interest pxay", False),
        ("é", "café", False),
        ("a_b", "is a_b_c there", False),
        (" ", "anything", False),
    ],
)
def test_terms_are_found_as_words(term: str, question: str, expected: bool) -> None:
    assert occurs(term, question) is expected


def test_the_connections_own_meaning_of_a_term_goes_first(world: World) -> None:
    for connection, meaning in (("", "yearly revenue"), ("shop", "sum of order totals"), ("other", "wages")):
        world.queries.glossary.add(ANA, NewTerm("Revenue", meaning, "SUM(total)", connection))
    world.queries.glossary.add(ANA, NewTerm("churn", "those who left"))
    assert [term.meaning for term in world.memory.terms("shop", "revenue per month")] == ["sum of order totals"]
    assert [term.meaning for term in world.memory.terms("", "revenues?")] == ["sum of order totals"]
    assert [term.meaning for term in world.memory.terms("other", "revenue and churn")] == ["those who left", "wages"]
    assert world.memory.terms("shop", "how many orders") == ()
