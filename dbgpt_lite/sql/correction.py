"""Queries that run and yet cannot be meant: a value looked up in the wrong column, a subquery that selects nothing of
its own. Each doubt is said in words, with the query corrected where the schema leaves one way to do it.

    Place of a value: the same column in another spelling, another column of the same table, or a table that foreign
    keys lead to, whose condition then takes the place of the one that named a wrong table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp

from dbgpt_lite.sql.conditions import (
    Compared,
    Hop,
    column_of,
    comparisons,
    conjuncts,
    drop_unused_joins,
    own_tables,
    parse,
    path,
    replace_where,
    scopes_of,
    through,
)
from dbgpt_lite.sql.dialects import write
from dbgpt_lite.sql.lookup import Place, ValueFinder, holds_words, is_said
from dbgpt_lite.sql.schema import Schema, TableInfo
from dbgpt_lite.sql.words import content_words
from dbgpt_lite.texts import Language, text

MOST_VALUES = 6


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong with a query, as a text key and its facts."""

    key: str
    facts: Mapping[str, str]

    def render(self, language: Language) -> str:
        """The sentence for a reader, or for the model that is to correct it."""
        return text(self.key, language, **self.facts)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a query is not what was asked, and the corrected query ("" where the schema leaves no certain way).

    `missing` are values that occur nowhere in the database; they alone are no reason to change the query.
    """

    reasons: tuple[Reason, ...] = ()
    sql: str = ""
    missing: tuple[str, ...] = ()


def outer_column(sql: str, schema: Schema, dialect: str) -> Doubt | None:
    """A subquery that selects, by a bare name, a column that only the query around it has; None when there is none.

    SQL allows ``x IN (SELECT x FROM other)``, which compares x with itself and keeps every row.
    """
    tree = parse(sql, dialect)
    if tree is None:
        return None
    for node in tree.find_all(exp.In):
        query = node.args.get("query")
        select = query.this if isinstance(query, exp.Subquery) else None
        if not isinstance(select, exp.Select) or len(select.expressions) != 1:
            continue
        column, tables = select.expressions[0], own_tables(select, schema)
        if not isinstance(column, exp.Column) or column.table or not tables or not _only_tables(select, tables):
            continue
        if any(table.column(column.name) for table in tables.values()):
            continue
        facts = {"column": column.name, "table": ", ".join(table.name for table in tables.values())}
        key = _key_between(node, column, tables, schema)
        if key:
            column.set("this", exp.to_identifier(key))
        return Doubt((Reason("sql.outer_column", facts),), write(tree, dialect) if key else "")
    return None


class Corrector:
    """Looks at the values of one question's queries. Raises Cancelled as the finder's `run` does."""

    def __init__(self, schema: Schema, dialect: str, finder: ValueFinder, question: str) -> None:
        """`dialect` is that of the database."""
        self._schema = schema
        self._dialect = dialect
        self._finder = finder
        self._question = question

    def doubt(self, sql: str, empty: bool) -> Doubt | None:
        """What is wrong with the values of a query that ran; None when they all occur where they are compared.

        Unless the result was `empty`, only excluded values are looked at: the others have matched something.
        """
        reasons: list[Reason] = []
        missing: list[str] = []
        fixed = sql
        for _ in range(MOST_VALUES):
            tree = parse(fixed, self._dialect)
            reason = self._first(tree, empty, missing) if tree is not None else None
            if reason is None or tree is None:
                break
            reasons.append(reason)
            fixed = write(tree, self._dialect)
        if not reasons and not missing:
            return None
        return Doubt(tuple(reasons), fixed if reasons else "", tuple(dict.fromkeys(missing)))

    def _first(self, tree: exp.Expression, empty: bool, missing: list[str]) -> Reason | None:
        """Correct, in the tree, the first value that stands elsewhere; note those that occur nowhere."""
        looked_at = [found for found in comparisons(tree, self._schema) if empty or found.negated][:MOST_VALUES]
        for found in looked_at:
            if found.table is None or found.info is None or self._occurs(found):
                continue
            if reason := self._fix(found):
                return reason
            if not self._finder.places(found.value) and self._finder.thorough:
                missing.append(found.value)
        return None

    def refused(self, sql: str, written_in: str) -> str:
        """A refused query with its conditions led to where their values are, in the database's dialect; "" if none.

        Only for conditions: a query that also selects what is not there stays refused.
        """
        tree = parse(sql, written_in)
        if not isinstance(tree, exp.Select):
            return ""
        for found in comparisons(tree, self._schema):
            select = found.node.find_ancestor(exp.Select)
            if found.negated or select is None or (found.table and found.info and holds_words(found.info)):
                continue
            if places := self._finder.places(found.value):
                self._lead(found, places)
        return write(tree, written_in)

    def _occurs(self, found: Compared) -> bool:
        assert found.table
        assert found.info
        if not holds_words(found.info):
            return found.info.kind == "TEXT"
        if isinstance(found.node, exp.Like):
            return bool(self._finder.containing(found.table.name, found.info.name, found.value, most=1))
        return self._finder.occurs(found.table.name, found.info.name, found.value)

    def _fix(self, found: Compared) -> Reason | None:
        """Correct one comparison in the tree; None where no place is known or none can be reached."""
        assert found.table
        assert found.info
        facts = {"value": found.value, "column": f"{found.table.name}.{found.info.name}"}
        places = self._finder.places(found.value)
        same = [one for one in places if one.table == found.table.name]
        place = next((one for one in same if one.column == found.info.name), None) or next(iter(same), None)
        if place:
            _put(found, place)
        elif places:
            place = self._lead(found, places)
        elif holds_words(found.info) and not found.negated:
            return self._part(found, facts)
        if place is None:
            return None
        return _elsewhere(facts, place)

    def _part(self, found: Compared, facts: dict[str, str]) -> Reason | None:
        """The value is a part of one that the question names whole ("Store": Store Manager), or of several."""
        assert found.table
        assert found.info
        parts = self._finder.parts(found.value)
        said = {part.value: part for part in parts if is_said(part.value, self._question)}
        if len(said) == 1:
            place = next(iter(said.values()))
            if place.table == found.table.name:
                _put(found, place)
            elif self._lead(found, (place,)) is None:
                return None
            return _elsewhere(facts, place)
        own = [part for part in parts if (part.table, part.column) == (found.table.name, found.info.name)]
        if not own or not isinstance(found.node, exp.EQ):
            return None
        pattern = exp.Literal.string(f"%{found.value}%")
        found.node.replace(exp.Like(this=found.column.copy(), expression=pattern))
        return Reason("sql.value_part", facts | {"found": own[0].value})

    def _lead(self, found: Compared, places: tuple[Place, ...]) -> Place | None:
        """Put in the place of the condition one that foreign keys lead to; the place that was taken, None for none."""
        if found.negated or len([one for one in found.node.find_all(exp.Literal) if one.is_string]) != 1:
            return None
        home = found.node.find_ancestor(exp.Select)
        if home is None:
            return None
        inside = {table.name for table in own_tables(home, self._schema).values()}
        near = [place for place in places if place.table in inside]
        select, condition = (home, found.node) if near else _outermost(home, found.node)
        whole = next((one for one in conjuncts(select) if _within(condition, one)), None)
        if whole is None or isinstance(whole, exp.Or | exp.Not):
            return None
        others = [one for one in conjuncts(select) if one is not whole]
        best = self._best(select, others, tuple(near) or places, found)
        if best is None:
            return None
        alias, hops, place = best
        literal = exp.Literal.string(place.value)
        owner = None if hops else alias
        equal = exp.EQ(this=exp.column(place.column, table=owner), expression=literal)
        replace_where(select, [*(one.copy() for one in others), through(alias, hops, equal)])
        drop_unused_joins(select, self._schema)
        return place

    def _best(
        self,
        select: exp.Select,
        others: list[exp.Expression],
        places: tuple[Place, ...],
        found: Compared,
    ) -> tuple[str, list[Hop], Place] | None:
        """The nearest place: named in the question first, then by the length of the way from a table that stays."""
        at_home = found.node.find_ancestor(exp.Select) is select
        key = _key_of(found) if at_home else None
        for place in places:
            # A key compared with words ("city_id = 'London'") says itself which way to go.
            if key and key[1].table == place.table:
                return key[0], [key[1]], place
        asked = content_words(self._question)
        own = str(found.column.table).lower() if at_home else ""
        ways: list[tuple[bool, int, int, tuple[str, list[Hop], Place]]] = []
        for order, (alias, table) in enumerate(_staying(select, others, self._schema, own)):
            for place in places:
                target = self._schema.table(place.table)
                hops = path(self._schema, table, target) if target else None
                if hops is not None and target:
                    named = bool(content_words(f"{target.name} {place.column}") & asked)
                    ways.append((not named, len(hops), order, (alias, hops, place)))
        return min(ways, key=lambda way: way[:3])[3] if ways else None


def _elsewhere(facts: Mapping[str, str], place: Place) -> Reason:
    found = {"found": place.value, "place": f"{place.table}.{place.column}"}
    return Reason("sql.value_elsewhere", {**facts, **found})


def _only_tables(select: exp.Select, tables: dict[str, TableInfo]) -> bool:
    """Whether every source is a table of the schema, so that all columns are known."""
    return len(tables) == 1 + len(select.args.get("joins") or ())


def _key_between(node: exp.In, column: exp.Column, tables: dict[str, TableInfo], schema: Schema) -> str:
    """The column of the subquery's table that the compared column refers to by a foreign key, either way; or ""."""
    left = node.this
    scope = next((one for one in scopes_of(node.root()) if left in list(one.find_all(exp.Column))), None)
    if not isinstance(left, exp.Column) or scope is None or len(tables) != 1:
        return ""
    owner, _ = column_of(left, scope, schema)
    inner = next(iter(tables.values()))
    if owner is None:
        return ""
    for key in owner.foreign_keys:
        if key.columns == (left.name,) and key.target == inner.name:
            return key.target_columns[0]
    for key in inner.foreign_keys:
        if key.target == owner.name and key.target_columns == (left.name,):
            return key.columns[0]
    return ""


def _put(found: Compared, place: Place) -> None:
    """Compare with the spelling of the place, in the column of the place, which is in the same table."""
    wild = found.literal.name if isinstance(found.node, exp.Like) else ""
    shown = wild.replace(found.value, place.value) if wild else place.value
    found.literal.replace(exp.Literal.string(shown))
    found.column.set("this", exp.to_identifier(place.column))


def _key_of(found: Compared) -> tuple[str, Hop] | None:
    """The foreign key that the compared column is, as a step from the alias it is qualified with."""
    for key in found.table.foreign_keys if found.table else ():
        if key.columns == (found.column.name,):
            return found.column.table, Hop(key.columns[0], key.target, key.target_columns[0])
    return None


def _outermost(select: exp.Select, condition: exp.Expression) -> tuple[exp.Select, exp.Expression]:
    """The outermost condition that means nothing but this one: up through plain IN subqueries that hold no other."""
    while True:
        query = select.parent
        outer = query.parent if isinstance(query, exp.Subquery) else None
        above = outer.find_ancestor(exp.Select) if isinstance(outer, exp.In) else None
        plain = len(conjuncts(select)) == 1 and not any(select.args.get(part) for part in ("group", "having", "limit"))
        if not isinstance(outer, exp.In) or above is None or isinstance(outer.parent, exp.Not) or not plain:
            return select, condition
        select, condition = above, outer


def _within(node: exp.Expression, whole: exp.Expression) -> bool:
    current: exp.Expression | None = node
    while current is not None:
        if current is whole:
            return True
        current = current.parent
    return False


def _staying(
    select: exp.Select, others: list[exp.Expression], schema: Schema, own: str
) -> Iterator[tuple[str, TableInfo]]:
    """Tables to start from: the first one, `own` that the condition was about, and those that something mentions."""
    more = (select.args[part] for part in ("group", "having", "order") if select.args.get(part))
    parts = [*select.expressions, *others, *more]
    used = {column.table.lower() for part in parts for column in part.find_all(exp.Column)}
    tables = own_tables(select, schema)
    for n, (alias, table) in enumerate(tables.items()):
        if n == 0 or alias.lower() in used or alias.lower() == own:
            yield alias, table
