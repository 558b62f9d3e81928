"""How far a load has come, in bytes and bytes a second. Pure."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["checking", "loading", "ready"]
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class LoadState:
    """`share` from 0 to 1; `done` of `total` bytes read, `rate` in bytes a second; all 0 when nobody counts bytes."""

    stage: Stage
    share: float = 0.0
    done: int = 0
    total: int = 0
    rate: float = 0.0


Progress = Callable[[LoadState], None]


def ignore(state: LoadState) -> None:
    """A Progress for those who do not look."""


class Meter:
    """Counts the bytes of one load and reports them, at most twenty times a second."""

    def __init__(self, total: int, report: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._report = report
        self._clock = clock
        self._started = clock()
        self._next = 0.0
        self._done = 0

    def add(self, count: int) -> None:
        """`count` more bytes have arrived."""
        self._done += count
        now = self._clock()
        if now < self._next and self._done < self._total:
            return
        self._next = now + 0.05
        rate = self._done / max(now - self._started, 1e-6)
        self._report(LoadState("loading", self._done / max(1, self._total), self._done, self._total, rate))
