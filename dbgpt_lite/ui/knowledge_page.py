"""The Knowledge page: spaces, their documents, what was read from them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.records import Document, Space
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.bridge import QUIET, Bridge, fact, telling, telling_stream, toast
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.render import error_box, place
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.uploads import received, uploading

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

MAX_CHUNKS = 300


class KnowledgePage:
    """Components and handlers. `space` is the open one's id; "" shows the list."""

    def __init__(self, services: "Services", bridge: Bridge) -> None:
        self._services = services
        self._bridge = bridge
        with gr.Column(elem_id="page-knowledge", elem_classes="page"):
            self.top = gr.HTML("", elem_id="knowledge-top", js_on_load=None, apply_default_css=False)
            with gr.Row(elem_id="knowledge-upload"):
                self.upload = gr.UploadButton("", elem_id="space-upload", file_count="multiple")
            self.progress = gr.HTML("", elem_id="knowledge-progress", js_on_load=None, apply_default_css=False)
            self.body = gr.HTML("", elem_id="knowledge-body", js_on_load=None, apply_default_css=False)
        self.space = gr.Textbox("", elem_id="space", visible="hidden")

    def wire(self) -> None:
        """Connect the events."""
        settings, on = self._services.settings, self._bridge.on
        shown = [self.space, self.top, self.body, self.progress]
        on("show_knowledge", telling(settings, self._show), None, shown)
        on("open_space", telling(settings, self._open), None, shown)
        on("create_space", telling(settings, self._create), None, shown)
        on("rename_space", telling(settings, self._rename), None, shown)
        on("delete_space", telling(settings, self._delete), None, shown)
        on("delete_document", telling(settings, self._delete_document), self.space, shown)
        on("show_chunks", telling(settings, self._chunks), self.space, shown)
        stream = telling_stream(settings, self._upload)
        self.upload.upload(
            stream,
            [self.upload, self.space],
            [self.progress, self.upload, self.space, self.top, self.body],
            preprocess=False,
            trigger_mode="multiple",
            **QUIET,
        )

    def _reader(self, request: gr.Request) -> Reader:
        return reader_of(request, self._services.settings)

    def _list(self, reader: Reader) -> tuple[Any, ...]:
        spaces = self._services.knowledge.spaces()
        return "", spaces_head(reader.language), space_cards(spaces, reader.language), ""

    def _space(self, identity: str, reader: Reader) -> tuple[Any, ...]:
        space = self._services.knowledge.space(identity)
        documents = self._services.knowledge.documents(identity)
        top = space_head(space, reader.language)
        return identity, top, document_list(documents, space, reader), ""

    def _show(self, request: gr.Request) -> tuple[Any, ...]:
        return self._list(self._reader(request))

    def _open(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        return self._space(fact(event, "id"), self._reader(request))

    def _create(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        made = self._services.knowledge.create(fact(event, "value"))
        return self._space(made.id, self._reader(request))

    def _rename(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        self._services.knowledge.rename(fact(event, "id"), fact(event, "value"))
        return self._space(fact(event, "id"), self._reader(request))

    def _delete(self, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        self._services.knowledge.delete(fact(event, "id"))
        return self._list(self._reader(request))

    def _delete_document(self, space: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        self._services.knowledge.delete_document(space, fact(event, "id"))
        return self._space(space, self._reader(request))

    def _chunks(self, space: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        language = self._reader(request).language
        document = self._services.knowledge.document(space, fact(event, "id"))
        chunks = self._services.knowledge.chunks(space, document.id)
        return space, chunks_head(document, space, language), chunk_list(chunks, language), ""

    def _upload(self, files: list[dict[str, Any]] | None, space: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        reader = self._reader(request)
        batch = received(files)
        target = batch.space(self._services.knowledge, space)
        if target.id != space:
            yield "", gr.skip(), target.id, space_head(target, reader.language), ""
        try:
            for progress in uploading(self._services.knowledge, target.id, batch, reader.language):
                yield progress, gr.skip(), gr.skip(), gr.skip(), gr.skip()
        except UserError as error:
            toast(error.render(reader.language))
            yield "", gr.skip(), gr.skip(), gr.skip(), gr.skip()
        identity, top, body, _ = self._space(target.id, reader)
        yield gr.skip(), None, identity, top, body


def spaces_head(language: Language) -> Markup:
    """Title of the list of spaces and the way to a new one."""
    new = Markup(
        '<button type="button" id="new-space" class="button" data-action="create_space" data-prompt="{}" data-ok="{}">'
        "{}<span>{}</span></button>"
    ).format(say("new_space_name", language), say("create", language), icon("plus"), say("new_space", language))
    return Markup('<header class="page-head" data-view="spaces"><div><h1>{}</h1><p>{}</p></div>{}</header>').format(
        say("page_knowledge", language), say("knowledge_intro", language), new
    )


def space_cards(spaces: Sequence[Space], language: Language) -> Markup:
    """The spaces as cards."""
    cards = Markup("").join(
        Markup(
            '<button type="button" class="card space-card" data-action="open_space" data-id="{}">{}'
            "<b>{}</b><span>{}</span>{}</button>"
        ).format(
            space.id,
            icon("book"),
            space.name,
            _counts(space, language),
            Markup('<em class="tag">{}</em>').format(say("sample", language)) if space.readonly else "",
        )
        for space in spaces
    )
    if not spaces:
        cards = Markup('<p class="page-empty">{}</p>').format(say("no_spaces", language))
    return Markup('<div class="cards">{}</div>').format(cards)


def space_head(space: Space, language: Language) -> Markup:
    """Title of a space with what can be done to it."""
    tools = Markup("")
    if not space.readonly:
        tools = Markup(
            '<button type="button" class="icon-button" data-action="rename_space" data-id="{id}" data-prompt="{ask}" '
            'data-value="{name}" data-ok="{save}" title="{rename}" aria-label="{rename}">{pencil}</button>'
            '<button type="button" class="icon-button" data-action="delete_space" data-id="{id}" data-confirm="{sure}" '
            'data-ok="{delete}" title="{delete}" aria-label="{delete}">{trash}</button>'
        ).format(
            id=space.id,
            name=space.name,
            ask=say("new_space_name", language),
            save=say("save", language),
            rename=say("rename", language),
            delete=say("delete", language),
            sure=say("delete_space", language, name=space.name),
            pencil=icon("pencil"),
            trash=icon("trash"),
        )
    ask = Markup(
        '<button type="button" class="button ask-here" data-ask="documents" data-source="{}">{}<span>{}</span></button>'
    ).format(space.id, icon("chat"), say("ask_space", language))
    view = "sample-space" if space.readonly else "space"
    return Markup(
        '<header class="page-head" data-view="{}"><div>{}<h1>{}</h1><p>{}</p></div>'
        '<div class="head-tools">{}{}</div></header>'
    ).format(view, _back("show_knowledge", "", language), space.name, _counts(space, language), tools, ask)


def document_list(documents: Sequence[Document], space: Space, reader: Reader) -> Markup:
    """The documents of a space; failed ones say why."""
    language = reader.language
    if not documents:
        return Markup('<p class="page-empty">{}</p>').format(say("no_documents", language))
    rows = Markup("").join(_document(document, space, reader) for document in documents)
    return Markup('<ul class="documents">{}</ul>').format(rows)


def chunks_head(document: Document, space: str, language: Language) -> Markup:
    """Title of the chunks of a document."""
    return Markup('<header class="page-head" data-view="chunks"><div>{}<h1>{}</h1><p>{}</p></div></header>').format(
        _back("open_space", space, language), document.name, say("chunks_intro", language)
    )


def chunk_list(chunks: Sequence[Passage], language: Language) -> Markup:
    """The chunks as they are searched, in reading order."""
    if not chunks:
        return Markup('<p class="page-empty">{}</p>').format(say("no_chunks", language))
    rows = Markup("").join(
        Markup('<li class="chunk"><p class="chunk-head"><span>{}</span>{}</p><div>{}</div></li>').format(
            number, place(chunk, language), chunk.text
        )
        for number, chunk in enumerate(chunks[:MAX_CHUNKS], 1)
    )
    more = len(chunks) - MAX_CHUNKS
    note = Markup('<p class="table-note">{}</p>').format(say("more_chunks", language, count=more)) if more > 0 else ""
    return Markup('<ol class="chunks">{}</ol>{}').format(rows, note)


def _document(document: Document, space: Space, reader: Reader) -> Markup:
    language = reader.language
    facts = [
        size(document.size),
        say("pages", language, count=document.pages) if document.pages else "",
        say("passages", language, count=document.chunks) if document.chunks else "",
        say("document_pending", language) if document.status == "pending" else "",
        _date(document.added, reader),
    ]
    remove = Markup("")
    if not space.readonly:
        remove = Markup(
            '<button type="button" class="icon-button delete" data-action="delete_document" data-id="{id}" '
            'data-confirm="{sure}" data-ok="{label}" title="{label}" aria-label="{label}">{trash}</button>'
        ).format(
            id=document.id,
            sure=say("delete_document", language, name=document.name),
            label=say("delete", language),
            trash=icon("trash"),
        )
    return Markup(
        '<li class="document" data-status="{}">{}'
        '<button type="button" class="open" data-action="show_chunks" data-id="{}">'
        "<b>{}</b><span>{}</span></button>{}{}</li>"
    ).format(
        document.status,
        icon("file"),
        document.id,
        document.name,
        " · ".join(part for part in facts if part),
        remove,
        error_box(document.error.render(language)) if document.error else "",
    )


def _back(action: str, identity: str, language: Language) -> Markup:
    return Markup(
        '<button type="button" class="back text-button" data-action="{}" data-id="{}">{}<span>{}</span></button>'
    ).format(action, identity, icon("back"), say("back", language))


def _counts(space: Space, language: Language) -> str:
    documents = say("documents_one" if space.documents == 1 else "documents", language, count=space.documents)
    return f"{documents} · {say('passages', language, count=f'{space.chunks:,}')}"


def _date(seconds: float, reader: Reader) -> str:
    """The reader's date of a moment in seconds since 1970; "" for none."""
    if seconds <= 0:
        return ""
    return (datetime.fromtimestamp(seconds, UTC) + timedelta(minutes=reader.zone)).strftime("%Y-%m-%d")


def size(count: int) -> str:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
