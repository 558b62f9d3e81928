"""Counting and timing one answer while it is made."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dbgpt_lite.messages import FinishReason, Usage


class Answer:
    """Counts and times of one answer while it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.queue_s = 0.0
        self.paused_s = 0.0
        self.first_token_s = 0.0
        self.finish_reason: FinishReason = "stop"

    @property
    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._started

    def token(self) -> None:
        """One more token was made."""
        self.completion_tokens += 1
        self.first_token_s = self.first_token_s or self.elapsed

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time within is waiting for others."""
        began = self.elapsed
        try:
            yield
        finally:
            waited = self.elapsed - began
            self.queue_s += waited
            self.paused_s += waited if self.first_token_s else 0.0

    def usage(self) -> Usage:
        """The facts so far."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.queue_s,
            self.first_token_s,
            self.elapsed,
            self.finish_reason,
            self.paused_s,
        )
