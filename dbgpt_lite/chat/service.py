"""ChatService: one request, a straight line from question to stored answer."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dbgpt_lite.chat.admission import Admission, Limits, Place
from dbgpt_lite.chat.budget import Fitted, Material, fit
from dbgpt_lite.chat.citations import Checked, check
from dbgpt_lite.chat.context import Context, ContextSource, Gather
from dbgpt_lite.chat.markers import without_markers
from dbgpt_lite.chat.support import Near
from dbgpt_lite.errors import Busy, Cancelled, DbgptError, Overloaded, TooLarge, UserError
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import (
    Answer,
    ChatEvent,
    ChatRequest,
    Done,
    Message,
    Mode,
    Passage,
    Prompt,
    Rewritten,
    Spent,
    SqlAttempt,
    SqlTried,
    Step,
    Token,
    Usage,
    Waiting,
)
from dbgpt_lite.metrics import Metrics
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language

log = logging.getLogger(__name__)

MAX_QUESTION = 20_000
"""Characters. Longer text belongs into a document."""
LEAST_S = 0.001
"""What is left of a time that is over: one token."""


class ChatService:
    """Answers questions. It never asks which mode it is in: the table of sources knows."""

    def __init__(
        self,
        store: ConversationStore,
        engine: Callable[[], Engine],
        sources: Mapping[Mode, ContextSource],
        prompts: Prompts,
        near: Near | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`near` compares sentences by meaning, for citations in other words than the passage's."""
        self._store = store
        self._engine = engine
        self._sources = sources
        self._prompts = prompts
        self._near = near
        self._limits = limits or Limits()
        self._admission = Admission(self._limits)
        self._metrics = metrics or Metrics()
        self._running: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many answers are made or waited for."""
        return self._admission.taken

    def admit(self, owner: str, mode: Mode = "auto") -> Place:
        """A place for an answer, before anything of it is stored. Raises Busy and Overloaded."""
        try:
            return self._admission.enter(owner)
        except (Busy, Overloaded):
            self._metrics.refused(mode)
            raise

    def stream(
        self, request: ChatRequest, cancel: threading.Event | None = None, place: Place | None = None
    ) -> Iterator[ChatEvent]:
        """Answer `request`. Setting `cancel` (or closing the iterator) stops the work and keeps what was written.

        `place` is one that `admit` gave, and is left at the end. Raises UserError; unless it is refused at the door,
        the question is then stored without an answer, so that it can be retried.
        """
        with place or self.admit(request.owner, request.mode) as place:
            yield from self._stream(request, cancel or threading.Event(), place)

    def _stream(self, request: ChatRequest, cancel: threading.Event, place: Place) -> Iterator[ChatEvent]:
        request = replace(request, question=whole_characters(request.question))
        # The reader is answered in the language of the question, whatever that of the page.
        request = replace(request, language=language_of(request.question, request.language))
        if len(request.question) > MAX_QUESTION:
            raise TooLarge("chat.question_too_long", length=len(request.question), limit=MAX_QUESTION)
        with self._claim(request, cancel):
            question = _StoredQuestion(self._store, request, self._metrics.answered)
            place.begin()
            turn = _Turn(self._engine(), request, cancel, self._near, self._limits.seconds)
            try:
                yield from self._answer(turn, question.history)
            except GeneratorExit:
                # A closed tab: keep what the reader saw. Nothing may be yielded any more.
                question.finish(turn.answer(stopped=True))
                raise
            except Cancelled:
                turn.stopped = True
            except UserError as error:
                question.fail(turn.answer(error=error.render(request.language)))
                raise
            except Exception:
                question.fail(turn.answer(error=UserError("chat.failed").render(request.language)))
                raise
            yield question.finish(turn.answer(stopped=turn.stopped))

    def run(self, request: ChatRequest, place: Place | None = None) -> "ChatRun":
        """Answer in a thread of its own, so that a front end can watch for a reader who has left.

        Raises Busy and Overloaded at once where no `place` was given and there is none.
        """
        place = place.hand_on() if place else self.admit(request.owner, request.mode)
        try:
            return ChatRun(self, request, place)
        except BaseException:
            place.leave()
            raise

    def stop(self, owner: str, conversation: str) -> bool:
        """Stop what runs in a conversation; False when nothing does."""
        with self._lock:
            cancel = self._running.get((owner, conversation))
        if cancel:
            cancel.set()
        return cancel is not None

    def running(self, owner: str, conversation: str) -> bool:
        """Whether an answer is being made in a conversation."""
        with self._lock:
            return (owner, conversation) in self._running

    def _answer(self, turn: "_Turn", history: tuple[Message, ...]) -> Iterator[ChatEvent]:
        """Gather, fit, generate. What is known so far is kept in `turn` for whoever has to store it."""
        request = replace(turn.request, left=turn.left)
        turn.context = yield from turn.noting(self._sources[request.mode].gather(request, history, turn.cancel))
        if turn.context.reply:
            turn.text = turn.context.reply
            # Without a query there is nothing to say but that the time was over.
            late = turn.spent.finish_reason == "time"
            turn.usage = Usage(seconds=time.monotonic() - turn.started, finish_reason="time" if late else "stop")
            yield Token(turn.text)
            return
        info = turn.engine.info
        material = Material(
            self._prompts.get(turn.context.task, request.language),
            turn.asked or request.question,
            tuple(_said(message) for message in history if message.role != "system"),
            turn.context.passages,
            turn.context.variables,
            instructions="\n\n".join(message.content for message in history if message.role == "system"),
        )
        turn.fitted = fit(material, turn.engine.count, info.context_length, request.sampling.max_tokens)
        yield Step("answer", {"model": info.name})
        began = time.monotonic()
        sampling = replace(request.sampling, max_tokens=turn.fitted.max_tokens, seconds=turn.left())
        for piece in turn.engine.stream(turn.prompt(), sampling, turn.cancel):
            if isinstance(piece, Usage):
                # Counted from the question: the reader waited for the search and the query too.
                before = began - turn.started
                first = piece.first_token_s and piece.first_token_s + before
                turn.usage = replace(piece, first_token_s=first, seconds=piece.seconds + before)
                turn.stopped = piece.finish_reason == "cancelled"
            elif isinstance(piece, Waiting):
                yield piece
            else:
                turn.text += piece
                yield Token(piece)

    def _claim(self, request: ChatRequest, cancel: threading.Event) -> "_Claim":
        # A caller who keeps the conversation may ask many things at once.
        place = request.conversation or secrets.token_hex(8)
        return _Claim(self._running, self._lock, (request.owner, place), cancel)


def _said(message: Message) -> Message:
    """An earlier turn for the prompt: the markers of its answer mean other passages than those of now."""
    return replace(message, content=without_markers(message.content)) if message.role == "assistant" else message


def whole_characters(text: str) -> str:
    """The text with "?" for each half of a surrogate pair: JSON can carry one, neither UTF-8 nor a store can."""
    return text.encode("utf-8", "replace").decode()


def language_of(question: str, otherwise: Language) -> Language:
    """Chinese or English, or `otherwise` for a question without a letter of either."""
    if is_chinese(question):
        return "zh"
    return "en" if any(letter.isascii() and letter.isalpha() for letter in question) else otherwise


class ChatRun:
    """An answer being made in a thread. Leaving `events` early cancels it."""

    def __init__(self, service: ChatService, request: ChatRequest, place: Place) -> None:
        self._queue: queue.SimpleQueue[ChatEvent | BaseException | None] = queue.SimpleQueue()
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(service, request, place), name="answer", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Stop the work; the events end with Done for what was written."""
        self._cancel.set()

    def events(self, poll_s: float = 0.1) -> Iterator[ChatEvent | None]:
        """The events as they come; None whenever `poll_s` seconds pass without one. Raises UserError."""
        try:
            while True:
                try:
                    item = self._queue.get(timeout=poll_s)
                except queue.Empty:
                    yield None
                    continue
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._cancel.set()

    def _work(self, service: ChatService, request: ChatRequest, place: Place) -> None:
        try:
            for event in service.stream(request, self._cancel, place):
                self._queue.put(event)
            self._queue.put(None)
        except DbgptError as error:
            self._queue.put(error)
        except Exception:
            # The traceback goes to the log; the reader gets a sentence.
            log.exception("an answer failed")
            self._queue.put(UserError("chat.failed"))


@dataclass(slots=True)
class _Turn:
    """One answer in the making."""

    engine: Engine
    request: ChatRequest
    cancel: threading.Event
    near: Near | None = None
    limit: float = 0.0
    context: Context | None = None
    fitted: Fitted | None = None
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    stopped: bool = False
    started: float = field(default_factory=time.monotonic)
    attempts: tuple[SqlAttempt, ...] = ()
    asked: str = ""
    spent: Usage = field(default_factory=Usage)

    def noting(self, gather: Gather) -> Gather:
        """Pass `gather` on and keep what it told, for an answer that fails before there is a context."""
        while True:
            try:
                event = next(gather)
            except StopIteration as end:
                context: Context = end.value
                return context
            if isinstance(event, SqlTried):
                self.attempts += (event.attempt,)
            elif isinstance(event, Rewritten):
                self.asked = event.question
            elif isinstance(event, Spent):
                self.spent += event.usage
            yield event

    def left(self) -> float:
        """Sampling.seconds of what the model is asked next: `limit` without what it has computed on the way."""
        if not self.limit:
            return 0.0
        # What a server does before its first token is not known, but most of it is waiting.
        waited = self.spent.first_token_s if self.engine.info.kind == "remote" else self.spent.queue_s
        return max(self.limit - self.spent.seconds + waited, LEAST_S)

    def prompt(self) -> Prompt:
        """The engine's prompt, once context and budget are known."""
        assert self.context
        assert self.fitted
        return Prompt(
            self.context.task,
            self.fitted.messages,
            self.asked or self.request.question,
            self.request.language,
            self.fitted.passages,
            sql=self.context.sql,
            table=self.context.table,
            notes=self.context.notes,
            owner=self.request.owner,
            common=self.fitted.common,
        )

    def answer(self, stopped: bool = False, error: str = "") -> Answer:
        """Everything known about the answer so far."""
        context = self.context or Context("", self.request.mode, self.request.source)
        passages = self.fitted.passages if self.fitted and context.mode == "documents" else ()
        checked = self._checked(passages, finished=not (stopped or error))
        refused = bool(passages) and not (checked.citations or stopped or error) and self.engine.info.kind == "builtin"
        return Answer(
            checked.text,
            context.mode,
            self.engine.info.name,
            context.source,
            citations=checked.citations,
            passages=() if refused else passages,
            attempts=self.attempts,
            sql=context.sql,
            table=context.table,
            usage=self.usage,
            ledger=self.fitted.ledger if self.fitted else context.ledger,
            stopped=stopped,
            error=error,
            asked=self.asked,
            unsupported=() if refused else checked.unsupported,
            # The built-in assistant quotes or refuses: without a quote, what it looked at came near and no more.
            near_misses=passages if refused else context.near_misses,
            best=context.best,
            needed=context.needed,
            spent=self.spent,
        )

    def _checked(self, passages: tuple[Passage, ...], finished: bool) -> Checked:
        """The text with the citations that hold; nobody waits for the second look at an answer that was stopped."""
        question = f"{self.request.question} {self.asked}"
        return check(self.text, passages, question, self.near if finished else None)


class _StoredQuestion:
    """The question's place in the store; a request that brings its own history is not stored at all."""

    def __init__(self, store: ConversationStore, request: ChatRequest, ended: Callable[[Answer], None]) -> None:
        """`ended` is told the answer, however it ended."""
        self._store = store
        self._request = request
        self._ended = ended
        self.history: tuple[Message, ...] = request.history or ()
        self._id = 0
        self._done = False
        if request.history is None:
            self.history = store.history(request.owner, request.conversation, before=request.replaces)
            self._id = store.ask(request.owner, request.conversation, request.question)

    def finish(self, answer: Answer) -> Done:
        """Store the answer in the place of what it replaces."""
        if self._done:
            return Done(answer, 0, 0)
        self._done = True
        self._ended(answer)
        if self._request.history is not None:
            return Done(answer, 0, 0)
        request = self._request
        stored = self._store.finish(request.owner, request.conversation, self._id, answer, request.replaces)
        return Done(answer, self._id, stored)

    def fail(self, answer: Answer) -> None:
        """Keep the question with its error; a failed regeneration leaves the old answer as it was."""
        self._ended(answer)
        if self._request.history is not None:
            return
        if self._request.replaces is not None:
            self._store.abandon(self._request.owner, self._request.conversation, self._id)
        else:
            self._store.finish(self._request.owner, self._request.conversation, self._id, answer)


class _Claim:
    """One answer at a time in a conversation."""

    def __init__(
        self,
        running: dict[tuple[str, str], threading.Event],
        lock: threading.Lock,
        key: tuple[str, str],
        cancel: threading.Event,
    ) -> None:
        self._running, self._lock, self._key, self._cancel = running, lock, key, cancel

    def __enter__(self) -> None:
        with self._lock:
            if self._key in self._running:
                raise Busy("chat.busy")
            self._running[self._key] = self._cancel

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running.pop(self._key, None)
