"""What a reader does with a result: turn its pages, change its chart, save it, edit its query, rate it.

A result is named as queries.js sends it: "answer:12" is the stored answer of that message, "kept:..." one of the Data
page. Replies go to queries.js as new drawings of parts of the page; the rest of the page stays as it is.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from dbgpt_lite.errors import Cancelled, NotFound, UserError
from dbgpt_lite.messages import Answer, ChartSpec, ResultTable
from dbgpt_lite.sql.charts import checked
from dbgpt_lite.store import StoredMessage
from dbgpt_lite.ui.bridge import QUIET, SAVE_FILE, Bridge, fact, sentence, telling
from dbgpt_lite.ui.desk import QueryDesk
from dbgpt_lite.ui.downloads import download
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.kept import KeptResults
from dbgpt_lite.ui.render import answer_body, error_box, of_answer
from dbgpt_lite.ui.result import chart_block, chosen_chart, explanation
from dbgpt_lite.ui.runs import Runs
from dbgpt_lite.ui.session import Reader, reader_of
from dbgpt_lite.ui.tables import PAGE_SIZES, result_table

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

# Puts new drawings in their places; "" so that the same drawing twice is a change.
PATCH = "(parts) => { if (parts) window.dbgpt.patch(parts); return ''; }"


@dataclass(frozen=True, slots=True)
class _Turn:
    """A stored answer with its question; `last`: no question comes after it."""

    question: StoredMessage
    stored: int
    answer: Answer
    last: bool


@dataclass(frozen=True, slots=True)
class _Result:
    """Rows that can be looked at. `connection` and `sql` are where they came from."""

    table: ResultTable
    connection: str
    sql: str
    chart: ChartSpec | None = None
    title: str = ""


class ResultTools:
    """Handlers, and the results of the Data page that they work on."""

    def __init__(self, services: "Services", desk: QueryDesk, bridge: Bridge) -> None:
        self._services = services
        self._desk = desk
        self._bridge = bridge
        self.kept = KeptResults()
        self.runs = Runs()
        self.parts = gr.Textbox("", visible="hidden")
        self.file = gr.Textbox("", visible="hidden")

    def wire(self, conversation: gr.Textbox) -> None:
        """Connect the events; `conversation` holds the open one's id."""
        settings, on = self._services.settings, self._bridge.on
        for action, handler in (("rows", self._rows), ("chart", self._chart), ("rate", self._rate)):
            self._patched(on(action, telling(settings, handler), conversation, self.parts))
        self._patched(on("explain_sql", telling(settings, self._explain), conversation, self.parts))
        self._patched(on("rerun_sql", self._rerun, conversation, self.parts, concurrency_limit=None))
        on("cancel_sql", telling(settings, self._cancel), queue=False)
        on("save_rows", telling(settings, self._save), conversation, self.file).then(
            None, self.file, self.file, js=SAVE_FILE, **QUIET
        )

    def _patched(self, event: Any) -> None:
        event.then(None, self.parts, self.parts, js=PATCH, **QUIET)

    # --- Looking

    def _rows(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        reader, of = self._reader(request), fact(event, "of")
        table = self._result(reader, conversation, of).table
        size = _number(fact(event, "size"))
        size = size if size in PAGE_SIZES else PAGE_SIZES[0]
        return patch("rows", of, result_table(table, reader.language, of, _number(fact(event, "page")), size))

    def _chart(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        """A choice among those that fit; that of an answer is kept with it."""
        reader, of = self._reader(request), fact(event, "of")
        result = self._result(reader, conversation, of)
        spec = checked(chosen_chart({name: fact(event, name) for name in ("kind", "x", "y")}), result.table)
        if (stored := _stored_id(of)) is not None:
            self._desk.redraw(reader.owner, conversation, stored, spec)
        return patch("chart", of, chart_block(result.table, spec, reader.language, of, result.title))

    def _explain(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        """In steps; of an answer, the query that stands there, else the one sent along."""
        reader, of = self._reader(request), fact(event, "of")
        if _stored_id(of) is not None:
            result = self._result(reader, conversation, of)
            connection, sql = result.connection, fact(event, "sql") or result.sql
        else:
            connection, sql = fact(event, "connection"), fact(event, "sql")
        steps = self._desk.explain(connection, sql, reader.language)
        return patch("explained", of, explanation(steps))

    def _save(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        """All rows within the limits of the connection; a conversation may keep only the first of them."""
        reader = self._reader(request)
        result = self._result(reader, conversation, fact(event, "of"))
        table = result.table
        if table.truncated and result.sql and len(table.rows) < self._services.settings.sql_row_limit:
            table = self._desk.run(reader.owner, result.connection, result.sql, Event())
        return download(table, fact(event, "format"))

    # --- Changing

    def _rate(self, conversation: str, event: gr.EventData, request: gr.Request) -> str:
        reader, of = self._reader(request), fact(event, "of")
        turn = self._turn(reader, conversation, of)
        yes = {"true": True, "false": False}.get(fact(event, "yes"))
        answer = self._desk.accept(reader.owner, conversation, turn.stored, yes)
        body = answer_body(answer, turn.question, turn.stored, reader.language, turn.last)
        return patch("answer", of, body)

    def _rerun(self, conversation: str, event: gr.EventData, request: gr.Request) -> Iterator[Any]:
        """The edited query takes the answer's place; what is wrong with it is said where it is edited."""
        reader, of, sql = self._reader(request), fact(event, "of"), fact(event, "sql")
        try:
            turn = self._turn(reader, conversation, of)
            with self.runs.start(
                reader.owner,
                fact(event, "ticket"),
                lambda cancel: self._desk.rerun(reader.owner, conversation, turn.stored, sql, cancel),
            ) as run:
                for _ in run.beats():
                    yield gr.skip()
                answer = run.result()
            yield patch("answer", of, answer_body(answer, turn.question, turn.stored, reader.language, turn.last))
        except (UserError, Cancelled) as problem:
            yield patch("problem", of, problem_box(problem, reader, self._services))
        except Exception as error:
            message = sentence(error, (request,), self._services.settings)
            yield patch("problem", of, error_box(message))

    def _cancel(self, event: gr.EventData, request: gr.Request) -> None:
        """Stop a query in its server; its run then ends by itself."""
        self.runs.cancel(self._reader(request).owner, fact(event, "ticket"))

    # --- Finding

    def _reader(self, request: gr.Request) -> Reader:
        return reader_of(request, self._services.settings)

    def _result(self, reader: Reader, conversation: str, of: str) -> _Result:
        if _stored_id(of) is None:
            kept = self.kept.get(reader.owner, of.removeprefix("kept:"))
            return _Result(kept.table, kept.connection, kept.sql)
        turn = self._turn(reader, conversation, of)
        answer = turn.answer
        if answer.table is None:
            raise NotFound("ui.no_rows_kept")
        return _Result(answer.table, answer.source, answer.sql, answer.chart, answer.asked or turn.question.content)

    def _turn(self, reader: Reader, conversation: str, of: str) -> _Turn:
        """Raises NotFound for an answer that is not there, or not the reader's."""
        stored = self._services.store.messages(reader.owner, conversation) if conversation else []
        asked = [message for message in stored if message.role == "user"]
        for message in stored:
            if message.answer is not None and of_answer(message.id) == of:
                question = max((one for one in asked if one.id < message.id), key=lambda one: one.id)
                return _Turn(question, message.id, message.answer, question is asked[-1])
        raise NotFound("ui.no_rows_kept")


def patch(part: str, of: str, drawing: Markup | str) -> str:
    """One new drawing, for queries.js."""
    return json.dumps([{"part": part, "of": of, "html": str(drawing)}])


def problem_box(problem: Exception, reader: Reader, services: "Services") -> Markup:
    """Why a query brought no rows."""
    if isinstance(problem, Cancelled):
        return Markup('<p class="stopped" role="status">{}</p>').format(say("sql_stopped", reader.language))
    return error_box(
        problem.render(reader.language) if isinstance(problem, UserError) else say("failed", reader.language)
    )


def _stored_id(of: str) -> int | None:
    """The message id in "answer:12"."""
    kind, _, number = of.partition(":")
    return int(number) if kind == "answer" and number.isascii() and number.isdigit() and len(number) < 19 else None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
