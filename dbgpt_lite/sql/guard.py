"""The fence before the database: exactly one SELECT over known tables and columns, or a reason why not.

An allow-list over sqlglot's syntax tree, as opposed to a list of forbidden words: what is not known to be harmless is
refused. What runs is written anew from the checked tree, so nothing of the original text reaches the driver, and the
new text is parsed and checked once more in the dialect it is sent in.
Pure: no connection, no I/O.
"""

import logging
import re
import unicodedata

from sqlglot import exp, parse, tokenize
from sqlglot.errors import UnsupportedError
from sqlglot.tokens import TokenType

from dbgpt_lite.errors import QueryRefused
from dbgpt_lite.sql.allowed import FUNCTIONS, NODES, untyped_functions
from dbgpt_lite.sql.dialects import adapt, write
from dbgpt_lite.sql.names import check_tables, keep_to_listed_columns, resolve
from dbgpt_lite.sql.schema import Schema

# sqlglot warns with the text of the query, which may hold what nobody should find in a log.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

MAX_LENGTH = 20_000
MAX_NODES = 5_000
# How often the text may change while it is read and written anew; one change is common, e.g. of 5 DAY to '5' DAY.
_ROUNDS = 3
_QUOTED = (TokenType.STRING, TokenType.IDENTIFIER)
_FIRST = (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
# MySQL and MariaDB run what is inside these comments; optimizer hints can lift the time limit.
_LIVE_COMMENT = re.compile(r"/\*\s*(!|M!|\+)", re.IGNORECASE)
_SELECT_ARGS_TEXT = """
    with_ expressions distinct from_ joins where group having windows order limit offset this expression alias
"""
_SELECT_ARGS = frozenset(_SELECT_ARGS_TEXT.split())
_JOIN_ARGS = frozenset(("this", "on", "side", "kind", "using", "method"))
_JOIN_WORDS = frozenset(("", "INNER", "LEFT", "RIGHT", "FULL", "OUTER", "CROSS", "NATURAL"))


def check(sql: str, schema: Schema, dialect: str, row_limit: int | None = None, written_in: str = "") -> str:
    """The query to send, in `dialect` ("sqlite" or "mysql"), made from `sql`.

    `written_in` is the dialect of `sql`, "" for `dialect`. With `row_limit` the text is meant to be run: it returns at
    most `row_limit` + 1 rows, where the one more tells that rows were cut, and a table with hidden columns is replaced
    by a subquery over the others. Raises QueryRefused with the reason.
    """
    tree = _parse_one(_clean(sql, written_in or dialect), written_in or dialect)
    _check_nodes(tree, (written_in or dialect, dialect))
    try:
        if (written_in or dialect) == "mysql":
            _drop_dual(tree, schema)
        resolve(tree, schema, quoted_text=(written_in or dialect) == "sqlite")
        adapt(tree, written_in or dialect, dialect)
        if row_limit is not None:
            _limit(tree, row_limit + 1)
            keep_to_listed_columns(tree, schema)
        return _settled(write(tree, dialect), schema, dialect)
    except RecursionError:
        raise QueryRefused("sql.too_complex") from None
    except UnsupportedError as error:
        raise QueryRefused("sql.not_in_dialect", what=str(error)[:100]) from None


def _settled(written: str, schema: Schema, dialect: str) -> str:
    """`written`, checked as it is sent and written anew until the text and its tree say the same."""
    for _ in range(_ROUNDS):
        again = _parse_one(written, dialect)
        _check_nodes(again, (dialect,))
        check_tables(again, schema)
        last, written = written, write(again, dialect)
        if last == written:
            return written
    raise QueryRefused("sql.not_parsed")


def _clean(sql: str, dialect: str) -> str:
    text = sql.strip()
    if text.endswith(";"):
        text = text[:-1].rstrip()
    if not text:
        raise QueryRefused("sql.empty")
    if len(text) > MAX_LENGTH:
        raise QueryRefused("sql.too_long", length=len(text), limit=MAX_LENGTH)
    if _CONTROL.search(text) or any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise QueryRefused("sql.control_characters")
    if _LIVE_COMMENT.search(text) and _LIVE_COMMENT.search(_without_values(text, dialect)):
        raise QueryRefused("sql.live_comment")
    return text


def _without_values(text: str, dialect: str) -> str:
    """The text without what stands in quotes; all of it when it cannot be told what that is."""
    try:
        tokens = tokenize(text, read=dialect)
    except Exception:  # as in _parse_one
        return text
    rest, end = [], 0
    for token in tokens:
        if token.token_type in _QUOTED:
            rest.append(text[end : token.start])
            end = token.end + 1
    return "".join((*rest, text[end:]))


def _parse_one(sql: str, dialect: str) -> exp.Expression:
    """The one statement in `sql`; a SELECT in parentheses is taken out of them."""
    try:
        _check_tokens(sql, dialect)
        statements = parse(sql, read=dialect)
    except QueryRefused:
        raise
    except RecursionError:
        raise QueryRefused("sql.too_complex") from None
    except Exception:  # sqlglot fails in many ways on garbage; all of them mean the same here
        raise QueryRefused("sql.not_parsed") from None
    if len(statements) != 1 or statements[0] is None:
        raise QueryRefused("sql.many_statements" if len(statements) > 1 else "sql.empty")
    tree = statements[0]
    while isinstance(tree, exp.Subquery) and set(_given(tree)) == {"this"}:
        tree = tree.this
    if not isinstance(tree, exp.Select | exp.SetOperation):
        raise QueryRefused("sql.not_select", kind=_kind(tree))
    return tree


def _check_tokens(sql: str, dialect: str) -> None:
    """Refuse what does not begin as a query, such as the TABLE t and FROM t that sqlglot takes for one.

    Also full-width letters and signs outside of quotes: they look like SQL to a person and are not.
    """
    tokens = tokenize(sql, read=dialect)
    if tokens and tokens[0].token_type not in _FIRST:
        raise QueryRefused("sql.not_select", kind=tokens[0].text.upper()[:40])
    for token in tokens:
        plain = token.token_type not in _QUOTED
        if plain and any(_is_full_width(letter) for letter in token.text):
            raise QueryRefused("sql.full_width", text=token.text[:40])


def _is_full_width(letter: str) -> bool:
    """Whether NFKC turns the letter into an ASCII one: full-width forms, mathematical letters and the like."""
    return not letter.isascii() and unicodedata.normalize("NFKC", letter).isascii()


def _kind(tree: exp.Expression) -> str:
    first = str(tree.this) if isinstance(tree, exp.Command) else tree.key
    return first.split()[0].upper() if first.split() else "?"


def _given(node: exp.Expression) -> list[str]:
    """Names of the arguments that say something; False does, e.g. in NOT INDEXED."""
    return [name for name, value in node.args.items() if value is not None and value not in ([], "")]


def _check_nodes(tree: exp.Expression, dialects: tuple[str, ...]) -> None:
    untyped = frozenset().union(*(untyped_functions(dialect) for dialect in dialects))
    for count, node in enumerate(tree.walk()):
        if count > MAX_NODES:
            raise QueryRefused("sql.too_complex")
        _check_node(node, untyped)


def _check_node(node: exp.Expression, untyped: frozenset[str]) -> None:
    name = type(node).__name__
    if isinstance(node, exp.Anonymous):
        function = str(node.this)
        if function.upper() not in untyped:
            raise QueryRefused("sql.function", name=function[:60])
    elif name not in NODES and name not in FUNCTIONS:
        _refuse(node)
    if isinstance(node, exp.Table) and (node.args.get("db") or node.args.get("catalog")):
        raise QueryRefused("sql.other_database", name=exp.table_name(node), table=node.name)
    for kind, allowed in _ARGS:
        if isinstance(node, kind):
            _check_args(node, allowed)
    for kind, check_shape in _SHAPES:
        if isinstance(node, kind):
            check_shape(node)


def _check_source(node: exp.From | exp.Join) -> None:
    if not isinstance(node.this, exp.Table | exp.Subquery):
        raise QueryRefused("sql.not_parsed")
    if not {str(node.args.get(part) or "").upper() for part in ("side", "kind", "method")} <= _JOIN_WORDS:
        raise QueryRefused("sql.not_allowed", what="JOIN")


def _check_count(node: exp.Limit | exp.Offset) -> None:
    if not isinstance(node.expression, exp.Literal | exp.Neg):
        raise QueryRefused("sql.not_allowed", what=node.key.upper())


def _check_star(node: exp.Star) -> None:
    """A star is a column of a SELECT or what COUNT counts."""
    holder = node.parent.parent if isinstance(node.parent, exp.Column) else node.parent
    if not isinstance(holder, exp.Select | exp.Count):
        raise QueryRefused("sql.not_allowed", what="*")


def _check_args(node: exp.Expression, allowed: frozenset[str]) -> None:
    for name in _given(node):
        if name not in allowed:
            raise QueryRefused("sql.not_allowed", what=name.strip("_").replace("_", " ").upper())


def _check_table(node: exp.Table) -> None:
    if not isinstance(node.this, exp.Identifier):
        what = node.this.name if isinstance(node.this, exp.Anonymous) else node.this.key
        raise QueryRefused("sql.function", name=what[:60])
    if node.args.get("alias") and node.args["alias"].columns:
        raise QueryRefused("sql.not_allowed", what=f"{node.alias}(...)")


# What a node may say, and what it must look like, beyond being on the list.
_ARGS = (
    (exp.Select | exp.SetOperation | exp.Subquery, _SELECT_ARGS),
    (exp.Join, _JOIN_ARGS),
    (exp.Table, frozenset(("this", "alias", "joins"))),
    # SQLite's x IN name means the table of that name: neither "field" nor "unnest".
    (exp.In, frozenset(("this", "expressions", "query"))),
    (exp.Star, frozenset[str]()),
    (exp.Distinct, frozenset(("expressions",))),
    (exp.Limit | exp.Offset, frozenset(("expression",))),
)
_SHAPES = (
    (exp.From | exp.Join, _check_source),
    (exp.Table, _check_table),
    (exp.Star, _check_star),
    (exp.Limit | exp.Offset, _check_count),
)


def _refuse(node: exp.Expression) -> None:
    """Refuse a node that is on no list, in words that fit what it is."""
    if isinstance(node, exp.Parameter | exp.SessionParameter | exp.Placeholder | exp.PropertyEQ):
        raise QueryRefused("sql.variable")
    if isinstance(node, exp.Into):
        raise QueryRefused("sql.not_allowed", what="INTO")
    if isinstance(node, exp.Lock):
        raise QueryRefused("sql.not_allowed", what="FOR UPDATE / FOR SHARE")
    if isinstance(node, exp.DML | exp.DDL | exp.Command | exp.Drop | exp.Alter):
        raise QueryRefused("sql.not_select", kind=_kind(node))
    if isinstance(node, exp.Func):
        raise QueryRefused("sql.function", name=node.sql_name())
    raise QueryRefused("sql.not_allowed", what=node.key.upper())


def _drop_dual(tree: exp.Expression, schema: Schema) -> None:
    """SELECT 1 FROM DUAL is MySQL's old way to write a query without a table."""
    for select in tree.find_all(exp.Select):
        source = select.args["from_"].this if select.args.get("from_") else None
        if not isinstance(source, exp.Table) or _given(source) != ["this"] or select.args.get("joins"):
            continue
        if source.name.lower() == "dual" and not source.this.quoted and schema.table("dual") is None:
            select.set("from_", None)


def _limit(tree: exp.Expression, most: int) -> None:
    """Put an outer LIMIT on the query, or lower the one that is there."""
    limit = tree.args.get("limit")
    count = limit.expression if isinstance(limit, exp.Limit) else None
    if isinstance(count, exp.Literal) and not count.is_string and count.name.isdigit() and int(count.name) <= most:
        return
    tree.set("limit", exp.Limit(expression=exp.Literal.number(most)))
