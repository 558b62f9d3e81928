"""The place at a model: never two hold it, nobody is lost, and a long answer does not hold up the others."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm import slot as slots
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.slot import Slot, Turns
from dbgpt_lite.messages import Prompt, Sampling, Usage, Waiting
from tests.llm.tiny_models import answer_of, ask, make_model, make_tokenizer

# Who comes; or the number of one who is there and leaves, or passes its turn on if it has it.
_EVENTS = st.lists(
    st.one_of(st.sampled_from("abc"), st.tuples(st.booleans(), st.integers(0, 9))),
    max_size=40,
)


@given(_EVENTS)
def test_exactly_one_holds_the_place_and_nobody_is_lost(events: list[str | tuple[bool, int]]) -> None:
    slot, inside = Slot(), list[Turns]()
    # Some come again for the same answer.
    answers = {place: threading.Event() for place in (2, 3, 5)}
    for event in events:
        if isinstance(event, str):
            inside.append(Turns(slot, event, answers.get(len(inside)) or threading.Event()).__enter__())
        elif inside:
            chosen = inside[event[1] % len(inside)]
            if event[0]:
                inside.remove(chosen)
                slot.leave(chosen)
                slot.leave(chosen)
            elif chosen.reached.is_set():
                chosen.pass_on()
        holders = [turns for turns in inside if turns.reached.is_set()]
        assert len(holders) == (1 if inside else 0)
        assert slot.waiting == max(len(inside) - 1, 0)
        waiting = sorted(slot.place(turns).position for turns in inside if turns not in holders)
        assert waiting == list(range(1, len(inside)))
    told = sorted(inside, key=lambda turns: slot.place(turns).position)
    for served in told:
        assert served.reached.is_set()
        slot.leave(served)
    assert not slot.busy


def test_the_expected_wait_is_that_of_the_turns_before() -> None:
    slot = Slot()
    first, second, third = (Turns(slot, name, threading.Event()).__enter__() for name in "abc")
    assert slot.place(third) == Waiting(2, None)
    slot._since -= 10
    slot.leave(first)
    assert second.reached.is_set()
    told = slot.place(third)
    assert told.position == 1
    assert told.seconds == pytest.approx(10, abs=1)


def test_an_answer_that_was_begun_goes_on_before_new_ones_but_not_after_a_whole_turn() -> None:
    slot, answer = Slot(), threading.Event()
    first = Turns(slot, "ana", answer).__enter__()
    ben, eve = (Turns(slot, name, threading.Event()).__enter__() for name in ("ben", "eve"))
    slot.leave(first)
    again = Turns(slot, "ana", answer).__enter__()
    assert [slot.place(turns).position for turns in (ben, again, eve)] == [0, 1, 2]
    slot.leave(ben)
    assert again.reached.is_set()
    again.pass_on()
    assert eve.reached.is_set()


def test_many_answers_of_one_user_that_go_on_do_not_hold_up_another() -> None:
    slot, answers = Slot(), [threading.Event() for _ in range(4)]
    for answer in answers:
        slot.leave(Turns(slot, "ana", answer).__enter__())
    first, *others = (Turns(slot, "ana", answer).__enter__() for answer in answers)
    new = Turns(slot, "ana", threading.Event()).__enter__()
    ben, eve = (Turns(slot, name, threading.Event()).__enter__() for name in ("ben", "eve"))
    assert [slot.place(turns).position for turns in (ben, eve)] == [2, 4]
    served = [first]
    while slot.busy:
        slot.leave(served[-1])
        served += [turns for turns in (*others, new, ben, eve) if turns.reached.is_set() and turns not in served]
    assert served == [first, others[0], ben, others[1], eve, others[2], new]


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that writes until it is stopped."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    make_model(folder, endless=True)
    make_tokenizer(folder)
    return load(folder, LoadOptions(dtype="float32", device_map="cpu"))


def asked_by(owner: str, question: str) -> Prompt:
    return Prompt("chat", ask(question).messages, question, owner=owner)


def test_a_long_answer_passes_its_place_on_and_goes_on_as_if_alone(
    endless: Any, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    long, short = Sampling(0, 1, 400), Sampling(0, 1, 30)
    alone = [
        answer_of(endless.stream(ask(word), sampling, never))[0] for word, sampling in (("fox", long), ("dog", short))
    ]
    monkeypatch.setattr(slots, "TURN_S", 0)
    monkeypatch.setattr(slots, "TURN_TOKENS", 4)
    ended: list[str] = []
    texts: dict[str, str] = {}
    waited: dict[str, Usage] = {}

    def read(owner: str, stream: Iterator[Any], first: str = "") -> None:
        text, waited[owner] = answer_of(stream)
        texts[owner] = first + text
        ended.append(owner)

    stream = endless.stream(asked_by("ana", "fox"), long, never)
    first = next(stream)
    other = threading.Thread(target=read, args=("ben", endless.stream(asked_by("ben", "dog"), short, never)))
    other.start()
    while not endless.waiting:
        time.sleep(0.002)
    read("ana", stream, first)
    other.join()
    assert ended == ["ben", "ana"]
    assert 0 < waited["ana"].paused_s <= waited["ana"].queue_s
    assert waited["ben"].queue_s > waited["ben"].paused_s
    assert Usage(9, 11, queue_s=4.0, first_token_s=1.0, seconds=6.0, paused_s=3.0).tokens_per_second == 5
    assert [texts["ana"], texts["ben"]] == alone
    assert not endless.busy


def test_who_waits_is_told_and_then_served(endless: Any, never: threading.Event) -> None:
    first = endless.stream(asked_by("ana", "fox"), Sampling(0, 1, 100), never)
    next(first)
    second = endless.stream(asked_by("ben", "dog"), Sampling(0, 1, 4), never)
    told = next(second)
    assert (told.position, endless.waiting) == (1, 1)
    first.close()
    turn, *text, usage = list(second)
    assert turn == Waiting(0, 0.0)
    assert "".join(text)
    assert isinstance(usage, Usage)
    assert usage.queue_s > 0


def test_the_time_limit_ends_an_answer_with_what_there_is(endless: Any, never: threading.Event) -> None:
    text, usage = answer_of(endless.stream(ask("fox"), Sampling(0, 1, 400, seconds=1e-9), never))
    assert usage.finish_reason == "time"
    assert usage.completion_tokens == 1
    assert text
    assert not endless.busy
