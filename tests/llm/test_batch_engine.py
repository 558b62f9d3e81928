"""The batch engine against answers one by one, and its behaviour under stops, long prompts, failures and closing."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory, TooLarge
from dbgpt_lite.llm.batch import Batch
from dbgpt_lite.llm.batch_engine import BatchEngine
from dbgpt_lite.llm.batch_jobs import SearchJob
from dbgpt_lite.llm.parts import take_apart
from dbgpt_lite.llm.sharing import common_prefix
from dbgpt_lite.llm.slotted import Piece, PlainStepModel
from dbgpt_lite.messages import Message, Prompt, Sampling, Waiting
from tests.llm.tiny_models import answer_of, ask

GREEDY = Sampling(temperature=0, max_tokens=24)
ENDLESS = Sampling(temperature=0, max_tokens=400)
QUESTIONS = ["Who sleeps in the sun?", "今天天气", "SELECT name", "fox " * 30, "dog", "The quick", "Leeds", "a b c"]


class Watched(PlainStepModel):
    """Records its calls, and can be held: it then computes nothing until it is let go. `before` may raise.

    `tasks`: what it prepares. `queues`: whether it takes tokens as tensors. Logits are of no use after the next call.
    """

    def __init__(
        self, parts: Any, slots: int, window: int, chunk: int, queues: bool, tasks: Sequence[Callable[[], None]] = ()
    ) -> None:
        super().__init__(parts, slots, window, chunk)
        self.queues = queues
        self.ahead = 0
        self._logits = torch.empty(0)
        self.calls: list[str] = []
        self.tasks = list(tasks)
        self.together: list[int] = []
        self.reads: list[list[int]] = []
        self.steps: list[tuple[int, ...]] = []
        self.before: Callable[[str], None] = lambda call: None
        self.idle = threading.Event()
        self._going = threading.Event()
        self._hold_after = -1
        self._going.set()

    def hold_after(self, calls: int) -> None:
        """Let `calls` more calls through."""
        self.idle.clear()
        self._going.clear()
        self._hold_after = calls

    def let_go(self) -> None:
        """Compute again."""
        self._hold_after = -1
        self._going.set()

    def prepare(self) -> bool:
        if self.tasks:
            self.calls.append("task")
            self.tasks.pop(0)()
        return bool(self.tasks)

    def read(self, slot: int, start: int, ids: Sequence[int]) -> Any:
        self._before("read")
        self.reads.append(list(ids))
        return super().read(slot, start, ids)

    def read_together(self, pieces: Sequence[Piece]) -> Any:
        self.together.append(len(pieces))
        self._logits = super().read_together(pieces)
        return self._logits

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | torch.Tensor) -> Any:
        self._before("step")
        self.steps.append(tuple(slots))
        self.ahead += isinstance(tokens, torch.Tensor)
        self._logits = super().step(slots, lengths, tokens)
        return self._logits

    def _before(self, call: str) -> None:
        self.calls.append(call)
        self._logits.fill_(torch.nan)
        if self._hold_after == 0:
            self.idle.set()
            self._going.wait()
        self._hold_after -= self._hold_after > 0
        self.before(call)


def watched(engine: BatchEngine) -> Watched:
    steps = engine._batch._model
    assert isinstance(steps, Watched)
    return steps


@pytest.fixture(params=[False, True], ids=["waits", "queues"])
def batch(request: pytest.FixtureRequest, engine: Any) -> Iterator[Callable[..., BatchEngine]]:
    """Makes batch engines over the tiny model, of which a step waits for its result, or the host does later."""
    made: list[BatchEngine] = []

    def make(slots: int = 4, chunk: int = 64, tasks: Sequence[Callable[[], None]] = ()) -> BatchEngine:
        model = engine._runner._model
        parts = take_apart(model)
        steps = Watched(parts, slots, engine.info.context_length, chunk, request.param, tasks)
        made.append(BatchEngine(model, steps, engine._tokenizer, engine._template, engine.info))
        return made[-1]

    yield make
    for one in made:
        if one._batch._model is not None:
            watched(one).let_go()
        one.close()


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def held(many: BatchEngine, stream: Iterator[Any]) -> Watched:
    """The model, which stands still in the middle of a long answer."""
    steps = watched(many)
    steps.hold_after(12)
    next(stream)
    assert steps.idle.wait(20)
    return steps


def until(true: Callable[[], bool]) -> None:
    """Wait for another thread."""
    pause = threading.Event()
    while not true():
        pause.wait(0.002)


def test_a_model_that_cannot_be_warmed_up_is_closed_and_its_error_raised(engine: Any) -> None:
    class Short(PlainStepModel):
        closed = False

        def warm_up(self) -> None:
            assert threading.current_thread().name == "model-batch"
            raise torch.OutOfMemoryError("no memory for a piece of a prompt")

        def close(self) -> None:
            self.closed = True
            super().close()
            raise AttributeError("half made")

    steps = Short(take_apart(engine._runner._model), 2, 64)
    with pytest.raises(torch.OutOfMemoryError, match="piece of a prompt"):
        Batch(steps, "short")
    assert steps.closed


def test_many_at_once_answer_as_one_by_one(engine: Any, batch: Any, never: threading.Event) -> None:
    many = batch(slots=5, chunk=16)
    drawn = Sampling(temperature=0.9, top_p=0.9, max_tokens=24, seed=5)

    def answers(one: Any, number: int) -> Any:
        text, usage = answer_of(one.stream(ask(QUESTIONS[number]), drawn if number % 2 else GREEDY, never))
        return text, usage.prompt_tokens, usage.completion_tokens, usage.finish_reason

    expected = [answers(engine, number) for number in range(8)]
    assert together(8, lambda number: answers(many, number)) == expected
    assert (watched(many).ahead > 0) == watched(many).queues
    assert max(len(slots) for slots in watched(many).steps) > 1
    assert (many.busy, many.waiting, many._batch.taken) == (False, 0, 0)


def test_beams_ride_along(engine: Any, batch: Any, never: threading.Event) -> None:
    many = batch(slots=5)
    stream = many.stream(ask("fox"), ENDLESS, never)
    next(stream)
    for question in QUESTIONS[:4]:
        assert many.candidates(ask(question), 4, 12, never) == engine.candidates(ask(question), 4, 12, never)
    assert any(len(slots) == 5 for slots in watched(many).steps)
    assert len(many.candidates(ask("dog"), 9, 4, never)) <= 5
    *_, usage = list(stream)
    assert usage.completion_tokens > 24
    assert (
        answer_of(many.stream(ask("fox"), ENDLESS, never))[0] == answer_of(engine.stream(ask("fox"), ENDLESS, never))[0]
    )


def test_a_beginning_is_read_once(engine: Any, batch: Any, never: threading.Event) -> None:
    many = batch(slots=4, chunk=16)
    context = "The lazy dog sleeps in the warm sun. " * 6
    prompts = [engine._template.encode(ask(f"{context}{question}").messages) for question in QUESTIONS[:4]]
    shared = min(common_prefix(prompts[0], prompt) for prompt in prompts[1:])

    def asked(number: int) -> Any:
        return answer_of(many.stream(ask(f"{context}{QUESTIONS[number]}"), GREEDY, never))

    found = together(4, asked)
    cached = sorted(usage.cached_tokens for _, usage in found)
    assert cached[0] == 0
    assert cached[1] >= shared > 48
    for number, (text, _) in enumerate(found):
        assert text == answer_of(engine.stream(ask(f"{context}{QUESTIONS[number]}"), GREEDY, never))[0]
    read = sum(map(len, watched(many).reads))
    assert read == sum(usage.prompt_tokens - usage.cached_tokens for _, usage in found)
    # The same again stays where it is, and only its last token is read.
    asked(1)
    assert asked(1)[1].cached_tokens == found[1][1].prompt_tokens - 1


def test_short_prompts_are_read_together(engine: Any, batch: Any, never: threading.Event) -> None:
    """Those that wait; but not one that will share with another what is not yet read."""
    many = batch(slots=6, chunk=400)
    long = "fox " * 90
    questions = ["fox", "dog", "The quick", long + "a", long + "b"]
    wanted = [answer_of(engine.stream(ask(text), GREEDY, never))[0] for text in questions]
    steps = held(many, many.stream(ask("Leeds"), ENDLESS, never))
    found: dict[int, str] = {}

    def answer(number: int) -> None:
        found[number] = answer_of(many.stream(ask(questions[number]), GREEDY, never))[0]

    threads = []
    for number in range(len(questions)):
        threads.append(started(lambda number=number: answer(number)))
        until(lambda: many.waiting == len(threads))
    steps.let_go()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(questions))] == wanted
    # Leeds alone, then the four, then what is new of the last.
    assert steps.together == [1, 4, 1]
    assert len(steps.reads[-1]) < 64


def test_owners_share_the_rules_and_nothing_else(batch: Any, never: threading.Event) -> None:
    many = batch(slots=4, chunk=16)
    rules = Message("system", "The lazy dog sleeps in the warm sun. ")

    def cached(owner: str, question: str, beams: bool = False) -> int:
        prompt = replace(ask(question, rules), owner=owner, common=len(rules.content))
        if beams:
            many.candidates(prompt, 2, 4, never)
        kept: int = answer_of(many.stream(prompt, GREEDY, never))[1].cached_tokens
        return kept

    assert cached("alice", "my salary is 48731 euro " * 3, beams=True) > 60
    shared = cached("bob", "my salary is 4")
    assert shared == cached("carol", "who knows? " * 3) == cached("dave", "my salary is 48731 euro " * 3)
    assert shared >= many.count_text(rules.content)


@pytest.mark.parametrize("way", ["cancel", "close", "stop"])
def test_a_stopped_answer_frees_its_slot_within_a_step(engine: Any, batch: Any, way: str) -> None:
    many, cancel, never = batch(slots=2), threading.Event(), threading.Event()
    whole = answer_of(engine.stream(ask("fox"), ENDLESS, never))[0]
    stop = (whole[2:5],) if way == "stop" else ()
    stream = many.stream(ask("fox"), replace(ENDLESS, stop=stop), cancel)
    steps = held(many, stream)
    begun = len(steps.steps)
    if way == "close":
        stream.close()
    else:
        cancel.set() if way == "cancel" else None
        assert list(stream)[-1].finish_reason == {"cancel": "cancelled", "stop": "stop"}[way]
    assert not many.busy
    steps.let_go()
    until(lambda: many._batch.taken == 0)
    assert len(steps.steps) == begun + 1


def test_a_long_prompt_does_not_stop_others(batch: Any, never: threading.Event) -> None:
    many = batch(slots=2, chunk=8)
    stream = many.stream(ask("fox"), ENDLESS, never)
    steps = held(many, stream)
    calls: list[str] = []
    steps.before = calls.append
    other = started(lambda: answer_of(many.stream(ask("fox " * 40), Sampling(0, 1, 1), never)))
    until(lambda: many.waiting == 1)
    steps.let_go()
    other.join()
    reads = [place for place, call in enumerate(calls) if call == "read"]
    assert len(reads) > 5
    assert all(calls[place + 1] == "step" for place in reads[:-1])
    stream.close()


def test_owners_take_turns(engine: Any, batch: Any, never: threading.Event) -> None:
    many = batch(slots=1)
    running = many.stream(ask("fox"), ENDLESS, never)
    steps = held(many, running)
    gone = threading.Event()
    ends: dict[str, str] = {}

    def wait(name: str, cancel: threading.Event) -> None:
        _, usage = answer_of(many.stream(replace(ask(name), owner=name[0]), Sampling(0, 1, 2), cancel))
        ends[name] = usage.finish_reason

    threads = []
    for number, name in enumerate(["a1", "a2", "b1", "a3", "c1"], start=1):
        event = gone if name == "a3" else never
        threads.append(started(lambda name=name, event=event: wait(name, event)))
        until(lambda number=number: many.waiting == number)
    gone.set()
    threads[3].join()
    assert (ends, many.waiting) == ({"a3": "cancelled"}, 4)
    running.close()
    steps.reads.clear()
    steps.let_go()
    for thread in threads:
        thread.join()
    read = [engine._text(ids) for ids in steps.reads]
    assert [next(name for name in ends if name in text) for text in read] == ["a1", "b1", "c1", "a2"]


def test_a_search_waits_for_room_and_is_not_overtaken(batch: Any, never: threading.Event) -> None:
    many = batch(slots=3)
    running = many.stream(ask("fox"), ENDLESS, never)
    steps = held(many, running)
    search = started(lambda: many.candidates(ask("dog"), 3, 4, never))
    until(lambda: many.waiting == 1)
    later = started(lambda: answer_of(many.stream(ask("a"), GREEDY, never)))
    until(lambda: many.waiting == 2)
    running.close()
    begun = len(steps.steps)
    steps.let_go()
    search.join()
    later.join()
    # The step under way, then the search's own, then the answer behind it.
    assert [len(slots) for slots in steps.steps[begun:]][1:4] == [3, 3, 3]
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        many.candidates(ask("dog"), 3, 4, cancel)


@pytest.mark.parametrize(
    ("call", "failure", "expected", "alone"),
    [
        ("read", RuntimeError("CUDA out of memory"), OutOfMemory, True),
        ("read", RuntimeError("a kernel broke"), ModelError, False),
        ("step", MemoryError(), OutOfMemory, False),
        ("step", KeyboardInterrupt(), ModelError, False),
    ],
)
def test_a_failure_ends_what_is_under_way_and_nothing_else(
    engine: Any, batch: Any, never: threading.Event, call: str, failure: BaseException, expected: Any, alone: bool
) -> None:
    many = batch(slots=2)
    short = replace(ENDLESS, max_tokens=24)
    texts = {name: answer_of(engine.stream(ask(name), short, never))[0] for name in ("fox", "dog", "The")}
    found: dict[str, Any] = {}

    def other(name: str) -> None:
        try:
            found[name] = answer_of(many.stream(ask(name), short, never))[0]
        except ModelError as error:
            found[name] = error

    steps = watched(many)
    steps.hold_after(3)
    threads = []
    for name in ("fox", "dog", "The"):
        threads.append(started(lambda name=name: other(name)))
        until(lambda: steps.idle.is_set() and many.waiting == len(threads) - 1)
    calls = [call]

    def fail(kind: str) -> None:
        # Once, when two answers are under way.
        if kind in calls and (call == "read" or many._batch.taken == 2):
            calls.clear()
            raise failure

    steps.before = fail
    steps.let_go()
    for thread in threads:
        thread.join()
    failed = {name for name in found if isinstance(found[name], ModelError)}
    assert failed == ({"dog"} if alone else {"fox", "dog"})
    assert {type(found[name]) for name in failed} == {expected}
    assert all(found[name] == texts[name] for name in found.keys() - failed)
    assert (many._batch.failures, many._batch.taken, many.busy) == (0 if alone else 1, 0, False)


def test_what_is_of_use_is_made_while_nobody_asks(engine: Any, batch: Any, never: threading.Event) -> None:
    wanted = answer_of(engine.stream(ask("fox"), GREEDY, never))[0]
    asked = threading.Event()
    many = batch(tasks=[lambda: asked.wait(20) and None, lambda: None, lambda: None])
    found: list[str] = []
    thread = started(lambda: found.append(answer_of(many.stream(ask("fox"), GREEDY, never))[0]))
    until(lambda: many.waiting == 1)
    asked.set()
    thread.join()
    until(lambda: not watched(many).tasks)
    # The question came in the midst of the first, and before all others.
    calls = watched(many).calls
    assert calls[:2] == ["task", "read"]
    assert calls[-2:] == ["task", "task"]
    assert (found, many._batch.failures) == ([wanted], 0)


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("a kernel broke")])
def test_answers_go_on_when_that_fails(engine: Any, batch: Any, never: threading.Event, failure: Exception) -> None:
    def fail() -> None:
        raise failure

    many = batch(tasks=[fail, lambda: None])
    wanted = answer_of(engine.stream(ask("fox"), GREEDY, never))[0]
    until(lambda: len(watched(many).tasks) == 1)
    assert answer_of(many.stream(ask("fox"), GREEDY, never))[0] == wanted
    # Not after every answer, but in a while, the rest is tried.
    assert answer_of(many.stream(ask("dog"), GREEDY, never))[0]
    assert len(watched(many).tasks) == 1
    many._batch._prepare_from = 0.0
    assert answer_of(many.stream(ask("fox"), GREEDY, never))[0] == wanted
    until(lambda: not watched(many).tasks)
    assert many._batch.failures == 0


def test_close_ends_all_and_frees_the_model(batch: Any, never: threading.Event) -> None:
    many = batch(slots=1)
    assert many.memory["cpu"] > 0
    running = many.stream(ask("fox"), ENDLESS, never)
    steps = held(many, running)
    ends: list[ModelError] = []

    def wait() -> None:
        try:
            many.candidates(ask("dog"), 2, 4, never)
        except ModelError as error:
            ends.append(error)

    waiter = started(wait)
    until(lambda: many.waiting == 1)
    closer = started(many.close)
    until(lambda: many._batch._closing)
    steps.let_go()
    closer.join()
    waiter.join()
    with pytest.raises(ModelError, match="unloaded"):
        list(running)
    assert "unloaded" in str(ends[0])
    with pytest.raises(ModelError, match="unloaded"):
        list(many.stream(ask("fox"), GREEDY, never))
    assert (many.memory, many.busy) == ({}, False)


def test_one_who_waits_hears_where_it_stands(batch: Any, never: threading.Event) -> None:
    many = batch(slots=1)
    running = many.stream(ask("fox"), ENDLESS, never)
    steps = held(many, running)
    started(lambda: list(many.stream(ask("dog"), GREEDY, never)))
    until(lambda: many.waiting == 1)
    stream = many.stream(replace(ask("dog"), owner="other"), GREEDY, never)
    assert next(stream) == Waiting(2)
    running.close()
    steps.let_go()
    items = [item for item in stream if not isinstance(item, Waiting) or item.position == 0]
    assert items[0] == Waiting(0, 0.0)
    assert items[-1].queue_s > 0
    assert many._batch.place(SearchJob("", [1], never, 1)) == Waiting(0, 0.0)


def test_the_time_limit_ends_an_answer(batch: Any, never: threading.Event) -> None:
    _, usage = answer_of(batch().stream(ask("fox"), replace(ENDLESS, seconds=1e-9), never))
    assert (usage.finish_reason, usage.completion_tokens) == ("time", 1)


def test_the_window_bounds_an_answer(batch: Any, never: threading.Event) -> None:
    many = batch(slots=1)
    prompt = ask("fox " * 120)
    room = many.info.context_length - many.count(prompt.messages)
    _, usage = answer_of(many.stream(prompt, Sampling(0, 1, 10_000), never))
    assert 0 < usage.completion_tokens <= room
    with pytest.raises(TooLarge, match="tokens"):
        list(many.stream(ask("fox " * 2000), GREEDY, never))


def test_a_grammar_binds_its_own_row_only(engine: Any, batch: Any, never: threading.Event) -> None:
    many = batch(slots=3)
    colours = replace(ask("fox"), grammar='start: "red" | "green" " " "tea"\n')
    assert many.info.constrained

    def said(number: int) -> str:
        prompt: Prompt = colours if number % 2 else ask("fox")
        return answer_of(many.stream(prompt, GREEDY, never))[0]

    found = Counter(together(6, said))
    assert set(found) - {"red", "green tea"} == {answer_of(engine.stream(ask("fox"), GREEDY, never))[0]}
    assert found.keys() & {"red", "green tea"}
    assert set(many.candidates(colours, 2, 24, never)) <= {"red", "green tea"}
