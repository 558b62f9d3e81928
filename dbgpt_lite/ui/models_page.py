"""The Models page: what answers now, and the folders that could."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.messages import EngineInfo
from dbgpt_lite.texts import Language, memory_size, text
from dbgpt_lite.ui.bridge import Bridge, fact, telling
from dbgpt_lite.ui.download_box import DownloadBox
from dbgpt_lite.ui.fit_view import fit_panels
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.render import error_box
from dbgpt_lite.ui.session import reader_of
from dbgpt_lite.ui.sidebar import model_badge

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services
    from dbgpt_lite.llm.manager import ModelStatus
    from dbgpt_lite.llm.model_folders import ModelFolder
    from dbgpt_lite.llm.plan import Plan

QUANTIZATIONS = ("none", "int8", "nf4", "int4")


class ModelsPage:
    """Components and handlers."""

    def __init__(self, services: "Services", bridge: Bridge, badge: gr.HTML) -> None:
        self._services = services
        self._bridge = bridge
        self._badge = badge
        with gr.Column(elem_id="page-models", elem_classes="page"):
            self.now = gr.HTML("", elem_id="models-now", js_on_load=None, apply_default_css=False)
            self.folders = gr.HTML("", elem_id="models-folders", js_on_load=None, apply_default_css=False)
            self.download = DownloadBox(services, bridge)

    def wire(self) -> None:
        """Connect the events."""
        settings, on = self._services.settings, self._bridge.on
        on("show_models", telling(settings, self._show), None, [self._badge, self.now, self.folders])
        on("load_model", telling(settings, self._load), None, [self._badge, self.now])
        on("unload_model", telling(settings, self._unload), None, [self._badge, self.now, self.folders])
        on("cancel_load", telling(settings, self._cancel_load), None, [self._badge, self.now])
        self.download.wire(self._shown_folders, self.folders)
        on("model_status", telling(settings, self._status), None, [self._badge, self.now])

    def badge(self, language: Language) -> Markup:
        """Name and state of what answers."""
        models = self._services.models
        return model_badge(models.status, models.engine.info.kind, language, self._services.ready)

    def _status(self, request: gr.Request) -> tuple[Markup, Markup]:
        language = reader_of(request, self._services.settings).language
        models = self._services.models
        return self.badge(language), current_model(models.status, models.engine.info, language)

    def _show(self, request: gr.Request) -> tuple[Any, ...]:
        return *self._status(request), self._shown_folders(request)

    def _shown_folders(self, request: gr.Request) -> Markup:
        language = reader_of(request, self._services.settings).language
        chosen = self._services.settings.llm_quantization
        folders = self._services.models.folders()
        plans = {folder.name: self._plans(folder.name) for folder in folders if loadable(folder)}
        return folder_list(folders, chosen, language, plans)

    def _plans(self, name: str) -> dict[str, "Plan | UserError"]:
        """Whether a folder would fit, for each way to quantize it."""
        found: dict[str, Plan | UserError] = {}
        for quantization in QUANTIZATIONS:
            try:
                found[quantization] = self._services.models.plan(name, quantization)
            except UserError as error:
                found[quantization] = error
        return found

    def _load(self, event: gr.EventData, request: gr.Request) -> tuple[Markup, Markup]:
        quantization = fact(event, "quantization")
        wanted: Any = quantization if quantization in QUANTIZATIONS else "none"
        self._services.models.load(fact(event, "name"), wanted, fact(event, "chat_format"))
        return self._status(request)

    def _cancel_load(self, request: gr.Request) -> tuple[Markup, Markup]:
        self._services.models.cancel()
        return self._status(request)

    def _unload(self, request: gr.Request) -> tuple[Any, ...]:
        self._services.models.unload()
        return self._show(request)


def current_model(status: "ModelStatus", info: EngineInfo, language: Language) -> Markup:
    """The model that answers, its state, and what to do about a failure."""
    builtin = info.kind == "builtin"
    widened = info.widened if status.state != "asleep" else 0
    name = say("built_in_assistant", language) if builtin else info.name
    facts = [
        say("built_in_facts", language) if builtin else "",
        say("remote_facts", language) if info.kind == "remote" else "",
        say("asleep_facts", language) if status.state == "asleep" else "",
        info.device if info.kind == "local" else "",
        info.quantization,
        say("context_window", language, count=f"{info.context_length:,}")
        if not builtin and info.context_length
        else "",
        say("widened_weights", language, size=memory_size(widened)) if widened else "",
    ]
    unload = Markup("")
    if not builtin and status.state != "loading":
        unload = Markup(
            '<button type="button" id="unload-model" class="button plain" data-action="unload_model" '
            'data-confirm="{}" data-ok="{}">{}</button>'
        ).format(say("unload_sure", language, name=name), say("unload", language), say("unload", language))
    return Markup(
        '<header class="page-head"><div><h1>{}</h1><p>{}</p></div></header>'
        '<section class="now" data-state="{}"><div><small>{}</small><b>{}</b><span>{}</span></div>{}</section>{}{}'
    ).format(
        say("page_models", language),
        say("models_intro", language),
        status.state,
        say("answers_now", language),
        name,
        " · ".join(part for part in facts if part),
        unload,
        _loading(status, language),
        error_box(_problem(status, language)) if status.detail else "",
    )


def _problem(status: "ModelStatus", language: Language) -> str:
    """Why the last load failed, and what answers all the same."""
    words = [status.detail.render(language)] if status.detail else []
    if status.kept:
        words.append(say("model_kept", language, name=status.kept))
    return " ".join(words)


def loadable(folder: "ModelFolder") -> bool:
    """Whether the page offers to load a folder."""
    return folder.problem is None and ("chat" in folder.tasks or "sql" not in folder.tasks)


def folder_list(
    folders: Sequence["ModelFolder"],
    quantization: str,
    language: Language,
    plans: Mapping[str, Mapping[str, "Plan | UserError"]] = MappingProxyType({}),
) -> Markup:
    """The folders of MODELS_DIR; one that cannot be loaded says why, the others whether they fit."""
    if not folders:
        return Markup('<div class="page-empty"><p>{}</p><p>{}</p></div>').format(
            say("no_models", language), say("no_models_more", language)
        )
    options = Markup("").join(
        Markup('<option value="{}"{}>{}</option>').format(
            name, Markup(" selected") if name == quantization else "", say(f"quantization_{name}", language)
        )
        for name in QUANTIZATIONS
    )
    rows = Markup("").join(
        _folder(folder, options, fit_panels(plans.get(folder.name, {}), language), language) for folder in folders
    )
    return Markup('<h2>{}</h2><ul class="models">{}</ul>').format(say("in_models_folder", language), rows)


def _folder(folder: "ModelFolder", options: Markup, fit: Markup, language: Language) -> Markup:
    adapter = say("adapter_for", language, name=folder.adapter_for) if folder.adapter_for else ""
    known = (adapter, folder.family, memory_size(folder.size_bytes) if folder.size_bytes else "", folder.quantization)
    facts = " · ".join(part for part in known if part)
    action: Markup = Markup("")
    if "sql" in folder.tasks and "chat" not in folder.tasks:
        action = Markup('<em class="tag">{}</em>').format(say("sql_only", language))
    elif folder.problem is None:
        action = Markup(
            '<select name="quantization" aria-label="{}">{}</select>'
            '<button type="button" class="button plain" data-action="load_model" data-name="{}">{}</button>'
        ).format(say("quantization", language), options, folder.name, say("load", language))
    problem = error_box(folder.problem.render(language)) if folder.problem else Markup("")
    return Markup('<li class="model" data-name="{}">{}<div><b>{}</b><span>{}</span>{}</div>{}{}{}</li>').format(
        folder.name, icon("chip"), folder.name, facts, _formats(folder, language), action, fit, problem
    )


def _formats(folder: "ModelFolder", language: Language) -> Markup:
    """The chat formats to choose from, for a model whose files show none."""
    if folder.chat_format is None:
        return Markup("")
    options = Markup("").join(
        Markup('<option value="{}"{}>{}</option>').format(
            name,
            Markup(" selected") if name == folder.chat_format.name else "",
            say("chat_format_option", language, name=name),
        )
        for name in CHAT_FORMATS
    )
    unsure = Markup("") if folder.chat_format.known else Markup("<span>{}</span>")
    return Markup('<select name="chat_format" aria-label="{}">{}</select>{}').format(
        say("chat_format", language), options, unsure.format(say("chat_format_unsure", language))
    )


def _loading(status: "ModelStatus", language: Language) -> Markup:
    if status.state != "loading":
        return Markup("")
    percent = round(status.progress * 100)
    words = [say("loading_model", language, name=status.name, percent=percent)]
    if status.total:
        words.append(loaded_bytes(status, language))
    return Markup(
        '<div class="loading" role="status"><span>{}</span><i class="bar"><i style="width:{}%"></i></i>'
        '<button type="button" class="button plain" data-action="cancel_load">{}</button></div>'
    ).format(" · ".join(words), percent, say("cancel", language))


def loaded_bytes(status: "ModelStatus", language: Language) -> str:
    """How much of a model has been read: 3.2 of 12.9 GiB, 1.8 GiB/s."""
    done, total, rate = (f"{count / 2**30:.1f}" for count in (status.done, status.total, status.rate))
    return text("app.loaded_bytes", language, done=done, total=total, rate=rate)
