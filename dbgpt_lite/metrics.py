"""Numbers for Prometheus: what was answered, how fast, and what runs now. No text, name or address of anybody.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4). Modes and outcomes are the
only labels, each from a fixed list.
"""

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from dbgpt_lite.messages import MODES, Answer, Mode

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OUTCOMES = ("answered", "length", "time", "stopped", "failed", "refused")
_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
Now = Mapping[str, Callable[[], float]]
"""A gauge of GAUGES -> what it shows at the moment."""

GAUGES = {
    "running": "Answers being made or waited for.",
    "waiting": "Requests that wait for their turn at a model.",
    "model_loaded": "Whether a language model is loaded (1) or the built-in assistant answers (0).",
    "ready": "Whether the app has warmed up.",
}


class Metrics:
    """Counts answers. Thread-safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._answers = Counter(
            "dbgpt_lite_requests", "Questions by mode and outcome.", ("mode", "outcome"), registry=registry
        )
        self._tokens = Counter(
            "dbgpt_lite_tokens",
            "Tokens: prompt (cached ones among them), cached, written.",
            ("kind",),
            registry=registry,
        )
        self._first = Histogram(
            "dbgpt_lite_first_token_seconds",
            "From the question to the first token of its answer.",
            ("mode",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            "dbgpt_lite_answer_seconds",
            "From the question to the end of its answer.",
            ("mode",),
            buckets=_SECONDS,
            registry=registry,
        )
        started = time.monotonic()
        Gauge("dbgpt_lite_uptime_seconds", "Since the start of the app.", registry=registry).set_function(
            lambda: time.monotonic() - started
        )
        for mode in MODES:
            for outcome in OUTCOMES:
                self._answers.labels(mode, outcome)

    def show(self, now: Now) -> None:
        """Show gauges, each asked when the numbers are."""
        for name, value in now.items():
            Gauge(f"dbgpt_lite_{name}", GAUGES[name], registry=self._registry).set_function(value)

    def answered(self, answer: Answer) -> None:
        """An answer has ended, however it did."""
        self._answers.labels(answer.mode, outcome(answer)).inc()
        used = answer.usage + answer.spent
        self._tokens.labels("prompt").inc(used.prompt_tokens)
        self._tokens.labels("cached").inc(used.cached_tokens)
        self._tokens.labels("written").inc(used.completion_tokens)
        if answer.usage.first_token_s:
            self._first.labels(answer.mode).observe(answer.usage.first_token_s)
        if answer.usage.seconds:
            self._whole.labels(answer.mode).observe(answer.usage.seconds)

    def refused(self, mode: Mode) -> None:
        """A question was not taken on."""
        self._answers.labels(mode, "refused").inc()

    def text(self) -> bytes:
        """All numbers in CONTENT_TYPE."""
        return generate_latest(self._registry)


def outcome(answer: Answer) -> str:
    """How an answer ended, as one of OUTCOMES."""
    if answer.error:
        return "failed"
    if answer.stopped:
        return "stopped"
    reason = answer.usage.finish_reason
    return reason if reason in ("length", "time") else "answered"
