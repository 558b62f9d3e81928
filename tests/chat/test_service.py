"""The straight line with a scripted engine and scripted sources, over a real store."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dbgpt_lite.chat.context import AutoContext, Context, Gather, Route
from dbgpt_lite.chat.service import ChatService, language_of
from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import Busy, ModelError, NotFound, UserError
from dbgpt_lite.messages import (
    Answer,
    ChatRequest,
    Done,
    Found,
    Message,
    Passage,
    Routed,
    Sampling,
    Step,
    Token,
)
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.store import ConversationStore
from tests.fakes import ScriptedEngine

ANA = "user:ana"
PASSAGES = (
    Passage(1, "Returns within 30 days.", "d", "returns.md", 2),
    Passage(2, "Batteries: six months.", "e", "w.md"),
)


class ScriptedSource:
    """A ContextSource that hands over a prepared context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.histories: list[Sequence[Message]] = []

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: threading.Event) -> Gather:
        self.histories.append(history)
        yield Step("search", {"count": 2})
        if self.context.passages:
            yield Found(self.context.passages)
        return self.context


class World:
    """A service and everything around it."""

    def __init__(self, folder: Path, *replies: str | Exception, context: Context | None = None) -> None:
        self.store = ConversationStore(f"sqlite:///{folder / 'store.db'}")
        self.engine = ScriptedEngine(*replies)
        self.source = ScriptedSource(context or Context("chat", "chat"))
        sources = {"chat": self.source, "documents": self.source}
        self.chat = ChatService(
            self.store,
            lambda: self.engine,
            {**sources, "auto": AutoContext(sources, lambda request: Route("documents"))},  # type: ignore[dict-item]
            Prompts(ROOT / "prompts"),
        )
        self.conversation = self.store.create(ANA).id

    def request(self, question: str = "How long?", **parts: object) -> ChatRequest:
        return ChatRequest(self.conversation, question, ANA, **{"mode": "chat", **parts})  # type: ignore[arg-type]

    def turns(self) -> list[tuple[str, str]]:
        return [(m.role, m.content) for m in self.store.messages(ANA, self.conversation)]


def done(events: list[object]) -> Answer:
    last = events[-1]
    assert isinstance(last, Done)
    return last.answer


def test_documents_answer_is_streamed_cited_and_stored(tmp_path: Path) -> None:
    world = World(
        tmp_path, "You have 30 days [1] or more [7].", context=Context("documents", "documents", passages=PASSAGES)
    )
    events = list(world.chat.stream(world.request(mode="auto")))
    assert [type(e).__name__ for e in events[:4]] == ["Step", "Routed", "Step", "Found"]
    assert Routed("documents") in events
    answer = done(events)
    assert "".join(e.text for e in events if isinstance(e, Token)) == "You have 30 days [1] or more [7]."
    assert answer.text == "You have 30 days [1] or more."
    assert [(c.number, c.passage.page) for c in answer.citations] == [(1, 2)]
    assert world.turns() == [("user", "How long?"), ("assistant", answer.text)]
    assert world.store.messages(ANA, world.conversation)[1].answer == answer
    prompt = world.engine.prompts[0]
    assert "[1] returns.md, p. 2\n<passage>\nReturns within 30 days.\n</passage>" in prompt.messages[-1].content


def test_sentences_without_a_source_are_stored_with_the_answer(tmp_path: Path) -> None:
    context = Context("documents", "documents", passages=PASSAGES)
    world = World(tmp_path, "You have 90 days [1]. Batteries have six months (2).", context=context)
    answer = done(list(world.chat.stream(world.request(mode="auto"))))
    assert answer.text == "You have 90 days. Batteries have six months (2)."
    assert answer.unsupported == ("You have 90 days.",)
    assert answer.near_misses == ()
    assert world.store.messages(ANA, world.conversation)[1].answer == answer


def test_near_misses_are_stored_with_a_refusal(tmp_path: Path) -> None:
    context = Context("documents", "documents", reply="Not here.", near_misses=PASSAGES, best=0.31, needed=0.45)
    world = World(tmp_path, context=context)
    answer = done(list(world.chat.stream(world.request(mode="auto"))))
    assert (answer.near_misses, answer.best, answer.needed, answer.passages) == (PASSAGES, 0.31, 0.45, ())
    assert world.store.messages(ANA, world.conversation)[1].answer == answer
    assert world.engine.prompts == []


def test_what_the_built_in_assistant_looked_at_came_near(tmp_path: Path) -> None:
    world = World(tmp_path, "Not here.", context=Context("documents", "documents", passages=PASSAGES))
    world.engine.info = replace(world.engine.info, kind="builtin")
    answer = done(list(world.chat.stream(world.request(mode="auto"))))
    assert (answer.near_misses, answer.passages) == (PASSAGES, ())


def test_markers_of_earlier_answers_stay_out_of_the_prompt(tmp_path: Path) -> None:
    world = World(tmp_path, "fine")
    history = (Message("user", "a[1]?"), Message("assistant", "b [1][2]. `c[3]`"))
    list(world.chat.stream(ChatRequest("", "c", "api", "chat", history=history)))
    assert [m.content for m in world.engine.prompts[0].messages[-3:]] == ["a[1]?", "b. `c[3]`", "c"]


def test_history_reaches_the_prompt(tmp_path: Path) -> None:
    world = World(tmp_path, "first", "second")
    list(world.chat.stream(world.request("one?")))
    list(world.chat.stream(world.request("two?")))
    contents = [m.content for m in world.engine.prompts[1].messages if m.role != "system"]
    assert contents == ["one?", "first", "two?"]


def test_stop_midway_keeps_what_was_written(tmp_path: Path) -> None:
    world = World(tmp_path, "one two three")
    world.engine.hold.set()
    run = world.chat.run(world.request())
    events = run.events()
    assert world.engine.started.wait(10)
    assert world.chat.stop(ANA, world.conversation)
    answer = done([event for event in events if event is not None])
    assert answer.stopped
    assert answer.text == "one"
    assert world.turns() == [("user", "How long?"), ("assistant", "one")]
    assert world.engine.closed == 1
    assert not world.chat.stop(ANA, world.conversation)


def test_leaving_the_events_stops_the_engine(tmp_path: Path) -> None:
    world = World(tmp_path, "one two three")
    world.engine.hold.set()
    run = world.chat.run(world.request())
    events = run.events()
    next(events)
    events.close()
    run._thread.join(10)
    assert world.engine.closed == 1
    assert world.turns()[1:] in ([("assistant", "one")], [("assistant", "")])


def test_events_pause_with_none(tmp_path: Path) -> None:
    world = World(tmp_path, "one two")
    world.engine.hold.set()
    seen = []
    for event in world.chat.run(world.request()).events(poll_s=0.01):
        seen.append(event)
        if seen.count(None) == 3:
            world.chat.stop(ANA, world.conversation)
    assert seen.count(None) >= 3
    assert isinstance(seen[-1], Done)


def test_model_error_is_raised_and_the_question_kept_for_a_retry(tmp_path: Path) -> None:
    world = World(tmp_path, ModelError("chat.failed"), "fine")
    with pytest.raises(ModelError):
        list(world.chat.stream(world.request("one?")))
    question, failed = world.store.messages(ANA, world.conversation)
    assert failed.answer
    assert failed.answer.error.startswith("Something went wrong")
    list(world.chat.stream(world.request("one?", replaces=question.id)))
    assert world.turns() == [("user", "one?"), ("assistant", "fine")]


def test_failed_regeneration_leaves_the_old_answer(tmp_path: Path) -> None:
    world = World(tmp_path, "old", ModelError("chat.failed"))
    first = list(world.chat.stream(world.request("one?")))[-1]
    assert isinstance(first, Done)
    with pytest.raises(ModelError):
        list(world.chat.stream(world.request("one?", replaces=first.question_id)))
    assert world.turns() == [("user", "one?"), ("assistant", "old")]


def test_an_unforeseen_error_shows_no_detail(tmp_path: Path) -> None:
    world = World(tmp_path, RuntimeError("password=hunter2"))
    with pytest.raises(UserError) as caught:
        list(world.chat.run(world.request()).events())
    assert "hunter2" not in str(caught.value)
    stored = world.store.messages(ANA, world.conversation)[1].answer
    assert stored
    assert "hunter2" not in stored.error


def test_one_answer_at_a_time_in_a_conversation(tmp_path: Path) -> None:
    world = World(tmp_path, "one two")
    world.engine.hold.set()
    run = world.chat.run(world.request())
    assert world.engine.started.wait(10)
    with pytest.raises(Busy):
        list(world.chat.stream(world.request()))
    run.cancel()
    assert done([e for e in run.events() if e is not None]).stopped


def test_another_owner_cannot_ask_in_a_conversation(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(NotFound):
        list(world.chat.stream(ChatRequest(world.conversation, "hi", "user:ben", "chat")))
    assert world.turns() == []
    assert world.engine.prompts == []


def test_request_with_its_own_history_is_not_stored(tmp_path: Path) -> None:
    world = World(tmp_path, "fine")
    history = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"))
    last = list(world.chat.stream(ChatRequest("", "c", "api", "chat", history=history)))[-1]
    assert isinstance(last, Done)
    assert last.answer_id == 0
    system, *turns = (m.content for m in world.engine.prompts[0].messages)
    assert system.endswith("Be brief.")
    assert turns == ["a", "b", "c"]
    assert world.store.conversations("api") == []


def test_prepared_reply_needs_no_engine(tmp_path: Path) -> None:
    world = World(tmp_path, context=Context("rows", "database", reply="No query."))
    assert done(list(world.chat.stream(world.request()))).text == "No query."
    assert world.engine.prompts == []


def test_sampling_is_passed_on_within_the_window(tmp_path: Path) -> None:
    world = World(tmp_path, "fine")
    wanted = Sampling(temperature=0.1, max_tokens=10**6, stop=("END",))
    list(world.chat.stream(world.request(sampling=wanted)))
    used = world.engine.samplings[0]
    assert (used.temperature, used.stop) == (0.1, ("END",))
    assert used.max_tokens + world.engine.count(world.engine.prompts[0].messages) <= 4096


@pytest.mark.parametrize(
    ("question", "language"), [("退货期限？", "zh"), ("What is 灯鱼 Goods?", "en"), ("How?", "en"), ("123?", "zh")]
)
def test_language_of_the_question(question: str, language: str) -> None:
    assert language_of(question, "zh") == language


def test_half_a_character_in_a_question_breaks_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, "Thirty days.")
    events = list(world.chat.stream(world.request("How \ud800long?")))
    assert isinstance(events[-1], Done)
    assert [message.content for message in world.store.messages(ANA, world.conversation)] == [
        "How ?long?",
        "Thirty days.",
    ]
