"""A checked tree from one dialect to another, beyond what sqlglot does by itself, and back to text."""

import re
from collections.abc import Sequence

from sqlglot import ErrorLevel, exp, parse_one
from sqlglot.generators.mysql import MySQLGenerator

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.kinds import is_integer
from dbgpt_lite.sql.schema import KEYWORDS, quoted

# Reserved in MySQL 8 or MariaDB but not quoted by `schema.quoted`.
_MYSQL_RESERVED_TEXT = """
    accessible analyze cascade change char condition convert cube cume_dist database databases day_hour dec decimal
    declare dense_rank describe div dual each empty explain fetch first_value float force function generated get grant
    grouping high_priority ignore int integer interval json_table keys kill lag last_value lateral lead leave lines load
    lock long loop low_priority maxvalue mod nth_value ntile of optimize option out percent_rank precision procedure
    purge rank real recursive regexp repeat require resignal return revoke row_number schema schemas sensitive separator
    show signal smallint spatial sql ssl starting system terminated tinyint trigger undo unlock unsigned usage use
    utc_date varchar varying virtual while write xor year_month zerofill
"""
_MYSQL_RESERVED = frozenset(_MYSQL_RESERVED_TEXT.split())
# SQLite's date and time functions and the form of their result, https://sqlite.org/lang_datefunc.html
_DATE_FORMATS = {"DATE": "%Y-%m-%d", "DATETIME": "%Y-%m-%d %H:%M:%S", "TIME": "%H:%M:%S"}
_SHIFT = re.compile(r"([+-]?\d+)\s*(day|month|year|hour|minute|second)s?")
_STARTS = {"start of month": "%Y-%m-01", "start of year": "%Y-01-01", "start of day": "%Y-%m-%d"}
# In SQLite: seconds since 1970, Julian day, fractions. MySQL has nothing, or something else, under these letters.
_OTHER_CODES = ("%s", "%J", "%f")
_JULIAN_DAY = "(TO_DAYS(x) + TIME_TO_SEC(CAST(x AS DATETIME)) / 86400 + 1721059.5)"


def _regexp(writer: MySQLGenerator, node: exp.RegexpLike) -> str:
    """REGEXP_LIKE is unknown to MariaDB; the operator is known to both."""
    if node.args.get("flag"):
        return str(writer.function_fallback_sql(node))
    simple = (exp.Column, exp.Literal, exp.Func, exp.Paren)
    sides = (side if isinstance(side, simple) else exp.Paren(this=side) for side in (node.this, node.expression))
    return " REGEXP ".join(writer.sql(side) for side in sides)


class _MysqlWriter(MySQLGenerator):  # type: ignore[misc]
    """MySQL as MariaDB reads it too."""

    TRANSFORMS = {**MySQLGenerator.TRANSFORMS, exp.RegexpLike: _regexp}  # noqa: RUF012 - as in the class above it


def write(tree: exp.Expression, dialect: str) -> str:
    """The tree as text of `dialect`, without comments, each name in quotes that needs them.

    Raises sqlglot's UnsupportedError for what the dialect cannot say.
    """
    for identifier in tree.find_all(exp.Identifier):
        name = identifier.name
        reserved = dialect == "mysql" and name.lower() in _MYSQL_RESERVED
        identifier.set("quoted", reserved or quoted(name) != name)
    if dialect == "mysql":
        return str(_MysqlWriter(dialect=dialect, comments=False, unsupported_level=ErrorLevel.RAISE).generate(tree))
    return str(tree.sql(dialect=dialect, comments=False, unsupported_level=ErrorLevel.RAISE))


def adapt(tree: exp.Expression, written_in: str, dialect: str) -> None:
    """Replace, in the tree, what `dialect` lacks or means otherwise by something of the same meaning.

    Raises QueryRefused for what has no counterpart.
    """
    if dialect == "mysql":
        for join in tree.find_all(exp.Join):
            if str(join.args.get("side") or "").upper() == "FULL":
                raise QueryRefused("sql.not_in_dialect", what="FULL JOIN")
        for _ in tree.find_all(exp.Glob):
            raise QueryRefused("sql.not_in_dialect", what="GLOB")
    if written_in == "sqlite" and dialect == "mysql":
        # Inner nodes first: what is replaced already holds its replaced parts.
        for node in reversed(list(tree.walk())):
            new = _from_sqlite(node)
            if new is not node:
                node.replace(new)


def _from_sqlite(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Filter):
        return _filter(node)
    if isinstance(node, exp.Collate) and node.expression.name.upper() in ("NOCASE", "BINARY", "RTRIM"):
        return node.this
    if isinstance(node, exp.Div) and is_integer(node.left) and is_integer(node.right):
        return exp.IntDiv(this=node.left, expression=node.right)
    if isinstance(node, exp.TimeToStr):
        return _time_to_text(node)
    if isinstance(node, exp.Date) and _is_now(node.this):
        return _formatted(_moment([]), _DATE_FORMATS["DATE"])
    if isinstance(node, exp.Anonymous):
        return _function(node, str(node.this).upper(), node.expressions)
    return node


def _function(node: exp.Expression, name: str, arguments: Sequence[exp.Expression]) -> exp.Expression:
    if name in _DATE_FORMATS:
        return _formatted(_moment(arguments), _DATE_FORMATS[name])
    if name == "STRFTIME" and arguments and arguments[0].is_string:
        return _formatted(_moment(arguments[1:]), _portable(arguments[0].name))
    if name == "JULIANDAY":
        moment = _moment(arguments)
        pattern = parse_one(_JULIAN_DAY, read="mysql")
        for place in list(pattern.find_all(exp.Column)):
            place.replace(moment.copy())
        return pattern
    if name == "TOTAL" and len(arguments) == 1:
        return exp.Coalesce(this=exp.Sum(this=arguments[0]), expressions=[exp.Literal.number("0.0")])
    return node


def _filter(node: exp.Filter) -> exp.Expression:
    """COUNT(x) FILTER (WHERE c) -> COUNT(CASE WHEN c THEN x END)"""
    call = node.this
    value = exp.Literal.number(1) if isinstance(call.this, exp.Star) or call.this is None else call.this
    call.set("this", exp.Case(ifs=[exp.If(this=node.expression.this, true=value)]))
    return call


def _is_now(node: exp.Expression | None) -> bool:
    return node is None or (node.is_string and node.name.lower() == "now")


def _moment(arguments: Sequence[exp.Expression]) -> exp.Expression:
    """SQLite's time value and modifiers as an expression of MySQL."""
    first, *modifiers = arguments or (None,)
    moment: exp.Expression = exp.CurrentTimestamp() if first is None or _is_now(first) else first.copy()
    for modifier in modifiers:
        moment = _shifted(moment, modifier.name.lower().strip() if modifier.is_string else "")
    return moment


def _shifted(moment: exp.Expression, modifier: str) -> exp.Expression:
    if modifier in ("localtime", "utc", "auto"):
        return moment
    if modifier in _STARTS:
        return _formatted(moment, _STARTS[modifier])
    shift = _SHIFT.fullmatch(modifier)
    if shift is None:
        raise QueryRefused("sql.not_in_dialect", what=f"'{modifier}'")
    amount = int(shift[1])
    add = exp.DateAdd if amount >= 0 else exp.DateSub
    return add(this=moment, expression=exp.Literal.string(str(abs(amount))), unit=exp.var(shift[2].upper()))


def _portable(pattern: str) -> str:
    for code in _OTHER_CODES:
        if code in pattern:
            raise QueryRefused("sql.not_in_dialect", what=f"strftime('{code}')")
    return pattern


def _formatted(moment: exp.Expression, pattern: str) -> exp.Expression:
    return exp.TimeToStr(this=moment, format=exp.Literal.string(pattern))


def _time_to_text(node: exp.TimeToStr) -> exp.Expression:
    pattern = node.args["format"]
    if pattern.is_string:
        _portable(pattern.name)
    value = node.this.this if isinstance(node.this, exp.TsOrDsToTimestamp) else node.this
    return exp.TimeToStr(this=exp.CurrentTimestamp(), format=pattern) if _is_now(value) else node


RESERVED = _MYSQL_RESERVED | KEYWORDS
"""Words in lower case that are no bare names in one of the dialects."""


def is_reserved(name: str) -> bool:
    """Whether the name needs quotes in one of the dialects."""
    return name.lower() in _MYSQL_RESERVED or (bool(name) and quoted(name) != name)


def spelled(name: str, dialect: str) -> str:
    """The name as `write` writes it: in the dialect's quotes when it needs them."""
    if dialect == "mysql":
        return "`" + name.replace("`", "``") + "`" if is_reserved(name) else name
    return quoted(name)
