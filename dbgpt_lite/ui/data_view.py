"""The Data page as HTML: tables, the account's notice, the editor, saved queries and history. Pure; all escaped."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from markupsafe import Markup

from dbgpt_lite.texts import Language
from dbgpt_lite.ui.desk import PastQuery, SavedQuery
from dbgpt_lite.ui.figures import duration
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.markdown import code_block
from dbgpt_lite.ui.result import part
from dbgpt_lite.ui.session import Reader

if TYPE_CHECKING:
    from dbgpt_lite.sql.grants import AccountWarning
    from dbgpt_lite.sql.schema import Schema, TableInfo

EDITOR = "editor"
"""How the parts of the editor name it to queries.js."""
_LINE = 90


def data_head(language: Language) -> Markup:
    """Title of the page."""
    return Markup('<header class="page-head"><div><h1>{}</h1><p>{}</p></div></header>').format(
        say("page_data", language), say("data_intro", language)
    )


def schema_tree(schema: "Schema", name: str, dialect: str, language: Language) -> Markup:
    """Tables to unfold; each offers its first rows. They can be read anew."""
    tables = Markup("").join(_table(table, language) for table in schema.tables)
    if not schema.tables:
        tables = Markup('<p class="page-empty">{}</p>').format(say("no_tables", language))
    ask = Markup(
        '<button type="button" class="text-button ask-here" data-ask="database" data-source="{}">'
        "{}<span>{}</span></button>"
    ).format(name, icon("chat"), say("ask_database", language))
    words = say("reread_schema", language)
    reread = Markup(
        '<button type="button" class="icon-button reread" data-action="reread_schema" title="{}" aria-label="{}">{}'
        "</button>"
    ).format(words, words, icon("again"))
    summary = say("schema_summary", language, tables=len(schema.tables), dialect=_DIALECTS.get(dialect, dialect))
    return Markup('<div class="schema-head"><span>{}</span>{}{}</div><div class="tables">{}</div>').format(
        summary, reread, ask, tables
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


def editor(language: Language) -> Markup:
    """A place to write a query, coloured while it is written by queries.js, with what can be done with it."""
    label, write = say("sql_editor", language), say("sql_placeholder", language)
    area = Markup(
        '<div class="sql-edit"><pre aria-hidden="true"><code></code></pre>'
        '<textarea rows="6" spellcheck="false" autocapitalize="off" autocomplete="off" aria-label="{}" '
        'placeholder="{}"></textarea></div>'
    ).format(label, write)
    run = Markup(
        '<button type="button" id="run-sql" class="button">{}</button>'
        '<button type="button" id="cancel-sql" class="button plain" data-action="cancel_sql">{}</button>'
    ).format(say("run", language), say("stop", language))
    tools = Markup(
        '<button type="button" class="explain-sql text-button" data-of="{}" title="{}">{}<span>{}</span></button>'
        '<button type="button" class="save-sql text-button" data-action="save_query" data-with="#sql-editor" '
        'data-prompt="{}">{}<span>{}</span></button>'
    ).format(
        EDITOR, say("explain_hint", language), icon("bulb"), say("explain_sql", language),
        say("save_query_name", language), icon("save"), say("save", language),
    )  # fmt: skip
    hint = Markup('<span class="hint">{}</span>').format(say("sql_hint", language))
    return area + Markup('<div id="sql-bar">{}{}{}</div>').format(run, tools, hint) + part("explained", EDITOR)


def shelf(saved: Sequence[SavedQuery], past: Sequence[PastQuery], reader: Reader) -> Markup:
    """One's own queries on this connection: those saved by name, and those that were run, newest first."""
    language = reader.language
    kept = Markup("").join(_saved(query, language) for query in saved)
    ran = Markup("").join(_past(query, reader) for query in past)
    return _fold("saved", "save", kept, len(saved), language) + _fold("past", "clock", ran, len(past), language)


def _fold(name: str, picture: str, items: Markup, count: int, language: Language) -> Markup:
    if not items:
        items = Markup('<li class="none">{}</li>').format(say(f"no_{name}_queries", language))
    return Markup(
        '<details class="shelf {}"><summary>{}<b>{}</b><span>{}</span></summary><ul>{}</ul></details>'
    ).format(name, icon(picture), say(f"{name}_queries", language), count or "", items)


def _saved(query: SavedQuery, language: Language) -> Markup:
    rename, remove = say("rename", language), say("delete", language)
    return Markup(
        '<li><button type="button" class="use-sql" data-sql="{}"><b>{}</b><code>{}</code></button>'
        '<button type="button" class="rename" data-action="rename_query" data-id="{}" data-value="{}" data-prompt="{}" '
        'title="{}" aria-label="{}">{}</button>'
        '<button type="button" class="delete" data-action="delete_query" data-id="{}" data-confirm="{}" data-ok="{}" '
        'title="{}" aria-label="{}">{}</button></li>'
    ).format(
        query.sql, query.name, _one_line(query.sql),
        query.id, query.name, say("save_query_name", language), rename, rename, icon("pencil"),
        query.id, say("delete_query", language, name=query.name), remove, remove, remove, icon("trash"),
    )  # fmt: skip


def _past(query: PastQuery, reader: Reader) -> Markup:
    when = query.started.astimezone(UTC) + timedelta(minutes=reader.zone)
    today = datetime.now(UTC) + timedelta(minutes=reader.zone)
    shown = when.strftime("%H:%M" if when.date() == today.date() else "%Y-%m-%d %H:%M")
    return Markup(
        '<li data-outcome="{}"><button type="button" class="use-sql" data-sql="{}"><code>{}</code><span>{}</span>'
        "</button></li>"
    ).format(query.outcome, query.asked, _one_line(query.asked), " · ".join([shown, *_end(query, reader.language)]))


def _end(query: PastQuery, language: Language) -> list[str]:
    """How a query ended: its rows and how long it took, or that it did not bring any."""
    if query.outcome != "ok":
        known = query.outcome in ("cancelled", "timeout", "running")
        return [say(f"outcome_{query.outcome}" if known else "outcome_failed", language)]
    rows = query.rows or 0
    took = duration((query.milliseconds or 0) / 1000, language)
    return [say("rows_one" if rows == 1 else "rows", language, count=f"{rows:,}"), took]


def _one_line(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"
