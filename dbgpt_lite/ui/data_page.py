"""The Data page: connections, their tables, and a place to run one's own query behind the same fences."""

from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.bridge import QUIET, SAVE_FILE, Bridge, fact, telling
from dbgpt_lite.ui.figures import duration
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.markdown import code_block
from dbgpt_lite.ui.picker import Picker
from dbgpt_lite.ui.render import error_box
from dbgpt_lite.ui.session import reader_of
from dbgpt_lite.ui.tables import download, result_table, to_csv

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services
    from dbgpt_lite.sql.grants import AccountWarning
    from dbgpt_lite.sql.schema import Schema, TableInfo


class DataPage:
    """Components and handlers."""

    def __init__(self, services: "Services", bridge: Bridge) -> None:
        self._services = services
        self._bridge = bridge
        with gr.Column(elem_id="page-data", elem_classes="page"):
            self.top = gr.HTML("", elem_id="data-top", js_on_load=None, apply_default_css=False)
            with gr.Row(elem_id="data-columns"):
                with gr.Column(elem_id="data-schema"):
                    self.connection = Picker("connection")
                    self.schema = gr.HTML("", elem_id="schema", js_on_load=None, apply_default_css=False)
                with gr.Column(elem_id="data-query"):
                    self.sql = gr.Textbox("", elem_id="sql-editor", lines=6, max_lines=20, container=False)
                    with gr.Row(elem_id="sql-bar"):
                        self.hint = gr.HTML("", elem_id="sql-hint", js_on_load=None, apply_default_css=False)
                        self.run = gr.Button("", elem_id="run-sql")
                    self.result = gr.HTML("", elem_id="sql-result", js_on_load=None, apply_default_css=False)
        self.file = gr.Textbox("", visible="hidden")

    def wire(self) -> None:
        """Connect the events."""
        settings = self._services.settings
        self._bridge.on(
            "show_data",
            telling(settings, self._show),
            self.connection.value,
            [self.top, *self.connection.both, self.schema],
        )
        self.connection.value.change(telling(settings, self._schema), self.connection.value, self.schema, **QUIET)
        self.run.click(telling(settings, self._run), [self.connection.value, self.sql], self.result, **QUIET)
        self._bridge.on("table_csv", telling(settings, self._csv), None, self.file).then(
            None, self.file, self.file, js=SAVE_FILE, **QUIET
        )

    def _show(self, chosen: str, request: gr.Request) -> tuple[Any, ...]:
        reader = reader_of(request, self._services.settings)
        names = self._services.databases.names()
        picker = self.connection.options([(name, name) for name in names], chosen, say("source", reader.language))
        tables = self._schema_html(picker[1], reader.language)
        return data_head(reader.language), *picker, tables

    def _schema(self, name: str, request: gr.Request) -> Markup:
        # The result below stays: it may be newer than this answer of a slow server.
        return self._schema_html(name, reader_of(request, self._services.settings).language)

    def _schema_html(self, name: str, language: Language) -> Markup:
        """The tables of a connection, or why it cannot be reached: the page itself stays usable."""
        if not name:
            return error_box(say("no_connections", language))
        try:
            database = self._services.databases.get(name)
            tree = schema_tree(database.schema(refresh=True), database.name, database.dialect, language)
            return account_notice(database.account_warning(), language) + tree
        except UserError as error:
            return error_box(error.render(language))

    def _run(self, name: str, sql: str, request: gr.Request) -> Markup | str:
        reader = reader_of(request, self._services.settings)
        if not sql.strip():
            return ""
        try:
            table = self._services.databases.get(name).run(sql, who=reader.owner, origin="editor")
            return query_result(table, reader.language, name, sql)
        except UserError as error:
            return error_box(error.render(reader.language))

    def _csv(self, event: gr.EventData, request: gr.Request) -> str:
        """The rows of the query that was run, whatever stands in the editor by now."""
        database = self._services.databases.get(fact(event, "connection"))
        who = reader_of(request, self._services.settings).owner
        return download("result.csv", to_csv(database.run(fact(event, "sql"), who=who, origin="editor")))


def data_head(language: Language) -> Markup:
    """Title of the page."""
    return Markup('<header class="page-head"><div><h1>{}</h1><p>{}</p></div></header>').format(
        say("page_data", language), say("data_intro", language)
    )


def schema_tree(schema: "Schema", name: str, dialect: str, language: Language) -> Markup:
    """Tables to unfold; each offers its first rows."""
    tables = Markup("").join(_table(table, language) for table in schema.tables)
    if not schema.tables:
        tables = Markup('<p class="page-empty">{}</p>').format(say("no_tables", language))
    ask = Markup(
        '<button type="button" class="text-button ask-here" data-ask="database" data-source="{}">'
        "{}<span>{}</span></button>"
    ).format(name, icon("chat"), say("ask_database", language))
    summary = say("schema_summary", language, tables=len(schema.tables), dialect=_DIALECTS.get(dialect, dialect))
    return Markup('<div class="schema-head"><span>{}</span>{}</div><div class="tables">{}</div>').format(
        summary, ask, tables
    )


def account_notice(warning: "AccountWarning | None", language: Language) -> Markup:
    """What an account may do beyond reading, and the statements that make one that may not."""
    if warning is None:
        return Markup("")
    what = say("account_warning", language, privileges=", ".join(warning.privileges))
    return Markup('<details class="account-warning"><summary>{}<span>{}</span></summary><p>{}</p>{}</details>').format(
        icon("alert"),
        what,
        say("account_advice", language),
        code_block("\n".join(warning.statements), "sql", say("copy", language)),
    )


def query_result(table: ResultTable, language: Language, connection: str = "", sql: str = "") -> Markup:
    """The rows of one's own query; the download carries the query that made them."""
    if not table.rows:
        return Markup('<p class="table-note">{}</p>').format(say("no_rows", language))
    save = Markup(
        '<button type="button" class="csv text-button" data-action="table_csv" data-connection="{}" data-sql="{}" '
        'title="{}">{}<span>{}</span></button>'
    )
    button = save.format(connection, sql, say("csv_hint", language), icon("download"), say("csv", language))
    bar = Markup('<div class="result-bar"><span class="took">{}</span>{}</div>').format(
        duration(table.seconds, language), button
    )
    return Markup('<div class="result">{}{}</div>').format(result_table(table, language), bar)


_DIALECTS = {"sqlite": "SQLite", "mysql": "MySQL"}


def _table(table: "TableInfo", language: Language) -> Markup:
    keys = {column: key.target for key in table.foreign_keys for column in key.columns}
    columns = Markup("").join(
        Markup('<li><span class="column">{}</span><span class="type">{}</span><span class="key">{}</span></li>').format(
            column.name,
            column.type.lower(),
            say("primary_key", language)
            if column.primary_key
            else f"→ {keys[column.name]}"
            if column.name in keys
            else "",
        )
        for column in table.columns
    )
    look = Markup('<button type="button" class="text-button peek" data-table="{}">{}<span>{}</span></button>').format(
        table.name, icon("table"), say("first_rows", language)
    )
    comment = Markup('<p class="comment">{}</p>').format(table.comment) if table.comment else ""
    return Markup('<details class="table"><summary><b>{}</b><span>{}</span></summary>{}<ul>{}</ul>{}</details>').format(
        table.name, say("columns", language, count=len(table.columns)), comment, columns, look
    )
