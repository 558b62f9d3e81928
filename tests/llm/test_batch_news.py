"""When readers hear of their tokens: once the next step is under way, all of them, and each as soon as nothing else is
to be computed."""

import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.batch import Batch
from dbgpt_lite.llm.batch_jobs import AnswerJob, Began, Broken, Drawn, Ended, Event
from dbgpt_lite.llm.decoding import Sampler
from dbgpt_lite.llm.slotted import Piece
from dbgpt_lite.messages import Sampling

WORDS = 300
BOTH = pytest.mark.parametrize("queues", [False, True])


class Counting:
    """A StepModel in which every token is followed by the next number."""

    slots, window, chunk, widened = 2, WORDS, 64, 0

    def __init__(self, before: Callable[[int], None], queues: bool) -> None:
        self.before, self.queues, self.steps, self.closed = before, queues, 0, False

    def read(self, slot: int, start: int, ids: Sequence[int]) -> torch.Tensor:
        return self._next([ids[-1]])[0]

    def read_together(self, pieces: Sequence[Piece]) -> torch.Tensor:
        return self._next([piece.ids[-1] for piece in pieces])

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.before(self.steps)
        return self._next(tokens)

    def copy(self, source: int, target: int, start: int, end: int) -> None: ...

    def warm_up(self) -> None: ...

    def prepare(self) -> bool:
        return False

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.closed = True

    def _next(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((torch.as_tensor(tokens) + 1) % WORDS, WORDS).float()


def asked(batch: Batch, first: int, limit: int) -> AnswerJob:
    job = AnswerJob(f"reader {first}", [7, first], threading.Event(), limit, (), Sampler(Sampling(temperature=0)))
    batch.submit(job)
    return job


def heard(job: AnswerJob) -> list[int]:
    """The tokens until the end, which may be an error."""
    tokens: list[int] = []
    assert isinstance(job.take(), Began)
    while isinstance(event := job.take(), Drawn):
        tokens.append(event.token)
    assert isinstance(event, Ended)
    return tokens


def broken_off(job: AnswerJob) -> tuple[list[int], ModelError]:
    """The tokens until an error, and it."""
    tokens: list[int] = []
    try:
        while event := job.take():
            tokens += [event.token] if isinstance(event, Drawn) else []
    except ModelError as error:
        return tokens, error
    raise AssertionError


class Noted(AnswerJob):
    """Counts the tokens that its reader was told."""

    told = 0

    def tell(self, event: Event | Broken) -> None:
        self.told += isinstance(event, Drawn)
        super().tell(event)


@BOTH
def test_readers_are_told_while_the_next_step_computes(queues: bool) -> None:
    job = Noted("one", [7, 10], threading.Event(), 6, (), Sampler(Sampling(temperature=0)))
    told: list[int] = []
    batch = Batch(Counting(lambda step: told.append(job.told), queues), "count")
    batch.submit(job)
    assert heard(job) == [11, 12, 13, 14, 15, 16]
    # The first token before the first step; then each step begins before its reader hears what the last one drew.
    assert told == [1, 1, 2, 3, 4]
    batch.close()


@BOTH
@pytest.mark.parametrize("limits", [(3, 9), (9, 3), (5, 5), (1, 4)])
def test_nobody_misses_a_token_whoever_ends_first(limits: tuple[int, int], queues: bool) -> None:
    batch = Batch(Counting(lambda step: None, queues), "count")
    jobs = [asked(batch, 10 * number, limit) for number, limit in enumerate(limits, 1)]
    assert [heard(job) for job in jobs] == [
        [10 * number + step for step in range(1, limit + 1)] for number, limit in enumerate(limits, 1)
    ]
    batch.close()


@BOTH
def test_what_was_drawn_is_told_before_a_failure(queues: bool) -> None:
    def fail(step: int) -> None:
        if step == 4:
            raise RuntimeError("a kernel broke")

    batch = Batch(Counting(fail, queues), "count")
    job = asked(batch, 10, 9)
    assert broken_off(job)[0] == [11, 12, 13, 14]
    batch.close()


@BOTH
def test_what_was_drawn_is_told_before_closing(queues: bool) -> None:
    reached, go = threading.Event(), threading.Event()

    def wait(step: int) -> None:
        if step == 3:
            reached.set()
            go.wait(20)

    batch = Batch(Counting(wait, queues), "count")
    job = asked(batch, 10, 200)
    assert reached.wait(20)
    closer = threading.Thread(target=batch.close)
    closer.start()
    while not batch._closing:
        pass
    go.set()
    closer.join()
    tokens, error = broken_off(job)
    # What the step under way computes is not drawn any more.
    assert tokens == [11, 12, 13]
    assert "unloaded" in str(error)
