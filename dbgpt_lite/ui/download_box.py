"""The Models page's download: a form, the one at work with its bar, and what can be taken up again."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import ModelError
from dbgpt_lite.hub.downloads import DownloadStatus
from dbgpt_lite.hub.partial import Interrupted
from dbgpt_lite.texts import Language, memory_size, text, time_left
from dbgpt_lite.ui.bridge import Bridge, fact, telling
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.render import error_box
from dbgpt_lite.ui.session import reader_of

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

_EMPTY = Markup("")
_AT_WORK = ("running", "stopping")


class DownloadBox:
    """Components and handlers. Where downloads are not allowed it stays empty, and every action is refused."""

    def __init__(self, services: "Services", bridge: Bridge) -> None:
        self._services = services
        self._bridge = bridge
        self.form = gr.HTML("", elem_id="download-form", js_on_load=None, apply_default_css=False)
        self.progress = gr.HTML("", elem_id="download-progress", js_on_load=None, apply_default_css=False)

    def wire(self, folder_list: Callable[[gr.Request], Markup], folders: gr.HTML) -> None:
        """Connect the events; a finished download changes what `folders` shows."""
        settings, on = self._services.settings, self._bridge.on
        on("show_models", telling(settings, self._show), None, [self.form, self.progress])
        actions: dict[str, Callable[..., Markup]] = {
            "download_model": self._start,
            "resume_download": self._resume,
            "stop_download": self._stop,
            "discard_download": self._discard,
        }
        for name, act in actions.items():
            on(name, telling(settings, act), None, self.progress)

        def status(request: gr.Request) -> tuple[Any, ...]:
            # A list that is drawn anew closes what somebody is choosing in it.
            ended = self._services.downloads.status.state not in _AT_WORK
            return self._shown(request), folder_list(request) if ended else gr.skip()

        on("download_status", telling(settings, status), None, [self.progress, folders])

    def _show(self, request: gr.Request) -> tuple[Markup, Markup]:
        if not self._services.settings.may_download:
            return _EMPTY, _EMPTY
        return download_form(self._host(), self._language(request)), self._shown(request)

    def _start(self, event: gr.EventData, request: gr.Request) -> Markup:
        self._refuse_strangers()
        self._services.downloads.start(*(fact(event, name) for name in ("name", "revision", "folder", "gguf")))
        return self._shown(request)

    def _resume(self, event: gr.EventData, request: gr.Request) -> Markup:
        self._refuse_strangers()
        self._services.downloads.resume(fact(event, "folder"))
        return self._shown(request)

    def _stop(self, request: gr.Request) -> Markup:
        self._refuse_strangers()
        self._services.downloads.stop()
        return self._shown(request)

    def _discard(self, event: gr.EventData, request: gr.Request) -> Markup:
        self._refuse_strangers()
        self._services.downloads.discard(fact(event, "folder"))
        return self._shown(request)

    def _refuse_strangers(self) -> None:
        if not self._services.settings.may_download:
            raise ModelError("hub.not_allowed")

    def _shown(self, request: gr.Request) -> Markup:
        if not self._services.settings.may_download:
            return _EMPTY
        downloads = self._services.downloads
        return download_progress(downloads.status, downloads.interrupted(), self._host(), self._language(request))

    def _host(self) -> str:
        return urlsplit(self._services.settings.hf_endpoint).hostname or ""

    def _language(self, request: gr.Request) -> Language:
        return reader_of(request, self._services.settings).language


def download_form(host: str, language: Language) -> Markup:
    """The name of a model, and what is seldom needed beside it."""
    return Markup(
        '<section class="download"><h2>{}</h2><p>{}</p><form data-action="download_model"><div>{}'
        '<button type="submit" class="button">{}</button></div><details class="fold"><summary>{}</summary><div>{}{}{}'
        "</div></details></form></section>"
    ).format(
        text("hub.title", language),
        text("hub.intro", language, host=host),
        _field("name", "Qwen/Qwen2.5-0.5B-Instruct", language, required=True),
        text("hub.begin", language),
        text("hub.more", language),
        _field("revision", "main", language),
        _field("folder", "Qwen2.5-0.5B-Instruct", language),
        _field("gguf", "*Q4_K_M.gguf", language),
    )


def download_progress(
    status: DownloadStatus, unfinished: Sequence[Interrupted], host: str, language: Language
) -> Markup:
    """The download at work or just ended, and those that wait to be taken up."""
    rows = _EMPTY.join(_unfinished(one, language) for one in unfinished)
    return _status(status, host, language) + rows


def _status(status: DownloadStatus, host: str, language: Language) -> Markup:
    if status.wanted is None or status.state in ("none", "stopped"):
        return _EMPTY
    name = status.wanted.name
    if status.state == "done":
        line = text("hub.finished", language, name=name, folder=status.wanted.folder)
        return Markup('<p class="download-done" role="status">{}</p>').format(line)
    if status.state == "failed":
        return error_box(status.error.render(language) if status.error else "")
    key = "stopping" if status.state == "stopping" else "running" if status.total_bytes else "asking"
    stop = Markup('<button type="button" class="button plain" data-action="stop_download">{}</button>').format(
        text("ui.stop", language)
    )
    return Markup(
        '<section class="job" data-state="{}" data-downloading><div class="job-head"><div role="status"><b>{}</b>'
        '<span class="job-facts">{}</span></div>{}</div>{}</section>'
    ).format(
        status.state,
        text(f"hub.{key}", language, name=name, host=host),
        " · ".join(_facts(status, language)),
        stop if status.state == "running" else _EMPTY,
        _bar(status.done_bytes, status.total_bytes),
    )


def _facts(status: DownloadStatus, language: Language) -> list[str]:
    if not status.total_bytes:
        return []
    speed = text("hub.speed", language, speed=memory_size(status.bytes_per_s)) if status.bytes_per_s else ""
    facts = (_amount(status.done_bytes, status.total_bytes, language), speed, time_left(status.seconds_left, language))
    return [part for part in facts if part]


def _unfinished(one: Interrupted, language: Language) -> Markup:
    done = memory_size(one.done_bytes)
    return Markup(
        '<section class="job" data-state="stopped" data-folder="{folder}"><div class="job-head"><div><b>{title}</b>'
        '<span class="job-facts">{amount}</span></div><div class="download-ways">'
        '<button type="button" class="button plain" data-action="resume_download" data-folder="{folder}">{resume}'
        '</button><button type="button" class="icon-button" data-action="discard_download" data-folder="{folder}" '
        'data-confirm="{sure}" data-ok="{discard}" title="{discard}" aria-label="{discard}">{icon}</button></div></div>'
        "{bar}</section>"
    ).format(
        folder=one.wanted.folder,
        title=text("hub.unfinished", language, name=one.wanted.name),
        amount=_amount(one.done_bytes, one.total_bytes, language),
        resume=text("hub.resume", language),
        discard=text("hub.discard", language),
        sure=text("hub.discard_sure", language, name=one.wanted.name, done=done),
        icon=icon("close"),
        bar=_bar(one.done_bytes, one.total_bytes),
    )


def _field(name: str, example: str, language: Language, required: bool = False) -> Markup:
    return Markup(
        '<label><span>{}</span><input name="{}" placeholder="{}" maxlength="200" autocomplete="off" '
        'spellcheck="false"{}></label>'
    ).format(text(f"hub.field_{name}", language), name, example, Markup(" required") if required else "")


def _bar(done: int, total: int) -> Markup:
    if not total:
        return Markup('<i class="bar endless"><i></i></i>')
    percent = f"{100 * done / total:.0f}"
    return Markup(
        '<i class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{}">'
        '<i style="width:{}%"></i></i>'
    ).format(percent, percent)


def _amount(done: int, total: int, language: Language) -> str:
    return text("hub.amount", language, done=memory_size(done), total=memory_size(total))
