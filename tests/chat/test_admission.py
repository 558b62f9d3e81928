"""Who is let in, what the others are told, and that a refused question leaves no trace."""

from dataclasses import replace
from pathlib import Path

import pytest

from dbgpt_lite.chat.admission import Admission, Limits
from dbgpt_lite.chat.context import Context
from dbgpt_lite.chat.service import ChatService
from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import Busy, ModelError, Overloaded, TooLarge
from dbgpt_lite.messages import ChatRequest, Done, Spent, Usage, Waiting
from dbgpt_lite.metrics import Metrics
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.store import ConversationStore
from tests.chat.test_service import ANA, ScriptedSource
from tests.fakes import ScriptedEngine


def test_limits_hold_for_each_user_and_for_all() -> None:
    admission = Admission(Limits(answers=3, per_user=2))
    first, second = admission.enter("ana"), admission.enter("ana")
    with pytest.raises(Busy, match="may have at a time: 2"):
        admission.enter("ana")
    third = admission.enter("ben")
    with pytest.raises(Overloaded, match="in a moment"):
        admission.enter("eve")
    third.leave()
    third.leave()
    admission.enter("eve")
    assert admission.taken == 3
    handed = second.hand_on()
    second.leave()
    assert admission.taken == 3
    handed.leave()
    first.leave()
    assert admission.taken == 1


def test_the_refusal_says_when_a_place_is_expected() -> None:
    admission = Admission(Limits(answers=2, per_user=2))
    for lasted in (30, 50):
        place = admission.enter("ana")
        place._taken -= lasted
        place.begin()
        place.leave()
    admission.enter("ana").leave()
    admission.enter("ana")
    admission.enter("ben")
    with pytest.raises(Overloaded, match="about 20 s") as refused:
        admission.enter("eve")
    assert refused.value.facts["seconds"] == 20
    assert "20 秒" in refused.value.render("zh")


class World:
    """A service with one place."""

    def __init__(self, folder: Path, *replies: str | Exception) -> None:
        self.store = ConversationStore(f"sqlite:///{folder / 'store.db'}")
        self.metrics = Metrics()
        self.engine = ScriptedEngine(*replies)
        self.chat = ChatService(
            self.store,
            lambda: self.engine,
            {"chat": ScriptedSource(Context("chat", "chat"))},
            Prompts(ROOT / "prompts"),
            limits=Limits(answers=1, per_user=1, seconds=7),
            metrics=self.metrics,
        )
        self.conversation = self.store.create(ANA).id
        self.request = ChatRequest(self.conversation, "How long?", ANA, "chat")

    def count(self, outcome: str) -> float:
        value = self.metrics._answers.labels("chat", outcome)._value.get()
        return float(value)


def test_a_refused_question_is_not_stored(tmp_path: Path) -> None:
    world = World(tmp_path)
    place = world.chat.admit("user:ben")
    with pytest.raises(Overloaded):
        world.chat.run(world.request)
    with pytest.raises(Overloaded):
        list(world.chat.stream(world.request))
    assert world.store.messages(ANA, world.conversation) == []
    place.leave()
    assert isinstance(list(world.chat.run(world.request).events())[-1], Done)
    assert (world.count("refused"), world.count("answered")) == (2, 1)
    assert world.engine.samplings[0].seconds == 7


def test_every_end_of_an_answer_frees_its_place_and_is_counted_once(tmp_path: Path) -> None:
    world = World(tmp_path, "one two", ModelError("chat.failed"), "one two three", "fine")
    list(world.chat.stream(world.request))
    with pytest.raises(ModelError):
        list(world.chat.stream(world.request))
    left = world.chat.stream(world.request)
    next(left)
    next(left)
    left.close()
    assert world.chat.taken == 0
    list(world.chat.stream(world.request))
    assert [world.count(outcome) for outcome in ("answered", "failed", "stopped")] == [2, 1, 1]


def test_what_a_source_spends_is_kept_with_the_answer_and_waiting_is_passed_on(tmp_path: Path) -> None:
    world = World(tmp_path, "fine")
    source = world.chat._sources["chat"]

    def gather(*_: object):  # type: ignore[no-untyped-def]
        yield Waiting(2, 4.0)
        yield Spent(Usage(100, 20, 50))
        yield Spent(Usage(10, 2, 5))
        return Context("chat", "chat")

    source.gather = gather  # type: ignore[method-assign]
    events = list(world.chat.stream(world.request))
    assert Waiting(2, 4.0) in events
    last = events[-1]
    assert isinstance(last, Done)
    spent = last.answer.spent
    assert (spent.prompt_tokens, spent.completion_tokens, spent.cached_tokens) == (110, 22, 55)
    assert world.store.messages(ANA, world.conversation)[1].answer == last.answer


def test_questions_refused_after_the_door_tell_nothing_about_how_long_answers_take(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(TooLarge):
        list(world.chat.stream(replace(world.request, question="x" * 20_001)))
    world.chat.admit("user:ben")
    with pytest.raises(Overloaded) as refused:
        world.chat.admit(ANA)
    assert "seconds" not in refused.value.facts


def test_an_answer_stopped_before_its_first_token_has_no_time_to_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.engine.stream = lambda *_: iter([Usage(10, seconds=4.0, queue_s=4.0, finish_reason="cancelled")])  # type: ignore[method-assign, assignment, return-value]
    last = list(world.chat.stream(world.request))[-1]
    assert isinstance(last, Done)
    assert last.answer.stopped
    assert last.answer.usage.first_token_s == 0
    assert b"first_token_seconds_count" not in world.metrics.text()


def test_what_a_source_computes_is_taken_from_the_time_and_waiting_is_not(tmp_path: Path) -> None:
    world = World(tmp_path, "fine")
    told: list[float] = []

    def gather(request: ChatRequest, *_: object):  # type: ignore[no-untyped-def]
        told.append(request.left())
        yield Spent(Usage(seconds=12, queue_s=10))
        told.append(request.left())
        yield Spent(Usage(seconds=3))
        return Context("chat", "chat")

    world.chat._sources["chat"].gather = gather  # type: ignore[method-assign]
    list(world.chat.stream(world.request))
    assert [*told, world.engine.samplings[0].seconds] == [7, 5, 2]
