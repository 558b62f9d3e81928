"""Queries by hand: behind the fences, the owner's only, stored in the answer, remembered as examples."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dbgpt_lite.chat.queries import QueryDesk
from dbgpt_lite.errors import Cancelled, NotFound, QueryRefused
from dbgpt_lite.messages import Answer, ChartSpec, SqlAttempt
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore

ANA, BEN = "user:ana", "user:ben"
FIRST = "SELECT COUNT(*) FROM customers"
EDITED = "SELECT COUNT(*) FROM cities"


@dataclass
class KeptExamples:
    """Examples with the real interface, in memory."""

    pairs: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    refused: set[tuple[str, str, str, str]] = field(default_factory=set)

    def remember(self, owner: str, connection: str, question: str, sql: str, origin: str) -> None:
        self.pairs[owner, connection, question] = (sql, origin)
        self.refused.discard((owner, connection, question, sql))

    def refuse(self, owner: str, connection: str, question: str, sql: str) -> None:
        self.forget(owner, connection, question, sql)
        self.refused.add((owner, connection, question, sql))

    def forget(self, owner: str, connection: str, question: str, sql: str) -> None:
        if self.pairs.get((owner, connection, question), ("",))[0] == sql:
            del self.pairs[owner, connection, question]
        self.refused.discard((owner, connection, question, sql))


class Place:
    """A desk with one answered question."""

    def __init__(self, folder: Path, databases: Databases) -> None:
        self.store = ConversationStore(f"sqlite:///{folder / 'store.db'}")
        self.examples = KeptExamples()
        self.desk = QueryDesk(databases, self.store, self.examples)
        self.conversation = self.store.create(ANA).id
        table = databases.default.run(FIRST)
        failed = SqlAttempt("SELECT x", "no column")
        self.first = Answer(
            "The answer is 1400.",
            "database",
            "t",
            "shop",
            sql=FIRST,
            table=table,
            attempts=(failed, SqlAttempt(FIRST)),
            asked="How many customers are there?",
        )
        self.question = self.store.ask(ANA, self.conversation, "and customers?")
        self.answer = self.store.finish(ANA, self.conversation, self.question, self.first)

    def stored(self) -> Answer:
        answer = self.store.messages(ANA, self.conversation)[1].answer
        assert answer
        return answer

    def rerun(self, sql: str, owner: str = ANA) -> Answer:
        return self.desk.rerun(owner, self.conversation, self.answer, sql, threading.Event())


@pytest.fixture
def place(tmp_path: Path, shops: Databases) -> Place:
    return Place(tmp_path, shops)


def test_an_edited_query_takes_the_place_of_the_models(place: Place) -> None:
    place.desk.accept(ANA, place.conversation, place.answer, True)
    after = place.rerun(EDITED)
    assert after == place.stored()
    assert (after.sql, after.text, after.rated) == (
        place.desk._databases.default.check(EDITED),
        "The answer is 38.",
        None,
    )
    assert after.table
    assert after.table.rows == ((38,),)
    assert after.attempts == (SqlAttempt("SELECT x", "no column"), SqlAttempt(FIRST, method="edited"))
    assert place.examples.pairs == {(ANA, "shop", "How many customers are there?"): (after.sql, "edited")}
    assert place.store.history(ANA, place.conversation)[1].content == "The answer is 38."
    back = place.rerun(FIRST)
    assert back.sql == FIRST
    assert back.attempts == (SqlAttempt("SELECT x", "no column"), SqlAttempt(after.sql, method="edited"))


def test_running_again_is_no_edit(place: Place) -> None:
    again = place.rerun(f"{FIRST};")
    assert (again.sql, again.attempts) == (FIRST, place.first.attempts)
    assert place.examples.pairs == {}


@pytest.mark.parametrize("sql", ["DROP TABLE cities", "SELECT 1; SELECT 2", "SELECT nme FROM cities", ""])
def test_the_fences_hold_and_the_answer_stays(place: Place, sql: str) -> None:
    for attempt in (
        lambda: place.rerun(sql),
        lambda: place.desk.run(ANA, "shop", sql, threading.Event()),
        lambda: place.desk.explain("shop", sql, "en"),
    ):
        with pytest.raises(QueryRefused):
            attempt()
    assert place.stored() == place.first
    assert place.examples.pairs == {}


def test_stop_is_felt(place: Place) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Cancelled):
        place.desk.rerun(ANA, place.conversation, place.answer, EDITED, stopped)
    assert place.stored() == place.first


def test_thumbs(place: Place) -> None:
    kept = (ANA, "shop", "How many customers are there?")
    bens = (BEN, *kept[1:])
    place.examples.remember(*bens, FIRST, "thumbs")
    assert place.desk.accept(ANA, place.conversation, place.answer, True).rated is True
    assert place.examples.pairs == {kept: (FIRST, "thumbs"), bens: (FIRST, "thumbs")}
    assert place.desk.accept(ANA, place.conversation, place.answer, None).rated is None
    assert place.examples.pairs == {bens: (FIRST, "thumbs")}
    place.examples.remember(*kept, EDITED, "edited")
    assert place.desk.accept(ANA, place.conversation, place.answer, False).rated is False
    assert place.examples.pairs == {kept: (EDITED, "edited"), bens: (FIRST, "thumbs")}
    assert place.stored().rated is False
    assert place.examples.refused == {(*kept, FIRST)}
    assert place.desk.accept(ANA, place.conversation, place.answer, None).rated is None
    assert place.examples.refused == set()


def test_a_chart_is_kept_until_the_query_changes(place: Place) -> None:
    chart = ChartSpec("bar", 0, (0,))
    assert place.desk.redraw(ANA, place.conversation, place.answer, chart).chart == chart
    assert place.stored().chart == chart
    assert place.rerun(EDITED).chart is None


def test_nobody_reaches_anothers_answer(place: Place) -> None:
    for attempt in (
        lambda: place.rerun(EDITED, BEN),
        lambda: place.desk.accept(BEN, place.conversation, place.answer, True),
        lambda: place.desk.redraw(BEN, place.conversation, place.answer, ChartSpec("pie")),
        lambda: place.desk.accept(ANA, place.conversation, place.question, True),
        lambda: place.desk.accept(ANA, place.conversation, 9999, True),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert place.stored() == place.first
    assert place.examples.pairs == {}


def test_an_answer_without_a_query_cannot_be_rated(place: Place) -> None:
    asked = place.store.ask(ANA, place.conversation, "Hi")
    plain = place.store.finish(ANA, place.conversation, asked, Answer("Hello", "chat", "t"))
    with pytest.raises(NotFound):
        place.desk.accept(ANA, place.conversation, plain, True)


def test_explained_in_the_readers_language(place: Place) -> None:
    assert place.desk.explain("shop", FIRST, "en") == ("Reads the table customers.", "Shows the number of rows.")
    assert place.desk.explain("shop", FIRST, "zh") == ("读取表 customers。", "显示 行数。")
    assert place.desk.run(ANA, "shop", FIRST, threading.Event()).rows == ((1400,),)
