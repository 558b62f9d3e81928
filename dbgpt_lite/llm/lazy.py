"""An engine that loads on its first use, so that the app starts without waiting for it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.checkpoint import read_config, read_facts
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.llm.families import shape
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage, Waiting


class LazyEngine:
    """An Engine that `make` builds when it is first needed, once, whichever thread asks first.

    A failed load raises its UserError to the caller and is tried again on the next use.
    """

    def __init__(self, info: EngineInfo, make: Callable[[], Engine]) -> None:
        self._expected = info
        self._make = make
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """Facts from the folder until it is loaded, then the engine's own."""
        return self._engine.info if self._engine else self._expected

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._engine is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._engine.waiting if self._engine else 0

    def warm(self) -> threading.Thread:
        """Load in the background now; a failure is left for the first use to report."""
        thread = threading.Thread(target=self._warm, name="model-warm", daemon=True)
        thread.start()
        return thread

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt these messages make."""
        return self._ready().count(messages)

    def count_text(self, text: str) -> int:
        """Tokens of a text alone."""
        return self._ready().count_text(text)

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Waiting | Usage]:
        """See Engine.stream."""
        yield from self._ready().stream(prompt, sampling, cancel)

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """See Engine.candidates."""
        return self._ready().candidates(prompt, count, max_tokens, cancel)

    def close(self) -> None:
        """Free the model; later uses raise ModelError."""
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _ready(self) -> Engine:
        with self._lock:
            if self._closed:
                raise ModelError("llm.closed", name=self._expected.name)
            if self._engine is None:
                self._engine = self._make()
            return self._engine

    def _warm(self) -> None:
        try:
            self._ready()
        except ModelError:
            return


def lazy_engine(folder: Path, make: Callable[[], Engine], constrained: bool = True) -> LazyEngine:
    """A LazyEngine over a model folder; its facts are read now, without torch. Raises ModelError."""
    config, facts = read_config(folder), read_facts(folder)
    info = EngineInfo(
        name=folder.name,
        kind="local",
        context_length=shape(config).context_length,
        languages=facts.languages,
        sql_prompt=facts.sql_prompt,
        sql_dialect=facts.sql_dialect,
        constrained=constrained,
    )
    return LazyEngine(info, make)
