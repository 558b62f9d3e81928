"""BatchEngine: an Engine for many users at one model on one device, all answered in the same steps.

Every reader has a thread of its own and turns tokens into text there; the worker (batch.py) computes. A reader that
pauses holds up nobody: its answer is computed to its end, and waits for it.
"""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.llm.answer import Answer
from dbgpt_lite.llm.chat_template import ChatTemplate, Tokenizer
from dbgpt_lite.llm.loaded import LoadedEngine, empty_gpu_cache
from dbgpt_lite.llm.slot import Telling
from dbgpt_lite.messages import EngineInfo, Prompt, Sampling, Waiting

if TYPE_CHECKING:
    import torch

    from dbgpt_lite.llm.batch_jobs import Job, SearchJob
    from dbgpt_lite.llm.constraint import Guide
    from dbgpt_lite.llm.slotted import StepModel


class BatchEngine(LoadedEngine):
    """An Engine over `steps`, which it owns: the step model made of `model`."""

    def __init__(
        self, model: Any, steps: "StepModel", tokenizer: Tokenizer, template: ChatTemplate, info: EngineInfo
    ) -> None:
        from dbgpt_lite.llm.batch import Batch

        super().__init__(model, tokenizer, template, info)
        self._batch = Batch(steps, info.name)
        self._compiling = threading.Lock()
        self._open: set[Job] = set()

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._batch.waiting

    @property
    def busy(self) -> bool:
        """Whether a request computes now."""
        return bool(self._open)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on each device that closing gives back."""
        return self._batch.memory()

    def _answered(
        self, prompt: Prompt, sampling: Sampling, cancel: threading.Event, answer: Answer
    ) -> Iterator[str | Waiting]:
        from dbgpt_lite.llm.batch_jobs import AnswerJob
        from dbgpt_lite.llm.decoding import Sampler

        ids, limit = self._fit(prompt, sampling.max_tokens)
        answer.prompt_tokens = len(ids)
        guide, common = self._guide(prompt), self._common(prompt, ids)
        job = AnswerJob(prompt.owner, ids, cancel, limit, self._end, Sampler(sampling), guide, common)
        with self._submitted(job):
            yield from self._in_line(job, answer)
            yield from self._written(job, sampling, answer)

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """`count` answers, or as many as there are slots, by beam search over one reading of the prompt."""
        from dbgpt_lite.llm.batch_jobs import SearchJob
        from dbgpt_lite.llm.constraint import BeamGuides
        from dbgpt_lite.llm.decoding import beam_search

        ids, limit = self._fit(prompt, max_tokens)
        guide = self._guide(prompt)
        job = SearchJob(prompt.owner, ids, cancel, min(count, self._batch.slots), self._common(prompt, ids))
        beams = None

        def step(tokens: "torch.Tensor", parents: "torch.Tensor") -> "torch.Tensor":
            self._batch.ask(job, tokens.tolist(), parents.tolist())
            return self._scores(job)

        try:
            with self._submitted(job):
                bar = BeamGuides(guide).masked if guide else None
                beams = beam_search(self._scores(job)[0], step, job.places, limit, self._end, bar)
        except Cancelled:
            pass
        if beams is None:
            self._refuse_closed()
            raise Cancelled
        return self._texts(beam.tokens for beam in beams)

    def close(self) -> None:
        """Stop after the pass under way, then free the model's memory."""
        self._closed.set()
        self._batch.close()
        gc.collect()
        empty_gpu_cache()

    def _guide(self, prompt: Prompt) -> "Guide | None":
        with self._compiling:
            return super()._guide(prompt)

    @contextmanager
    def _submitted(self, job: "Job") -> Iterator[None]:
        """A request in line or under way; at the end its slots are free after the pass under way."""
        self._open.add(job)
        try:
            self._batch.submit(job)
            yield
        finally:
            self._batch.leave(job)
            self._open.discard(job)
            self._used = time.monotonic()

    def _in_line(self, job: "Job", answer: Answer) -> Iterator[Waiting]:
        """Wait for the request's turn, telling how it stands."""
        from dbgpt_lite.llm.batch_jobs import Began

        telling = Telling()
        while (event := job.look()) is None:
            if telling.due(place := self._batch.place(job)):
                yield place
        answer.queue_s = answer.elapsed
        answer.cached_tokens = event.cached if isinstance(event, Began) else 0
        if telling.begun:
            yield Waiting(0, 0.0)

    def _written(self, job: "Job", sampling: Sampling, answer: Answer) -> Iterator[str]:
        """The text of an answer as its tokens come."""
        from dbgpt_lite.llm.batch_jobs import Drawn, Ended
        from dbgpt_lite.llm.textstream import Detokenizer, StopScanner

        characters, scanner = Detokenizer(self._text), StopScanner((*sampling.stop, *self._template.stop))
        while isinstance(event := job.take(), Drawn):
            answer.token()
            if text := scanner.push(characters.push(event.token)):
                yield text
            if scanner.stopped:
                return
            if sampling.seconds and answer.elapsed - answer.queue_s >= sampling.seconds:
                answer.finish_reason = "time"
                break
        if isinstance(event, Ended):
            answer.finish_reason = event.reason
        if tail := scanner.push(characters.flush()) + scanner.flush():
            yield tail

    def _scores(self, job: "SearchJob") -> "torch.Tensor":
        """Logits (beams, vocabulary) of a search's next step."""
        from dbgpt_lite.llm.batch_jobs import Scored

        while not isinstance(event := job.take(), Scored):
            pass
        return event.logits
