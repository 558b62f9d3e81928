"""Requests to a batch: what their readers ask and are told, and what the worker that computes knows of each.

A reader's thread makes a job, hands it to the worker (batch.py) and takes what comes from it. Whatever a reader does,
nothing waits for it: tokens queue up until they are taken, and a job is over once it is stopped or left.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

import torch

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.llm.constraint import Guide
from dbgpt_lite.llm.decoding import Sampler
from dbgpt_lite.llm.sharing import Whose, as_tokens

# How long a reader waits before it looks whether it was cancelled.
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Began:
    """The prompt has its turn; `cached` of its tokens need not be read."""

    cached: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """The answer goes on with this token."""

    token: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits (beams, vocabulary) after the last tokens of a search; the reader's own copy."""

    logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is complete, or as long as it may be."""

    reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Broken:
    """Nothing more comes, for this reason."""

    error: ModelError


Event = Began | Drawn | Scored | Ended


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a step: a token for a slot that holds `length` tokens."""

    slot: int
    length: int
    token: int


class Job(ABC):
    """A request. `owner`: whose turn it takes. `ids`: the prompt. `cancel`: set by whoever wants it stopped.

    `common`: how many leading tokens of the prompt other owners' requests may share.
    """

    def __init__(self, owner: str, ids: Sequence[int], cancel: threading.Event, common: int = 0) -> None:
        self.owner = owner
        self.whose = Whose(owner, common)
        self.ids = as_tokens(ids)
        # The worker's: its slots, and when it began.
        self.slots: list[int] = []
        self.began = 0.0
        self._cancel = cancel
        self._left = threading.Event()
        self._events: SimpleQueue[Event | Broken] = SimpleQueue()

    @property
    @abstractmethod
    def places(self) -> int:
        """How many slots it takes."""

    @property
    def over(self) -> bool:
        """Whether nobody waits for more of it."""
        return self._left.is_set() or self._cancel.is_set()

    def leave(self) -> None:
        """The reader takes nothing any more."""
        self._left.set()

    def tell(self, event: Event | Broken) -> None:
        """For the worker: the reader takes this next."""
        self._events.put(event)

    def take(self) -> Event:
        """For the reader: what the worker tells next; waits for it. Raises Cancelled, ModelError and OutOfMemory."""
        while (event := self.look()) is None:
            pass
        return event

    def look(self) -> Event | None:
        """As `take`, but None when nothing comes for a moment."""
        if self._cancel.is_set():
            raise Cancelled
        try:
            event = self._events.get(timeout=POLL_S)
        except Empty:
            return None
        if isinstance(event, Broken):
            raise event.error
        return event


class AnswerJob(Job):
    """An answer, token by token: `limit` tokens at most, up to one of `end`."""

    places = 1

    def __init__(
        self,
        owner: str,
        ids: Sequence[int],
        cancel: threading.Event,
        limit: int,
        end: Collection[int],
        sampler: Sampler,
        guide: Guide | None = None,
        common: int = 0,
    ) -> None:
        super().__init__(owner, ids, cancel, common)
        self.sampler = sampler
        self._limit = limit
        self._end = end
        self._guide = guide
        self._made: list[int] = []

    @property
    def row(self) -> Row:
        """Its row of the next step."""
        return Row(self.slots[0], len(self.ids) + len(self._made) - 1, self._made[-1])

    @property
    def next_row(self) -> tuple[int, int] | None:
        """Slot and length of its row once it has the token that is being drawn; None where that token is the last
        allowed, or a grammar decides what follows it."""
        if self._guide is not None or len(self._made) + 1 >= self._limit:
            return None
        return self.slots[0], len(self.ids) + len(self._made)

    def mask(self, logits: torch.Tensor) -> None:
        """Rule out of logits (vocabulary,), in place, what may not come next."""
        if self._guide is None:
            return
        allowed = self._guide.allowed(logits.shape[-1], self._limit - len(self._made))
        if allowed is not None:
            logits.masked_fill_(~allowed.to(logits.device, non_blocking=True), -torch.inf)

    def go_on(self, token: int) -> list[Event]:
        """Take the token that was drawn; what the reader is to be told of it, at last how the answer ends."""
        if token in self._end:
            return [Ended("stop")]
        self._made.append(token)
        if self._guide:
            self._guide.advance(token)
        return [Drawn(token), Ended("length")] if len(self._made) >= self._limit else [Drawn(token)]


class SearchJob(Job):
    """A beam search: the reader decides on `beams` beams, the worker computes what follows each of them.

    After the prompt every beam has a slot of its own, which holds the prompt and the beam's tokens.
    """

    def __init__(self, owner: str, ids: Sequence[int], cancel: threading.Event, beams: int, common: int = 0) -> None:
        super().__init__(owner, ids, cancel, common)
        self._beams = beams
        self._asked: tuple[list[int], list[int]] | None = None
        self._length = len(self.ids)
        # Slots of the running beams, in the reader's order.
        self._running: list[int] = []

    @property
    def places(self) -> int:
        """A slot for each beam."""
        return self._beams

    def ask(self, tokens: Sequence[int], parents: Sequence[int]) -> None:
        """For the reader: beam i goes on with tokens[i] from beam parents[i] of the last time; Scored comes back."""
        self._asked = list(tokens), list(parents)

    @property
    def due(self) -> bool:
        """Whether the reader has asked for a step."""
        return self._asked is not None

    def rows(self) -> tuple[list[tuple[int, int, int, int]], list[Row]]:
        """The step that was asked for: copies (source, target, start, end) to make before it, and its rows.

        A beam goes on in its parent's slot, a second child in that of a beam that ends; so there are few copies and
        none of them overwrites what another needs.
        """
        assert self._asked is not None
        (tokens, parents), self._asked = self._asked, None
        before = self._running or self.slots[:1]
        spare = [slot for slot in self.slots if slot not in {before[parent] for parent in parents}]
        copies, running = [], []
        for parent in parents:
            slot = before[parent]
            if slot in running:
                target = spare.pop()
                copies.append((slot, target, len(self.ids), self._length))
                slot = target
            running.append(slot)
        rows = [Row(slot, self._length, token) for slot, token in zip(running, tokens, strict=True)]
        self._running = running
        self._length += 1
        return [copy for copy in copies if copy[2] < copy[3]], rows
