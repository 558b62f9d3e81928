"""A question from the page to the chat service, and its answer as it grows back into the page."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.chat.admission import Place
from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.messages import MODES, ChatEvent, ChatRequest, Mode, Sampling
from dbgpt_lite.store import StoredMessage
from dbgpt_lite.ui.bridge import fact, toast
from dbgpt_lite.ui.render import LiveTurn, live, thread
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.sidebar import conversation_list

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

# Often enough to read along, seldom enough for twenty readers on a small machine.
FLUSH_S = 0.08
IDLE_S = 0.5
# Whoever waits holds a place but nothing of the model, and there may be many of them.
WAITING_S = 2.0


@dataclass(frozen=True, slots=True)
class Shown:
    """New contents of the components that an answer changes; gr.skip() leaves one alone."""

    ask: Any
    mode: Any
    conversation: Any
    thread: Any
    live: Any
    conversations: Any

    def outputs(self) -> tuple[Any, ...]:
        """In the order of the components."""
        return self.ask, self.mode, self.conversation, self.thread, self.live, self.conversations


class Asking:
    """Handlers that answer. Conversation ids come from the browser; the store checks whose they are."""

    def __init__(self, services: "Services") -> None:
        self._services = services

    def ask(
        self,
        mode: str,
        source: str,
        conversation: str,
        temperature: float,
        limit: float,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """A question from the box ("question", "box"), an example ("question", "mode"), a stored one again ("id"),
        or an edited one ("question", "id")."""
        reader = reader_of(request, self._services.settings)
        identity, chosen = fact(event, "id"), fact(event, "mode")
        replaced = self._question(reader, conversation, identity) if identity else None
        question = fact(event, "question").strip() or (replaced.content if replaced else "")
        asked = ChatRequest(
            conversation,
            question,
            reader.owner,
            known_mode(chosen or mode),
            "" if chosen else source or "",
            reader.language,
            self._sampling(temperature, limit),
            replaced.id if replaced else None,
        )
        if question:
            yield from self._answer(asked, reader, show_mode=bool(chosen), from_box=bool(fact(event, "box")))

    def stop(self, event: gr.EventData, request: gr.Request) -> None:
        """Stop the computation; the stream then ends by itself with what was written."""
        owner = reader_of(request, self._services.settings).owner
        self._services.chat.stop(owner, fact(event, "conversation"))

    def conversations(self, reader: Reader, search: str = "") -> Markup:
        """The sidebar's list."""
        return conversation_list(self._services.store.conversations(reader.owner, search), reader, search)

    def _answer(
        self, asked: ChatRequest, reader: Reader, show_mode: bool = False, from_box: bool = False
    ) -> Iterator[tuple[Any, ...]]:
        """Stream one answer; leaving this generator early, as Gradio does for a closed tab, stops the work."""
        with self._services.chat.admit(asked.owner, asked.mode) as place:
            yield from self._admitted(self._placed(asked), place, reader, show_mode, from_box)

    def _admitted(
        self, asked: ChatRequest, place: Place, reader: Reader, show_mode: bool, from_box: bool
    ) -> Iterator[tuple[Any, ...]]:
        conversation = asked.conversation
        turn = LiveTurn(asked.question)
        shown = live(turn, conversation, reader.language)
        skip = gr.skip()
        mode = asked.mode if show_mode else skip
        # A draft stays in the box when the question came from elsewhere.
        clear = "" if from_box else skip
        yield Shown(clear, mode, conversation, self._earlier(asked, reader), shown, skip).outputs()
        run = self._services.chat.run(asked, place)
        listed = False
        try:
            for grown in paced(run.events(poll_s=0.1), turn):
                # The first event means that the question is stored and has named the conversation.
                rows = self.conversations(reader) if grown and not listed else skip
                listed = listed or grown is not None
                drawn = live(grown, conversation, reader.language) if grown else skip
                yield Shown(skip, skip, skip, skip, drawn, rows).outputs()
        except UserError as error:
            # The store keeps a failed question with its error; one that was to replace an answer leaves no trace,
            # and one refused before its first event was never stored: it goes back into the box.
            if asked.replaces is not None or not listed:
                toast(error.render(reader.language))
            if asked.replaces is None and not listed:
                yield Shown(asked.question, skip, skip, skip, skip, skip).outputs()
        finally:
            run.cancel()

    def _placed(self, asked: ChatRequest) -> ChatRequest:
        """The request in its conversation, a new one if it has none; mode and source are kept with it."""
        store = self._services.store
        asked = replace(asked, source=self._source(asked))
        if not asked.conversation:
            return replace(asked, conversation=store.create(asked.owner, asked.mode, asked.source).id)
        store.configure(asked.owner, asked.conversation, asked.mode, asked.source)
        return asked

    def _source(self, asked: ChatRequest) -> str:
        """The chosen source where it belongs to the mode: right after a change of mode the old one may still come."""
        known: dict[Mode, set[str]] = {
            "documents": {space.id for space in self._services.knowledge.spaces(asked.owner)},
            "database": set(self._services.databases.names()),
        }
        return asked.source if asked.source in known.get(asked.mode, set()) else ""

    def _earlier(self, asked: ChatRequest, reader: Reader) -> Markup:
        """The thread before the question."""
        stored = self._services.store.messages(reader.owner, asked.conversation)
        kept = [message for message in stored if asked.replaces is None or message.id < asked.replaces]
        return thread(kept, asked.conversation, reader.language)

    def _question(self, reader: Reader, conversation: str, identity: str) -> StoredMessage:
        for message in self._services.store.messages(reader.owner, conversation):
            if message.role == "user" and str(message.id) == identity:
                return message
        raise NotFound("app.no_conversation")

    def _sampling(self, temperature: float, limit: float) -> Sampling:
        return Sampling(float(temperature), self._services.settings.llm_top_p, int(limit))


def paced(events: Iterator[ChatEvent | None], turn: LiveTurn) -> Iterator[LiveTurn | None]:
    """The turn as it grows, at most every FLUSH_S; None from time to time, for Gradio to notice a closed tab."""
    shown, told = turn, time.monotonic()
    for event in events:
        turn = turn if event is None else turn.after(event)
        now = time.monotonic()
        if turn is not shown and (event is None or now - told >= FLUSH_S):
            shown, told = turn, now
            yield turn
        elif now - told >= (WAITING_S if turn.waiting else IDLE_S):
            told = now
            yield None


def known_mode(mode: str) -> Mode:
    """A mode that exists; "auto" for anything else."""
    for known in MODES:
        if mode == known:
            return known
    return "auto"
