"""Conditions, values and columns of a query in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from dbgpt_lite.sql.conditions import conjuncts
from dbgpt_lite.texts import Language, text

_COMPARED = {
    exp.EQ: "sql.explain_is",
    exp.NEQ: "sql.explain_is_not",
    exp.GT: "sql.explain_over",
    exp.GTE: "sql.explain_at_least",
    exp.LT: "sql.explain_under",
    exp.LTE: "sql.explain_at_most",
}
_EITHER = {
    "in": ("sql.explain_in", "sql.explain_in_not"),
    "between": ("sql.explain_between", "sql.explain_between_not"),
    "like": ("sql.explain_like", "sql.explain_like_not"),
    "null": ("sql.explain_null", "sql.explain_null_not"),
    "exists": ("sql.explain_exists", "sql.explain_exists_not"),
}
"""Conditions with a form of their own: as they are, and their opposite."""
_SUBQUERY = {
    (True, False): "sql.explain_of",
    (True, True): "sql.explain_of_where",
    (False, False): "sql.explain_rows",
    (False, True): "sql.explain_rows_where",
}
"""A subquery (as its columns or as its rows, with or without conditions)."""
_CALLED = {
    exp.Sum: "sql.explain_sum",
    exp.Avg: "sql.explain_avg",
    exp.Min: "sql.explain_min",
    exp.Max: "sql.explain_max",
    exp.Year: "sql.explain_year",
    exp.Month: "sql.explain_month",
}


@dataclass(frozen=True)
class Words:
    """Says the parts of a query; inside a SELECT, columns go by the names of their tables instead of aliases."""

    dialect: str
    language: Language
    tables: Mapping[str, str] = field(default_factory=dict)

    def within(self, select: exp.Select) -> "Words":
        """For the parts of `select`, whose tables go by these aliases beside those of the queries around it."""
        sources = [source.this for source in (select.args.get("from_"), *(select.args.get("joins") or ())) if source]
        own = {source.alias_or_name: source.name or source.alias for source in sources}
        # A table that is read twice keeps its aliases: its name alone would mean either.
        twice = {name for name in own.values() if list(own.values()).count(name) > 1}
        known = {alias: alias if name in twice else name for alias, name in own.items()}
        return replace(self, tables={**self.tables, **known})

    def say(self, key: str, **facts: str) -> str:
        """A sentence or a part of one."""
        return text(key, self.language, **facts)

    def all_of(self, parts: Sequence[str], key: str = "sql.explain_and") -> str:
        """Parts joined by "and"."""
        return self.say(key).join(parts)

    def listed(self, items: Sequence[exp.Expression]) -> str:
        """Columns as a list."""
        return self.say("sql.explain_comma").join(self.item(item) for item in items)

    def item(self, item: exp.Expression) -> str:
        """A selected column, with its name where it has one of its own."""
        if not isinstance(item, exp.Alias):
            return self.value(item)
        return self.say("sql.explain_named", value=self.value(item.this), name=item.alias)

    def ordered(self, node: exp.Expression) -> str:
        """A column to sort by and the direction."""
        if not isinstance(node, exp.Ordered):
            return self.value(node)
        return self.say("sql.explain_down" if node.args.get("desc") else "sql.explain_up", column=self.value(node.this))

    def condition(self, node: exp.Expression) -> str:
        """A condition in words."""
        if isinstance(node, exp.Paren):
            return f"({self.condition(node.this)})"
        if isinstance(node, exp.And | exp.Or):
            key = "sql.explain_and" if isinstance(node, exp.And) else "sql.explain_or"
            return self.say(key).join(self.condition(part) for part in (node.left, node.right))
        if isinstance(node, exp.Not):
            return self._negated(node.this)
        for kind, key in _COMPARED.items():
            if isinstance(node, kind):
                return self.say(key, column=self.value(node.left), value=self.value(node.right))
        return self._special(node, bool(node.args.get("negate")))

    def value(self, node: exp.Expression) -> str:
        """A column, a literal or a calculation in words."""
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Star):
            return self.say("sql.explain_all_columns")
        if isinstance(node, exp.Paren):
            return f"({self.value(node.this)})"
        if isinstance(node, exp.Count):
            return self._count(node)
        if isinstance(node, exp.Subquery):
            return self._subquery(node.this)
        for kind, key in _CALLED.items():
            if isinstance(node, kind) and not node.expressions:
                return self.say(key, column=self.value(node.this))
        return self._sql(node)

    def _negated(self, node: exp.Expression) -> str:
        if isinstance(node, exp.In | exp.Between | exp.Like | exp.Is | exp.Exists):
            return self._special(node, True)
        return self.say("sql.explain_not", condition=self.condition(node))

    def _special(self, node: exp.Expression, no: bool) -> str:
        """Conditions with a form of their own; `no` asks for the opposite."""
        if isinstance(node, exp.In):
            query = node.args.get("query")
            inner = query.this if isinstance(query, exp.Subquery) else query
            values = self._subquery(inner) if inner is not None else self.listed(node.expressions)
            return self.say(_EITHER["in"][no], column=self.value(node.this), values=values)
        if isinstance(node, exp.Between):
            ends = {"low": self.value(node.args["low"]), "high": self.value(node.args["high"])}
            return self.say(_EITHER["between"][no], column=self.value(node.this), **ends)
        if isinstance(node, exp.Like):
            return self.say(_EITHER["like"][no], column=self.value(node.this), pattern=self.value(node.expression))
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return self.say(_EITHER["null"][no], column=self.value(node.this))
        if isinstance(node, exp.Exists):
            return self.say(_EITHER["exists"][no], rows=self._subquery(node.this, columns=False))
        return f"NOT {self._sql(node)}" if no else self._sql(node)

    def _subquery(self, query: exp.Expression, columns: bool = True) -> str:
        """A simple subquery as "(id of cities where ...)", or as its rows without `columns`; others as SQL."""
        select = query.this if isinstance(query, exp.Subquery) else query
        simple = isinstance(select, exp.Select) and select.args.get("from_") and not select.args.get("joins")
        special = ("group", "having", "limit", "distinct", "with_")
        if not isinstance(select, exp.Select) or not simple or any(select.args.get(part) for part in special):
            return f"({self._sql(query)})"
        inner = self.within(select)
        facts = {"columns": inner.listed(select.expressions), "table": select.args["from_"].this.alias_or_name}
        facts["table"] = inner.tables.get(facts["table"], facts["table"])
        where = conjuncts(select)
        if where:
            facts["conditions"] = self.all_of([inner.condition(one) for one in where])
        return self.say(_SUBQUERY[columns, bool(where)], **facts)

    def _count(self, node: exp.Count) -> str:
        if isinstance(node.this, exp.Distinct):
            return self.say("sql.explain_count_distinct", column=self.listed(node.this.expressions))
        if node.this is None or isinstance(node.this, exp.Star):
            return self.say("sql.explain_count")
        return self.say("sql.explain_count_of", column=self.value(node.this))

    def _column(self, node: exp.Column) -> str:
        if isinstance(node.this, exp.Star):
            return self.say("sql.explain_all_of", table=self.tables.get(node.table, node.table))
        if not node.table:
            return str(node.name)
        return f"{self.tables.get(node.table, node.table)}.{node.name}"

    def _sql(self, node: exp.Expression) -> str:
        shown = node.copy()
        for column in shown.find_all(exp.Column):
            if column.table in self.tables:
                column.set("table", exp.to_identifier(self.tables[column.table]))
        return str(shown.sql(dialect=self.dialect, comments=False))
