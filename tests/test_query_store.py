"""Examples, glossary and saved queries in SQLite and in a real MariaDB, and the step from the first schema."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite import query_store, store_schema
from dbgpt_lite.errors import NotFound, TooLarge, UserError
from dbgpt_lite.messages import Answer
from dbgpt_lite.query_store import NewExample, NewTerm, QueryStore, one_line, question_key
from dbgpt_lite.store import ConversationStore
from tests.conftest import MariaDB

ANA, BEN = "user:ana", "user:ben"
SQL = "SELECT count(*) FROM orders"


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    maria: MariaDB = request.getfixturevalue("mariadb")
    name = f"store_{uuid.uuid4().hex}"
    with maria.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return maria.url("owner", name)


@pytest.fixture
def queries(url: str) -> Iterator[QueryStore]:
    store = ConversationStore(url)
    yield QueryStore(store.engine)
    store.close()


def example(question: str, sql: str = SQL, connection: str = "shop") -> NewExample:
    return NewExample(connection, question, sql)


def test_a_store_of_the_first_schema_is_brought_up_with_its_rows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store_schema, "MIGRATIONS", store_schema.MIGRATIONS[:1])
        first = ConversationStore(url)
        conversation = first.create(ANA, "database", "shop").id
        asked = first.ask(ANA, conversation, "一共有多少订单？")
        first.finish(ANA, conversation, asked, Answer("12", "database", "test", sql=SQL))
        assert set(sa.inspect(first.engine).get_table_names()) == {"conversations", "messages", "schema_version"}
        first.close()
    store = ConversationStore(url)
    assert [message.content for message in store.messages(ANA, conversation)] == ["一共有多少订单？", "12"]
    with store.engine.connect() as db:
        assert db.scalar(sa.text("SELECT version FROM schema_version")) == 4
    queries = QueryStore(store.engine)
    queries.examples.add(ANA, example("How many orders?"))
    store.close()
    again = ConversationStore(url)
    assert [one.question for one in QueryStore(again.engine).examples.all()] == ["How many orders?"]
    again.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_examples_of_the_second_schema_keep_their_numbers_and_owners(
    url: str, crashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`crashed`: the step had copied them and was ended before it dropped the old table."""
    rows = [
        {"id": 7, "connection": "shop", "question_key": question_key("多少订单？"), "question": "多少订单？",
         "statement": SQL, "language": "zh", "origin": "thumbs", "owner": ANA, "created": store_schema.utc_now()},
        {"id": 9, "connection": "shop", "question_key": question_key("q"), "question": "q",
         "statement": "SELECT 1", "language": "en", "origin": "imported", "owner": "cli",
         "created": store_schema.utc_now()},
    ]  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(store_schema, "MIGRATIONS", store_schema.MIGRATIONS[:2])
        second = ConversationStore(url)
        with second.engine.begin() as db:
            db.execute(sa.insert(sa.table("query_examples", *map(sa.column, rows[0]))), rows)
            if crashed:
                store_schema.examples.create(db)
                db.execute(store_schema.examples.insert(), rows[:1])
        second.close()
    store = ConversationStore(url)
    kept = QueryStore(store.engine).examples
    assert sorted((one.id, one.question, one.sql, one.owner, one.origin, one.language) for one in kept.all()) == [
        (7, "多少订单？", SQL, ANA, "thumbs", "zh"), (9, "q", "SELECT 1", "cli", "imported", "en"),
    ]  # fmt: skip
    assert "query_examples" not in sa.inspect(store.engine).get_table_names()
    kept.add(BEN, example("q", "SELECT 2"))
    assert sorted(one.sql for one in kept.all(search="SELECT")) == ["SELECT 1", "SELECT 2", SQL]
    store.close()


def test_an_example_comes_back_as_it_was_and_belongs_to_everybody(queries: QueryStore) -> None:
    made = queries.examples.add(ANA, NewExample("shop", "每个城市有多少客户？🙂", "SELECT '😀''x'", "zh", "edited"))
    assert queries.examples.all("shop") == [made]
    assert (made.owner, made.origin, made.language, made.sql) == (ANA, "edited", "zh", "SELECT '😀''x'")
    assert queries.examples.all("other") == []


def test_the_same_question_on_a_connection_replaces(queries: QueryStore) -> None:
    first = queries.examples.add(ANA, example("How many orders are there?"))
    queries.examples.add(ANA, example("How many orders are there?", connection="hr"))
    second = queries.examples.add(ANA, example(" how many  ORDERS are there ？", "SELECT 2"))
    assert second.id == first.id
    assert [(one.sql, one.owner) for one in queries.examples.all("shop")] == [("SELECT 2", ANA)]
    assert len(queries.examples.all()) == 2


def test_nobody_replaces_or_forgets_anothers_example(queries: QueryStore) -> None:
    anas = queries.examples.add(ANA, NewExample("shop", "How many?", "SELECT 'a'", "en", "thumbs"))
    bens = queries.examples.add(BEN, NewExample("shop", "how many", "SELECT 'b'", "en", "edited"))
    assert sorted(queries.examples.all("shop"), key=lambda one: one.id) == [anas, bens]
    for owner, connection, question, sql in (
        (BEN, "shop", "How many?", "SELECT 'a'"),
        (BEN, "shop", "How many?", "SELECT 'B'"),
        (BEN, "hr", "How many?", "SELECT 'b'"),
        (BEN, "shop", "How many then?", "SELECT 'b'"),
        (ANA.upper(), "shop", "How many?", "SELECT 'a'"),
    ):
        queries.examples.forget(owner, connection, question, sql)
    assert len(queries.examples.all("shop")) == 2
    queries.examples.forget(BEN, "shop", " HOW many ", "SELECT 'b'")
    assert queries.examples.all("shop") == [anas]


def test_a_refusal_is_its_owners_and_goes_when_the_pair_is_taught_or_forgotten(
    queries: QueryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = queries.examples
    bens = store.add(BEN, example("How many?", "SELECT 'b'"))
    store.add(ANA, example("How many?", "SELECT 'a'"))
    for sql in ("SELECT 'b'", " SELECT 'b' ", "SELECT 'B'", "SELECT 'a'"):
        store.refuse(ANA, "shop", "how MANY", sql)
    assert store.all("shop") == [bens]
    pairs = {sql: query_store.pair_key("How many?", sql) for sql in ("SELECT 'b'", "SELECT 'B'", "SELECT 'a'")}
    assert store.refused(ANA, "shop") == frozenset(pairs.values())
    assert store.refused(BEN, "shop") == store.refused(ANA.upper(), "shop") == store.refused(ANA, "hr") == frozenset()
    store.add(ANA, example("How many?", "SELECT 'b'"))
    store.forget(ANA, "shop", "How many?", "SELECT 'B'")
    assert store.refused(ANA, "shop") == {pairs["SELECT 'a'"]}
    monkeypatch.setattr(query_store, "MAX_REFUSALS", 2)
    for number in range(4):
        store.refuse(ANA, "shop", "How many?", f"SELECT {number}")
    assert store.refused(ANA, "shop") == {query_store.pair_key("how many", f"SELECT {n}") for n in (2, 3)}


def test_search_looks_in_question_and_sql_and_takes_wildcards_as_text(queries: QueryStore) -> None:
    queries.examples.add_all(ANA, [example("100% refunds?", "SELECT 1"), example("多少订单", "SELECT refund_x")])
    assert [one.sql for one in queries.examples.all(search="100%")] == ["SELECT 1"]
    assert [one.question for one in queries.examples.all(search="refund_")] == ["多少订单"]
    assert queries.examples.all(search="e%s") == []
    assert queries.examples.all("hr", "refund") == []


def test_removed_is_gone_and_cannot_be_removed_again(queries: QueryStore) -> None:
    kept, gone = queries.examples.add_all(ANA, [example("one"), example("two")])
    queries.examples.remove(gone.id)
    with pytest.raises(NotFound):
        queries.examples.remove(gone.id)
    assert queries.examples.all() == [kept]


@pytest.mark.parametrize(
    "bad",
    [example(" \u200b "), example("q", " "), example("q" * 1001), example("q", "x" * 20_001), example("q", "1", "")],
)
def test_one_bad_example_keeps_all_of_them_out(queries: QueryStore, bad: NewExample) -> None:
    with pytest.raises(UserError):
        queries.examples.add_all(ANA, [example("good"), bad])
    assert queries.examples.all() == []


def test_a_connection_holds_so_many_examples_and_no_more(queries: QueryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_store, "MAX_EXAMPLES", 3)
    queries.examples.add_all(ANA, [example(f"q{n}") for n in range(3)])
    with pytest.raises(TooLarge):
        queries.examples.add(ANA, example("one more"))
    queries.examples.add(ANA, example("Q1", "SELECT 'replaced'"))
    queries.examples.add(ANA, example("elsewhere", connection="hr"))
    assert len(queries.examples.all("shop")) == 3


def test_many_writers_of_one_question_leave_one_example_each(queries: QueryStore) -> None:
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            questions = [f"question {n}" for n in range(10)]
            chosen = questions if number % 2 else questions[::-1]
            owner = f"user:{number // 2}"
            queries.examples.add_all(owner, [example(question, f"SELECT {number}") for question in chosen])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    kept = queries.examples.all()
    assert len(kept) == 30
    # Each import is one transaction: the rows of an owner are all of one writer, or all of another.
    assert len({(one.owner, one.sql) for one in kept}) == 3


def test_terms_of_a_connection_come_with_those_for_all(queries: QueryStore) -> None:
    queries.glossary.add(ANA, NewTerm("churn", "customers who left"))
    queries.glossary.add(ANA, NewTerm("毛利", "收入减去成本", "SUM(price - cost)", "shop"))
    queries.glossary.add(ANA, NewTerm("ARR", "yearly revenue", connection="hr"))
    replaced = queries.glossary.add(BEN, NewTerm("Churn", "accounts closed"))
    assert [term.term for term in queries.glossary.all("shop")] == ["Churn", "毛利"]
    assert [term.term for term in queries.glossary.all()] == ["ARR", "Churn", "毛利"]
    assert queries.glossary.all("x") == [replaced]
    queries.glossary.remove(replaced.id)
    with pytest.raises(NotFound):
        queries.glossary.remove(replaced.id)
    with pytest.raises(UserError):
        queries.glossary.add_all(ANA, [NewTerm("good", "yes"), NewTerm("bad", "")])
    assert [term.term for term in queries.glossary.all("shop")] == ["毛利"]


def test_saved_queries_are_their_owners_alone(queries: QueryStore) -> None:
    made = queries.saved.save(ANA, "shop", "  Orders\nper day ", " SELECT *\nFROM orders ")
    assert (made.name, made.sql) == ("Orders per day", "SELECT *\nFROM orders")
    queries.saved.save(BEN, "shop", "Orders per day", "SELECT 2")
    queries.saved.save(ANA, "hr", "staff", "SELECT 3")
    assert queries.saved.of(ANA, "shop") == [made]
    assert [one.sql for one in queries.saved.of(BEN)] == ["SELECT 2"]
    assert queries.saved.of(ANA.upper()) == []
    with pytest.raises(NotFound):
        queries.saved.remove(BEN, made.id)
    replaced = queries.saved.save(ANA, "shop", "Orders per day", "SELECT 4")
    assert replaced.id == made.id
    assert {one.sql for one in queries.saved.all()} == {"SELECT 2", "SELECT 3", "SELECT 4"}
    queries.saved.remove(ANA, made.id)
    assert [one.sql for one in queries.saved.of(ANA)] == ["SELECT 3"]
    for name, sql in (("", "SELECT 1"), ("x", "  ")):
        with pytest.raises(UserError):
            queries.saved.save(ANA, "shop", name, sql)


@given(st.text(max_size=60))
def test_a_line_holds_nothing_that_moves_a_cursor_and_stays_as_it_is(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from(["?", " ?", "？", ".", "  ", ""]))
def test_case_spaces_and_the_mark_at_the_end_make_no_other_question(question: str, end: str) -> None:
    assert question_key(f"  {question} {end}") == question_key(question)


def test_other_words_make_another_question() -> None:
    questions = ["orders in 2023", "orders in 2024", "order in 2023", "2023年的订单", "2024年的订单"]
    assert len({question_key(question) for question in questions}) == len(questions)
