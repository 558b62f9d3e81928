"""Files thrown into one conversation: a temporary space of their owner, shown as chips above the box to ask in.

The space goes with its conversation. Only its owner can name it, and `keep` makes it a space like any other.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from dbgpt_lite.errors import NotFound
from dbgpt_lite.knowledge.records import Document, Job, Space, Upload
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.intake import Intake
from dbgpt_lite.ui.jobs_view import FINISHED, encoding_name
from dbgpt_lite.ui.spaces import kind_tile
from dbgpt_lite.ui.uploads import MAX_NAME

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services


class ThrowAway:
    """Space ids come from the browser; each is looked up among the owner's own."""

    def __init__(self, services: "Services", intake: Intake) -> None:
        self._services = services
        self._intake = intake

    def space(self, owner: str, identity: str) -> Space | None:
        """The owner's temporary space of this id."""
        for space in self._services.knowledge.spaces(owner) if identity else ():
            if space.id == identity and space.temporary:
                return space
        return None

    def of_conversation(self, owner: str, conversation: str) -> str:
        """Id of the temporary space that a conversation has asked or is set to ask; "" for none."""
        if not conversation:
            return ""
        used = self._services.store.sources(owner, conversation)
        own = [space.id for space in self._services.knowledge.spaces(owner) if space.temporary]
        return next((identity for identity in reversed(own) if identity in used), "")

    def take(self, owner: str, attached: str, uploads: Sequence[Upload]) -> Space:
        """Begin to index files for one conversation, beside those it has already."""
        space = self.space(owner, attached)
        if space is None:
            name = uploads[0].name.rsplit("/", 1)[-1][:MAX_NAME]
            space = self._services.knowledge.create_temporary(owner, name)
        self._intake.start(space.id, uploads)
        return space

    def keep(self, owner: str, identity: str, name: str) -> Space:
        """Make it a space like any other. Raises NotFound, UserError for a name that is taken."""
        return self._services.knowledge.keep(self._owned(owner, identity).id, name)

    def remove(self, owner: str, identity: str) -> None:
        """Delete it with what is still on its way into it. Raises NotFound."""
        space = self._owned(owner, identity)
        for job in self._services.knowledge.jobs.of_space(space.id):
            self._services.knowledge.jobs.cancel(job.id)
        self._services.knowledge.delete(space.id)

    def remove_with(self, owner: str, conversation: str) -> None:
        """Delete a conversation together with the files that were thrown into it."""
        used = self._services.store.sources(owner, conversation)
        self._services.store.delete(owner, conversation)
        for identity in used - self._services.store.sources_in_use():
            if self.space(owner, identity):
                self.remove(owner, identity)

    def is_useless(self, space: Space) -> bool:
        """Whether nothing could be read and nothing is on its way."""
        jobs = self._services.knowledge.jobs.of_space(space.id)
        return not space.documents and not space.pending and bool(jobs) and all(job.over for job in jobs)

    def chips(self, owner: str, identity: str, language: Language) -> Markup:
        """The files of a temporary space with how far they are."""
        space = self.space(owner, identity)
        if space is None:
            return Markup("")
        documents = self._services.knowledge.documents(space.id)
        return chip_row(space, documents, self._services.knowledge.jobs.of_space(space.id), language)

    def _owned(self, owner: str, identity: str) -> Space:
        space = self.space(owner, identity)
        if space is None:
            raise NotFound("knowledge.no_space")
        return space


def chip_row(space: Space, documents: Sequence[Document], jobs: Sequence[Job], language: Language) -> Markup:
    """One chip a file, the newest first, then what can be done with them."""
    running = any(not job.over for job in jobs)
    chips = {document.name: _kept(document, running, language) for document in documents}
    ready = any(document.status == "ready" for document in documents)
    for line in (line for job in jobs for line in job.files):
        if line.state == "failed" and line.file not in chips:
            reason = line.error.render(language) if line.error else say("upload_failed", language)
            chips[line.file] = _chip(line.file, "failed", reason)
        elif line.state not in FINISHED and running:
            percent = round(100 * line.chunks_done / line.chunks_total) if line.chunks_total else 0
            chips[line.file] = _chip(line.file, "reading", say("chip_reading", language, percent=percent), percent)
    if running and not chips:
        chips[space.name] = _chip(space.name, "waiting", say("chip_waiting", language))
    return Markup('<div class="chips" data-attached="{}"{}>{}{}</div>').format(
        space.id,
        Markup(" data-running") if running else "",
        Markup("").join(chips.values()),
        _tools(space, language, keep=ready),
    )


def _kept(document: Document, running: bool, language: Language) -> Markup:
    if document.status == "ready":
        return _ready(document, language)
    if document.status == "failed":
        reason = document.error.render(language) if document.error else say("upload_failed", language)
        return _chip(document.name, "failed", reason)
    return _chip(document.name, "waiting", say("chip_waiting" if running else "status_pending", language))


def _ready(document: Document, language: Language) -> Markup:
    facts = [say("this_chat_only", language)]
    if document.encoding and document.encoding.lower() not in ("utf-8", "ascii"):
        facts.append(encoding_name(document.encoding).split(" · ")[0])
    return _chip(document.name, "ready", " · ".join(facts))


def _chip(name: str, state: str, note: str, percent: int | None = None) -> Markup:
    bar = Markup("")
    if percent is not None:
        bar = Markup('<i class="bar"><i style="width:{}%"></i></i>').format(percent)
    return Markup('<span class="chip" data-state="{}">{}<b title="{}">{}</b><span>{}</span>{}</span>').format(
        state, kind_tile(name), name, name, note, bar
    )


def _tools(space: Space, language: Language, keep: bool) -> Markup:
    kept = Markup(
        '<button type="button" class="text-button keep" data-action="keep_space" data-id="{}" data-prompt="{}" '
        'data-value="{}" data-ok="{keep}" title="{}">{keep}</button>'
    ).format(
        space.id,
        say("keep_name", language),
        space.name.rsplit(".", 1)[0],
        say("keep_hint", language),
        keep=say("keep", language),
    )
    gone = Markup(
        '<button type="button" class="icon-button detach" data-action="detach" data-id="{}" title="{}" '
        'aria-label="{}">{}</button>'
    ).format(space.id, say("remove_file", language), say("remove_file", language), icon("close"))
    return Markup('<span class="chip-tools">{}{}</span>').format(kept if keep else "", gone)
