"""Conversations in SQLite, and in a real MariaDB where the behaviour of the database matters."""

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from dbgpt_lite.errors import ConfigError, NotFound
from dbgpt_lite.messages import Answer, Citation, Message, Passage, ResultTable
from dbgpt_lite.store import ConversationStore, title_of
from tests.conftest import MariaDB

ANA, BEN = "user:ana", "user:ben"


@pytest.fixture(params=["sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ConversationStore:
    if request.param == "sqlite":
        return ConversationStore(f"sqlite:///{tmp_path / 'store.db'}")
    maria: MariaDB = request.getfixturevalue("mariadb")
    name = f"store_{uuid.uuid4().hex}"
    with maria.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    return ConversationStore(maria.url("owner", name))


def answered(store: ConversationStore, conversation: str, question: str, reply: str) -> tuple[int, int]:
    asked = store.ask(ANA, conversation, question)
    return asked, store.finish(ANA, conversation, asked, Answer(reply, "chat", "test"))


def test_first_question_names_the_conversation_and_lists_it(store: ConversationStore) -> None:
    empty, used = store.create(ANA), store.create(ANA, "documents", "handbook")
    answered(store, used.id, "退货期限是多少天？ 🙂", "30 天")
    listed = store.conversations(ANA)
    assert [(c.id, c.title, c.mode, c.source) for c in listed] == [
        (used.id, "退货期限是多少天？ 🙂", "documents", "handbook")
    ]
    assert empty.id not in {c.id for c in listed}


def test_answer_comes_back_as_it_was(store: ConversationStore) -> None:
    passage = Passage(7, "Returns within 30 days.", "d1", "returns.md", page=2, score=0.8)
    table = ResultTable(("name", "总额"), (("Ana", 2**60), (None, 1.5)), truncated=True, seconds=0.1)
    answer = Answer("30 days [1]", "documents", "test", citations=(Citation(1, passage, "30 days"),), table=table)
    answer = replace(
        answer, asked="How long in 2023?", unsupported=("Or 60.",), near_misses=(passage,), best=0.3, needed=0.4
    )
    conversation = store.create(ANA).id
    asked = store.ask(ANA, conversation, "How long?")
    store.finish(ANA, conversation, asked, answer)
    question, stored = store.messages(ANA, conversation)
    assert (question.role, question.content) == ("user", "How long?")
    assert stored.answer == answer


def test_an_answer_of_an_earlier_version_still_loads(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    answered(store, conversation, "How long?", "30 days")
    old = '{"text": "30 days [1]", "mode": "documents", "engine": "test", "passages": [], "stopped": false}'
    with store._engine.begin() as db:
        db.execute(sa.text("UPDATE messages SET answer = :old WHERE role = 'assistant'"), {"old": old})
    loaded = store.messages(ANA, conversation)[1].answer
    assert loaded == Answer("30 days [1]", "documents", "test")


def test_sources_of_a_conversation_are_those_it_is_set_to_and_has_asked(store: ConversationStore) -> None:
    first, second = store.create(ANA, "documents", "s1").id, store.create(ANA, "documents", "unasked").id
    for source in ("s2", "s1"):
        asked = store.ask(ANA, first, "How long?")
        store.finish(ANA, first, asked, Answer("30 days", "documents", "test", source=source))
    store.configure(ANA, first, "documents", "s3")
    assert store.sources(ANA, first) == {"s1", "s2", "s3"}
    assert store.sources(ANA, second) == {"unasked"}
    assert store.sources_in_use() == {"s1", "s2", "s3"}
    with pytest.raises(NotFound):
        store.sources("somebody else", first)
    store.delete(ANA, first)
    assert store.sources_in_use() == set()


def test_history_leaves_out_failed_and_unanswered_questions(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    answered(store, conversation, "one?", "1")
    failed = store.ask(ANA, conversation, "two?")
    store.finish(ANA, conversation, failed, Answer("", "chat", "test", error="the model failed"))
    last, _ = answered(store, conversation, "three?", "3")
    store.ask(ANA, conversation, "four?")
    three = (Message("user", "three?"), Message("assistant", "3"))
    assert store.history(ANA, conversation) == (Message("user", "one?"), Message("assistant", "1"), *three)
    assert store.history(ANA, conversation, before=last) == (Message("user", "one?"), Message("assistant", "1"))


def test_history_tells_the_query_and_the_whole_question_behind_an_answer(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    hard = """SELECT '"' AS q, 'it''s \\n 上海' FROM "a b" """.strip()
    for sql, asked in ((hard, "那“2023”年呢？"), ("", ""), ('"x"', '"quoted"')):
        question = store.ask(ANA, conversation, "q")
        store.finish(ANA, conversation, question, Answer("a", "database", "test", sql=sql, asked=asked))
    history = store.history(ANA, conversation)
    assert [message.asked for message in history[::2]] == ["那“2023”年呢？", "", '"quoted"']
    assert [message.sql for message in history[1::2]] == [hard, "", '"x"']


def test_an_answer_is_written_anew_by_its_owner_only(store: ConversationStore) -> None:
    conversation, other = store.create(ANA).id, store.create(ANA).id
    question, answer = answered(store, conversation, "q", "old")
    new = Answer("new", "database", "test", sql="SELECT 1", rated=True)
    store.replace_answer(ANA, conversation, answer, new)
    assert store.messages(ANA, conversation)[1].answer == new
    assert store.history(ANA, conversation)[1].content == "new"
    for owner, place, message in ((BEN, conversation, answer), (ANA, other, answer), (ANA, conversation, question)):
        with pytest.raises(NotFound):
            store.replace_answer(owner, place, message, Answer("stolen", "chat", "test"))
    assert store.messages(ANA, conversation)[1].answer == new


def test_regeneration_replaces_only_once_the_new_answer_is_there(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    first, _ = answered(store, conversation, "one?", "old")
    again = store.ask(ANA, conversation, "one?")
    assert [m.content for m in store.messages(ANA, conversation)] == ["one?", "old", "one?"]
    store.finish(ANA, conversation, again, Answer("new", "chat", "test"), replaces=first)
    assert [m.content for m in store.messages(ANA, conversation)] == ["one?", "new"]


def test_abandoned_regeneration_leaves_the_old_answer(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    answered(store, conversation, "one?", "old")
    store.abandon(ANA, conversation, store.ask(ANA, conversation, "one?"))
    assert [m.content for m in store.messages(ANA, conversation)] == ["one?", "old"]


def test_search_looks_in_titles_and_messages_and_takes_wildcards_as_text(store: ConversationStore) -> None:
    first, second = store.create(ANA).id, store.create(ANA).id
    answered(store, first, "How long is the warranty?", "两年保修")
    answered(store, second, "100% cotton?", "yes")
    assert [c.id for c in store.conversations(ANA, "保修")] == [first]
    assert [c.id for c in store.conversations(ANA, "100%")] == [second]
    assert store.conversations(ANA, "%") == store.conversations(ANA, "0%")
    assert store.conversations(ANA, "_") == []


def test_nobody_reaches_anothers_conversation(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    asked, _ = answered(store, conversation, "secret?", "secret!")
    attempts = (
        lambda: store.get(BEN, conversation),
        lambda: store.messages(BEN, conversation),
        lambda: store.history(BEN, conversation),
        lambda: store.rename(BEN, conversation, "mine"),
        lambda: store.configure(BEN, conversation, "chat", ""),
        lambda: store.delete(BEN, conversation),
        lambda: store.ask(BEN, conversation, "hello"),
        lambda: store.finish(BEN, conversation, asked, Answer("x", "chat", "test")),
        lambda: store.abandon(BEN, conversation, asked),
    )
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    assert store.conversations(BEN) == []
    assert [m.content for m in store.messages(ANA, conversation)] == ["secret?", "secret!"]


def test_owners_and_ids_differ_by_case(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    answered(store, conversation, "one?", "1")
    assert store.conversations(ANA.upper()) == []
    with pytest.raises(NotFound):
        store.get(ANA, conversation.swapcase())


def test_huge_results_are_cut(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    rows = tuple(("x" * 10_000,) for _ in range(500))
    asked = store.ask(ANA, conversation, "all?")
    store.finish(ANA, conversation, asked, Answer("many", "database", "t", table=ResultTable(("c",), rows)))
    answer = store.messages(ANA, conversation)[1].answer
    assert answer
    assert answer.table
    assert answer.table.truncated
    assert len(answer.table.rows) == 100


def test_rename_and_delete(store: ConversationStore) -> None:
    conversation = store.create(ANA).id
    answered(store, conversation, "one?", "1")
    store.rename(ANA, conversation, "  My\nnotes ")
    assert store.get(ANA, conversation).title == "My notes"
    store.rename(ANA, conversation, "   ")
    assert store.get(ANA, conversation).title == "My notes"
    store.delete(ANA, conversation)
    assert store.conversations(ANA) == []


def test_reopening_keeps_everything_and_migrates_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    conversation = ConversationStore(url).create(ANA).id
    answered(ConversationStore(url), conversation, "one?", "1")
    assert [c.title for c in ConversationStore(url).conversations(ANA)] == ["one?"]


def test_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    ConversationStore(url)
    with sa.create_engine(url).begin() as db:
        db.execute(sa.text("UPDATE schema_version SET version = 99"))
    with pytest.raises(ConfigError, match="newer version"):
        ConversationStore(url)


def test_kill_while_writing_leaves_every_finished_answer(tmp_path: Path) -> None:
    code = f"""
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.messages import Answer
store = ConversationStore("sqlite:///{tmp_path / "store.db"}")
conversation = store.create("{ANA}").id
print(conversation, flush=True)
n = 0
while True:
    asked = store.ask("{ANA}", conversation, f"question {{n}}")
    store.finish("{ANA}", conversation, asked, Answer("x" * 20000, "chat", "test"))
    n += 1
    print(n, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    conversation = process.stdout.readline().strip()
    finished = 0
    while finished < 25:
        finished = int(process.stdout.readline())
    process.kill()
    process.wait()
    turns = ConversationStore(f"sqlite:///{tmp_path / 'store.db'}").messages(ANA, conversation)
    answers = [turn for turn in turns if turn.role == "assistant"]
    assert len(answers) >= finished
    assert all(turn.answer and len(turn.content) == 20000 for turn in answers)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("  two \n words ", "two words"),
        ("word " * 40, "word word word word word word word word word word word…"),
        ("长" * 90, "长" * 59 + "…"),
    ],
)
def test_title(question: str, title: str) -> None:
    assert title_of(question) == title
