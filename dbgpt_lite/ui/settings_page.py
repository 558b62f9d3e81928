"""The Settings page: what is in force, to read; secrets show only whether they are set."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import gradio as gr
from markupsafe import Markup
from pydantic import SecretStr

from dbgpt_lite.config import ROOT, Settings, telemetry_left_on
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.bridge import Bridge, telling
from dbgpt_lite.ui.connections_view import connections_panel
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.session import reader_of

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

# First field of each group of Settings, in their order.
GROUPS = {"host": "server", "llm_model": "model", "embedding_model": "documents", "database_url": "databases"}
_SECRET = {"auth_users", "api_keys"}


class SettingsPage:
    """Components and handlers."""

    def __init__(self, services: "Services", bridge: Bridge) -> None:
        self._services = services
        self._bridge = bridge
        with gr.Column(elem_id="page-settings", elem_classes="page"):
            self.body = gr.HTML("", elem_id="settings-body", js_on_load=None, apply_default_css=False)

    def wire(self) -> None:
        """Connect the events."""
        self._bridge.on("show_settings", telling(self._services.settings, self._show), None, self.body)

    def _show(self, request: gr.Request) -> Markup:
        settings = self._services.settings
        language = reader_of(request, settings).language
        panel = connections_panel(self._services.connections, telemetry_left_on(), language)
        return settings_tables(settings, language, panel)


def settings_tables(settings: Settings, language: Language, first: Markup | None = None) -> Markup:
    """Every setting by group: its name, its value, and what it is for; `first` stands above them."""
    body, group = Markup(""), Markup("")
    for name in type(settings).model_fields:
        if name in GROUPS:
            body += _group(group)
            group = Markup("<h2>{}</h2>").format(say(f"settings_{GROUPS[name]}", language))
        value = shown_value(name, getattr(settings, name), language)
        default = name not in settings.model_fields_set
        group += Markup('<div class="setting{}"><b>{}</b><code>{}</code><span>{}</span></div>').format(
            "" if default else " changed", name.upper(), value, say(f"setting_{name}", language)
        )
    head = Markup('<header class="page-head"><div><h1>{}</h1><p>{}</p></div></header>').format(
        say("page_settings", language), say("settings_intro", language)
    )
    return head + (first or Markup("")) + body + _group(group)


def shown_value(name: str, value: object, language: Language) -> str:
    """A value as shown: secrets and URLs that may hold one are only "set" or "not set"."""
    secret = name in _SECRET or isinstance(value, SecretStr)
    if isinstance(value, Mapping):
        secret = secret or any(isinstance(item, SecretStr) for item in value.values())
        if value and secret:
            return say("secret_named", language, names=", ".join(sorted(value)))
    if isinstance(value, str) and "@" in urlsplit(value).netloc:
        # A login inside an address, http://user:key@host, is a secret too.
        parts = urlsplit(value)
        value = parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]).geturl()
    if secret:
        given = value.get_secret_value() if isinstance(value, SecretStr) else value
        return say("secret_set" if given else "secret_not_set", language)
    return _plain(value) or say("not_set", language)


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Path):
        return str(value.relative_to(ROOT)) if value.is_relative_to(ROOT) else value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return " ".join(f"{key}:{item}" for key, item in value.items())
    return str(value)


def _group(rows: Markup) -> Markup:
    return Markup('<section class="settings">{}</section>').format(rows) if rows else rows
