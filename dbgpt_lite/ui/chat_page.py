"""The chat page: the thread, the box to ask in, uploads, and which conversation is open."""

from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import NotFound
from dbgpt_lite.messages import MODES
from dbgpt_lite.store import Conversation
from dbgpt_lite.ui.asking import Asking, known_mode
from dbgpt_lite.ui.bridge import QUIET, Bridge, fact, telling, telling_stream, toast
from dbgpt_lite.ui.empty import empty_page
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.intake import Intake
from dbgpt_lite.ui.picker import Picker
from dbgpt_lite.ui.render import thread
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.throwaway import ThrowAway
from dbgpt_lite.ui.uploads import received

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

MOST_TOKENS = 4096


class ChatPage:
    """Components and handlers. `conversation` holds the open one's id; the store checks its owner.

    `attached` holds the id of the temporary space with the files thrown into this conversation, "" for none.
    """

    def __init__(self, services: "Services", bridge: Bridge, intake: Intake) -> None:
        self._services = services
        self._bridge = bridge
        self._asking = Asking(services)
        self._throwaway = ThrowAway(services, intake)
        with gr.Column(elem_id="page-chat", elem_classes="page"):
            with gr.Column(elem_id="scroll"):
                self.thread = gr.HTML("", elem_id="thread", js_on_load=None, apply_default_css=False)
                self.live = gr.HTML("", elem_id="live", js_on_load=None, apply_default_css=False)
            with gr.Column(elem_id="composer"):
                self._build_composer()
            self.foot = gr.HTML("", elem_id="foot", js_on_load=None, apply_default_css=False)
        self.conversation = gr.Textbox("", elem_id="conversation", visible="hidden")
        self.attached = gr.Textbox("", elem_id="attached", visible="hidden")

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
            telling(settings, self._upload),
            [self.attach, self.attached, self.conversation],
            [self.attach, self.conversation, self.thread, *self.chosen],
            preprocess=False,
            trigger_mode="multiple",
            **QUIET,
        )
        on("keep_space", telling(settings, self._keep), self.mode, self.chosen)
        on("detach", telling(settings, self._detach), None, self.chosen)
        picked = [self.mode, self.source.value, self.attached]
        self.mode.change(telling(settings, self._mode_changed), picked, self.source.both, **QUIET)

    def _wire_asking(self, conversations: gr.HTML, search: gr.Textbox) -> None:
        settings, on, asking = self._services.settings, self._bridge.on, self._asking
        composer = [self.mode, self.source.value, self.conversation, self.temperature, self.max_tokens]
        outputs = [self.ask, self.mode, self.conversation, self.thread, self.live, conversations]
        streams: Any = {"outputs": outputs, **QUIET, "concurrency_limit": None, "trigger_mode": "multiple"}
        answered = on("ask", telling_stream(settings, asking.ask), composer, **streams)
        shown = [self.thread, self.live, conversations]
        answered.then(telling(settings, self._show), [self.conversation, search], shown, **QUIET)
        # Not queued: it must not wait behind what it is to stop.
        on("stop", telling(settings, asking.stop), queue=False)

    def _wire_conversations(self, conversations: gr.HTML, search: gr.Textbox) -> None:
        settings, on = self._services.settings, self._bridge.on
        opened = [self.conversation, self.thread]
        whole = [*opened, *self.chosen]
        on("open_conversation", telling(settings, self._open), None, whole)
        on("new_chat", telling(settings, self._new), None, whole)
        on(
            "delete_conversation",
            telling(settings, self._delete),
            [self.conversation, search],
            [*whole, conversations],
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
        stored = self._services.store.messages(reader.owner, conversation) if conversation else []
        if not stored:
            return empty_page(self._services.questions, reader.language, conversation)
        running = self._services.chat.running(reader.owner, conversation)
        return thread(stored, conversation, reader.language, running)

    @property
    def chosen(self) -> list[Any]:
        """Mode, source and thrown-in files, as outputs."""
        return [self.mode, *self.source.both, self.attached, self.attachments]

    def choice(self, mode: str, reader: Reader, source: str = "", attached: str = "") -> tuple[Any, ...]:
        """What `chosen` shows in a mode."""
        files = self._throwaway.space(reader.owner, attached)
        identity = files.id if files else ""
        chips = self._throwaway.chips(reader.owner, identity, reader.language)
        return mode, *self.sources(mode, reader, source, identity), identity, chips

    def sources(self, mode: str, reader: Reader, source: str = "", attached: str = "") -> tuple[Markup, str]:
        """The spaces or connections to choose from in a mode; of throw-away spaces only the conversation's own."""
        choices: list[tuple[str, str]] = []
        if mode == "documents":
            choices = [(say("all_documents", reader.language), "")]
            for space in self._services.knowledge.spaces(reader.owner):
                if not space.temporary:
                    choices.append((space.name, space.id))
                elif space.id == attached:
                    choices.insert(0, (f"{space.name} · {say('this_chat_only', reader.language)}", space.id))
        elif mode == "database":
            choices = [(name, name) for name in self._services.databases.names()]
        return self.source.options(choices, source, say("source", reader.language))

    def polled(self, attached: str, reader: Reader) -> tuple[Any, ...]:
        """`chosen` while thrown-in files are read; files of which none could be read are let go of."""
        skip = gr.skip()
        space = self._throwaway.space(reader.owner, attached)
        if space is None:
            return skip, skip, skip, skip, skip
        chips = self._throwaway.chips(reader.owner, attached, reader.language)
        if not self._throwaway.is_useless(space):
            return skip, skip, skip, skip, chips
        self._throwaway.remove(reader.owner, attached)
        _, drawn, value, identity, _ = self.choice("auto", reader)
        return "auto", drawn, value, identity, chips

    def restored(self, opened: Conversation, reader: Reader) -> tuple[Any, ...]:
        """What `chosen` shows for a stored conversation."""
        attached = self._throwaway.of_conversation(reader.owner, opened.id)
        return self.choice(opened.mode, reader, opened.source, attached)

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
        return opened.id, self.page(opened.id, reader), *self.restored(opened, reader)

    def _new(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """An empty page; in mode and source of the space or connection it is opened from, else in Auto."""
        reader, mode = self._reader(request), known_mode(fact(event, "mode"))
        return "", self.page("", reader), *self.choice(mode, reader, fact(event, "source"))

    def _delete(self, conversation: str, search: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        gone = fact(event, "id")
        self._services.chat.stop(reader.owner, gone)
        self._throwaway.remove_with(reader.owner, gone)
        rows = self.conversations(reader, search)
        if gone != conversation:
            return *(gr.skip() for _ in range(7)), rows
        return "", self.page("", reader), *self.choice("auto", reader), rows

    def _rename(self, search: str, event: gr.EventData, request: gr.Request) -> Markup:
        reader = self._reader(request)
        self._services.store.rename(reader.owner, fact(event, "id"), fact(event, "value"))
        return self.conversations(reader, search)

    def _mode_changed(self, mode: str, source: str, attached: str, request: gr.Request) -> tuple[Markup, str]:
        return self.sources(mode, self._reader(request), source, attached)

    def _upload(
        self, files: list[dict[str, Any]] | None, attached: str, conversation: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """Files given to the chat are for this conversation only, which is made if there is none, and asks them."""
        reader, store = self._reader(request), self._services.store
        uploads = received(files)
        space = self._throwaway.take(reader.owner, attached, uploads)
        if conversation:
            store.configure(reader.owner, conversation, "documents", space.id)
            page = gr.skip()
        else:
            conversation = store.create(reader.owner, "documents", space.id).id
            page = self.page(conversation, reader)
        return None, conversation, page, *self.choice("documents", reader, space.id, space.id)

    def _keep(self, mode: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        kept = self._throwaway.keep(reader.owner, fact(event, "id"), fact(event, "value"))
        return self.choice(mode, reader, kept.id)

    def _detach(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        if self._throwaway.space(reader.owner, fact(event, "id")):
            self._throwaway.remove(reader.owner, fact(event, "id"))
        return self.choice("auto", reader)
