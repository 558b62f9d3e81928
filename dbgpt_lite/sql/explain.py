"""What a query does, step by step in plain words, told from its syntax tree. No model, so nothing is made up.

What has no words of its own is shown as SQL.
"""

from collections.abc import Sequence

from sqlglot import exp

from dbgpt_lite.sql.conditions import conjuncts, parse
from dbgpt_lite.sql.explain_words import Words
from dbgpt_lite.texts import Language

MOST_STEPS = 40


def steps(sql: str, dialect: str, language: Language) -> tuple[str, ...]:
    """The steps of one query in the order a reader thinks of them; () for what cannot be read as a query."""
    tree = parse(sql, dialect)
    if tree is None:
        return ()
    return tuple(_steps(tree, Words(dialect, language)))[:MOST_STEPS]


def _steps(tree: exp.Expression, words: Words) -> list[str]:
    """Steps of a SELECT or a set operation, those of its WITH parts first."""
    told: list[str] = []
    for part in tree.args.get("with_").expressions if tree.args.get("with_") else ():
        told.append(words.say("sql.explain_with", name=part.alias))
        told += [f"— {step}" for step in _steps(part.this, words)]
    if isinstance(tree, exp.SetOperation):
        told += _steps(tree.left, words)
        told.append(words.say(_set_key(tree)))
        told += [f"— {step}" for step in _steps(tree.right, words)]
    elif isinstance(tree, exp.Subquery):
        told += _steps(tree.this, words)
    elif isinstance(tree, exp.Select):
        told += _select(tree, words.within(tree))
    return [*told, *_last(tree, words.within(tree) if isinstance(tree, exp.Select) else words)]


def _select(select: exp.Select, words: Words) -> list[str]:
    told: list[str] = []
    source = select.args.get("from_")
    if source is not None:
        told += _source(source.this, "sql.explain_from", words)
    for join in select.args.get("joins") or ():
        told += _join(join, words)
    if where := conjuncts(select):
        told.append(words.say("sql.explain_where", conditions=words.all_of([words.condition(one) for one in where])))
    if group := select.args.get("group"):
        told.append(words.say("sql.explain_group", columns=words.listed(_grouped(select, group))))
    if having := select.args.get("having"):
        told.append(words.say("sql.explain_having", conditions=words.condition(having.this)))
    key = "sql.explain_show_distinct" if select.args.get("distinct") else "sql.explain_show"
    told.append(words.say(key, columns=words.listed(select.expressions)))
    return told


def _grouped(select: exp.Select, group: exp.Group) -> list[exp.Expression]:
    """What rows are grouped by; a number stands for the selected column in that place."""
    found: list[exp.Expression] = []
    for one in group.expressions:
        place = int(one.name) if isinstance(one, exp.Literal) and one.name.isdecimal() else 0
        known = 0 < place <= len(select.expressions)
        found.append(select.expressions[place - 1].unalias() if known else one)
    return found


def _source(source: exp.Expression, key: str, words: Words) -> list[str]:
    if isinstance(source, exp.Subquery):
        inner = [f"— {step}" for step in _steps(source.this, words)]
        return [
            words.say("sql.explain_part", name=source.alias or "…"),
            *inner,
            words.say(key, table=source.alias or "…"),
        ]
    return [words.say(key, table=source.name)]


def _join(join: exp.Join, words: Words) -> list[str]:
    side = str(join.side or "").upper()
    on = join.args.get("on")
    using: Sequence[exp.Expression] = join.args.get("using") or ()
    if on is not None:
        condition = words.condition(on)
    elif using:
        condition = words.say("sql.explain_same", columns=", ".join(one.name for one in using))
    else:
        return _source(join.this, "sql.explain_cross", words)
    alias = join.this.alias_or_name
    key = {"LEFT": "sql.explain_join_left", "RIGHT": "sql.explain_join_right", "FULL": "sql.explain_join_full"}.get(
        side
    )
    added = words.say(key or "sql.explain_join_on", table=words.tables.get(alias, alias), condition=condition)
    return [*_source(join.this, "sql.explain_join", words)[:-1], added]


def _last(tree: exp.Expression, words: Words) -> list[str]:
    """Order and limit."""
    told: list[str] = []
    if order := tree.args.get("order"):
        parts = [words.ordered(one) for one in order.expressions]
        told.append(words.say("sql.explain_order", columns=words.all_of(parts, "sql.explain_then")))
    limit, offset = tree.args.get("limit"), tree.args.get("offset")
    if offset is not None:
        told.append(words.say("sql.explain_offset", count=words.value(offset.expression)))
    if limit is not None and limit.expression is not None:
        told.append(words.say("sql.explain_limit", count=words.value(limit.expression)))
    return told


def _set_key(tree: exp.SetOperation) -> str:
    if isinstance(tree, exp.Intersect):
        return "sql.explain_intersect"
    if isinstance(tree, exp.Except):
        return "sql.explain_except"
    return "sql.explain_union" if tree.args.get("distinct") else "sql.explain_union_all"
