"""A query in plain words, for the reader who wants to know what an answer rests on."""

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.explain import steps
from dbgpt_lite.texts import Language


def explain(sql: str, database: Database, language: Language) -> tuple[str, ...]:
    """Short steps of a query that `database` would run. Raises QueryRefused for one that it would not."""
    told = steps(database.check(sql), database.dialect, language)
    if not told:
        raise QueryRefused("sql.not_parsed")
    return told
