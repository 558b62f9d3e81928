"""A question in plain words -> a checked query and its rows, in at most MAX_ATTEMPTS attempts, each of them reported.

The model writes a query greedily; the guard, the database's EXPLAIN and a look-up of its values judge it. What follows
a failure is a matter of the model: one that has a repair prompt is told the problem and tries again. One that has none
(the small built-in model) has its query corrected where the schema and the values leave one way to do it, else it
offers its beams, of which the first that passes counts as the attempt.
"""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

from dbgpt_lite.chat import budget
from dbgpt_lite.chat.answerable import Answerable
from dbgpt_lite.chat.recall import Memory, recall
from dbgpt_lite.chat.reuse import reused
from dbgpt_lite.chat.sql_prompt import Previous, Writer
from dbgpt_lite.chat.statements import Statements
from dbgpt_lite.errors import Busy, Cancelled, DatabaseError, QueryFailed, QueryRefused, UserError
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import Origin, ResultTable, Spent, SqlAttempt, SqlTried, Step, Waiting, no_limit
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.correction import Corrector, Doubt, outer_column
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.edits import edited
from dbgpt_lite.sql.lookup import ValueFinder
from dbgpt_lite.sql.schema_search import SchemaSearch
from dbgpt_lite.texts import Language

MAX_ATTEMPTS = 3
BEAMS = 4
MISSING_LENGTH = 200
_CANNOT = re.compile(r"--\s*cannot answer\b[ \t]*[:：]?[ \t]*([^\n`]*)", re.IGNORECASE)
_FENCE = re.compile(r"```(?:sql)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
# "with" is also a word of prose: only WITH name AS ( begins a query.
_QUERY = re.compile(
    r"\b(?:SELECT\b|WITH\s+(?:RECURSIVE\s+)?[\w\"`]+\s*(?:\([^)]*\)\s*)?AS\s*\().*", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SqlOutcome:
    """What came of it: the query that ran and its rows, or only the attempts.

    `impossible`: the database does not hold what was asked for; `missing` says what, in the model's words or as words
    of the question (() where the model did not say). `unread`: the model does not know the question's language.
    `unknown` are values of the query that were found nowhere, `doubts` what else speaks against a query that was kept.
    """

    attempts: tuple[SqlAttempt, ...]
    sql: str = ""
    table: ResultTable | None = None
    fitted: budget.Fitted | None = None
    impossible: bool = False
    unread: bool = False
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ran:
    """A query that ran."""

    sql: str
    table: ResultTable
    unknown: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def outcome(self, attempts: Sequence[SqlAttempt], fitted: budget.Fitted) -> SqlOutcome:
        """It is what is answered with."""
        return SqlOutcome(tuple(attempts), self.sql, self.table, fitted, unknown=self.unknown, doubts=self.doubts)


@dataclass(slots=True)
class _Search:
    """One question's search for a query, and how far it has come."""

    writer: Writer
    statements: Statements
    corrector: Corrector
    attempts: list[SqlAttempt] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    correction: str = ""
    """The last attempt corrected without the model, in the database's dialect."""
    corrected: bool = False
    """Whether the values of a query were corrected already: that is done once."""
    doubtful: _Ran | None = None
    """A query that ran but is doubted: better than nothing."""
    missing: tuple[str, ...] | None = None
    late: bool = False
    """Whether the model's time is over."""

    @property
    def dialect(self) -> str:
        """What the model writes."""
        return self.writer.engine.info.sql_dialect or self.writer.database.dialect


def answer_with_sql(
    prompts: Prompts,
    engine: Engine,
    database: Database,
    question: str,
    language: Language,
    cancel: Event,
    *,
    memory: Memory | None = None,
    answerable: Answerable | None = None,
    previous: Previous | None = None,
    change: str = "",
    reads: bool = True,
    search: SchemaSearch | None = None,
    who: str = "",
    origin: Origin = "model",
    left: Callable[[], float] = no_limit,
) -> Generator[Step | Waiting | Spent | SqlTried, None, SqlOutcome]:
    """Yield what is being done; the generator's return value is the SqlOutcome. Raises Cancelled when stopped.

    `question` is the whole question. `previous` is what it refers to, `change` the words of the user that change it
    ("only Germany"). `reads`: whether the model knows the question's language. `search` picks what is shown of a large
    schema. `who` asks: users who wait for the same model take turns; with `origin` it is also for the audit. `left`
    tells the Sampling.seconds of the next query; one that is not complete by then is the last, and is not tried.
    """
    yield Step("sql_write", {"database": database.name})
    schema = database.schema()
    statements = Statements(database, cancel, who, origin)
    finder = ValueFinder(schema, database.dialect, statements.look_up)
    recalled = recall(memory, database.name, question, who)
    picker = search or SchemaSearch()
    writer = Writer(prompts, engine, database, question, language, cancel, recalled, previous, picker, who, left)
    hunt = _Search(writer, statements, Corrector(schema, database.dialect, finder, question))
    _stop_if(cancel)
    if not (writer.repairs or change) and answerable and (missing := answerable.missing(question, schema, finder)):
        return SqlOutcome((), impossible=True, missing=missing)
    fitted = writer.fit()
    ready = edited(previous.sql, change, schema, database.dialect, finder) if previous and change else ""
    if not (reads or ready):
        # Only the rules could help here, and they do not.
        return SqlOutcome((), unread=True)
    for candidate in _candidates(hunt, fitted, ready, reads):
        _stop_if(cancel)
        if isinstance(candidate, Waiting | Spent):
            hunt.late = isinstance(candidate, Spent) and candidate.usage.finish_reason == "time"
            yield candidate
            continue
        sql, method, dialect = candidate
        if sql in hunt.tried:
            continue
        hunt.tried.add(sql)
        ran = yield from _try(hunt, sql, method, dialect)
        if ran:
            return ran.outcome(hunt.attempts, fitted)
        if len(hunt.attempts) == MAX_ATTEMPTS:
            break
    _stop_if(cancel)
    if hunt.doubtful:
        return hunt.doubtful.outcome(hunt.attempts, fitted)
    impossible = hunt.missing is not None
    return SqlOutcome(tuple(hunt.attempts), fitted=fitted, impossible=impossible, missing=hunt.missing or ())


def extract_sql(text: str) -> str:
    """The query in a model's reply: the fenced block if there is one, else from the first SELECT or WITH on."""
    fenced = _FENCE.search(text)
    found = _QUERY.search(fenced.group(1) if fenced else text)
    return found.group().strip().rstrip(";").strip() if found else ""


def missing_data(text: str) -> tuple[str, ...] | None:
    """What a model's reply says is missing for an answer, () where it does not say; None for another reply."""
    found = _CANNOT.search(text)
    if found is None:
        return None
    what = " ".join(found[1].split()).strip(" .。<>")
    return (what[:MISSING_LENGTH],) if what else ()


def _candidates(
    search: _Search, fitted: budget.Fitted, ready: str, reads: bool
) -> Iterator[tuple[str, str, str] | Waiting | Spent]:
    """Queries to judge as (text, method, dialect), each made only when the ones before it have failed."""
    writer, own = search.writer, search.writer.database.dialect
    if not writer.repairs:
        # A model that reads neither examples nor conversations: what they say is used without it.
        if ready:
            yield ready, "follow_up", own
        elif sql := reused(writer.question, writer.recalled.examples):
            yield sql, "example", own
        yield from _corrections(search)
    if not reads:
        return
    first = yield from writer.write(fitted)
    if search.late:
        return
    search.missing = missing_data(first)
    if search.missing is not None:
        return
    yield extract_sql(first), "greedy", search.dialect
    if not writer.repairs:
        yield from _without_repair(search, fitted)
        return
    while True:
        last = search.attempts[-1]
        reply = yield from writer.write(writer.fit_repair(last.sql, last.problem))
        if search.late:
            return
        yield extract_sql(reply), "repair", search.dialect
        if search.attempts[-1] is last:
            # It repeats itself.
            return


def _without_repair(search: _Search, fitted: budget.Fitted) -> Iterator[tuple[str, str, str]]:
    own = search.writer.database.dialect
    yield from _corrections(search)
    if search.doubtful:
        return
    beams = [extract_sql(text) for text in search.writer.alternatives(fitted, BEAMS)]
    beams = [sql for sql in dict.fromkeys(beams) if sql and sql not in search.tried]
    passing = [sql for sql in beams if _passes(search, sql)]
    yield from ((sql, "beam", search.dialect) for sql in (passing or beams)[:1])
    for sql, method, _ in _corrections(search):
        yield sql, method, own


def _corrections(search: _Search) -> Iterator[tuple[str, str, str]]:
    """The last attempt as corrected by look-ups, as long as a correction leads to another one."""
    while search.correction:
        sql, search.correction = search.correction, ""
        yield sql, "value", search.writer.database.dialect


def _passes(search: _Search, sql: str) -> bool:
    database = search.writer.database
    try:
        ready = database.check(sql, written_in=search.dialect)
    except QueryRefused:
        return False
    return outer_column(ready, database.schema(), database.dialect) is None


def _try(search: _Search, sql: str, method: str, dialect: str) -> Generator[Step | SqlTried, None, _Ran | None]:
    """Check, explain, run and doubt one query; the one to answer with, or None with the reason among the attempts."""
    language = search.writer.language
    search.correction = ""
    problem = ""
    ran: _Ran | None = None
    ready = sql
    doubted = False
    try:
        ready, ran, problem = yield from _judge(search, sql, dialect)
        doubted = bool(sql and problem)
    except (QueryRefused, QueryFailed) as error:
        problem = error.render(language)
        if isinstance(error, QueryRefused) and _is_about_names(error) and not search.writer.repairs:
            search.correction = _mended(search, sql, dialect)
    except (DatabaseError, Busy) as error:
        # A time limit, a lost server, no free place: another query would fare no better, but this one is worth seeing.
        yield SqlTried(SqlAttempt(sql, error.render(language), method))
        raise
    attempt = SqlAttempt(ready, problem, method, doubted)
    search.attempts.append(attempt)
    yield SqlTried(attempt)
    if problem and ran:
        search.doubtful, ran = ran, None
    return ran


def _judge(search: _Search, sql: str, dialect: str) -> Generator[Step | SqlTried, None, tuple[str, _Ran | None, str]]:
    """(the query as it was sent, what it gave, why it is doubted). Raises QueryRefused, QueryFailed, DatabaseError."""
    language, database = search.writer.language, search.writer.database
    if not sql:
        return "", None, UserError("chat.no_sql").render(language)
    ready = database.check(sql, written_in=dialect)
    if outer := outer_column(ready, database.schema(), database.dialect):
        search.correction = outer.sql
        return ready, None, _render(outer, language)
    search.statements.explain(ready)
    yield Step("sql_run", {"database": database.name})
    table = search.statements.run(ready)
    doubt = search.corrector.doubt(ready, is_empty(table))
    unknown = doubt.missing if doubt and is_empty(table) else ()
    if doubt is None or not doubt.reasons:
        return ready, _Ran(ready, table, unknown), ""
    ran = _Ran(ready, table, unknown, tuple(reason.render(language) for reason in doubt.reasons))
    if search.corrected or len(search.attempts) == MAX_ATTEMPTS - 1:
        # Nothing more is tried for it: the reader is told.
        return ready, ran, ""
    search.corrected, search.correction = True, doubt.sql
    return ready, ran, _render(doubt, language)


def _mended(search: _Search, sql: str, dialect: str) -> str:
    """A refused query with its conditions led to where their values are, if that one passes; else ""."""
    fixed = search.corrector.refused(sql, dialect)
    try:
        return search.writer.database.check(fixed, written_in=dialect) if fixed and fixed != sql else ""
    except QueryRefused:
        return ""


def is_empty(table: ResultTable) -> bool:
    """Whether a result holds nothing: no row, or only NULL and zero, as a count or a sum of nothing is."""
    return all(cell is None or cell == 0 for row in table.rows for cell in row)


def _is_about_names(error: QueryRefused) -> bool:
    return error.key.startswith(("sql.no_column", "sql.no_qualifier", "sql.no_table"))


def _render(doubt: Doubt, language: Language) -> str:
    return " ".join(reason.render(language) for reason in doubt.reasons)


def _stop_if(cancel: Event) -> None:
    if cancel.is_set():
        raise Cancelled
