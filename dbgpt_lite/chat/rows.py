"""What is said of a query's result, and of a question without one."""

from dbgpt_lite.chat.extractive import escape
from dbgpt_lite.chat.text_to_sql import SqlOutcome
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.database import Database
from dbgpt_lite.texts import Language, text

ROWS_IN_PROMPT = 30
CELL_LENGTH = 80
TABLES_NAMED = 12


def rows_as_text(table: ResultTable) -> str:
    """A result for a prompt: header, at most ROWS_IN_PROMPT rows, cells cut, and how many rows there are."""
    lines = [" | ".join(table.columns)]
    lines += [" | ".join(_cell(value) for value in row) for row in table.rows[:ROWS_IN_PROMPT]]
    more = len(table.rows) - ROWS_IN_PROMPT
    if more > 0:
        lines.append(f"... ({more} more rows)")
    lines.append(f"({len(table.rows)} rows{', cut at the limit' if table.truncated else ''})")
    return "\n".join(lines)


def notes_of(outcome: SqlOutcome, language: Language) -> tuple[str, ...]:
    """What a reader must know of a result: values of the query that occur nowhere, and what else speaks against it."""
    notes = [text("chat.doubted", language, reason=escape(reason)) for reason in outcome.doubts]
    if outcome.unknown:
        notes.append(text("chat.unknown_values", language, values=_quoted(outcome.unknown, language)))
    return tuple(notes)


def no_query(outcome: SqlOutcome, database: Database, language: Language) -> str:
    """Why there are no rows: the database does not hold it, saying what is missing, or no query passed the check."""
    facts = {"database": escape(database.name), "tables": _tables(database, language)}
    if not outcome.impossible:
        return text("chat.no_query", language, tried=len(outcome.attempts), **facts)
    if not outcome.missing:
        return text("chat.not_in_database", language, **facts)
    return text("chat.nothing_about", language, missing=_quoted(outcome.missing, language), **facts)


def reads_only(database: Database, language: Language) -> str:
    """The answer to a message that tells the app to change data."""
    return text("chat.reads_only", language, database=escape(database.name))


def _tables(database: Database, language: Language) -> str:
    names = [table.name for table in database.schema().tables]
    shown = text("assistant.separator", language).join(escape(name) for name in names[:TABLES_NAMED])
    return f"{shown}, …" if len(names) > TABLES_NAMED else shown


def _quoted(words: tuple[str, ...], language: Language) -> str:
    return text("assistant.separator", language).join(f"“{escape(word)}”" for word in words)


def _cell(value: object) -> str:
    shown = "NULL" if value is None else " ".join(str(value).split())
    return shown if len(shown) <= CELL_LENGTH else shown[: CELL_LENGTH - 1] + "…"
