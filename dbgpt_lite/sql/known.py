"""The schema of one connection as last read. A server that does not answer costs one reader's wait, not everybody's."""

import copy
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dbgpt_lite.errors import UserError
from dbgpt_lite.sql.schema import Schema

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Attempt:
    """One read under way; `schema` or `error` is set before `done`."""

    done: threading.Event = field(default_factory=threading.Event)
    schema: Schema | None = None
    error: Exception | None = None

    def result(self) -> Schema:
        """Wait for the end of the read."""
        self.done.wait()
        if self.schema is None:
            raise _again(self.error)
        return self.schema


class KnownSchema:
    """Reads in a thread of its own, one at a time, outside any lock; keeps the last schema and the last failure.

    A failure is remembered for `remember_s` seconds and raised again meanwhile without asking the server.
    """

    def __init__(
        self, name: str, read: Callable[[], Schema], remember_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._read = read
        self._remember_s = remember_s
        self._clock = clock
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._schema: Schema | None = None
        self._read_at = 0.0
        self._error: Exception | None = None
        self._failed_at = 0.0

    def get(self, refresh: bool = False, retry: bool = False) -> Schema:
        """The schema, read if there is none. `refresh` reads anew; `retry` only disregards a remembered failure.

        Whoever needs a read while one is under way waits for that one. Raises what the read raised.
        """
        with self._lock:
            if self._schema is not None and not refresh:
                return self._schema
            if self._attempt is None and not refresh and not retry and self._fails():
                raise _again(self._error)
            attempt = self._start()
        return attempt.result()

    def peek(self) -> Schema | None:
        """The schema if it was read; else None, and a read starts unless one is under way or has just failed."""
        with self._lock:
            if self._schema is None and not self._fails():
                self._start()
            return self._schema

    def is_older(self, seconds: float) -> bool:
        """Whether reading again may tell more: the schema is older than that, and no read has just failed."""
        with self._lock:
            return self._clock() - self._read_at > seconds and not self._fails()

    def _fails(self) -> bool:
        return self._error is not None and self._clock() - self._failed_at < self._remember_s

    def _start(self) -> _Attempt:
        """The read under way, or a new one. The caller holds the lock."""
        if self._attempt is None:
            attempt = _Attempt()
            threading.Thread(target=self._run, args=(attempt,), name=f"schema-{self._name}", daemon=True).start()
            self._attempt = attempt
        return self._attempt

    def _run(self, attempt: _Attempt) -> None:
        try:
            attempt.schema = self._read()
        except Exception as error:
            attempt.error = error
            log.warning("the schema of connection %r could not be read: %s", self._name, type(error).__name__)
        with self._lock:
            self._attempt, self._error = None, attempt.error
            if attempt.schema is not None:
                self._schema, self._read_at = attempt.schema, self._clock()
            else:
                self._failed_at = self._clock()
        attempt.done.set()


def _again(error: Exception | None) -> Exception:
    """The error to raise: a copy, because threads that raise the same one write into each other's traceback."""
    if isinstance(error, UserError):
        return copy.copy(error)
    return error or RuntimeError("a schema read ended without a result")
