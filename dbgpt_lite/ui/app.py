"""The page: a sidebar beside five views of one document. Everything is wired here."""

from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import NotFound
from dbgpt_lite.messages import MODES
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.bridge import QUIET, Bridge, fact, telling
from dbgpt_lite.ui.chat_page import ChatPage
from dbgpt_lite.ui.data_page import DataPage
from dbgpt_lite.ui.fence import FencedBlocks
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.intake import Intake
from dbgpt_lite.ui.jobs_view import activity
from dbgpt_lite.ui.knowledge_page import KnowledgePage
from dbgpt_lite.ui.models_page import ModelsPage
from dbgpt_lite.ui.result_tools import ResultTools
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.settings_page import SettingsPage
from dbgpt_lite.ui.sidebar import head, navigation
from dbgpt_lite.ui.theme import launch_options

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

__all__ = ["build_ui", "launch_options"]
UPLOAD_KEPT_S = 3600
SESSIONS = 256
"""Opened pages of which gradio remembers what it sent (170 KiB each; its own 10,000 are never let go). A page that is
forgotten goes on as before: what it shows and chooses it sends with every event."""


def build_ui(services: "Services") -> gr.Blocks:
    """The whole page. Mount it with ``launch_options(services)``."""
    blocks = FencedBlocks(
        title="dbgpt_lite", analytics_enabled=False, fill_width=True, delete_cache=(UPLOAD_KEPT_S, UPLOAD_KEPT_S)
    )
    with blocks:
        _Page(services).wire(blocks)
    blocks.state_session_capacity = SESSIONS
    # As many as there are readers: the engine has the queue that matters.
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


class _Page:
    """Sidebar, top bar and the five views."""

    def __init__(self, services: "Services") -> None:
        self._services = services
        self.bridge = Bridge()
        self.intake = Intake(services)
        with gr.Row(elem_id="shell"):
            with gr.Column(elem_id="sidebar"):
                self.head = gr.HTML("", elem_id="sidebar-head", js_on_load=None, apply_default_css=False)
                self.search = gr.Textbox("", elem_id="search", container=False, lines=1, max_lines=1)
                self.list = gr.HTML("", elem_id="conversations", js_on_load=None, apply_default_css=False)
                self.activity = gr.HTML("", elem_id="activity", js_on_load=None, apply_default_css=False)
                self.navigation = gr.HTML("", elem_id="navigation", js_on_load=None, apply_default_css=False)
            with gr.Column(elem_id="main"):
                with gr.Row(elem_id="topbar"):
                    self.menu = gr.HTML("", elem_id="menu", js_on_load=None, apply_default_css=False)
                    self.badge = gr.HTML("", elem_id="badge", js_on_load=None, apply_default_css=False)
                self.chat = ChatPage(services, self.bridge, self.intake)
                self.knowledge = KnowledgePage(services, self.bridge, self.intake)
                self.tools = ResultTools(services, services.desk, self.bridge)
                self.data = DataPage(services, services.desk, services.queries, self.bridge, self.tools)
                self.models = ModelsPage(services, self.bridge, self.badge)
                self.settings = SettingsPage(services, self.bridge)

    def wire(self, blocks: gr.Blocks) -> None:
        """Connect every view, and fill the page when it opens."""
        self.chat.wire(self.list, self.search)
        self.knowledge.wire()
        self.tools.wire(self.chat.conversation)
        self.data.wire()
        self.models.wire()
        self.settings.wire()
        chat = self.chat
        shown: list[Any] = [self.head, self.search, self.list, self.navigation, self.menu, self.badge]
        shown += [self.activity, chat.conversation, chat.thread, *chat.chosen]
        words: list[Any] = [chat.ask, chat.send, chat.stop, chat.attach, chat.tuning, chat.tuning_note]
        words += [
            chat.temperature,
            chat.max_tokens,
            chat.foot,
            self.knowledge.upload,
            self.knowledge.ways,
            self.data.editor,
        ]
        looks = [self.knowledge.space, chat.attached]
        self.bridge.on(
            "poll",
            telling(self._services.settings, self._poll),
            looks,
            [self.activity, self.knowledge.found, *chat.chosen],
        ).then(
            None, self.knowledge.redrawn, self.knowledge.redrawn,
            js="(...drawn) => window.dbgpt.found(...drawn)", **QUIET,
        )  # fmt: skip
        blocks.load(
            telling(self._services.settings, self._load), chat.conversation, shown + words,
            js="() => [window.dbgpt.opened()]", **QUIET,
        ).then(None, None, None, js="() => window.dbgpt.ready()", **QUIET)  # fmt: skip

    def _load(self, conversation: str, request: gr.Request) -> tuple[Any, ...]:
        """Everything that depends on the reader. An address that leads nowhere opens the empty page."""
        reader = reader_of(request, self._services.settings)
        language = reader.language
        try:
            opened = self._services.store.get(reader.owner, conversation) if conversation else None
        except NotFound:
            opened = None
        identity = opened.id if opened else ""
        mode, *chosen = self.chat.restored(opened, reader) if opened else self.chat.choice("auto", reader)
        modes = [(say(f"mode_{mode}", language), mode) for mode in MODES]
        return (
            head(language),
            gr.update(placeholder=say("search", language), label=say("search", language)),
            self.chat.conversations(reader),
            navigation(reader),
            _menu(language),
            self.models.badge(language),
            self._activity(reader),
            identity,
            self.chat.page(identity, reader),
            gr.update(choices=modes, value=mode, label=say("mode", language)),
            *chosen,
            *self._words(reader),
        )

    def _poll(self, space: str, attached: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """What background work has changed on this page. `beat` goes back with it, so that the page knows."""
        reader = reader_of(request, self._services.settings)
        return (
            self._activity(reader, fact(event, "beat")),
            self.knowledge.polled(space, event, request),
            *self.chat.polled(attached, reader),
        )

    def _activity(self, reader: Reader, beat: str = "") -> Markup:
        """The line of what is being indexed; throw-away files have their own place."""
        spaces = self._services.knowledge.spaces()
        mark = Markup('<i class="mark" data-beat="{}"></i>').format(beat)
        return mark + activity(*self.intake.running(spaces), reader.language)

    def _foot(self) -> str:
        """Whether questions stay here depends on who answers them."""
        remote = self._services.settings.llm_endpoint or self._services.models.engine.info.kind == "remote"
        return "foot_remote" if remote else "foot"

    def _words(self, reader: Reader) -> tuple[Any, ...]:
        """The words of Gradio's own components."""
        language = reader.language
        limit = self._services.settings.upload_max_mb
        return (
            gr.update(placeholder=say("ask", language), label=say("ask", language)),
            say("send", language),
            say("stop", language),
            gr.update(label=say("attach", language, limit=limit)),
            _tuning(language),
            Markup("<p>{}</p>").format(say("tuning_note", language)),
            gr.update(label=say("temperature", language), info=say("temperature_info", language)),
            gr.update(label=say("max_tokens", language), info=say("max_tokens_info", language)),
            Markup("<p>{}</p>").format(say(self._foot(), language)),
            gr.update(label=say("upload_here", language, limit=limit)),
            self.knowledge.words(language),
            self.data.words(language),
        )


def _menu(language: Language) -> Markup:
    """Opens the sidebar where it is hidden; words that page.js shows travel as data."""
    words = (
        "cancel", "drop_here", "still_answering", "save", "jump_down", "drop_knowledge", "run", "stop", "sql_editor"
    )  # fmt: skip
    data = Markup(" ").join(
        Markup('data-{}="{}"').format(name.replace("_", "-"), say(name, language)) for name in words
    )
    return Markup(
        '<button type="button" class="icon-button open-sidebar" aria-label="{}">{}</button>'
        '<span id="words" lang="{}" {}></span>'
    ).format(say("open_sidebar", language), icon("menu"), "zh-CN" if language == "zh" else "en", data)


def _tuning(language: Language) -> Markup:
    return Markup(
        '<button type="button" class="icon-button toggle-tuning" title="{}" aria-label="{}">{}</button>'
    ).format(say("tuning", language), say("tuning", language), icon("gear"))
