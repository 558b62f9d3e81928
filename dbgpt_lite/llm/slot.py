"""The one place at a model: users take turns at it, and a long answer passes it on.

One request computes at a time. A turn ends with its answer, or, when somebody else waits, after TURN_S seconds and
TURN_TOKENS tokens: most answers end within one turn, since dividing them would make everybody wait for longer. The
request then gets in line again and goes on where it was. Reading a prompt again after a turn may cost time (nothing
where the model's cache still holds it), so a turn also lasts until writing has taken WORTH times as long as reading.
An answer that asks the model again, to repair its query or to word its rows, goes before those that have not begun:
otherwise each of its steps would wait for everybody. Between two such turns one of the queue has its own, if it is
somebody else's: otherwise one user's many answers would hold up everybody.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from weakref import WeakSet

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.llm.fair_queue import FairQueue
from dbgpt_lite.messages import Waiting

TURN_S = 5.0
TURN_TOKENS = 32
WORTH = 2.0
# How often one who waits looks whether it is stopped; its turn wakes it at once.
POLL_S = 0.1
# A shorter wait is not worth a word.
TELL_S = 0.3
AGAIN_S = 5.0
_PACE = 32


class Slot:
    """A lock that goes around fairly between owners."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: FairQueue[Turns] = FairQueue()
        self._going_on: FairQueue[Turns] = FairQueue()
        # Whose answer went on with the last turn; None when that turn was of the queue.
        self._went_on: str | None = None
        # Answers that had a turn, by the event that stops them.
        self._begun: WeakSet[threading.Event] = WeakSet()
        self._holder: Turns | None = None
        self._since = 0.0
        self._lasted: deque[float] = deque(maxlen=_PACE)

    @property
    def waiting(self) -> int:
        """How many wait behind the one that computes."""
        return len(self._going_on) + len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether somebody holds the slot."""
        return self._holder is not None

    def enter(self, turns: "Turns") -> None:
        """Get in line, or take the slot at once where nobody is before."""
        with self._lock:
            if turns.answer in self._begun:
                self._going_on.push(turns.owner, turns)
            else:
                self._queue.push(turns.owner, turns)
            if self._holder is None:
                self._next()

    def leave(self, turns: "Turns") -> None:
        """Out of the line, or off the slot, which goes to the next."""
        with self._lock:
            self._leave(turns)

    def pass_on(self, turns: "Turns") -> None:
        """To the end of the line."""
        with self._lock:
            self._leave(turns)
            self._queue.push(turns.owner, turns)
            if self._holder is None:
                self._next()

    def place(self, turns: "Turns") -> Waiting:
        """Where one stands in line, and for how long by the pace of the last turns."""
        with self._lock:
            if turns not in self._going_on and turns not in self._queue:
                return Waiting(0, 0.0)
            ahead = next(number for number, other in enumerate(self._line(), 1) if other is turns)
            if not self._lasted:
                return Waiting(ahead)
            usual = sum(self._lasted) / len(self._lasted)
            return Waiting(ahead, ahead * usual - min(time.monotonic() - self._since, usual))

    def _leave(self, turns: "Turns") -> None:
        if turns in self._queue:
            self._queue.remove(turns)
        elif turns in self._going_on:
            self._going_on.remove(turns)
        elif self._holder is turns:
            self._holder = None
            self._lasted.append(time.monotonic() - self._since)
            if self.waiting:
                self._next()

    def _next(self) -> None:
        self._holder, self._went_on = _first(self._going_on, self._queue, self._went_on)
        self._since = time.monotonic()
        self._begun.add(self._holder.answer)
        self._holder.reached.set()

    def _line(self) -> Iterator["Turns"]:
        """Those who wait, in the order in which they are served if nobody comes any more."""
        going_on, queue, went_on = self._going_on.copy(), self._queue.copy(), self._went_on
        while going_on or queue:
            turns, went_on = _first(going_on, queue, went_on)
            yield turns


def _first(going_on: "FairQueue[Turns]", queue: "FairQueue[Turns]", went_on: str | None) -> tuple["Turns", str | None]:
    """Take who is next; and its owner if it goes on. `went_on`: the same of the turn before."""
    others_turn = went_on is not None and bool(queue) and queue.peek().owner != went_on
    if not going_on or others_turn:
        return queue.pop(), None
    turns = going_on.pop()
    queue.turn_of(turns.owner)
    return turns, turns.owner


class Telling:
    """When one who waits hears where it stands: after a moment, when that changes, and now and then."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._told = 0.0
        self._known: Waiting | None = None

    @property
    def begun(self) -> bool:
        """Whether it has heard anything."""
        return self._known is not None

    def due(self, place: Waiting) -> bool:
        """Whether to tell this now; it counts as told then."""
        now = time.monotonic()
        moved = self._known is None or place.position != self._known.position
        if not place.position or now - self._started < TELL_S or not (moved or now - self._told >= AGAIN_S):
            return False
        self._known, self._told = place, now
        return True


class Turns:
    """One request's turns at a slot. A context manager: in line from its beginning, gone at its end."""

    def __init__(self, slot: Slot, owner: str, answer: threading.Event, *cancel: threading.Event) -> None:
        """`answer`: the event that stops the answer this is a part of; like `cancel`, it ends the waiting."""
        self.owner = owner
        self.answer = answer
        self.reached = threading.Event()
        self._slot = slot
        self._cancel = (answer, *cancel)
        self._before = 0.0
        self._began = 0.0
        self._reading = 0.0
        self._tokens = 0

    def __enter__(self) -> "Turns":
        self._slot.enter(self)
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self._slot.leave(self)

    @property
    def held_s(self) -> float:
        """Seconds of all turns together."""
        return self._before + time.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether this turn was long enough and somebody waits."""
        if self._tokens < TURN_TOKENS or not self._slot.waiting:
            return False
        return time.monotonic() - self._began >= max(TURN_S, (1 + WORTH) * self._reading)

    def wait(self) -> Iterator[Waiting]:
        """Wait for the turn, telling how it stands. Raises Cancelled when one of the events is set before."""
        telling = Telling()
        while not self.reached.wait(POLL_S):
            if any(event.is_set() for event in self._cancel):
                raise Cancelled
            if telling.due(place := self._slot.place(self)):
                yield place
        self._began, self._tokens, self._reading = time.monotonic(), 0, 0.0
        if telling.begun:
            yield Waiting(0, 0.0)

    def read(self) -> None:
        """The prompt is read; tokens follow."""
        self._reading = time.monotonic() - self._began

    def token(self) -> None:
        """One more token was made."""
        self._tokens += 1

    def pass_on(self) -> None:
        """Let the next one compute and get in line again; `wait` follows."""
        self._before = self.held_s
        self.reached.clear()
        self._slot.pass_on(self)
