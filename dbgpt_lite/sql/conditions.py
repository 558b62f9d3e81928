"""The text conditions of a query as a syntax tree: which column is compared with which value, and how to change one.

Works on trees only; nothing here asks a database.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from dbgpt_lite.sql.schema import ColumnInfo, Schema, TableInfo

LONGEST_PATH = 3
_NO_NAME = re.compile(r"[\d\s.,:/%_+-]*")


@dataclass(frozen=True, slots=True)
class Compared:
    """`column` of `table` is compared with the text of `literal`. `table` is None where the column is unknown."""

    literal: exp.Literal
    node: exp.Expression
    column: exp.Column
    table: TableInfo | None
    info: ColumnInfo | None
    negated: bool

    @property
    def value(self) -> str:
        """The value, without the wildcards of LIKE."""
        text = str(self.literal.name)
        return text.strip("%") if isinstance(self.node, exp.Like) else text


@dataclass(frozen=True, slots=True)
class Hop:
    """One step along a foreign key, from a column of one table to a column of another."""

    own: str
    table: str
    other: str


def parse(sql: str, dialect: str) -> exp.Expression | None:
    """The tree of one query, None when it cannot be read."""
    try:
        tree = parse_one(sql, read=dialect)
    except (SqlglotError, RecursionError):
        return None
    while isinstance(tree, exp.Subquery) and not tree.alias:
        tree = tree.this
    return tree if isinstance(tree, exp.Select | exp.SetOperation) else None


def scopes_of(tree: exp.Expression) -> list[Scope]:
    """Scopes, inner ones first; empty for a tree that sqlglot cannot resolve."""
    try:
        return list(traverse_scope(tree))
    except (SqlglotError, RecursionError):
        return []


def comparisons(tree: exp.Expression, schema: Schema) -> list[Compared]:
    """Every comparison of a plain column with words: =, <>, IN and LIKE. Dates and numbers are no words."""
    found: list[Compared] = []
    for scope in scopes_of(tree):
        for node in scope.find_all(exp.EQ, exp.NEQ, exp.In, exp.Like):
            sides = (node.this, node.args.get("expression"))
            column = next((side for side in sides if isinstance(side, exp.Column)), None)
            if column is None:
                continue
            table, info = column_of(column, scope, schema)
            negated = isinstance(node, exp.NEQ) or isinstance(node.parent, exp.Not) or bool(node.args.get("negate"))
            found += [
                Compared(literal, node, column, table, info, negated)
                for literal in _texts(node)
                if not _NO_NAME.fullmatch(literal.name)
            ]
    return found


def column_of(column: exp.Column, scope: Scope, schema: Schema) -> tuple[TableInfo | None, ColumnInfo | None]:
    """The table and column of the schema that a column of a query is; None for those of a subquery or unknown ones."""
    current: Scope | None = scope
    while current is not None:
        for alias, source in current.sources.items():
            table = schema.table(source.name) if isinstance(source, exp.Table) else None
            if table is None or (column.table and alias.lower() != column.table.lower()):
                continue
            if info := table.column(column.name):
                return table, info
        current = current.parent
    return None, None


def own_tables(select: exp.Select, schema: Schema) -> dict[str, TableInfo]:
    """Tables that a SELECT itself reads, by alias or name, in the order written."""
    found: dict[str, TableInfo] = {}
    for source in _sources(select):
        table = schema.table(source.name) if isinstance(source, exp.Table) else None
        if table:
            found[source.alias_or_name] = table
    return found


def conjuncts(select: exp.Select) -> list[exp.Expression]:
    """The conditions of WHERE that all must hold."""
    where = select.args.get("where")
    return list(where.this.flatten()) if where and isinstance(where.this, exp.And) else [where.this] if where else []


def replace_where(select: exp.Select, conditions: list[exp.Expression]) -> None:
    """Give a SELECT other conditions."""
    select.set("where", exp.Where(this=exp.and_(*conditions)) if conditions else None)


def path(schema: Schema, start: TableInfo, target: TableInfo) -> list[Hop] | None:
    """The shortest way along foreign keys of one column, in either direction; None beyond LONGEST_PATH steps.

    Among ways of one length, those from the many to the one come first.
    """
    queue: deque[tuple[TableInfo, list[Hop]]] = deque([(start, [])])
    seen = {start.name}
    while queue:
        table, hops = queue.popleft()
        if table.name == target.name:
            return hops
        if len(hops) == LONGEST_PATH:
            continue
        for hop in [*_up(table), *_down(schema, table)]:
            near = schema.table(hop.table)
            if near and near.name not in seen:
                seen.add(near.name)
                queue.append((near, [*hops, hop]))
    return None


def through(alias: str, hops: list[Hop], condition: exp.Expression) -> exp.Expression:
    """`condition`, which holds in the last table of `hops`, as a condition on the rows of `alias`: nested IN."""
    for n in range(len(hops) - 1, -1, -1):
        hop = hops[n]
        inner = exp.select(exp.column(hop.other)).from_(exp.to_table(hop.table)).where(condition)
        owner = alias if n == 0 else None
        condition = exp.In(this=exp.column(hop.own, table=owner or None), query=exp.Subquery(this=inner))
    return condition


def drop_unused_joins(select: exp.Select, schema: Schema) -> None:
    """Remove inner joins to tables that nothing else in the query mentions any more."""
    while True:
        joins = select.args.get("joins") or []
        unused = next((join for join in joins if _is_unused(join, select, schema)), None)
        if unused is None:
            return
        select.set("joins", [join for join in joins if join is not unused])


def _is_unused(join: exp.Join, select: exp.Select, schema: Schema) -> bool:
    if (
        join.side
        or not isinstance(join.this, exp.Table)
        or any(item.is_star and not isinstance(item, exp.Count) for item in select.expressions)
    ):
        return False
    name = join.this.alias_or_name.lower()
    within = {id(column) for column in join.find_all(exp.Column)}
    outside = [column for column in select.find_all(exp.Column) if id(column) not in within]
    return not any(_may_mean(column, name, select, schema) for column in outside)


def _may_mean(column: exp.Column, name: str, select: exp.Select, schema: Schema) -> bool:
    """Whether a column of the query may be one of the source `name` of `select`."""
    if column.table:
        return str(column.table).lower() == name
    home = column.find_ancestor(exp.Select)
    if home is None or home is select:
        return True
    return not any(table.column(column.name) for table in own_tables(home, schema).values())


def _texts(node: exp.Expression) -> Iterator[exp.Literal]:
    sides = node.expressions if isinstance(node, exp.In) else (node.this, node.args.get("expression"))
    return (side for side in sides if isinstance(side, exp.Literal) and side.is_string)


def _sources(select: exp.Select) -> Iterator[exp.Expression]:
    first = select.args.get("from_")
    if first is not None:
        yield first.this
    yield from (join.this for join in select.args.get("joins") or ())


def _up(table: TableInfo) -> list[Hop]:
    keys = (key for key in table.foreign_keys if len(key.columns) == 1)
    return [Hop(key.columns[0], key.target, key.target_columns[0]) for key in keys]


def _down(schema: Schema, table: TableInfo) -> list[Hop]:
    return [
        Hop(key.target_columns[0], other.name, key.columns[0])
        for other in schema.tables
        for key in other.foreign_keys
        if len(key.columns) == 1 and key.target.lower() == table.name.lower()
    ]
