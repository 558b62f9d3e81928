"""How hard a query is to write, by Spider's rules, and whether it asks for an order.

The rules are those of `Evaluator.eval_hardness` in evaluation.py of github.com/taoyds/spider, with its two oddities: a
NOT before IN or LIKE counts as an aggregate, and an aggregate in HAVING does not. WITH and window functions, which
Spider's queries do not have, count as nested queries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp, parse_one

from dbgpt_lite.errors import QueryRefused

Hardness = Literal["easy", "medium", "hard", "extra"]


@dataclass(frozen=True, slots=True)
class QueryShape:
    """`ordered`: the whole result has an ORDER BY."""

    hardness: Hardness
    ordered: bool


def shape_of(sql: str, dialect: str) -> QueryShape:
    """The shape of a query of `dialect` ("sqlite" or "mysql"). Raises QueryRefused for what is no query."""
    try:
        tree = parse_one(sql, read=dialect)
    except Exception:  # sqlglot fails in many ways on garbage; all of them mean the same here
        raise QueryRefused("sql.not_parsed") from None
    while isinstance(tree, exp.Subquery):
        tree = tree.this
    if not isinstance(tree, exp.Select | exp.SetOperation):
        raise QueryRefused("sql.not_parsed")
    return QueryShape(_hardness(tree), bool(tree.args.get("order")))


def _hardness(tree: exp.Expression) -> Hardness:
    first = tree
    while not isinstance(first, exp.Select):
        first = first.this
    clauses, nested, others = _clauses(tree, first), _nested(tree, first), _others(tree, first)
    if clauses <= 1 and nested == others == 0:
        return "easy"
    if nested == 0 and ((clauses <= 1 and others <= 2) or (clauses <= 2 and others < 2)):
        return "medium"
    if nested == 0 and ((clauses <= 2 and others > 2) or (clauses == 3 and others <= 2)):
        return "hard"
    return "hard" if clauses <= 1 and others == 0 and nested == 1 else "extra"


def _clauses(tree: exp.Expression, first: exp.Select) -> int:
    """WHERE, GROUP BY, ORDER BY, LIMIT, each further table, each OR and each LIKE."""
    kinds = sum(bool(first.args.get(name)) for name in ("where", "group"))
    kinds += sum(bool(tree.args.get(name) or first.args.get(name)) for name in ("order", "limit"))
    words = sum(isinstance(node, exp.Or | exp.Like) for part in _conditions(first) for node in _own(part))
    return kinds + len(first.args.get("joins") or ()) + words


def _nested(tree: exp.Expression, first: exp.Select) -> int:
    """Queries in conditions, a set operation, WITH, windows."""
    inner = sum(isinstance(node, exp.Select | exp.SetOperation) for part in _conditions(first) for node in _own(part))
    windows = sum(isinstance(node, exp.Window) for item in first.expressions for node in _own(item))
    return inner + windows + (tree is not first) + bool(tree.args.get("with_"))


def _others(tree: exp.Expression, first: exp.Select) -> int:
    """More than one aggregate, output column, condition or grouping column: one for each."""
    order = tree.args.get("order") or first.args.get("order")
    counted = [*first.expressions, *(order.expressions if order else ())]
    aggregates = sum(any(isinstance(node, exp.AggFunc) for node in _own(item)) for item in counted)
    aggregates += sum(isinstance(node, exp.Not) for part in _conditions(first) for node in _own(part))
    where, group = first.args.get("where"), first.args.get("group")
    conditions = 1 + sum(isinstance(node, exp.Connector) for node in _own(where)) if where else 0
    grouping = len(group.expressions) if group else 0
    return sum(number > 1 for number in (aggregates, len(first.expressions), conditions, grouping))


def _conditions(select: exp.Select) -> Iterator[exp.Expression]:
    """WHERE, HAVING and the ON of each join."""
    for name in ("where", "having"):
        if part := select.args.get(name):
            yield part
    for join in select.args.get("joins") or ():
        if on := join.args.get("on"):
            yield on


def _own(part: exp.Expression) -> Iterator[exp.Expression]:
    """The nodes of a part of a query; of a query inside it only its root."""
    yield from part.walk(prune=lambda node: isinstance(node, exp.Select | exp.SetOperation))
