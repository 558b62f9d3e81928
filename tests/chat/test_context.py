"""Documents and auto mode over a scripted knowledge base: what is searched for, what covers, who may look."""

import threading
from collections.abc import Sequence

import pytest

from dbgpt_lite.chat.context import AutoContext, Context, ContextSource, DocumentContext, Route
from dbgpt_lite.chat.rewriting import FollowUps
from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import Cancelled, NotFound
from dbgpt_lite.knowledge.records import Job, Retrieval, Space
from dbgpt_lite.messages import ChatRequest, Found, Message, Mode, Passage, Rewritten, Routed, Step
from dbgpt_lite.prompts import Prompts
from tests.fakes import ScriptedEngine

PASSAGE = Passage(1, "The warranty on batteries is six months.", "d", "w.md", score=0.8)
FOUND = Retrieval((PASSAGE,), (), 0.8, 0.45, True)
MISSED = Retrieval((), (PASSAGE,), 0.4499, 0.45, False)
HISTORY = (Message("user", "How long is the warranty on lamps?"), Message("assistant", "Three years."))
WHOLE = "How long is the warranty on batteries?"


class NoJobs:
    """Nothing is being taken in."""

    def of_space(self, space_id: str) -> tuple[Job, ...]:
        return ()


class ScriptedKnowledge:
    """Spaces and one prepared retrieval."""

    def __init__(self, found: Retrieval, *spaces: Space) -> None:
        self.found = found
        self.all = spaces or (Space("s", "Shared", 1, 9),)
        self.asked: list[tuple[list[str], str, int]] = []
        self.jobs = NoJobs()

    def spaces(self, owner: str = "") -> list[Space]:
        return [space for space in self.all if not space.temporary]

    def space(self, space_id: str) -> Space:
        return next(space for space in self.all if space.id == space_id)

    def retrieve(self, space_ids: Sequence[str], question: str, k: int) -> Retrieval:
        self.asked.append((list(space_ids), question, k))
        return self.found


def follow_ups(engine: ScriptedEngine | None = None) -> FollowUps:
    engine = engine or ScriptedEngine(kind="builtin")
    return FollowUps(lambda: engine, Prompts(ROOT / "prompts"))


def documents(knowledge: ScriptedKnowledge, engine: ScriptedEngine | None = None) -> DocumentContext:
    ready = threading.Event()
    ready.set()
    return DocumentContext(knowledge, 5, ready, follow_ups(engine))  # type: ignore[arg-type]


def gather(
    place: ContextSource, question: str, history: tuple[Message, ...] = (), **parts: object
) -> tuple[list[object], Context]:
    request = ChatRequest("c", question, "ana", **{"mode": "documents", **parts})  # type: ignore[arg-type]
    running = place.gather(request, history, threading.Event())
    events: list[object] = []
    while True:
        try:
            events.append(next(running))
        except StopIteration as end:
            return events, end.value


def test_covered_questions_get_their_passages() -> None:
    knowledge = ScriptedKnowledge(FOUND)
    events, context = gather(documents(knowledge), WHOLE)
    assert events == [Step("search", {"count": 1}), Found((PASSAGE,))]
    assert (context.passages, context.reply) == ((PASSAGE,), "")
    assert knowledge.asked == [(["s"], WHOLE, 5)]


@pytest.mark.parametrize(
    ("language", "reply"),
    [
        ("en", "Not in these documents: best match 0.44, needed 0.45."),
        ("zh", "这些文档中没有相关内容：最佳匹配 0.44，需要达到 0.45。"),
    ],
)
def test_a_question_that_is_not_covered_is_refused_with_the_numbers(language: str, reply: str) -> None:
    events, context = gather(documents(ScriptedKnowledge(MISSED)), WHOLE, language=language)
    assert not any(isinstance(event, Found) for event in events)
    assert context.reply == reply
    assert (context.near_misses, context.best, context.needed) == ((PASSAGE,), 0.4499, 0.45)


def test_a_follow_up_is_searched_for_whole() -> None:
    knowledge = ScriptedKnowledge(FOUND)
    events, _ = gather(documents(knowledge), "And on batteries?", HISTORY)
    assert events[0] == Rewritten(WHOLE)
    assert knowledge.asked[0][1] == WHOLE


def test_a_question_that_stands_by_itself_is_searched_as_typed() -> None:
    knowledge, engine = ScriptedKnowledge(FOUND), ScriptedEngine("never")
    events, _ = gather(documents(knowledge, engine), "Who signs the rental contract?", HISTORY)
    assert not any(isinstance(event, Rewritten) for event in events)
    assert knowledge.asked[0][1] == "Who signs the rental contract?"
    assert engine.prompts == []


@pytest.mark.parametrize("mode", ["documents", "chat"])
def test_auto_mode_routes_the_whole_question_and_rewrites_once(mode: Mode) -> None:
    knowledge, engine = ScriptedKnowledge(FOUND), ScriptedEngine(WHOLE, "never")
    routed: list[str] = []

    class Plain:
        def gather(self, request: ChatRequest, history: Sequence[Message], cancel: threading.Event):  # type: ignore[no-untyped-def]
            yield from ()
            return Context("chat", "chat")

    def route(request: ChatRequest) -> Route:
        routed.append(request.question)
        return Route(mode)

    sources: dict[Mode, ContextSource] = {"documents": documents(knowledge, engine), "chat": Plain()}
    auto = AutoContext(sources, route, follow_ups(engine))
    events, _ = gather(auto, "And on batteries?", HISTORY, mode="auto")
    assert routed == [WHOLE]
    assert Routed(mode) in events
    # In a chat nothing was looked up, and the model reads the conversation itself.
    assert (Rewritten(WHOLE) in events) is (mode == "documents")
    assert len(engine.prompts) == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_auto_mode_weighs_the_sample_documents_though_they_are_still_on_their_way(stopped: bool) -> None:
    prepared, cancel = threading.Event(), threading.Event()
    routed: list[bool] = []

    def route(request: ChatRequest) -> Route:
        routed.append(prepared.is_set())
        return Route("documents")

    auto = AutoContext({"documents": documents(ScriptedKnowledge(FOUND))}, route, None, prepared)
    events = auto.gather(ChatRequest("c", WHOLE, "ana", mode="auto"), (), cancel)
    assert next(events) == Step("prepare")
    (cancel if stopped else prepared).set()
    if stopped:
        with pytest.raises(Cancelled):
            next(events)
        return
    assert next(events) == Step("route")
    assert next(events) == Routed("documents")
    assert routed == [True]


def test_throw_away_files_are_their_owners() -> None:
    mine, theirs = Space("m", "Mine", 1, temporary=True, owner="ana"), Space("t", "T", 1, temporary=True, owner="ben")
    knowledge = ScriptedKnowledge(FOUND, Space("s", "Shared", 1), mine, theirs)
    gather(documents(knowledge), WHOLE, source="m")
    assert knowledge.asked[-1][0] == ["m"]
    gather(documents(knowledge), WHOLE)
    assert knowledge.asked[-1][0] == ["s"]
    with pytest.raises(NotFound):
        gather(documents(knowledge), WHOLE, source="t")
    assert len(knowledge.asked) == 2
