"""The Data page: connections, their tables, and a place to run one's own query behind the same fences."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import Cancelled, NotFound, UserError
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.bridge import QUIET, Bridge, fact, sentence, telling
from dbgpt_lite.ui.data_view import account_notice, data_head, editor, schema_tree, shelf
from dbgpt_lite.ui.desk import Queries, QueryDesk
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.picker import Picker
from dbgpt_lite.ui.render import error_box
from dbgpt_lite.ui.result import result_block
from dbgpt_lite.ui.result_tools import ResultTools, problem_box
from dbgpt_lite.ui.session import Reader, reader_of

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

SHOWN_ROWS = 50
PAST_QUERIES = 30


class DataPage:
    """Components and handlers."""

    def __init__(
        self, services: "Services", desk: QueryDesk, queries: Queries, bridge: Bridge, tools: ResultTools
    ) -> None:
        self._services = services
        self._desk = desk
        self._queries = queries
        self._bridge = bridge
        self._tools = tools
        with gr.Column(elem_id="page-data", elem_classes="page"):
            self.top = gr.HTML("", elem_id="data-top", js_on_load=None, apply_default_css=False)
            with gr.Row(elem_id="data-columns"):
                with gr.Column(elem_id="data-schema"):
                    self.connection = Picker("connection")
                    self.shelf = gr.HTML("", elem_id="shelf", js_on_load=None, apply_default_css=False)
                    self.schema = gr.HTML("", elem_id="schema", js_on_load=None, apply_default_css=False)
                with gr.Column(elem_id="data-query"):
                    self.editor = gr.HTML("", elem_id="sql-editor", js_on_load=None, apply_default_css=False)
                    self.result = gr.HTML("", elem_id="sql-result", js_on_load=None, apply_default_css=False)

    def wire(self) -> None:
        """Connect the events."""
        settings, on, chosen = self._services.settings, self._bridge.on, self.connection.value
        shown = [self.top, *self.connection.both, self.schema, self.shelf]
        on("show_data", telling(settings, self._show), chosen, shown)
        on("reread_schema", telling(settings, self._reread), chosen, self.schema)
        chosen.change(telling(settings, self._chosen), chosen, [self.schema, self.shelf], **QUIET)
        on("run_sql", self._run, chosen, [self.result, self.shelf], concurrency_limit=None)
        for action, handler in (
            ("save_query", self._save),
            ("rename_query", self._rename),
            ("delete_query", self._delete),
        ):
            on(action, telling(settings, handler), chosen, self.shelf)

    def words(self, language: Language) -> Markup:
        """The editor in the reader's language."""
        return editor(language)

    def _show(self, chosen: str, request: gr.Request) -> tuple[Any, ...]:
        reader = self._reader(request)
        names = self._services.databases.names()
        picker = self.connection.options([(name, name) for name in names], chosen, say("source", reader.language))
        tables = self._schema_html(picker[1], reader.language)
        return data_head(reader.language), *picker, tables, self._shelf(reader, picker[1])

    def _chosen(self, name: str, request: gr.Request) -> tuple[Markup, Markup]:
        # The result below stays: it may be newer than this answer of a slow server.
        reader = self._reader(request)
        return self._schema_html(name, reader.language), self._shelf(reader, name)

    def _reread(self, name: str, request: gr.Request) -> Markup:
        return self._schema_html(name, self._reader(request).language, reread=True)

    def _schema_html(self, name: str, language: Language, reread: bool = False) -> Markup:
        """The tables of a connection, or why it cannot be reached: the page itself stays usable."""
        if not name:
            return error_box(say("no_connections", language))
        try:
            database = self._services.databases.get(name)
            schema = database.schema(refresh=True) if reread else database.recent_schema()
            tree = schema_tree(schema, database.name, database.dialect, language)
            return account_notice(database.account_warning(), language) + tree
        except UserError as error:
            return error_box(error.render(language))

    def _shelf(self, reader: Reader, name: str) -> Markup:
        if not name:
            return Markup("")
        past = self._queries.audit.history(reader.owner, name, PAST_QUERIES)
        return shelf(self._queries.saved.of(reader.owner, name), past, reader)

    def _run(self, name: str, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, Any]]:
        """The rows of the query that was sent along, in pages; while it runs, it can be stopped."""
        reader, sql = self._reader(request), fact(event, "sql").strip()
        try:
            with self._tools.runs.start(
                reader.owner, fact(event, "ticket"), lambda cancel: self._desk.run(reader.owner, name, sql, cancel)
            ) as run:
                for _ in run.beats():
                    yield gr.skip(), gr.skip()
                table = run.result()
            of = f"kept:{self._tools.kept.keep(reader.owner, name, sql, table)}"
            rows = result_block(table, reader.language, of, size=SHOWN_ROWS)
            shown = Markup('<div class="result">{}</div>').format(rows)
        except (UserError, Cancelled) as problem:
            shown = problem_box(problem, reader, self._services)
        except Exception as error:
            shown = error_box(sentence(error, (request,), self._services.settings))
        yield shown + _ended(fact(event, "ticket")), self._shelf(reader, name)

    def _save(self, name: str, event: gr.EventData, request: gr.Request) -> Markup:
        reader = self._reader(request)
        self._services.databases.get(name)
        self._queries.saved.save(reader.owner, name, fact(event, "value"), fact(event, "sql"))
        return self._shelf(reader, name)

    def _rename(self, name: str, event: gr.EventData, request: gr.Request) -> Markup:
        """Saved under its new name, then removed under its old one: a fault in between loses nothing."""
        reader = self._reader(request)
        query = next((q for q in self._queries.saved.of(reader.owner, name) if str(q.id) == fact(event, "id")), None)
        if query is None:
            raise NotFound("ui.no_saved_query")
        if fact(event, "value").strip() != query.name:
            kept = self._queries.saved.save(reader.owner, name, fact(event, "value"), query.sql)
            if kept.id != query.id:
                self._queries.saved.remove(reader.owner, query.id)
        return self._shelf(reader, name)

    def _delete(self, name: str, event: gr.EventData, request: gr.Request) -> Markup:
        reader, identity = self._reader(request), fact(event, "id")
        if identity.isascii() and identity.isdigit() and len(identity) < 19:
            self._queries.saved.remove(reader.owner, int(identity))
        return self._shelf(reader, name)

    def _reader(self, request: gr.Request) -> Reader:
        return reader_of(request, self._services.settings)


def _ended(ticket: str) -> Markup:
    """Tells queries.js which run this is the end of."""
    return Markup('<i class="mark" data-ticket="{}"></i>').format(ticket)
