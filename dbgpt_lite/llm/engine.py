"""Engine: what chat asks of any language model. LocalEngine: a lean decoding loop over a model loaded here.

One request computes at a time; users take turns, and a long answer passes its place on (slot.py). Stopping works
between any two matrix products of the model, so a stop frees the place at once even while a long prompt is read.
Closing waits for a pass under way and for nothing else: a reader that pauses in the middle of an answer keeps its
place, but nothing of the model.
"""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Protocol

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory
from dbgpt_lite.llm.answer import Answer
from dbgpt_lite.llm.chat_template import ChatTemplate, Tokenizer
from dbgpt_lite.llm.loaded import LoadedEngine, empty_gpu_cache, is_memory
from dbgpt_lite.llm.sharing import Whose
from dbgpt_lite.llm.slot import Slot, Turns
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage, Waiting

if TYPE_CHECKING:
    from dbgpt_lite.llm.constraint import Guide

log = logging.getLogger(__name__)

# How often to look for a closed model that is still referenced, and how long to wait in between.
_COLLECTIONS = 20
_UNWIND_S = 0.02


class Engine(Protocol):
    """A language model as chat sees it. All methods may be called from several threads."""

    @property
    def info(self) -> EngineInfo:
        """Facts about the model."""
        ...

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        ...

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt these messages make."""
        ...

    def count_text(self, text: str) -> int:
        """Tokens of a text alone."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Waiting | Usage]:
        """Pieces of the answer's text, then its Usage as the last item. While it waits for others it tells so.

        Setting `cancel` or closing the iterator stops the computation and frees the place; a cancelled answer ends
        with a Usage whose finish_reason is "cancelled". Raises TooLarge, ModelError, OutOfMemory.
        """
        ...

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """Up to `count` alternative answers, best first; empty when there are none. Raises Cancelled."""
        ...

    def close(self) -> None:
        """Free what the engine holds, without waiting for readers; requests under way end with ModelError."""
        ...


class LocalEngine(LoadedEngine):
    """An Engine over a model and tokenizer loaded in this process. `info` as the loader found it."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, template: ChatTemplate, info: EngineInfo, prefix_bytes: int = 0
    ) -> None:
        from dbgpt_lite.llm.generation import Runner

        super().__init__(model, tokenizer, template, info)
        self._runner: Any = Runner(model, info.context_length, prefix_bytes)
        self._slot = Slot()
        # Held while the runner computes, and never while a piece is handed out.
        self._computing = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._slot.waiting

    @property
    def busy(self) -> bool:
        """Whether a request computes now."""
        return self._slot.busy

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on each device that closing gives back."""
        runner = self._runner
        return runner.memory() if runner else {}

    def _answered(
        self, prompt: Prompt, sampling: Sampling, cancel: threading.Event, answer: Answer
    ) -> Iterator[str | Waiting]:
        ids, limit = self._fit(prompt, sampling.max_tokens)
        answer.prompt_tokens, whose = len(ids), self._whose(prompt, ids)
        with self._turns(prompt, cancel) as turns:
            with answer.waiting():
                yield from self._turn(turns, cancel)
            yield from self._decode(ids, whose, limit, sampling, answer, cancel, turns, self._guide(prompt))

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """`count` answers by beam search over one reading of the prompt, best first, without repeats."""
        from dbgpt_lite.llm.constraint import BeamGuides
        from dbgpt_lite.llm.decoding import beam_search

        ids, limit = self._fit(prompt, max_tokens)
        whose = self._whose(prompt, ids)
        beams = None
        try:
            with self._turns(prompt, cancel) as turns:
                for _ in self._turn(turns, cancel):
                    pass
                guide = self._guide(prompt)
                bar = BeamGuides(guide).masked if guide else None
                with self._pass():
                    logits, _ = self._runner.read(ids, whose)
                    try:
                        beams = beam_search(logits, self._runner.beam_step, count, limit, self._end, bar)
                    finally:
                        self._runner.end_beams()
        except Cancelled:
            pass
        if beams is None:
            self._refuse_closed()
            raise Cancelled
        return self._texts(beam.tokens for beam in beams)

    def close(self) -> None:
        """Stop what computes, which takes one matrix product, then free the model's memory."""
        self._closed.set()
        with self._computing:
            held = [weakref.ref(self._runner)] if self._runner else []
            self._runner = None
        # The thread that was stopped may unwind for a moment still, and what it holds would not be collected.
        for _ in range(_COLLECTIONS):
            gc.collect()
            if not held or held[0]() is None:
                break
            time.sleep(_UNWIND_S)
        empty_gpu_cache()

    def _decode(
        self,
        ids: list[int],
        whose: Whose,
        limit: int,
        sampling: Sampling,
        answer: Answer,
        cancel: threading.Event,
        turns: Turns,
        guide: "Guide | None",
    ) -> Iterator[str | Waiting]:
        from dbgpt_lite.llm.decoding import Sampler
        from dbgpt_lite.llm.textstream import Detokenizer, StopScanner

        sampler = Sampler(sampling)
        characters, scanner = Detokenizer(self._text), StopScanner((*sampling.stop, *self._template.stop))
        written: list[int] = []
        with self._pass():
            logits, answer.cached_tokens = self._runner.read(ids, whose)
        turns.read()
        while (token := sampler.pick(_guided(guide, logits, limit - answer.completion_tokens))) not in self._end:
            # The reader may pause for any time at the yield below, and nothing on the model's devices may wait for it.
            del logits
            answer.token()
            turns.token()
            written.append(token)
            if guide:
                guide.advance(token)
            if text := scanner.push(characters.push(token)):
                yield text
            if scanner.stopped:
                return
            if answer.completion_tokens >= limit:
                answer.finish_reason = "length"
                break
            if sampling.seconds and turns.held_s >= sampling.seconds:
                answer.finish_reason = "time"
                break
            if cancel.is_set():
                raise Cancelled
            if turns.over:
                turns.pass_on()
                with answer.waiting():
                    yield from self._turn(turns, cancel)
                with self._pass():
                    logits, _ = self._runner.read([*ids, *written], whose)
                turns.read()
                continue
            with self._pass():
                logits = self._runner.step(token)
        if tail := scanner.push(characters.flush()) + scanner.flush():
            yield tail

    @contextmanager
    def _turns(self, prompt: Prompt, cancel: threading.Event) -> Iterator[Turns]:
        """In line for the slot, until the answer is over."""
        with Turns(self._slot, prompt.owner, cancel, self._closed) as turns:
            try:
                yield turns
            finally:
                self._used = time.monotonic()

    def _turn(self, turns: Turns, cancel: threading.Event) -> Iterator[Waiting]:
        """Wait for the slot; then the model watches for this request's stop."""
        yield from turns.wait()
        with self._computing:
            self._refuse_closed()
            self._runner.watch(cancel, self._closed)

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """Let the runner compute, unless the engine is closed."""
        with self._computing:
            self._refuse_closed()
            with self._memory_guard():
                yield

    @contextmanager
    def _memory_guard(self) -> Iterator[None]:
        """Turn an allocator's failure into OutOfMemory and leave the engine usable."""
        import torch

        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            # The activations of the failed pass, and the model, live as long as its frames, and those as long as the
            # error is shown.
            clear_frames(error.__traceback__)
            self._runner.forget()
            if not is_memory(error):
                log.warning("generation failed: %s", type(error).__name__, exc_info=error)
                raise ModelError("llm.generation_failed", name=self._info.name) from error.with_traceback(None)
            empty_gpu_cache()
            raise OutOfMemory("llm.out_of_memory_answering", name=self._info.name) from error.with_traceback(None)


def _guided(guide: "Guide | None", logits: Any, room: int) -> Any:
    return guide.masked(logits, room) if guide else logits
