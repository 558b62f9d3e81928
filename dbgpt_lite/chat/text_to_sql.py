"""A question in plain words -> a checked query and its rows.

The model writes a query greedily; the guard and the database's EXPLAIN judge it. What follows a failure is a matter
of the model: one that has a repair prompt is told the problem and tries again, one that has none (the small built-in
model) offers its beams, and the first that passes runs. Everything tried is reported.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from threading import Event

from dbgpt_lite.chat import budget
from dbgpt_lite.errors import Cancelled, DatabaseError, QueryFailed, QueryRefused, UserError
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import Prompt, ResultTable, Sampling, SqlAttempt, SqlTried, Step
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.grammar import select_grammar
from dbgpt_lite.sql.schema import Schema, ddl
from dbgpt_lite.sql.schema import fit as fit_schema
from dbgpt_lite.texts import Language

MAX_REPAIRS = 2
BEAMS = 4
MAX_SQL_TOKENS = 256
CANNOT_ANSWER = "-- cannot answer"
"""What prompts/sql.*.txt tell a model to write when the schema holds no answer."""
_FENCE = re.compile(r"```(?:sql)?\s*\n?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
# "with" is also a word of prose: only WITH name AS ( begins a query.
_QUERY = re.compile(
    r"\b(?:SELECT\b|WITH\s+(?:RECURSIVE\s+)?[\w\"`]+\s*(?:\([^)]*\)\s*)?AS\s*\().*", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SqlOutcome:
    """What came of it: the query that ran and its rows, or only the attempts."""

    attempts: tuple[SqlAttempt, ...]
    sql: str = ""
    table: ResultTable | None = None
    fitted: budget.Fitted | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    """Everything one question needs while its query is sought."""

    prompts: Prompts
    engine: Engine
    database: Database
    question: str
    language: Language
    cancel: Event


def answer_with_sql(
    prompts: Prompts, engine: Engine, database: Database, question: str, language: Language, cancel: Event
) -> Generator[Step | SqlTried, None, SqlOutcome]:
    """Yield what is being done; the generator's return value is the SqlOutcome. Raises Cancelled when stopped."""
    task = _Task(prompts, engine, database, question, language, cancel)
    yield Step("sql_write", {"database": database.name})
    fitted = _fit(task, engine.info.sql_prompt, {})
    attempts: list[SqlAttempt] = []
    tried: set[str] = set()
    for sql, method in _candidates(task, fitted, attempts):
        _stop_if(cancel)
        if sql in tried:
            continue
        tried.add(sql)
        attempt, table, ready = yield from _try(task, sql, method)
        attempts.append(attempt)
        yield SqlTried(attempt)
        if table is not None:
            return SqlOutcome(tuple(attempts), ready, table, fitted)
    _stop_if(cancel)
    return SqlOutcome(tuple(attempts), fitted=fitted)


def extract_sql(text: str) -> str:
    """The query in a model's reply: the fenced block if there is one, else from the first SELECT or WITH on."""
    fenced = _FENCE.search(text)
    found = _QUERY.search(fenced.group(1) if fenced else text)
    return found.group().strip().rstrip(";").strip() if found else ""


def _candidates(task: _Task, fitted: budget.Fitted, attempts: Sequence[SqlAttempt]) -> Iterator[tuple[str, str]]:
    """Queries to judge, each made only when the ones before it have failed."""
    first = _write(task, fitted)
    if CANNOT_ANSWER in first.lower():
        return
    yield extract_sql(first), "greedy"
    repair = f"{task.engine.info.sql_prompt}_repair"
    if not task.prompts.has(repair):
        prompt = _prompt(task, fitted)
        for text in task.engine.candidates(prompt, BEAMS, MAX_SQL_TOKENS, task.cancel):
            yield extract_sql(text), "beam"
        return
    for _ in range(MAX_REPAIRS):
        last = attempts[-1]
        again = _fit(task, repair, {"sql": last.sql, "problem": last.problem})
        yield extract_sql(_write(task, again)), "repair"


def _try(
    task: _Task, sql: str, method: str
) -> Generator[Step | SqlTried, None, tuple[SqlAttempt, ResultTable | None, str]]:
    """Check, explain and run one query; returns (attempt, rows or None, the SQL that ran)."""
    if not sql:
        return SqlAttempt("", UserError("chat.no_sql").render(task.language), method), None, ""
    try:
        ready = task.database.check(sql, written_in=task.engine.info.sql_dialect)
        task.database.explain(ready, task.cancel)
        yield Step("sql_run", {"database": task.database.name})
        table = task.database.run(ready, task.cancel)
    except (QueryRefused, QueryFailed) as problem:
        return SqlAttempt(sql, problem.render(task.language), method), None, ""
    except DatabaseError as problem:
        # A time limit or a lost server: another query would fare no better, but this one is worth seeing.
        yield SqlTried(SqlAttempt(sql, problem.render(task.language), method))
        raise
    return SqlAttempt(ready, "", method), table, ready


def _fit(task: _Task, name: str, extra: dict[str, str]) -> budget.Fitted:
    template = task.prompts.get(name, task.language)
    window = task.engine.info.context_length
    fixed = {"dialect": task.database.dialect, "schema": _schema(task, window), **extra}
    material = budget.Material(template, task.question, fixed=fixed)
    return budget.fit(material, task.engine.count, window, MAX_SQL_TOKENS)


def _schema(task: _Task, window: int) -> str:
    """The schema as the prompt shows it, cut to the tables the question needs when all of it would not fit."""
    return ddl(_shown(task, window), comments=not _plain(task))


def _shown(task: _Task, window: int) -> Schema:
    room = window - MAX_SQL_TOKENS - window // 4

    def fits(schema: Schema) -> bool:
        return task.engine.count_text(ddl(schema, comments=not _plain(task))) <= room

    return fit_schema(task.database.schema(), task.question, fits)


def _plain(task: _Task) -> bool:
    """Whether the model was made for this task: it reads bare schemas and answers with nothing but SQL."""
    return task.engine.info.sql_dialect != ""


def _grammar(task: _Task) -> str:
    """What the answer must follow: a query over the tables that the prompt shows, or what the prompt asks for else."""
    info = task.engine.info
    if not info.constrained:
        return ""
    schema, dialect = _shown(task, info.context_length), info.sql_dialect or task.database.dialect
    return select_grammar(schema, dialect) if _plain(task) else select_grammar(schema, dialect, CANNOT_ANSWER)


def _prompt(task: _Task, fitted: budget.Fitted) -> Prompt:
    return Prompt("sql", fitted.messages, task.question, task.language, grammar=_grammar(task))


def _write(task: _Task, fitted: budget.Fitted) -> str:
    sampling = Sampling(temperature=0.0, max_tokens=min(MAX_SQL_TOKENS, fitted.max_tokens))
    pieces = task.engine.stream(_prompt(task, fitted), sampling, task.cancel)
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _stop_if(cancel: Event) -> None:
    if cancel.is_set():
        raise Cancelled
