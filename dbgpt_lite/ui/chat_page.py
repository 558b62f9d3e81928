"""The chat page: the thread, the box to ask in, uploads, and which conversation is open."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.messages import MODES, Answer
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.asking import Asking, known_mode
from dbgpt_lite.ui.bridge import QUIET, SAVE_FILE, Bridge, fact, telling, telling_stream, toast
from dbgpt_lite.ui.empty import empty_page
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.picker import Picker
from dbgpt_lite.ui.render import thread
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.tables import download, to_csv
from dbgpt_lite.ui.uploads import received, uploading

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

MOST_TOKENS = 4096


class ChatPage:
    """Components and handlers. `conversation` holds the open one's id; the store checks its owner."""

    def __init__(self, services: "Services", bridge: Bridge) -> None:
        self._services = services
        self._bridge = bridge
        self._asking = Asking(services)
        with gr.Column(elem_id="page-chat", elem_classes="page"):
            with gr.Column(elem_id="scroll"):
                self.thread = gr.HTML("", elem_id="thread", js_on_load=None, apply_default_css=False)
                self.live = gr.HTML("", elem_id="live", js_on_load=None, apply_default_css=False)
            with gr.Column(elem_id="composer"):
                self._build_composer()
            self.foot = gr.HTML("", elem_id="foot", js_on_load=None, apply_default_css=False)
        self.conversation = gr.Textbox("", elem_id="conversation", visible="hidden")
        self.file = gr.Textbox("", elem_id="csv-file", visible="hidden")

    def _build_composer(self) -> None:
        settings = self._services.settings
        self.attachments = gr.HTML("", elem_id="attachments", js_on_load=None, apply_default_css=False)
        self.ask = gr.Textbox(
            "", elem_id="ask", lines=1, max_lines=9, container=False, show_label=False, interactive=True
        )
        with gr.Row(elem_id="composer-bar"):
            self.attach = gr.UploadButton("", elem_id="attach", file_count="multiple")
            self.mode = gr.Radio([(mode, mode) for mode in MODES], value="auto", elem_id="mode", container=False)
            self.source = Picker("source")
            gr.HTML("", elem_id="bar-space", js_on_load=None)
            self.tuning = gr.HTML("", elem_id="tuning", js_on_load=None, apply_default_css=False)
            self.send = gr.Button("", elem_id="send")
            self.stop = gr.Button("", elem_id="stop")
        with gr.Column(elem_id="tuning-box"):
            self.tuning_note = gr.HTML("", js_on_load=None, apply_default_css=False)
            self.temperature = gr.Slider(0, 2, settings.llm_temperature, step=0.05, elem_id="temperature")
            most = max(MOST_TOKENS, settings.llm_max_tokens)
            self.max_tokens = gr.Slider(1, most, settings.llm_max_tokens, step=1, elem_id="max-tokens")

    def wire(self, conversations: gr.HTML, search: gr.Textbox) -> None:
        """Connect the events; `conversations` and `search` are the sidebar's."""
        self._wire_asking(conversations, search)
        self._wire_conversations(conversations, search)
        settings, on = self._services.settings, self._bridge.on
        self.attach.upload(
            telling_stream(settings, self._upload),
            [self.attach, self.mode, self.source.value],
            [self.attachments, self.attach, self.mode, *self.source.both],
            preprocess=False,
            trigger_mode="multiple",
            **QUIET,
        )
        on("csv", telling(settings, self._csv), self.conversation, self.file).then(
            None, self.file, self.file, js=SAVE_FILE, **QUIET
        )
        picked = [self.mode, self.source.value]
        self.mode.change(telling(settings, self._mode_changed), picked, self.source.both, **QUIET)

    def _wire_asking(self, conversations: gr.HTML, search: gr.Textbox) -> None:
        settings, on, asking = self._services.settings, self._bridge.on, self._asking
        composer = [self.mode, self.source.value, self.conversation, self.temperature, self.max_tokens]
        outputs = [self.ask, self.attachments, self.mode, self.conversation, self.thread, self.live, conversations]
        streams: Any = {"outputs": outputs, **QUIET, "concurrency_limit": None, "trigger_mode": "multiple"}
        answered = on("ask", telling_stream(settings, asking.ask), composer, **streams)
        shown = [self.thread, self.live, conversations]
        answered.then(telling(settings, self._show), [self.conversation, search], shown, **QUIET)
        # Not queued: it must not wait behind what it is to stop.
        on("stop", telling(settings, asking.stop), queue=False)

    def _wire_conversations(self, conversations: gr.HTML, search: gr.Textbox) -> None:
        settings, on = self._services.settings, self._bridge.on
        opened = [self.conversation, self.thread]
        whole = [*opened, self.mode, *self.source.both]
        on("open_conversation", telling(settings, self._open), None, whole)
        on("new_chat", telling(settings, self._new), None, whole)
        on(
            "delete_conversation",
            telling(settings, self._delete),
            [self.conversation, search],
            [*opened, conversations],
        )
        on("rename_conversation", telling(settings, self._rename), search, conversations)
        find = telling(settings, self._find)
        search.change(find, search, conversations, trigger_mode="always_last", **QUIET)

    # --- What is shown

    def conversations(self, reader: Reader, search: str = "") -> Markup:
        """The sidebar's list."""
        return self._asking.conversations(reader, search)

    def page(self, conversation: str, reader: Reader) -> Markup:
        """The thread of a conversation, or the empty page."""
        if not conversation:
            return empty_page(self._services.questions, reader.language)
        running = self._services.chat.running(reader.owner, conversation)
        stored = self._services.store.messages(reader.owner, conversation)
        return thread(stored, conversation, reader.language, running)

    def sources(self, mode: str, language: Language, chosen: str = "") -> tuple[Markup, str]:
        """The spaces or connections to choose from in a mode."""
        choices: list[tuple[str, str]] = []
        if mode == "documents":
            choices = [(say("all_documents", language), "")]
            choices += [(space.name, space.id) for space in self._services.knowledge.spaces()]
        elif mode == "database":
            choices = [(name, name) for name in self._services.databases.names()]
        return self.source.options(choices, chosen, say("source", language))

    # --- Handlers

    def _reader(self, request: gr.Request) -> Reader:
        return reader_of(request, self._services.settings)

    def _show(self, conversation: str, search: str, request: gr.Request) -> tuple[Markup, str, Markup]:
        """What the store holds once an answer has ended, in whichever conversation is open by then."""
        reader = self._reader(request)
        return self.page(conversation, reader), "", self.conversations(reader, search)

    def _find(self, search: str, request: gr.Request) -> Markup:
        return self.conversations(self._reader(request), search)

    def _open(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        try:
            opened = self._services.store.get(reader.owner, fact(event, "id"))
        except NotFound as error:
            toast(error.render(reader.language))
            return self._new(event, request)
        sources = self.sources(opened.mode, reader.language, opened.source)
        return opened.id, self.page(opened.id, reader), opened.mode, *sources

    def _new(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """An empty page; in mode and source of the space or connection it is opened from, else in Auto."""
        reader, mode = self._reader(request), known_mode(fact(event, "mode"))
        return "", self.page("", reader), mode, *self.sources(mode, reader.language, fact(event, "source"))

    def _delete(self, conversation: str, search: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        gone = fact(event, "id")
        self._services.chat.stop(reader.owner, gone)
        self._services.store.delete(reader.owner, gone)
        rows = self.conversations(reader, search)
        return ("", self.page("", reader), rows) if gone == conversation else (gr.skip(), gr.skip(), rows)

    def _rename(self, search: str, event: gr.EventData, request: gr.Request) -> Markup:
        reader = self._reader(request)
        self._services.store.rename(reader.owner, fact(event, "id"), fact(event, "value"))
        return self.conversations(reader, search)

    def _mode_changed(self, mode: str, source: str, request: gr.Request) -> tuple[Markup, str]:
        return self.sources(mode, self._reader(request).language, source)

    def _upload(
        self, files: list[dict[str, Any]] | None, mode: str, source: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Files dropped into the chat go into the chosen space, or a new one named from the first file."""
        language, knowledge = self._reader(request).language, self._services.knowledge
        batch, skip = received(files), gr.skip()
        chosen = source if mode == "documents" else ""
        space = batch.space(knowledge, chosen)
        try:
            for progress in uploading(knowledge, space.id, batch, language):
                yield progress, skip, skip, skip, skip
        except UserError as error:
            toast(error.render(language))
            yield "", skip, skip, skip, skip
        if space.id != chosen and not knowledge.space(space.id).documents:
            # Nothing could be read: a new space would only be in the way.
            knowledge.delete(space.id)
            yield skip, None, skip, skip, skip
        else:
            yield skip, None, "documents", *self.sources("documents", language, space.id)

    def _csv(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        """The stored rows of an answer."""
        answer = self._stored_answer(self._reader(request), conversation, fact(event, "id"))
        if answer.table is None:
            raise NotFound("ui.no_rows_kept")
        return download("result.csv", to_csv(answer.table))

    def _stored_answer(self, reader: Reader, conversation: str, identity: str) -> Answer:
        for message in self._services.store.messages(reader.owner, conversation):
            if message.answer is not None and str(message.id) == identity:
                return message.answer
        raise NotFound("ui.no_rows_kept")
