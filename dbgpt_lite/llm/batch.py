"""Many requests at one model: a worker thread that reads prompts in pieces and computes one step for all at a time.

Each turn it reads at most one piece of a long prompt, or several short prompts, so that reading does not stop the
answers under way, and then computes the next token of every answer in one pass (continuous batching: Yu et al., "Orca",
OSDI 2022; reading in pieces: Agrawal et al., "Sarathi-Serve", OSDI 2024). A prompt that will share with one that is
being read waits for it. A turn ends with a step under way, which the next one begins by drawing from (batch_flight.py).
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from traceback import clear_frames

import torch

from dbgpt_lite.errors import ModelError, OutOfMemory
from dbgpt_lite.llm.batch_flight import Drawing, Flight
from dbgpt_lite.llm.batch_jobs import AnswerJob, Began, Broken, Ended, Event, Job, Scored, SearchJob
from dbgpt_lite.llm.batch_slots import Prompt, SlotTable
from dbgpt_lite.llm.fair_queue import FairQueue
from dbgpt_lite.llm.loaded import empty_gpu_cache, is_memory
from dbgpt_lite.llm.slotted import Piece, StepModel
from dbgpt_lite.messages import Waiting

log = logging.getLogger(__name__)

_PACE = 32
_AGAIN_S = 60


class Batch:
    """The worker of one StepModel, which it owns. `name` is what errors call the model.

    A failure ends what is under way and nothing else: the worker goes on with an empty cache.
    """

    def __init__(self, model: StepModel, name: str) -> None:
        """Returns when the model is ready for the first request. Raises what its warm-up raises, and closes it then."""
        self.slots = model.slots
        self._model: StepModel | None = model
        self._name = name
        self._wake = threading.Condition()
        self._queue: FairQueue[Job] = FairQueue()
        self._closing = False
        self._lost = False
        self._unprepared = True
        # When what there was no memory to make is tried again.
        self._prepare_from = 0.0
        self._failures = 0
        # Seconds of the last requests, and when a slot was last freed.
        self._lasted: deque[float] = deque(maxlen=_PACE)
        self._freed = time.monotonic()
        self._forget()
        # Everything is computed by the worker, from the first pass on: the libraries of a GPU keep 64 MiB for each
        # thread that ever needed them while another did.
        ready = Future[None]()
        self._thread = threading.Thread(target=self._work, args=(ready,), name="model-batch", daemon=True)
        try:
            self._thread.start()
            ready.result()
        finally:
            # An error holds this frame, and would with it hold itself.
            del ready

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot or for another's prompt."""
        return len(self._queue)

    @property
    def taken(self) -> int:
        """How many slots are in use."""
        return self.slots - self._table.free

    @property
    def failures(self) -> int:
        """How many times the worker had to start again."""
        return self._failures

    def memory(self) -> dict[str, int]:
        """Bytes by device that closing gives back."""
        model = self._model
        return model.memory() if model else {}

    def place(self, job: Job) -> Waiting:
        """Where a request stands in line, and for how long by the pace of the last ones."""
        with self._wake:
            if job not in self._queue:
                return Waiting(0, 0.0)
            ahead = self._queue.position(job) + (self._table.free < job.places)
            if not self._lasted:
                return Waiting(ahead)
            apart = sum(self._lasted) / len(self._lasted) / self.slots
            return Waiting(ahead, ahead * apart - min(time.monotonic() - self._freed, apart))

    def submit(self, job: Job) -> None:
        """Queue a request, in its owner's turn. Raises ModelError when closed."""
        with self._wake:
            if self._closing or self._lost:
                raise self._refusal()
            self._queue.push(job.owner, job)
            self._wake.notify()

    def ask(self, search: SearchJob, tokens: Sequence[int], parents: Sequence[int]) -> None:
        """The next step of a beam search. See SearchJob.ask."""
        with self._wake:
            search.ask(tokens, parents)
            self._wake.notify()

    def leave(self, job: Job) -> None:
        """Nobody waits for a request any more; its slots are free after the passes that are started."""
        job.leave()
        with self._wake:
            if job in self._queue:
                self._queue.remove(job)
            self._wake.notify()

    def close(self) -> None:
        """Give the model's memory back after the pass under way; all requests end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _forget(self) -> None:
        """Nothing is under way, and nothing cached."""
        self._table = SlotTable(self.slots)
        self._reading: list[Job] = []
        self._answers: list[AnswerJob] = []
        self._searches: list[SearchJob] = []
        # The step that is under way when a turn begins.
        self._flight: Flight | None = None
        # Told once the next pass is under way: each of so many readers wakes up in Python, and the GPU would wait.
        self._news: list[tuple[AnswerJob, Event]] = []

    @property
    def _under_way(self) -> list[Job]:
        return [*self._reading, *self._answers, *self._searches]

    def _work(self, ready: Future[None]) -> None:
        assert self._model is not None
        try:
            self._model.warm_up()
        except BaseException as error:
            clear_frames(error.__traceback__)
            self._closing = True
            try:
                self._end()
            finally:
                ready.set_exception(error)
            return
        ready.set_result(None)
        while not self._closing:
            try:
                self._serve()
            except BaseException as error:
                if not self._fail(error):
                    break
        self._end()

    def _end(self) -> None:
        """End all requests and give the model's memory back."""
        with self._wake:
            self._lost = not self._closing
            for job in (*self._under_way, *self._queue):
                job.tell(Broken(self._refusal()))
            self._forget()
            self._queue = FairQueue()
            model, self._model = self._model, None
        try:
            if model is not None:
                model.close()
        except Exception:
            log.exception("%s could not be closed", self._name)

    def _refusal(self) -> ModelError:
        return ModelError("llm.gpu_failed" if self._lost else "llm.closed", name=self._name)

    def _fail(self, error: BaseException) -> bool:
        """End what is under way and start with an empty cache; False when the GPU answers no more."""
        log.warning("%s failed while answering; the worker starts again", self._name, exc_info=error)
        # What the failed pass computed lives as long as its frames.
        clear_frames(error.__traceback__)
        under_way = self._under_way
        self._tell()
        self._forget()
        self._failures += 1
        for job in under_way:
            job.tell(Broken(self._problem(error)))
        return empty_gpu_cache()

    @torch.inference_mode()
    def _serve(self) -> None:
        while self._wait():
            self._land()
            self._drop()
            if not self._answers:
                # All that take part in it have ended.
                self._flight = None
            if self._flight is None:
                self._admit()
                self._read()
                self._start()
            # While the device computes.
            self._tell()

    def _tell(self) -> None:
        """Tell readers what was drawn for them."""
        news, self._news = self._news, []
        for job, event in news:
            job.tell(event)

    def _wait(self) -> bool:
        """Wait for something to do; False once closed."""
        while True:
            with self._wake:
                # A search is under way while its reader chooses.
                while not (self._closing or self._due or (self._unprepared and not self._under_way)):
                    self._wake.wait()
                if self._closing or self._due:
                    return not self._closing
            self._prepare()

    def _prepare(self) -> None:
        """Let the model make what it will need, piece by piece, while nobody asks."""
        more = False
        try:
            more = self._runner.prepare()
        except (MemoryError, RuntimeError) as error:
            self._prepare_from = time.monotonic() + _AGAIN_S
            log.warning("%s could not make ready what it may need and answers without: %s", self._name, error)
            clear_frames(error.__traceback__)
            if not empty_gpu_cache():
                raise
        finally:
            self._unprepared = more

    @property
    def _due(self) -> bool:
        """Whether there is something to do."""
        asked = any(search.due or search.over for search in self._searches)
        return bool(self._turn or self._reading or self._answers or asked)

    @property
    def _turn(self) -> bool:
        """Whether there is room for the request that is next in line."""
        return bool(self._queue) and self._queue.peek().places <= self._table.free

    def _drop(self) -> None:
        """Free the slots of requests that nobody waits for."""
        for job in self._under_way:
            if job.over:
                self._release(job)

    def _release(self, job: Job) -> None:
        """A request is over; what its first slot holds may be of use to another."""
        self._freed = time.monotonic()
        self._lasted.append(self._freed - job.began)
        for number, slot in enumerate(job.slots):
            self._table.give_back(slot, of_use=number == 0)
        job.slots = []
        self._reading = [other for other in self._reading if other is not job]
        self._answers = [answer for answer in self._answers if answer is not job]
        self._searches = [search for search in self._searches if search is not job]

    def _admit(self) -> None:
        """Begin the requests whose turn it is, while there is room for them and they can be read in this turn."""
        while (job := self._next()) is not None:
            job.began = time.monotonic()
            place = self._table.take(job.ids, job.whose)
            job.slots = [place.slot, *(self._table.take_any() for _ in range(job.places - 1))]
            self._reading.append(job)
            if place.shared and place.source != place.slot:
                self._runner.copy(place.source, place.slot, 0, place.shared)
            job.tell(Began(place.shared))

    def _next(self) -> Job | None:
        """The request that begins now; None when it is nobody's turn."""
        under_way = [Prompt(job.slots[0], job.ids, job.whose) for job in self._reading]
        with self._wake:
            if not self._turn:
                return None
            job = self._queue.peek()
            if under_way and not self._table.together(job.ids, job.whose, under_way, self._runner.chunk):
                return None
            return self._queue.pop()

    def _read(self) -> None:
        """A piece of every prompt that is being read: of one that is long, or all that is left of short ones."""
        if not self._reading:
            return
        jobs, pieces = list(self._reading), []
        for job in jobs:
            start = len(self._table.known(job.slots[0]))
            pieces.append(Piece(job.slots[0], start, job.ids[start : start + self._runner.chunk]))
        try:
            logits = self._runner.read_together(pieces)
            self._tell()
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            # The others' tokens are where they were.
            clear_frames(error.__traceback__)
            log.warning("%s ran out of memory while reading a prompt", self._name)
            empty_gpu_cache()
            for job in jobs:
                self._release(job)
                job.tell(Broken(self._problem(error)))
            return
        for piece in pieces:
            self._table.wrote(piece.slot, piece.ids)
        self._unprepared = time.monotonic() >= self._prepare_from
        self._begin(
            [row for row, job in enumerate(jobs) if len(self._table.known(job.slots[0])) == len(job.ids)], logits
        )

    def _begin(self, rows: Sequence[int], logits: torch.Tensor) -> None:
        """The prompts of these rows are read: `logits` (rows, vocabulary) are what follows."""
        jobs = [self._reading[row] for row in rows]
        self._reading = [job for job in self._reading if job not in jobs]
        answers = {row: job for row, job in zip(rows, jobs, strict=True) if isinstance(job, AnswerJob)}
        self._answers += answers.values()
        searches = [(row, job) for row, job in zip(rows, jobs, strict=True) if isinstance(job, SearchJob)]
        # Known as under way before the first copy, which may fail.
        self._searches += [job for _, job in searches]
        for row, job in searches:
            for slot in job.slots[1:]:
                self._runner.copy(job.slots[0], slot, 0, len(job.ids))
                self._table.hold(slot, job.ids, job.whose)
            job.tell(Scored(logits[row : row + 1].clone()))
        if answers:
            flight = Flight(list(answers.values()), logits[list(answers)])
            self._take(flight.answers, flight.draw(self._answers))
            # The first tokens wait for nothing.
            self._tell()

    def _start(self) -> None:
        """Start one token for every answer, and for every beam of a search that asked."""
        searches = [(search, *search.rows()) for search in self._searches if search.due]
        for _, copies, _ in searches:
            for copy in copies:
                self._runner.copy(*copy)
        answers = list(self._answers)
        rows = [answer.row for answer in answers] + [row for _, _, beams in searches for row in beams]
        if not rows:
            return
        logits = self._runner.step(
            [row.slot for row in rows], [row.length for row in rows], [row.token for row in rows]
        )
        for row in rows[: len(answers)]:
            self._table.wrote(row.slot, [row.token])
        start = len(answers)
        for search, _, beams in searches:
            search.tell(Scored(logits[start : start + len(beams)].clone()))
            start += len(beams)
        if answers:
            self._flight = Flight(answers, logits[: len(answers)])

    def _land(self) -> None:
        """Draw from the step under way; the next one is started before the host waits, where nothing else is due."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        drawing = flight.draw(self._answers)
        with self._wake:
            due = bool(self._reading or self._searches or self._turn)
        rows = flight.next_rows(self._answers) if self._runner.queues and not due else None
        try:
            if rows is not None:
                slots, lengths = zip(*rows, strict=True)
                self._flight = Flight(flight.answers, self._runner.step(slots, lengths, drawing.tokens))
        except (MemoryError, RuntimeError):
            # Readers hear of what was drawn all the same, if the device still tells.
            with suppress(RuntimeError):
                self._take(flight.answers, drawing)
            raise
        self._take(flight.answers, drawing, written=rows is not None)

    def _take(self, answers: Sequence[AnswerJob], drawing: Drawing, written: bool = False) -> None:
        """Let answers go on with what was drawn for them; `written`: the next step writes it into their slots."""
        for answer, token in zip(answers, drawing.read(), strict=True):
            if answer not in self._answers:
                continue
            told = answer.go_on(token)
            self._news += [(answer, event) for event in told]
            if isinstance(told[-1], Ended):
                self._release(answer)
            elif written:
                self._table.wrote(answer.slots[0], [token])

    def _problem(self, error: BaseException) -> ModelError:
        """What a reader is told of a failure; each reader raises its own."""
        problem = (
            OutOfMemory("llm.out_of_memory_answering", name=self._name)
            if is_memory(error)
            else ModelError("llm.generation_failed", name=self._name)
        )
        # Without its frames, which would hold the model as long as the error is shown.
        problem.__cause__ = error.with_traceback(None)
        return problem

    @property
    def _runner(self) -> StepModel:
        assert self._model is not None
        return self._model
