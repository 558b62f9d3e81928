"""Statements made from those of the corpora: other case, comments, blanks, quotes, spliced, nested, words swapped."""

import re
from collections.abc import Callable

from hypothesis import strategies as st

from tests.sql.corpus import allowed, refused

REFUSED = {dialect: [sql for own, sql in refused() if own == dialect] for dialect in ("mysql", "sqlite")}
ALLOWED = {dialect: [*allowed(dialect), *allowed()] for dialect in ("mysql", "sqlite")}
_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_WORD = re.compile(r"\w+")
_COMMENTS = ["/**/", "/* x */", "-- x\n", "# x\n", "--\n", "/*!", "/*!50000 ", "*/", "/*M! ", "/*+ x */"]
_BLANKS = ["", " ", "\t", "\n", "\r\n", "\x00", "\x0b", "\u00a0", "\ufeff", "\u200b", "\u3000", "\\", "\\n"]
_SPACES = st.sampled_from([*_COMMENTS, *_BLANKS])
_ENDS = ["; ", ";", "\n;\n", ";;", "；", ";\x00", "; -- x\n", "/*;*/", "\\G", "'; ", '"; ', "`; ", "#\n;"]
_JOINTS = st.sampled_from([*_ENDS, " ", " UNION ", " UNION ALL ", " EXCEPT ", ") ", ",", " OR ", " INTO "])
_NESTS_TEXT = """
    ({})
    (({}))
    SELECT * FROM ({}) AS t
    SELECT ({})
    WITH x AS ({}) SELECT * FROM x
    EXPLAIN {}
    SELECT 1 UNION {}
    ({}) UNION ALL (SELECT 1)
    SELECT name FROM customers WHERE id IN ({})
    SELECT EXISTS ({})
    /* x */ {}
    /*!{}*/
    WITH RECURSIVE x AS (SELECT 1 UNION ALL {}) SELECT * FROM x
    SELECT CASE WHEN ({}) THEN 1 END
    SELECT count(*) OVER (ORDER BY ({}))
    SELECT name FROM customers ORDER BY ({})
    SELECT name FROM customers LIMIT ({})
    BEGIN; {}
    {} FOR UPDATE
    {} INTO @a
    {} INTO OUTFILE '/tmp/dbgpt-lite-x'
    DO ({})
    PREPARE s FROM '{}'
    WITH x AS (SELECT 1) {}
    SELECT '{}'
    SELECT 1 -- {}
"""
_NESTS = st.sampled_from([line.strip() for line in _NESTS_TEXT.splitlines() if line.strip()])
_WORDS_TEXT = """
    SELECT DELETE UPDATE INSERT REPLACE DROP TABLE INTO FROM WHERE SET SLEEP BENCHMARK LOAD_FILE GET_LOCK load_extension
    randomblob customers orders mysql user information_schema sqlite_master pragma_table_info name id @a @@version ? :=
    FOR UPDATE WITH AS RETURNING VALUES CALL HANDLER USER() VERSION() sleep(1) rowid OUTFILE LIMIT PROCEDURE LATERAL
"""
_WORDS = st.sampled_from(_WORDS_TEXT.split())
_QUOTES = st.sampled_from(["`{}`", '"{}"', "[{}]", "'{}'", "`{}", "{}`", "({})"])


def _pieces(sql: str) -> list[str]:
    return _PIECE.findall(sql)


def _at(draw: st.DrawFn, sql: str, change: Callable[[str], str], where: re.Pattern[str]) -> str:
    """One piece that looks as `where` says, changed."""
    pieces = _pieces(sql)
    places = [place for place, piece in enumerate(pieces) if where.fullmatch(piece)]
    if places:
        place = draw(st.sampled_from(places))
        pieces[place] = change(pieces[place])
    return "".join(pieces)


def _case(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    return draw(st.sampled_from([str.upper, str.lower, str.swapcase, str.title]))(sql)


def _space(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    space = draw(_SPACES)
    return _at(
        draw, sql, lambda piece: draw(st.sampled_from([space, piece + space, space + piece])), re.compile(r"\s+|[(),]")
    )


def _quote(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    return _at(draw, sql, draw(_QUOTES).format, _WORD)


def _swap(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    word = draw(_WORDS)
    return _at(draw, sql, lambda _: word, _WORD)


def _drop(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    return _at(draw, sql, lambda _: "", re.compile(r".+", re.DOTALL))


def _double(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    return _at(draw, sql, lambda piece: piece + " " + piece, re.compile(r".+", re.DOTALL))


def _nest(draw: st.DrawFn, sql: str, _dialect: str) -> str:
    return draw(_NESTS).replace("{}", sql)


def _splice(draw: st.DrawFn, sql: str, dialect: str) -> str:
    other = draw(st.sampled_from(REFUSED[dialect]) | st.sampled_from(ALLOWED[dialect]))
    first, last = draw(st.permutations([sql, other]))
    return first + draw(_JOINTS) + last


def _inside(draw: st.DrawFn, sql: str, dialect: str) -> str:
    """Another statement in the place of a word."""
    other = draw(st.sampled_from(REFUSED[dialect]))
    return _at(draw, sql, lambda _: draw(st.sampled_from(["{}", "({})"])).format(other), _WORD)


_CHANGES = (_case, _space, _space, _quote, _swap, _swap, _drop, _double, _nest, _nest, _splice, _splice, _inside)


@st.composite
def statements(draw: st.DrawFn, dialect: str) -> str:
    """A statement of `dialect` or something near one."""
    sql = draw(st.sampled_from(REFUSED[dialect]) | st.sampled_from(ALLOWED[dialect]))
    for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=4)):
        sql = change(draw, sql, dialect)
    return sql
