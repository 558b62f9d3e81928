"""Steps that are started before the host has read the tokens of the last: the same answers, whoever comes and goes.

What follows is decided here by all that a slot holds, so a token that is written for the wrong answer, or over
another's, changes what comes next.
"""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm.batch import Batch
from dbgpt_lite.llm.batch_flight import Drawing, Flight
from dbgpt_lite.llm.batch_jobs import AnswerJob, Began, Drawn, Ended
from dbgpt_lite.llm.constraint import Guide
from dbgpt_lite.llm.decoding import Sampler, draw
from dbgpt_lite.llm.slotted import Piece
from dbgpt_lite.messages import Sampling

WORDS, END, SLOTS = 50, 0, 3


def scores(held: Sequence[int]) -> torch.Tensor:
    """What may follow, by all tokens that there are; one of thirty at most ends an answer."""
    logits = torch.rand(WORDS, generator=torch.Generator().manual_seed(hash(tuple(held)) & 0x7FFFFFFF)) * 4
    logits[END] += 1
    return logits


class Remembering:
    """A StepModel that takes tokens as tensors; its logits are overwritten with every call."""

    slots, window, chunk, widened, queues = SLOTS, 64, 8, 0, True

    def __init__(self) -> None:
        self.held = [[-1] * self.window for _ in range(SLOTS)]
        self.logits = torch.zeros(SLOTS, WORDS)
        self.ahead = self.rows = 0
        self.before: Callable[[], None] = lambda: None

    def read(self, slot: int, start: int, ids: Sequence[int]) -> torch.Tensor:
        return self.read_together([Piece(slot, start, ids)])[0]

    def read_together(self, pieces: Sequence[Piece]) -> torch.Tensor:
        for piece in pieces:
            self.held[piece.slot][piece.start : piece.end] = list(piece.ids)
        return self._scored([(piece.slot, piece.end) for piece in pieces])

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        self.before()
        self.ahead += isinstance(tokens, torch.Tensor)
        self.rows += len(slots)
        for slot, length, token in zip(slots, lengths, torch.as_tensor(tokens).tolist(), strict=True):
            self.held[slot][length] = token
        return self._scored([(slot, length + 1) for slot, length in zip(slots, lengths, strict=True)])

    def _scored(self, rows: Sequence[tuple[int, int]]) -> torch.Tensor:
        self.logits.fill_(torch.nan)
        for row, (slot, length) in enumerate(rows):
            self.logits[row] = scores(self.held[slot][:length])
        return self.logits[: len(rows)]

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        self.held[target][start:end] = self.held[source][start:end]

    def warm_up(self) -> None: ...

    def prepare(self) -> bool:
        return False

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


def answer(prompt: Sequence[int], limit: int, sampler: Sampler) -> list[int]:
    """The truth: one token after the other."""
    made: list[int] = []
    while len(made) < limit and (token := int(draw(scores([*prompt, *made])[None], [sampler]))) != END:
        made.append(token)
    return made


def sampler(seed: int) -> Sampler:
    return Sampler(Sampling(temperature=0 if seed % 2 else 0.7, top_p=0.9, seed=seed))


def job(prompt: Sequence[int], limit: int, seed: int, guide: Guide | None = None) -> AnswerJob:
    return AnswerJob(f"reader {seed}", prompt, threading.Event(), limit, {END}, sampler(seed), guide)


def heard(one: AnswerJob) -> list[int]:
    assert isinstance(one.take(), Began)
    tokens: list[int] = []
    while isinstance(event := one.take(), Drawn):
        tokens.append(event.token)
    assert isinstance(event, Ended)
    return tokens


asks = st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 30), st.integers(0, 99))


@settings(deadline=None)
@given(st.lists(asks, min_size=1, max_size=8), st.integers(0, 10**6))
def test_answers_are_those_of_one_token_after_the_other(asked: list[Any], seed: int) -> None:
    """Whether they begin at once or while others are answered, and though some are left half way."""
    dice, model, lock = random.Random(seed), Remembering(), threading.Lock()
    batch = Batch(model, "remembering")
    jobs = [job(*one) for one in asked]
    waiting = list(jobs)
    left = {one for one in jobs if dice.random() < 0.2}

    def next_comes() -> None:
        with lock:
            if waiting:
                batch.submit(waiting.pop(0))

    def come_and_go() -> None:
        if dice.random() < 0.2:
            next_comes()
        for one in left:
            if dice.random() < 0.1:
                batch.leave(one)

    for _ in range(dice.randint(1, len(jobs))):
        next_comes()
    model.before = come_and_go
    for one, (prompt, limit, number) in zip(jobs, asked, strict=True):
        while one in waiting:
            next_comes()
        if one not in left:
            assert heard(one) == answer(prompt, limit, sampler(number))
    batch.close()
    # Each came to one end, and told nothing after it.
    assert len(batch._lasted) <= len(jobs)
    assert all(one._events.empty() for one in jobs if one not in left)


@pytest.mark.parametrize("queues", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_what_a_slot_is_known_to_hold_it_holds(seed: int, queues: bool) -> None:
    """A conversation finds what it has read and written, and nothing that was written for nothing."""
    dice, model = random.Random(seed), Remembering()
    model.queues = queues
    batch = Batch(model, "remembering")

    def right() -> None:
        for slot in range(SLOTS):
            known = list(batch._table.known(slot))
            assert known == model.held[slot][: len(known)]

    model.before = right
    ids, before = [dice.randint(1, 9) for _ in range(5)], 0
    for _ in range(4):
        limit = dice.randint(1, 12)
        one = AnswerJob("me", ids, threading.Event(), limit, {END}, sampler(seed))
        batch.submit(one)
        began = one.take()
        assert isinstance(began, Began)
        assert began.cached >= before
        made: list[int] = []
        while isinstance(event := one.take(), Drawn):
            made.append(event.token)
        assert made == answer(ids, limit, sampler(seed))
        while batch.taken:
            pass
        right()
        # All but what was drawn last, which no step has read.
        before = len(ids) + len(made) - (event == Ended("length"))
        ids = [*ids, *made, dice.randint(1, 9)]
    batch.close()


def test_the_next_step_is_started_before_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    read = Drawing.read
    monkeypatch.setattr(Drawing, "read", lambda drawing: order.append("read") or read(drawing))
    model = Remembering()
    model.before = lambda: order.append("step")
    batch = Batch(model, "remembering")
    one = job([3, 4], 4, 1)
    batch.submit(one)
    assert len(heard(one)) == 4
    batch.close()
    # The first token comes from the prompt; the last step is started when nothing more can follow it.
    assert order == ["read", "step", "step", "read", "step", "read", "read"]


def test_steps_are_started_ahead_and_one_at_most_is_for_nothing() -> None:
    model = Remembering()
    batch = Batch(model, "remembering")
    one = job([3, 4], 30, 1)
    batch.submit(one)
    made = heard(one)
    batch.close()
    assert len(made) > 4
    # The first of the answer is drawn from the prompt, and the first step is told its token by the host.
    ended = len(made) < 30
    assert model.rows == len(made) + ended
    assert model.ahead == model.rows - 1 - (not ended)


@pytest.mark.parametrize("what", ["last", "guided", "gone", "new"])
def test_what_takes_part_must_be_known(what: str) -> None:
    first = job([1], 2 if what == "last" else 9, 1)
    second = job([2], 9, 3, Guide(None, ()) if what == "guided" else None)
    for slot, one in enumerate((first, second)):
        one.slots = [slot]
        one.go_on(5)
    flight = Flight([first, second], torch.zeros(2, WORDS))
    live = {"gone": [second], "new": [first, second, job([3], 9, 5)]}.get(what, [first, second])
    assert flight.next_rows(live) is None
    if what == "gone":
        assert Flight([second], torch.zeros(1, WORDS)).next_rows([second]) == [(1, 2)]


def test_a_drawing_is_read_as_it_was() -> None:
    drawing = Drawing(torch.tensor([4, 7]))
    assert (drawing.read(), drawing.tokens.tolist()) == ([4, 7], [4, 7])
