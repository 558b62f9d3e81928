"""Knowledge spaces as HTML: the cards, one space with its documents, the passages of one document. Pure."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from markupsafe import Markup

from dbgpt_lite.knowledge.records import Document, Space
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.render import error_box, place
from dbgpt_lite.ui.session import Reader

T = TypeVar("T")
PER_PAGE = 300
EMPTY = Markup("")
# What a file is, told by its ending: the letters on its tile.
KINDS = {"markdown": "md", "htm": "html", "xhtml": "html", "tsv": "csv", "text": "txt"}


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What is true of an open space beside its documents. at_work: names of the files that a job is reading."""

    at_work: Collection[str] = ()
    running: bool = False
    other_embedder: bool = False


def spaces_head(language: Language) -> Markup:
    """Title of the list of spaces and the way to a new one."""
    new = Markup(
        '<button type="button" id="new-space" class="button" data-action="create_space" data-prompt="{}" data-ok="{}">'
        "{}<span>{}</span></button>"
    ).format(say("new_space_name", language), say("create", language), icon("plus"), say("new_space", language))
    return Markup('<header class="page-head" data-view="spaces"><div><h1>{}</h1><p>{}</p></div>{}</header>').format(
        say("page_knowledge", language), say("knowledge_intro", language), new
    )


def space_cards(spaces: Sequence[Space], language: Language, busy: Sequence[str] = ()) -> Markup:
    """The spaces as cards; `busy`: ids of those that a job is filling."""
    if not spaces:
        return Markup('<p class="page-empty">{}</p>').format(say("no_spaces", language))
    return Markup('<div class="cards">{}</div>').format(
        EMPTY.join(_card(space, language, space.id in busy) for space in spaces)
    )


def space_head(space: Space, language: Language) -> Markup:
    """Title of a space with what can be done to it."""
    ask = Markup(
        '<button type="button" class="button ask-here" data-ask="documents" data-source="{}">{}<span>{}</span></button>'
    ).format(space.id, icon("chat"), say("ask_space", language))
    return Markup(
        '<header class="page-head" data-view="{}" data-space="{}"><div>{}<h1>{}</h1><p>{}</p></div>'
        '<div class="head-tools">{}{}</div></header>'
    ).format(
        "sample-space" if space.readonly else "space",
        space.id,
        _back("show_knowledge", "", language),
        space.name,
        _counts(space, language),
        EMPTY if space.readonly else _tools(space, language),
        ask,
    )


def document_list(
    documents: Sequence[Document], space: Space, reader: Reader, state: SpaceState | None = None, page: int = 1
) -> Markup:
    """The documents of a space with what their owner may have to do about them."""
    language = reader.language
    state = state or SpaceState()
    waiting = sum(document.status == "pending" for document in documents)
    shown = _banners(waiting, space, state, language)
    if not documents:
        return shown + Markup('<p class="page-empty">{}</p>').format(say("no_documents", language))
    page, part = _page(documents, page)
    rows = EMPTY.join(_document(document, space, reader, state) for document in part)
    pages = pager("open_space", space.id, page, len(documents), language)
    return shown + Markup('<ul class="documents">{}</ul>{}').format(rows, pages)


def chunks_head(document: Document, space: str, language: Language) -> Markup:
    """Title of the chunks of a document."""
    return Markup(
        '<header class="page-head" data-view="chunks" data-space="{}"><div>{}<h1>{}</h1><p>{}</p></div></header>'
    ).format(space, _back("open_space", space, language), document.name, say("chunks_intro", language))


def chunk_list(
    chunks: Sequence[Passage], language: Language, document: str = "", page: int = 1, find: str = ""
) -> Markup:
    """The chunks as they are searched, in reading order; `find` leaves those that hold its words."""
    if not chunks:
        return Markup('<p class="page-empty">{}</p>').format(say("no_chunks", language))
    wanted = find.casefold().split()
    found = [
        (number, chunk)
        for number, chunk in enumerate(chunks, 1)
        if all(word in f"{chunk.heading} {chunk.text}".casefold() for word in wanted)
    ]
    box = _find_box(document, find, language) if document else EMPTY
    if not found:
        return box + Markup('<p class="page-empty">{}</p>').format(say("no_match", language, search=find))
    page, part = _page(found, page)
    rows = EMPTY.join(
        Markup('<li class="chunk"><p class="chunk-head"><span>{}</span>{}</p><div>{}</div></li>').format(
            number, place(chunk, language), chunk.text
        )
        for number, chunk in part
    )
    pages = pager("show_chunks", document, page, len(found), language, find)
    return box + Markup('<ol class="chunks">{}</ol>{}').format(rows, pages)


def pager(action: str, identity: str, page: int, count: int, language: Language, find: str = "") -> Markup:
    """The way to the other pages; nothing where there is only one."""
    last = -(-count // PER_PAGE)
    if last < 2:
        return EMPTY
    steps = (("back", page - 1, "previous_page"), ("next", page + 1, "next_page"))
    buttons = [
        Markup(
            '<button type="button" class="icon-button {}" data-action="{}" data-id="{}" data-page="{}" data-find="{}" '
            'title="{}" aria-label="{}"{}>{}</button>'
        ).format(
            f"to-{picture}", action, identity, target, find, say(label, language), say(label, language),
            EMPTY if 1 <= target <= last else Markup(" disabled"), icon(picture),
        )
        for picture, target, label in steps
    ]  # fmt: skip
    first, end = (page - 1) * PER_PAGE + 1, min(page * PER_PAGE, count)
    label = say("page_range", language, first=f"{first:,}", end=f"{end:,}", count=f"{count:,}")
    return Markup('<div class="pager">{}<span>{}</span>{}</div>').format(buttons[0], label, buttons[1])


def web_link(address: str) -> Markup:
    """A link for a web address, its text without the scheme; plain text for any other scheme."""
    shown = address.split("://", 1)[-1].rstrip("/")
    if not re.match(r"https?://[^/]", address, re.IGNORECASE):
        return Markup('<span class="from">{}</span>').format(address)
    return Markup('<a class="from" href="{}" target="_blank" rel="noopener noreferrer">{}<span>{}</span></a>').format(
        address, icon("globe"), shown
    )


def kind_tile(name: str) -> Markup:
    """The kind of a file as a tile with its letters."""
    ending = name.rsplit(".", 1)[-1].lower() if "." in name else ""
    kind = KINDS.get(ending, ending)[:4] or "file"
    return Markup('<span class="kind" data-kind="{}" aria-hidden="true">{}</span>').format(kind, kind.upper())


def size(count: int) -> str:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def _card(space: Space, language: Language, busy: bool) -> Markup:
    note = "sample" if space.readonly else "indexing" if busy else "unfinished" if space.pending else ""
    tag = EMPTY
    if note:
        tag = Markup('<em class="tag" data-note="{}">{}</em>').format(note, say(note, language, count=space.pending))
    return Markup(
        '<button type="button" class="card space-card" data-action="open_space" data-id="{}">{}'
        "<b>{}</b><span>{}</span>{}</button>"
    ).format(space.id, icon("book"), space.name, _counts(space, language), tag)


def _tools(space: Space, language: Language) -> Markup:
    """Rename, empty and delete; what goes is said before it goes."""
    rename = Markup(
        '<button type="button" class="icon-button" data-action="rename_space" data-id="{id}" data-prompt="{ask}" '
        'data-value="{name}" data-ok="{save}" title="{rename}" aria-label="{rename}">{pencil}</button>'
    ).format(
        id=space.id,
        name=space.name,
        ask=say("new_space_name", language),
        save=say("save", language),
        rename=say("rename", language),
        pencil=icon("pencil"),
    )
    goes = {"name": space.name, "what": _counts(space, language)}
    empty = _removal("empty_space", "eraser", say("empty", language), say("empty_space", language, **goes), space.id)
    if not (space.documents or space.pending):
        empty = EMPTY
    sure = say("delete_space", language, **goes)
    return rename + empty + _removal("delete_space", "trash", say("delete", language), sure, space.id)


def _removal(action: str, picture: str, label: str, sure: str, identity: str) -> Markup:
    style = "empty-out" if action == "empty_space" else "delete"
    return Markup(
        '<button type="button" class="icon-button {style}" data-action="{action}" data-id="{id}" data-confirm="{sure}" '
        'data-ok="{label}" title="{label}" aria-label="{label}">{picture}</button>'
    ).format(
        style=style, action=action, id=identity, sure=sure, label=label, picture=icon(picture)
    )  # fmt: skip


def _banners(waiting: int, space: Space, state: SpaceState, language: Language) -> Markup:
    shown = EMPTY
    if state.other_embedder and not state.running:
        shown += _banner("other_embedder", "reembed_space", "reembed", space.id, language)
    if waiting and not state.running and not space.readonly:
        key = "interrupted_one" if waiting == 1 else "interrupted_many"
        shown += _banner(key, "resume_space", "resume", space.id, language, count=waiting)
    return shown


def _banner(key: str, action: str, label: str, identity: str, language: Language, **facts: object) -> Markup:
    return Markup(
        '<div class="banner" data-banner="{action}">{}<p>{}</p>'
        '<button type="button" class="button plain" data-action="{action}" data-id="{id}">{}</button></div>'
    ).format(icon("info"), say(key, language, **facts), say(label, language), action=action, id=identity)


def _document(document: Document, space: Space, reader: Reader, state: SpaceState) -> Markup:
    language = reader.language
    sure = say("delete_document", language, name=document.name)
    remove = _removal("delete_document", "trash", say("delete", language), sure, document.id)
    return Markup(
        '<li class="document" data-status="{}">{}<div class="about">'
        '<button type="button" class="open" data-action="show_chunks" data-id="{}"><b>{}</b><span>{}</span></button>'
        "{}</div>{}{}{}</li>"
    ).format(
        document.status,
        kind_tile(document.name),
        document.id,
        document.name,
        " · ".join(part for part in _facts(document, reader) if part),
        web_link(document.source) if document.source else "",
        _status(document, state, language),
        EMPTY if space.readonly else remove,
        error_box(document.error.render(language)) if document.error else "",
    )


def _facts(document: Document, reader: Reader) -> tuple[str, ...]:
    language = reader.language
    return (
        size(document.size),
        say("pages_one" if document.pages == 1 else "pages", language, count=document.pages) if document.pages else "",
        _passages(document.chunks, language) if document.chunks else "",
        document.encoding.upper(),
        _date(document.added, reader),
    )


def _status(document: Document, state: SpaceState, language: Language) -> Markup:
    """Searchable, waiting, being read, interrupted or failed."""
    name: str = document.status
    if name == "pending" and state.running:
        name = "reading" if document.name in state.at_work else "waiting"
    word = say(f"status_{name}", language)
    return Markup('<span class="status" data-state="{}">{}</span>').format(name, word)


def _find_box(document: str, find: str, language: Language) -> Markup:
    return Markup(
        '<form class="find" data-action="show_chunks" data-id="{}" role="search">{}'
        '<input type="search" name="find" value="{}" placeholder="{label}" aria-label="{label}"></form>'
    ).format(document, icon("search"), find, label=say("find_in_document", language))


def _page(rows: Sequence[T], page: int) -> tuple[int, Sequence[T]]:
    page = min(max(page, 1), max(-(-len(rows) // PER_PAGE), 1))
    return page, rows[(page - 1) * PER_PAGE : page * PER_PAGE]


def _back(action: str, identity: str, language: Language) -> Markup:
    return Markup(
        '<button type="button" class="back text-button" data-action="{}" data-id="{}">{}<span>{}</span></button>'
    ).format(action, identity, icon("back"), say("back", language))


def _counts(space: Space, language: Language) -> str:
    documents = say("documents_one" if space.documents == 1 else "documents", language, count=f"{space.documents:,}")
    return f"{documents} · {_passages(space.chunks, language)}"


def _passages(count: int, language: Language) -> str:
    return say("passages_one" if count == 1 else "passages", language, count=f"{count:,}")


def _date(seconds: float, reader: Reader) -> str:
    """The reader's date of a moment in seconds since 1970; "" for none."""
    if seconds <= 0:
        return ""
    return (datetime.fromtimestamp(seconds, UTC) + timedelta(minutes=reader.zone)).strftime("%Y-%m-%d")
