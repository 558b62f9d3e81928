"""Queries that run for a reader: waited for without blocking the page, stopped by Cancel or by a closed tab."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")
# Gradio notices a closed tab when a handler yields.
IDLE_S = 0.5


class Run(Generic[T]):
    """Work in a thread of its own. A context manager: leaving it stops what still runs."""

    def __init__(
        self, work: Callable[[threading.Event], T], cancel: threading.Event, ended: Callable[[], None]
    ) -> None:
        self._cancel = cancel
        self._ended = ended
        self._pool = ThreadPoolExecutor(1, "query")
        self._future: Future[T] = self._pool.submit(work, cancel)

    def beats(self) -> Iterator[None]:
        """Yields every IDLE_S until the work has ended."""
        while not wait((self._future,), IDLE_S).done:
            yield None

    def result(self) -> T:
        """What the work returned. Raises what it raised."""
        return self._future.result()

    def __enter__(self) -> "Run[T]":
        return self

    def __exit__(self, *_error: object) -> None:
        self._cancel.set()
        self._pool.shutdown(wait=False)
        self._ended()


class Runs:
    """Running queries by owner and ticket, a word the page makes up. Thread-safe."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()

    def start(self, owner: str, ticket: str, work: Callable[[threading.Event], T]) -> Run[T]:
        """Begin `work`, which is given the event that stops it. A ticket used again stops the run before it."""
        cancel = threading.Event()
        with self._lock:
            before = self._running.get((owner, ticket))
            self._running[owner, ticket] = cancel
        if before is not None:
            before.set()
        return Run(work, cancel, lambda: self._end(owner, ticket, cancel))

    def cancel(self, owner: str, ticket: str) -> bool:
        """Stop the owner's run of this ticket; False when there is none."""
        with self._lock:
            found = self._running.get((owner, ticket))
        if found is not None:
            found.set()
        return found is not None

    def _end(self, owner: str, ticket: str, cancel: threading.Event) -> None:
        with self._lock:
            if self._running.get((owner, ticket)) is cancel:
                del self._running[owner, ticket]
