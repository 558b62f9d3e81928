"""The Knowledge page: spaces, their documents, what was read from them, and everything on its way in."""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import NotFound
from dbgpt_lite.knowledge.loaders import READERS
from dbgpt_lite.knowledge.records import Space
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.adding import ways_in
from dbgpt_lite.ui.bridge import QUIET, Bridge, fact, telling, toast
from dbgpt_lite.ui.intake import Intake
from dbgpt_lite.ui.jobs_view import at_work, jobs_panel, previews_panel
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.spaces import (
    SpaceState,
    chunk_list,
    chunks_head,
    document_list,
    space_cards,
    space_head,
    spaces_head,
)
from dbgpt_lite.ui.uploads import pasted, received, space_for

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

Shown = tuple[Any, ...]


class KnowledgePage:
    """Components and handlers. `space` is the open one's id; "" shows the list."""

    def __init__(self, services: "Services", bridge: Bridge, intake: Intake) -> None:
        self._services = services
        self._bridge = bridge
        self._intake = intake
        with gr.Column(elem_id="page-knowledge", elem_classes="page"):
            self.top = gr.HTML("", elem_id="knowledge-top", js_on_load=None, apply_default_css=False)
            with gr.Row(elem_id="knowledge-upload"):
                self.upload = gr.UploadButton("", elem_id="space-upload", file_count="multiple")
                self.ways = gr.HTML("", elem_id="ways-in", js_on_load=None, apply_default_css=False)
            self.previews = gr.HTML("", elem_id="knowledge-previews", js_on_load=None, apply_default_css=False)
            self.progress = gr.HTML("", elem_id="knowledge-progress", js_on_load=None, apply_default_css=False)
            self.body = gr.HTML("", elem_id="knowledge-body", js_on_load=None, apply_default_css=False)
        self.space = gr.Textbox("", elem_id="space", visible="hidden")
        self.found = gr.Textbox("", elem_id="knowledge-found", visible="hidden")

    @property
    def shown(self) -> list[Any]:
        """Everything that a handler may draw, as outputs."""
        return [self.space, self.top, self.previews, self.progress, self.body]

    def wire(self) -> None:
        """Connect the events."""
        handlers: dict[str, Callable[..., Shown]] = {
            "show_knowledge": self._show,
            "open_space": self._show,
            "create_space": self._create,
            "rename_space": self._rename,
            "empty_space": self._empty,
            "delete_space": self._delete,
            "resume_space": self._resume,
            "reembed_space": self._reembed,
            "delete_document": self._delete_document,
            "show_chunks": self._chunks,
            "add_url": self._add_url,
            "add_text": self._add_text,
            "choose_encoding": self._choose_encoding,
            "index_held": self._index_held,
            "drop_held": self._drop_held,
            "stop_job": self._stop_job,
            "dismiss_job": self._dismiss_job,
        }
        for action, handler in handlers.items():
            self._bridge.on(action, telling(self._services.settings, handler), self.space, self.shown)
        self.upload.upload(
            telling(self._services.settings, self._upload),
            [self.upload, self.space],
            [self.upload, *self.shown],
            preprocess=False,
            trigger_mode="multiple",
            **QUIET,
        )

    @property
    def redrawn(self) -> list[Any]:
        """What page.js draws of a look in the background: the box it came in, head, progress and body."""
        return [self.found, self.top, self.progress, self.body]

    def words(self, language: Language) -> Markup:
        """The ways in beside the upload button."""
        return ways_in(sorted(READERS), language)

    def polled(self, space: str, event: gr.EventData, request: gr.Request) -> str:
        """What has changed since the page last looked, as JSON; the list only when a file has come or gone.

        The reader may be elsewhere by the time it arrives, so it goes back with `at`, where they were, and page.js
        draws it only if they still are.
        """
        reader = self._reader(request)
        view, seen = fact(event, "view"), fact(event, "seen")
        if view == "spaces":
            _, top, _, progress, body = self._list(reader)
        elif view in ("space", "sample-space") and space:
            _, top, _, progress, body = self._space(space, reader, ended=True, page=_number(event))
        else:
            return ""
        found = {"at": fact(event, "at"), "progress": progress}
        if f'data-seen="{seen}"' not in progress:
            found |= {"top": top, "body": body}
        return json.dumps(found)

    # --- What is shown

    def _reader(self, request: gr.Request) -> Reader:
        return reader_of(request, self._services.settings)

    def _own(self, identity: str, reader: Reader) -> Space:
        """A space the reader may see. Raises NotFound also for the throw-away space of somebody else."""
        for space in self._services.knowledge.spaces(reader.owner):
            if space.id == identity:
                return space
        raise NotFound("knowledge.no_space")

    def _list(self, reader: Reader) -> Shown:
        spaces = [space for space in self._services.knowledge.spaces() if not space.temporary]
        jobs, fetches = self._intake.running(spaces)
        busy = sorted({job.space_id for job in jobs} | {fetch.space_id for fetch in fetches})
        seen = f"{','.join(busy)}/{sum(space.documents for space in spaces)}"
        cards = space_cards(spaces, reader.language, busy)
        return "", spaces_head(reader.language), "", _marked(seen, Markup(""), bool(busy)), cards

    def _space(self, identity: str, reader: Reader, ended: bool = False, page: int = 1) -> Shown:
        """`ended`: also tell of the job that has just come to its end."""
        space, language = self._own(identity, reader), reader.language
        documents = self._services.knowledge.documents(identity)
        jobs, fetches = self._intake.jobs(identity, ended), self._intake.fetches(identity)
        active = [job for job in jobs if not job.over]
        other = not space.readonly and bool(documents) and self._services.knowledge.needs_reembedding(identity)
        state = SpaceState(at_work(jobs), bool(active), other)
        known = {document.name for document in documents if document.status == "failed"}
        seen = "/".join(map(str, (space.documents, space.chunks, len(documents), len(active), *state.at_work)))
        panel = jobs_panel(jobs, fetches, language, known)
        return (
            identity,
            space_head(space, language),
            previews_panel(self._intake.held(reader.owner, identity), language),
            _marked(seen, panel, False),
            document_list(documents, space, reader, state, page),
        )

    # --- Handlers; `space` is the id in the hidden box

    def _show(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        """A space, or the list; an address that leads nowhere opens the list."""
        reader, identity = self._reader(request), fact(event, "id")
        try:
            return self._space(identity, reader, page=_number(event)) if identity else self._list(reader)
        except NotFound as error:
            toast(error.render(reader.language))
            return self._list(reader)

    def _create(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        made = self._services.knowledge.create(fact(event, "value"))
        return self._space(made.id, self._reader(request))

    def _rename(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.rename(self._own(fact(event, "id"), reader).id, fact(event, "value"))
        return self._space(fact(event, "id"), reader)

    def _empty(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.empty(self._own(fact(event, "id"), reader).id)
        return self._space(fact(event, "id"), reader)

    def _delete(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.delete(self._own(fact(event, "id"), reader).id)
        return self._list(reader)

    def _resume(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.jobs.resume(self._own(fact(event, "id"), reader).id)
        return self._space(fact(event, "id"), reader, ended=True)

    def _reembed(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.jobs.reembed(self._own(fact(event, "id"), reader).id)
        return self._space(fact(event, "id"), reader, ended=True)

    def _delete_document(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._services.knowledge.delete_document(self._own(space, reader).id, fact(event, "id"))
        return self._space(space, reader, ended=True)

    def _chunks(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        document = self._services.knowledge.document(self._own(space, reader).id, fact(event, "id"))
        chunks = self._services.knowledge.chunks(space, document.id)
        rows = chunk_list(chunks, reader.language, document.id, _number(event), fact(event, "find"))
        return space, chunks_head(document, space, reader.language), "", "", rows

    def _upload(self, files: list[dict[str, Any]] | None, space: str, request: gr.Request) -> Shown:
        reader, uploads = self._reader(request), received(files)
        target = space_for(self._services.knowledge, self._own(space, reader) if space else None, uploads)
        self._intake.add(reader.owner, target.id, uploads)
        return None, *self._space(target.id, reader, ended=True)

    def _add_text(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        target = self._own(space, reader)
        self._intake.add(reader.owner, target.id, [pasted(fact(event, "title"), fact(event, "value"))])
        return self._space(space, reader, ended=True)

    def _add_url(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._intake.fetch(self._own(space, reader).id, fact(event, "value"))
        return self._space(space, reader, ended=True)

    def _choose_encoding(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader, skip = self._reader(request), gr.skip()
        self._intake.choose(reader.owner, fact(event, "id"), fact(event, "encoding"))
        held = self._intake.held(reader.owner, space)
        return skip, skip, previews_panel(held, reader.language), skip, skip

    def _index_held(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._intake.release(reader.owner, self._own(space, reader).id, index=True)
        return self._space(space, reader, ended=True)

    def _drop_held(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader = self._reader(request)
        self._intake.release(reader.owner, self._own(space, reader).id, index=False)
        return self._space(space, reader)

    def _stop_job(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader, identity = self._reader(request), fact(event, "id")
        self._own(self._intake.space_of(identity), reader)
        self._intake.stop(identity)
        return self._space(space, reader, ended=True)

    def _dismiss_job(self, space: str, event: gr.EventData, request: gr.Request) -> Shown:
        reader, identity = self._reader(request), fact(event, "id")
        self._own(self._intake.space_of(identity), reader)
        self._intake.dismiss(identity)
        return self._space(space, reader)


def _marked(seen: str, panel: Markup, running: bool) -> Markup:
    """The panel with a mark of what it was drawn from; page.js sends it along and looks again while something runs."""
    mark = Markup('<i class="mark" data-seen="{}"{}></i>')
    digest = hashlib.sha256(seen.encode()).hexdigest()[:16]
    return mark.format(digest, Markup(" data-running") if running else "") + panel


def _number(event: gr.EventData) -> int:
    """The page asked for; the first one for anything that is no number."""
    value = fact(event, "page")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 7 else 1
