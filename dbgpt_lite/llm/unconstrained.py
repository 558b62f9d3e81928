"""An engine that writes freely though it could obey a grammar: for comparison."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage, Waiting


class Unconstrained:
    """The same engine, to which no grammar is passed on. Closing it closes the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> EngineInfo:
        """The engine's facts, save that it obeys no grammar."""
        return replace(self._engine.info, constrained=False)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._engine.waiting

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt these messages make."""
        return self._engine.count(messages)

    def count_text(self, text: str) -> int:
        """Tokens of a text alone."""
        return self._engine.count_text(text)

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Waiting | Usage]:
        """See Engine.stream."""
        yield from self._engine.stream(replace(prompt, grammar=""), sampling, cancel)

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """See Engine.candidates."""
        return self._engine.candidates(replace(prompt, grammar=""), count, max_tokens, cancel)

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()
