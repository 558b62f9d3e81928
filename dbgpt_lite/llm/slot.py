"""The one place at a model, given out in the order of arrival."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from dbgpt_lite.errors import Cancelled

POLL_S = 0.02


class Slot:
    """A fair lock: who comes first computes first, and who waits can be cancelled."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._queue: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many wait behind the one that computes."""
        return max(0, len(self._queue) - 1)

    @property
    def busy(self) -> bool:
        """Whether somebody holds the slot."""
        return bool(self._queue)

    @contextmanager
    def hold(self, *cancel: threading.Event) -> Iterator[None]:
        """Wait for one's turn and hold the slot. Raises Cancelled when one of the events is set while waiting."""
        ticket = object()
        with self._turn:
            self._queue.append(ticket)
        try:
            self._wait(ticket, cancel)
            yield
        finally:
            with self._turn:
                self._queue.remove(ticket)
                self._turn.notify_all()

    def _wait(self, ticket: object, cancel: tuple[threading.Event, ...]) -> None:
        with self._turn:
            while self._queue[0] is not ticket:
                if any(event.is_set() for event in cancel):
                    raise Cancelled
                self._turn.wait(POLL_S)
