"""Conversations with a database, turn by turn, through the service and a real store: the built-in case by its rules, a
language model by its prompt. English and Chinese.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from dbgpt_lite.chat.answerable import Answerable
from dbgpt_lite.chat.context import AutoContext, Context, DatabaseContext, Gather, Route
from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.chat.rewriting import FollowUps
from dbgpt_lite.chat.service import ChatService
from dbgpt_lite.chat.sql_follow_up import completed, leans, previous_query
from dbgpt_lite.chat.sql_prompt import Previous
from dbgpt_lite.config import ROOT
from dbgpt_lite.messages import Answer, ChatRequest, Done, Message
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language
from tests.fakes import ScriptedEngine

PROMPTS = Prompts(ROOT / "prompts")
STARTER = {"sql_prompt": "sql_starter", "sql_dialect": "sqlite", "languages": ("en",)}


class Talk:
    """One conversation. `writer` writes the SQL; `speaker` None is the built-in assistant."""

    def __init__(
        self, folder: Path, databases: Databases, writer: ScriptedEngine, speaker: ScriptedEngine | None = None
    ) -> None:
        self.store = ConversationStore(f"sqlite:///{folder / 'store.db'}")
        engine = speaker or ExtractiveEngine(lambda texts, kind="query": [])
        follow_ups = FollowUps(lambda: engine, PROMPTS, completed)
        source = DatabaseContext(databases, PROMPTS, lambda: writer, follow_ups, answerable=Answerable())
        self.chat = ChatService(self.store, lambda: engine, {"database": source}, PROMPTS)
        self.id = self.store.create("ana", "database").id

    def ask(self, question: str, language: Language = "en") -> Answer:
        request = ChatRequest(self.id, question, "ana", "database", "shop", language)
        done = [event for event in self.chat.stream(request, threading.Event()) if isinstance(event, Done)]
        return done[0].answer


def first_cell(answer: Answer) -> object:
    assert answer.table, answer.text
    return answer.table.rows[0][0]


def test_the_built_in_assistant_follows(tmp_path: Path, shops: Databases) -> None:
    writer = ScriptedEngine("SELECT COUNT(*) FROM customers", "SELECT name, price FROM products", **STARTER)
    talk = Talk(tmp_path, shops, writer)
    every = talk.ask("How many customers are there?")
    assert (first_cell(every), every.asked) == (1400, "")
    germany = talk.ask("only Germany")
    assert first_cell(germany) == 60
    assert germany.asked == "How many customers are there, only Germany?"
    assert germany.text == "The answer is 60."
    france = talk.ask("and France?")
    assert first_cell(france) == first_cell(talk.ask("What about french?"))
    assert "country = 'France'" in france.sql
    products = talk.ask("Show the name and price of all products")
    assert products.asked == ""
    by_price = talk.ask("sort by price, highest first")
    assert by_price.table
    prices = [row[1] for row in by_price.table.rows]
    assert prices == sorted(prices, reverse=True)  # type: ignore[type-var]
    three = talk.ask("only the top 3")
    assert three.table
    assert [row[1] for row in three.table.rows] == prices[:3]
    assert len(writer.prompts) == 2


def test_it_follows_in_chinese_too(tmp_path: Path, shops: Databases) -> None:
    sql = "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2024-%'"
    talk = Talk(tmp_path, shops, ScriptedEngine(sql, **STARTER))
    talk.ask("How many orders were placed in 2024?")
    before = talk.ask("那2023年呢？", "zh")
    assert before.sql.endswith("LIKE '2023-%'")
    assert before.text.startswith("答案是")
    last_month = talk.ask("那上个月呢", "zh")
    # The rules cannot know which month is meant, and the small model reads no Chinese.
    assert last_month.table is None
    assert "只能理解英文" in last_month.text


def test_a_language_model_gets_the_question_whole_and_the_query_before(tmp_path: Path, shops: Databases) -> None:
    model = ScriptedEngine(
        "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2024-03%'",
        "2024年3月有多少订单。",
        "2024年2月有多少订单？",
        "SELECT COUNT(*) FROM orders WHERE order_date LIKE '2024-02%'",
        "2024年2月的订单。",
    )
    talk = Talk(tmp_path, shops, model, model)
    talk.ask("2024年3月有多少订单？", "zh")
    answer = talk.ask("那上个月呢", "zh")
    writing = next(p for p in model.prompts[3:] if p.task == "sql")
    assert "2024-03%" in writing.messages[0].content
    assert writing.question in ("2024年2月有多少订单？", "2024年3月有多少订单（上个月）？")
    assert answer.asked == writing.question
    assert first_cell(answer) == 227 or answer.table


def test_a_whole_question_does_not_carry_the_last_query(tmp_path: Path, shops: Databases) -> None:
    model = ScriptedEngine(*["SELECT COUNT(*) FROM cities", "Many."] * 2)
    talk = Talk(tmp_path, shops, model, model)
    talk.ask("How many cities are there?")
    talk.ask("Which employees earn more than 9000 a month and work in Paris?")
    second = [p for p in model.prompts if p.task == "sql"][1]
    assert "previous question" not in second.messages[0].content


def test_honest_replies(tmp_path: Path, shops: Databases) -> None:
    talk = Talk(tmp_path, shops, ScriptedEngine("SELECT COUNT(*) FROM cities WHERE name = 'Brazil'", **STARTER))
    vehicles = talk.ask("How many vehicles do we own?")
    assert vehicles.text.startswith("“shop” has nothing about “vehicles”. It holds: categories, cities, customers")
    assert vehicles.attempts == ()
    assert talk.ask("How many cities are called Brazil?").text == (
        "The answer is 0. Note: “Brazil” was not found in the text columns of the database."
    )
    model = ScriptedEngine("-- cannot answer: <img src=x> the weather")
    weather = Talk(tmp_path / "..", shops, model, model).ask("今天天气怎么样？", "zh")
    assert weather.text.startswith("“shop”中没有关于“")
    assert "<img" not in weather.text


def test_a_wish_to_change_data_is_answered_without_a_query(tmp_path: Path, shops: Databases) -> None:
    writer = ScriptedEngine(**STARTER)
    talk = Talk(tmp_path, shops, writer)
    for question, language, said in (
        ("Delete all orders.", "en", "opened for reading only"),
        ("请删除所有订单", "zh", "只读"),
    ):
        answer = talk.ask(question, language)  # type: ignore[arg-type]
        assert said in answer.text
        assert (answer.table, answer.attempts) == (None, ())
    assert writer.prompts == []


def test_after_a_result_the_same_words_are_about_the_result(tmp_path: Path, shops: Databases) -> None:
    writer = ScriptedEngine("SELECT COUNT(*) FROM customers", "SELECT COUNT(*) FROM orders", **STARTER)
    talk = Talk(tmp_path, shops, writer)
    talk.ask("How many customers are there?")
    assert "reading only" not in talk.ask("Remove the cancelled orders").text


def test_auto_mode_makes_a_change_of_the_last_query_whole_before_it_routes() -> None:
    routed: list[str] = []

    class Asked:
        def gather(self, request: ChatRequest, history: Sequence[Message], cancel: threading.Event) -> Gather:
            assert (request.question, request.asked) == ("only Germany", "How many customers are there, only Germany?")
            yield from ()
            return Context("rows", "database")

    def route(request: ChatRequest) -> Route:
        routed.append(request.question)
        return Route("database", "shop")

    built_in = ScriptedEngine(kind="builtin")
    auto = AutoContext({"database": Asked()}, route, FollowUps(lambda: built_in, PROMPTS, completed))
    history = (Message("user", "How many customers are there?"), Message("assistant", "1400", sql="SELECT 1400"))
    list(auto.gather(ChatRequest("c", "only Germany", "ana"), history, threading.Event()))
    assert routed == ["How many customers are there, only Germany?"]


LEANING = [
    "only Germany", "and in 2023?", "what about France?", "sort by price", "sort them by name descending", "top 5",
    "only the first ten", "per country", "by month", "without cancelled orders", "just the gold ones", "2023?",
    "and their emails?", "same for suppliers", "in Germany only", "show only the top 3", "how about silver?",
    "那上个月呢", "那2023年呢？", "只看德国的", "按价格排序", "按价格降序", "前五个", "德国呢", "不要已取消的",
    "再按城市分组", "每个城市",
]  # fmt: skip
WHOLE = [
    "How many orders were placed in 2024?", "Which cities have more than 50 customers?", "List all suppliers.",
    "What is the average price of products in the Tea category?", "Average rating per category", "Show all cities",
    "Which five products are the most expensive?", "How many only children are there in class 7b of the school?",
    "一共有多少个订单？", "每个类别各有多少种商品？", "平均订单金额是多少？", "列出评分最低的商品",
]  # fmt: skip


@pytest.mark.parametrize("question", LEANING)
def test_questions_that_change_the_one_before(question: str) -> None:
    assert leans(question)


@pytest.mark.parametrize("question", WHOLE)
def test_questions_that_stand_alone(question: str) -> None:
    assert not leans(question)


@pytest.mark.parametrize(
    ("question", "previous", "whole"),
    [
        ("only Germany", "How many customers are there?", "How many customers are there, only Germany?"),
        ("only in Germany", "How many customers are there?", "How many customers are there in Germany?"),
        ("in Germany only", "List the customers.", "List the customers in Germany?"),
        ("sort by price", "Show all products", "Show all products, sorted by price?"),
        ("top 5", "Which products are the most expensive?", "Which products are the most expensive, only the first 5?"),
        ("per country", "How many customers are there?", "How many customers are there for each country?"),
        ("and in 2023?", "How many orders were placed in 2024?", "How many orders were placed in 2023?"),
        ("那2023年呢？", "2024年有多少订单？", "2023年有多少订单？"),
        ("那2023年呢？", "How many orders were placed in 2024?", "How many orders were placed in 2023?"),
        ("那2023年呢？", "How many orders were placed?", "How many orders were placed in 2023?"),
        ("只看德国的", "有多少客户？", "有多少客户（只看德国的）？"),
        ("那上个月呢", "有多少订单？", "有多少订单（上个月）？"),
    ],
)
def test_completed(question: str, previous: str, whole: str) -> None:
    assert completed(question, previous) == whole


def test_only_the_last_answer_counts_as_the_query_before() -> None:
    asked = (Message("user", "and 2023?", asked="Orders in 2023?"), Message("assistant", "5", sql="SELECT 5"))
    assert previous_query(asked) == Previous("Orders in 2023?", "SELECT 5")
    assert previous_query((*asked, Message("user", "Hi"), Message("assistant", "Hello"))) is None
    assert previous_query(()) is None
