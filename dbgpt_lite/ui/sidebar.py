"""The sidebar's HTML: conversations by day, the pages, the model that answers. Pure; everything escaped."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Protocol

from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.store import Conversation
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.session import Reader

PAGES = (("knowledge", "book"), ("data", "database"), ("models", "chip"), ("settings", "gear"))


class Status(Protocol):
    """The facts of llm's ModelStatus that are shown."""

    @property
    def state(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def progress(self) -> float: ...
    @property
    def detail(self) -> UserError | None: ...


def conversation_list(
    conversations: Sequence[Conversation], reader: Reader, search: str = "", now: datetime | None = None
) -> Markup:
    """Conversations grouped by the reader's days, newest first."""
    if not conversations:
        empty = say("no_match", reader.language, search=search) if search else say("no_conversations", reader.language)
        return Markup('<p class="list-empty">{}</p>').format(empty)
    today = now or datetime.now(UTC)
    groups = groupby(conversations, key=lambda c: day_group(c.updated, today, reader))
    return Markup("").join(
        Markup("<section><h3>{}</h3><ul>{}</ul></section>").format(name, Markup("").join(_items(rows, reader.language)))
        for name, rows in groups
    )


def day_group(moment: datetime, now: datetime, reader: Reader) -> str:
    """Today, Yesterday, Previous 7 days, or the month, in the reader's time zone."""
    zone = timedelta(minutes=reader.zone)
    day, today = (moment + zone).date(), (now + zone).date()
    age = (today - day).days
    if age <= 0:
        return say("today", reader.language)
    if age == 1:
        return say("yesterday", reader.language)
    if age <= 7:
        return say("previous_7_days", reader.language)
    if day.year == today.year:
        return say(f"month_{day.month}", reader.language)
    return say("month_year", reader.language, month=say(f"month_{day.month}", reader.language), year=day.year)


def navigation(reader: Reader) -> Markup:
    """The other pages."""
    links = Markup("").join(
        Markup('<a class="nav" href="#/{}" data-page="{}">{}<span>{}</span></a>').format(
            name, name, icon(picture), say(f"page_{name}", reader.language)
        )
        for name, picture in PAGES
    )
    other: Language = "en" if reader.language == "zh" else "zh"
    switches = Markup(
        '<button type="button" class="text-button theme-switch" title="{}" aria-label="{}">{}</button>'
        '<button type="button" class="text-button language-switch" data-language="{}" title="{}">{}</button>'
    ).format(
        say("switch_theme", reader.language),
        say("switch_theme", reader.language),
        icon("moon"),
        other,
        say("switch_language", reader.language),
        say("this_language", other),
    )
    user = Markup('<a class="text-button sign-out" href="logout" title="{}">{}</a>').format(
        say("sign_out", reader.language), reader.login
    )
    foot = switches + user if reader.login else switches
    return Markup('<nav>{}</nav><div class="sidebar-foot">{}</div>').format(links, foot)


def head(language: Language) -> Markup:
    """The app's name and the way to a new conversation."""
    return Markup(
        '<a class="brand" href="#/"><b>dbgpt</b>_lite</a>'
        '<button type="button" class="icon-button sidebar-close" aria-label="{}">{}</button>'
        '<button type="button" id="new-chat" class="new-chat" data-action="new_chat">{}<span>{}</span></button>'
    ).format(say("close", language), icon("close"), icon("plus"), say("new_chat", language))


def model_badge(status: Status, kind: str, language: Language, ready: bool = True) -> Markup:
    """Which model answers and its state; leads to the Models page. `ready`: the samples are indexed."""
    words = {
        "loading": say("loading", language, percent=round(status.progress * 100)),
        "failed": say("load_failed", language),
        "asleep": say("asleep", language),
        "ready": say("remote", language) if kind == "remote" else "",
    }
    state = words.get(status.state, "") or ("" if ready else say("preparing", language))
    name = say("built_in_assistant", language) if kind == "builtin" and status.state == "builtin" else status.name
    hint = status.detail.render(language) if status.detail else say("page_models", language)
    shown = Markup('<span class="state">{}</span>').format(state) if state and state != name else Markup("")
    return Markup(
        '<a id="model-badge" class="model-badge" href="#/models" data-state="{}" title="{}" {}>'
        '<span class="dot"></span><span class="name">{}</span>{}</a>'
    ).format(status.state, hint, Markup("" if ready else "data-preparing"), name, shown)


def _items(conversations: Iterator[Conversation], language: Language) -> Iterator[Markup]:
    for conversation in conversations:
        title = conversation.title or say("new_chat", language)
        yield Markup(
            '<li class="conversation" data-conversation="{id}">'
            '<button type="button" class="open" data-action="open_conversation" data-id="{id}" title="{title}">'
            '{title}</button><button type="button" class="rename" data-action="rename_conversation" data-id="{id}" '
            'data-prompt="{ask_name}" data-value="{title}" data-ok="{save}" title="{rename}" aria-label="{rename}">'
            '{pencil}</button><button type="button" class="delete" data-action="delete_conversation" data-id="{id}" '
            'data-confirm="{sure}" data-ok="{delete}" title="{delete}" aria-label="{delete}">{trash}</button></li>'
        ).format(
            id=conversation.id,
            title=title,
            ask_name=say("rename_conversation", language),
            save=say("save", language),
            rename=say("rename", language),
            delete=say("delete", language),
            sure=say("delete_conversation", language, title=title),
            pencil=icon("pencil"),
            trash=icon("trash"),
        )
