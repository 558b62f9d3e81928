"""The SELECT list of a grammar: columns of tables that FROM has not named yet.

What a qualifier means is assumed when a column after it is read, once for each table that has the column, and the
number of the rules carries the assumption to FROM. llguidance keeps such numbers apart only along the end of a rule:
where two numbers reach the same place, a rule that is called in the middle of another is taken for done with both.
So the list is written as a chain of rules, each of which ends with the next: a column, then by its PLAN what may come
after it. The rules called in the middle of the chain ask nothing of the number that can differ there.
"""

from collections.abc import Sequence

from dbgpt_lite.sql.grammar_aliases import AliasRules
from dbgpt_lite.sql.grammar_rules import Rules, among, both, either, equals, neither
from dbgpt_lite.sql.grammar_scope import (
    BARE,
    INNER,
    NUMBERED,
    OUTER,
    PLAN,
    SINGLE,
    TWICE,
    WITHOUT_INNER,
    WITHOUT_PLAN,
    Names,
    Slot,
    planned,
)
from dbgpt_lite.sql.grammar_shapes import OTHER, ROW, TOTAL, WHOLE, Family, Place, families


def add_lists(rules: Rules, names: Names, aliases: AliasRules) -> None:
    """items_F for each family F of SELECT lists, and what they need."""
    _add_common(rules)
    aliases.want()
    plan, starred = 1, []
    for family in families(names.dialect):
        items = _List(rules, names, aliases, family, plan)
        items.add()
        starred += items.starred
        plan += len(family.places)
    if plan > 1 << (PLAN[1] - PLAN[0]):
        raise ValueError("more plans than the number can hold")
    rules.add("starred", f"rest_many::bit_and({hex(WITHOUT_PLAN)})")
    _Columns(rules, names, starred).add()


def _add_common(rules: Rules) -> None:
    rules.add("outcome", "literal", "NULL")
    rules.add("cases", "END", "ELSE outcome END")
    rules.add("test", "COMPARE moment", "COMPARE share", "LIKE TEXT", "BETWEEN moment AND moment", "IS_NULL")
    rules.add("test", "IN literals CLOSE", "IN set_1 CLOSE_QUERY")
    rules.add("counted", "WINDOW_ORDER free_count direction")
    rules.add("rounded", "rounding", "ARITHMETIC free_operand rounding")
    rules.add("list_more", '""', "AND condition_in")


class _Columns:
    """`listed`: a column, then `then` with its table known. Under the plans `starred` it may be all columns."""

    def __init__(self, rules: Rules, names: Names, starred: Sequence[int]) -> None:
        self._rules, self._names = rules, names
        self._stars = either(*(equals(PLAN, plan) for plan in starred))

    def add(self) -> None:
        rules, names = self._rules, self._names
        self._bare()
        possible: dict[str, list[str]] = {}
        numbered = {f"T{slot.number}" for slot in OUTER}
        for slot in OUTER:
            for number, style, text in names.qualifiers(slot):
                fits = self._assume(text, slot, number, style)
                possible.setdefault(text, []).append(fits)
        for text, conditions in possible.items():
            code = names.code(text)
            # What was written cannot be taken back: a qualifier only where a column can follow.
            rules.add(f"reach_{code}", f"{names.qualified(text)} named_{code}", when=either(*conditions))
            # T1, T2 or names, not both in one query: what would have to be followed at once is much less.
            kind = "numbered" if text in numbered else "worded"
            rules.add(kind, f"reach_{code}")
            # Within an inner query, whose own qualifiers hide the same ones around it.
            rules.add(f"{kind}_outside", f"reach_{code}", when=neither(*names.same_text(INNER, text)))
        has_numbers = [equals(slot.style, NUMBERED) for slot in OUTER]
        only_numbers = [either(equals(slot.style, 0), equals(slot.style, NUMBERED)) for slot in OUTER]
        for listed, end in (("listed", ""), ("listed_outside", "_outside")):
            rules.add(listed, f"numbered{end}", when=both(*only_numbers))
            rules.add(listed, f"worded{end}", when=neither(*has_numbers))
        rules.add("listed", "own", when=both(f"bit_clear({SINGLE})", f"bit_clear({TWICE})", neither(*has_numbers)))

    def _bare(self) -> None:
        rules, names = self._rules, self._names
        first = OUTER[0]
        for number, _ in names.tables:
            alone = both(f"bit_set({SINGLE})", _is(first, number))
            rules.add("listed", f"COLUMN{number} then::bit_or({hex(first.bits(number, 0))})", when=alone)
            # Among several tables each may then be named once: there must be as many as FROM has places.
            if len(names.schema.tables) >= len(OUTER) and names.own_columns(number):
                for slot in OUTER:
                    bits = hex(slot.bits(number, 0) | 1 << BARE)
                    twice = [equals(other.table, number) for other in OUTER if other != slot]
                    fits = both(_is(slot, number), neither(*twice), self._linked(slot, number))
                    rules.add("own", f"OWN{number} then::bit_or({bits})", when=fits)

    def _assume(self, text: str, slot: Slot, number: int, style: int) -> str:
        """A column of the slot's table, or all; returns under which condition.

        A table that two slots have is marked: its columns are never unambiguous.
        """
        others = [other for other in OUTER if other != slot]
        twice = either(*(equals(other.table, number) for other in others))
        several = "" if slot.number == 1 else f"bit_clear({SINGLE})"
        code = self._names.code(text)
        fits = both(_may_be(slot, number, style), several, neither(*self._names.same_text(others, text)))
        once, again = both(neither(twice), self._linked(slot, number)), both(twice, f"bit_clear({BARE})")
        bits = slot.bits(number, style)
        column = f"COLUMN{number} then::bit_or"
        self._rules.add(f"named_{code}", f"{column}({hex(bits)})", when=both(fits, once))
        self._rules.add(f"named_{code}", f"{column}({hex(bits | 1 << TWICE)})", when=both(fits, again))
        star = f"STAR starred::bit_or({hex(bits)})"
        self._rules.add(f"named_{code}", star, when=both(fits, neither(twice), self._stars))
        return both(fits, either(once, again))

    def _linked(self, slot: Slot, number: int) -> str:
        """The tables assumed so far can be joined with this one over the tables that FROM has places for between them.

        Without this, the assumptions about a few columns that many tables have would be too many to follow.
        """
        everywhere = len(self._names.schema.tables)
        conditions = []
        for other in OUTER[:3]:
            near = self._names.near(number, max(slot.number, other.number) - 1)
            if other != slot and slot in OUTER[:3] and len(near) < everywhere:
                conditions.append(among(other.table, {0, *near}))
        return both(*conditions)


class _List:
    """The items of one family's lists."""

    def __init__(self, rules: Rules, names: Names, aliases: AliasRules, family: Family, first_plan: int) -> None:
        self._rules, self._names, self._aliases = rules, names, aliases
        self._family = family
        self._plans = {place.name: number for number, place in enumerate(family.places, first_plan)}
        self._column = "wanted" if family.name == "over" else "listed"

    def add(self) -> None:
        name = self._family.name
        self._rest()
        for kind in (ROW, TOTAL, OTHER):
            self._end(kind)
        starts = [f"{item} {self._end_of(kind)}" for item, kind in self._family.free]
        for place in self._family.places:
            starts += [self._step(f"{before} @{place.name}", place.kind) for before in place.before]
            self._after(place)
        self._totals()
        if name == "derived":
            self._rules.add("key_derived", self._step("@key", ROW))
        if "looks_out" in self._plans:
            starts += [f"OPEN_QUERY list_query_{name}::bit_and({hex(WITHOUT_INNER)})"]
            self._looking_out()
        self._rules.add_factored(f"items_{name}", starts)

    @property
    def starred(self) -> list[int]:
        """Plans under which an item may be T1.*"""
        return [self._plans["start"]] if self._family.number <= WHOLE else []

    def _rest(self) -> None:
        """What follows an item."""
        family = self._family
        for step in family.after_item:
            sign, _, target = step.partition(" ")
            if target == "from":
                target = f"from1::bit_or({hex(planned(family.number))})"
            when = ""
            if family.name == "derived":
                when = self._aliases.complete() if sign == "FROM" else self._aliases.room()
            self._rules.add(f"rest_{family.name}", f"{sign} {target}", when=when)

    def _end_of(self, kind: int) -> str:
        return f"end_{self._family.name}_{kind}"

    def _end(self, kind: int) -> None:
        name, rest = self._end_of(kind), f"rest_{self._family.name}"
        if self._family.number <= WHOLE:
            self._aliases.declare(name, rest, kind)
        elif self._family.name == "derived":
            self._aliases.supply(name, rest, kind)
        else:
            self._rules.add(name, rest, f"AS FREE_WORD {rest}")

    def _totals(self) -> None:
        name, end = self._family.name, self._end_of(TOTAL)
        goes_on = ["free_operand " + end]
        if "sum" in self._plans:
            goes_on.append(self._step("AGGREGATE @sum", TOTAL))
        self._rules.add_factored(f"total_{name}", [end, *(f"ARITHMETIC {body}" for body in goes_on)])
        self._rules.add(f"more_{name}", self._end_of(ROW), f"ARITHMETIC NUMBER {self._end_of(ROW)}")

    def _after(self, place: Place) -> None:
        goes_on = f"after_{self._family.name}_{place.name}"
        body = f"{goes_on}::bit_and({hex(WITHOUT_PLAN)})"
        self._rules.add("then", body, when=equals(PLAN, self._plans[place.name]))
        self._rules.add_factored(goes_on, (self._step(after, place.kind) for after in place.after))

    def _step(self, body: str, kind: int, column: str = "") -> str:
        """A body of a Place as symbols."""
        end = self._end_of(kind)
        meanings = {
            "end": end,
            "total": f"total_{self._family.name}",
            "more": f"more_{self._family.name}",
            "leave": f"{end}::bit_and({hex(WITHOUT_INNER)})",
        }

        def meaning(symbol: str) -> str:
            if symbol.startswith("@"):
                return f"{column or self._column}::bit_or({hex(planned(self._plans[symbol[1:]]))})"
            return meanings.get(symbol, symbol)

        return " ".join(meaning(symbol) for symbol in body.split())

    def _looking_out(self) -> None:
        """A subquery in the list whose WHERE names a column of the query around."""
        rules, names, name = self._rules, self._names, self._family.name
        first = INNER[0]
        where = f"list_where_{name}"
        rules.add(f"list_query_{name}", f"SELECT COUNT_ALL FROM list_in_{name}", f"SELECT AGGREGATE list_sum_{name}")
        for number, style, text in names.qualifiers(first):
            table = f"TABLE{number} {names.alias(text, style)}"
            bits = hex(first.bits(number, style))
            column = f"{names.qualified(text)} COLUMN{number}"
            seen = neither(*names.same_text(OUTER, text))
            rules.add(f"list_in_{name}", f"{table} {where}::bit_or({bits})", when=seen)
            rules.add(f"list_sum_{name}", f"{column} CLOSE FROM list_of_{name}::bit_or({bits})", when=seen)
            known = equals(first.whole, first.value(number, style))
            rules.add(f"list_of_{name}", f"{table} {where}", when=known)
            when = both(equals(first.table, number), seen)
            rules.add(f"list_bare_{name}", f"{table} {where}::bit_or({bits})", when=when)
        for number, _ in names.tables:
            bare = f"list_bare_{name}::bit_or({hex(first.bits(number, 0))})"
            rules.add(f"list_sum_{name}", f"COLUMN{number} CLOSE FROM {bare}")
        for body in ("WHERE inner_column COMPARE @looks_out", "WHERE @looks_in"):
            rules.add(where, self._step(body, OTHER, "listed_outside"))


def _is(slot: Slot, number: int) -> str:
    """Nothing is known of the slot, or it is this table."""
    return either(equals(slot.table, 0), equals(slot.table, number))


def _may_be(slot: Slot, number: int, style: int) -> str:
    """Nothing is known of the slot, or its table alone and it is this one, or both."""
    values = dict.fromkeys((0, slot.value(number, 0), slot.value(number, style)))
    return either(*(equals(slot.whole, value) for value in values))
