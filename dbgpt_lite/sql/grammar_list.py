"""The SELECT list of a grammar: columns of tables that FROM has not named yet.

What a qualifier means is assumed when a column after it is read, once for each table that has the column, and the
number of the rules carries the assumption to FROM. llguidance keeps such numbers apart only along the end of a rule:
where two numbers reach the same place, a rule that is called in the middle of another is taken for done with both.
So the list is written as a chain of rules, each of which ends with the next: a column, then by its PLAN what may come
after it. The rules called in the middle of the chain ask nothing of the number that can differ there.
"""

from dbgpt_lite.sql.grammar_aliases import AliasRules
from dbgpt_lite.sql.grammar_rules import Rules, both, either, equals, neither
from dbgpt_lite.sql.grammar_scope import (
    BARE,
    INNER,
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


class ListRules:
    """Writes the rules of every family's list into `rules`."""

    def __init__(self, rules: Rules, names: Names, aliases: AliasRules) -> None:
        self._rules, self._names, self._aliases = rules, names, aliases
        self._plans = 0

    def add(self) -> None:
        """items_F for each family F, and what they need."""
        self._common()
        self._columns()
        self._stars()
        self._aliases.want()
        for family in families(self._names.dialect):
            self._family(family)

    def _common(self) -> None:
        rules = self._rules
        rules.add("outcome", "literal", "NULL")
        rules.add("cases", "END", "ELSE outcome END")
        rules.add("test", "COMPARE moment", "COMPARE share", "LIKE TEXT", "BETWEEN moment AND moment", "IS_NULL")
        rules.add("test", "IN literals CLOSE", "IN set_1 CLOSE_QUERY")
        rules.add("counted", "WINDOW_ORDER free_count direction")
        rules.add("rounded", "rounding", "ARITHMETIC free_operand rounding")
        rules.add("list_more", '""', "AND condition_in")

    def _family(self, family: Family) -> None:
        rules, name = self._rules, family.name
        for step in family.after_item:
            sign, _, target = step.partition(" ")
            if target == "from":
                target = f"from1::bit_or({hex(planned(family.number))})"
            when = ""
            if name == "derived":
                when = self._aliases.complete() if sign == "FROM" else self._aliases.room()
            rules.add(f"rest_{name}", f"{sign} {target}", when=when)
        for kind in (ROW, TOTAL, OTHER):
            if family.number <= WHOLE:
                self._aliases.declare(f"end_item_{name}_{kind}", f"rest_{name}", kind)
            elif name == "derived":
                self._aliases.supply(f"end_item_{name}_{kind}", f"rest_{name}", kind)
            else:
                rules.add(f"end_item_{name}_{kind}", f"rest_{name}", f"AS FREE_WORD rest_{name}")
        for item, kind in family.free:
            rules.add(f"items_{name}", f"{item} end_item_{name}_{kind}")
        plans = {place.name: self._plan() for place in family.places}
        column = "wanted" if name == "over" else "listed"
        end = f"end_item_{name}_{TOTAL}"
        rules.add(f"total_{name}", end, f"ARITHMETIC free_operand {end}")
        rules.add(f"more_{name}", f"end_item_{name}_{ROW}", f"ARITHMETIC NUMBER end_item_{name}_{ROW}")
        if "sum" in plans:
            rules.add(f"total_{name}", self._step("ARITHMETIC AGGREGATE @sum", name, plans, TOTAL))
        for place in family.places:
            self._place(family, place, plans, column)
        if name == "derived":
            rules.add("key_derived", self._step("@key", name, plans, ROW))
        if "looks_out" in plans:
            self._looking_out(name, plans)
            rules.add(f"items_{name}", "star")

    def _plan(self) -> int:
        self._plans += 1
        if self._plans >= 1 << (PLAN[1] - PLAN[0]):
            raise ValueError("more plans than the number can hold")
        return self._plans

    def _place(self, family: Family, place: Place, plans: dict[str, int], column: str) -> None:
        rules, name = self._rules, family.name
        goes_on = f"after_{name}_{place.name}"
        for before in place.before:
            rules.add(f"items_{name}", self._step(f"{before} @{place.name}", name, plans, place.kind, column))
        rules.add("then", f"{goes_on}::bit_and({hex(WITHOUT_PLAN)})", when=equals(PLAN, plans[place.name]))
        for after in place.after:
            rules.add(goes_on, self._step(after, name, plans, place.kind, column))

    @staticmethod
    def _step(body: str, family: str, plans: dict[str, int], kind: int, column: str = "listed") -> str:
        end = f"end_item_{family}_{kind}"
        meanings = {
            "end": end,
            "total": f"total_{family}",
            "more": f"more_{family}",
            "leave": f"{end}::bit_and({hex(WITHOUT_INNER)})",
        }
        symbols = (
            f"{column}::bit_or({hex(planned(plans[symbol[1:]]))})" if symbol[0] == "@" else meanings.get(symbol, symbol)
            for symbol in body.split()
        )
        return " ".join(symbols)

    # --- columns

    def _columns(self) -> None:
        """listed: a column, then `then` with its table known."""
        rules, names = self._rules, self._names
        first = OUTER[0]
        for number, _ in names.tables:
            alone = both(f"bit_set({SINGLE})", _is(first, number))
            rules.add("listed", f"COLUMN{number} then::bit_or({hex(first.bits(number, 0))})", when=alone)
            if names.own_columns(number):
                for slot in OUTER:
                    bits = hex(slot.bits(number, 0) | 1 << BARE)
                    several = both(f"bit_clear({SINGLE})", f"bit_clear({TWICE})", _is(slot, number))
                    rules.add("listed", f"OWN{number} then::bit_or({bits})", when=several)
        for slot in OUTER:
            for number, style, text in names.qualifiers(slot):
                self._assume(f"named_{names.code(text)}", slot, number, style)
        for text in names.texts(OUTER):
            named = f"named_{names.code(text)}"
            possible = either(*(when for _, when in rules.rules[named]))
            rules.add("listed", f"{names.qualified(text)} {named}", when=possible)
            # Within an inner query, whose own qualifiers hide the same ones around it.
            visible = neither(*names.same_text(INNER, text))
            rules.add("listed_outside", f"{names.qualified(text)} {named}", when=both(possible, visible))

    def _assume(self, rule: str, slot: Slot, number: int, style: int) -> None:
        """A column of the slot's table. A table that two slots have is marked: its columns are never unambiguous."""
        twice = either(*(equals(other.table, number) for other in OUTER if other != slot))
        several = "" if slot.number == 1 else f"bit_clear({SINGLE})"
        fits = both(_may_be(slot, number, style), several)
        bits = slot.bits(number, style)
        body = f"COLUMN{number} then::bit_or"
        self._rules.add(rule, f"{body}({hex(bits)})", when=both(fits, neither(twice)))
        self._rules.add(rule, f"{body}({hex(bits | 1 << TWICE)})", when=both(fits, twice, f"bit_clear({BARE})"))

    def _stars(self) -> None:
        """T1.*"""
        rules, names = self._rules, self._names
        for slot in OUTER:
            several = "" if slot.number == 1 else f"bit_clear({SINGLE})"
            for number, style, text in names.qualifiers(slot):
                twice = either(*(equals(other.table, number) for other in OUTER if other != slot))
                when = both(_may_be(slot, number, style), several, neither(twice))
                rest = f"rest_many::bit_or({hex(slot.bits(number, style))})"
                rules.add(f"starred_{names.code(text)}", f"STAR {rest}", when=when)
        for text in names.texts(OUTER):
            starred = f"starred_{names.code(text)}"
            possible = either(*(when for _, when in rules.rules[starred]))
            rules.add("star", f"{names.qualified(text)} {starred}", when=possible)

    def _looking_out(self, name: str, plans: dict[str, int]) -> None:
        """A subquery in the list whose WHERE names a column of the query around."""
        rules, names = self._rules, self._names
        first = INNER[0]
        where = f"list_where_{name}"
        rules.add(f"items_{name}", f"OPEN_QUERY list_query_{name}::bit_and({hex(WITHOUT_INNER)})")
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
            rules.add(where, self._step(body, name, plans, OTHER, "listed_outside"))


def _is(slot: Slot, number: int) -> str:
    """Nothing is known of the slot, or it is this table."""
    return either(equals(slot.table, 0), equals(slot.table, number))


def _may_be(slot: Slot, number: int, style: int) -> str:
    """Nothing is known of the slot, or its table alone and it is this one, or both."""
    values = dict.fromkeys((0, slot.value(number, 0), slot.value(number, style)))
    return either(*(equals(slot.whole, value) for value in values))
