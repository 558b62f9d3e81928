"""Who may have an answer made now: limits for all and for each user, checked before anything is stored."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from types import TracebackType

from dbgpt_lite.errors import Busy, Overloaded, UserError

_PACE = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Answers made or waited for at a time, of one user among them, and Sampling.seconds of each (0: no limit)."""

    answers: int = 64
    per_user: int = 8
    seconds: float = 0.0


class Admission:
    """Gives out places for answers. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._places: Counter[str] = Counter()
        self._lasted: deque[float] = deque(maxlen=_PACE)

    @property
    def taken(self) -> int:
        """How many answers are made or waited for."""
        return self._places.total()

    def enter(self, owner: str) -> "Place":
        """A place, to be left when the answer is over. Raises Overloaded, or Busy where it is the user's own limit."""
        with self._lock:
            # One's own limit first: what it says can be acted on.
            if self._places[owner] >= self._limits.per_user:
                raise self._refusal(Busy, "chat.too_many_yours", self._places[owner])
            if self._places.total() >= self._limits.answers:
                raise self._refusal(Overloaded, "chat.too_many", self._places.total())
            self._places[owner] += 1
        return Place(self, owner)

    def leave(self, owner: str, lasted_s: float | None) -> None:
        """A place is free again. `lasted_s`: how long its answer took; None when none was begun."""
        with self._lock:
            self._places[owner] -= 1
            self._places += Counter()  # who has none is forgotten
            if lasted_s is not None:
                self._lasted.append(lasted_s)

    def _refusal(self, kind: type[UserError], key: str, taken: int) -> UserError:
        """`taken` answers, each of the usual length: so often one ends. Nothing is promised before one has."""
        if not self._lasted:
            return kind(f"{key}_unknown", count=taken)
        usual = sum(self._lasted) / len(self._lasted)
        return kind(key, count=taken, seconds=max(1, round(usual / taken)))


class Place:
    """One answer's place. A context manager: left at its end, unless it was handed on before."""

    def __init__(self, admission: Admission, owner: str) -> None:
        self._admission = admission
        self._owner = owner
        self._taken = time.monotonic()
        self._begun = False
        self._left = False

    def hand_on(self) -> "Place":
        """The place for whoever holds it from now on."""
        place = Place(self._admission, self._owner)
        place._taken, self._left = self._taken, True
        return place

    def begin(self) -> None:
        """The question is taken on. One that is refused before tells nothing about how long answers take."""
        self._begun = True

    def leave(self) -> None:
        """Free the place, once."""
        if not self._left:
            self._left = True
            self._admission.leave(self._owner, time.monotonic() - self._taken if self._begun else None)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self.leave()
