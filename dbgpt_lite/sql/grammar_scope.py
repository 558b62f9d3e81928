"""Which table each qualifier of a query means, as bits of the number that a grammar's rules carry.

The bits, from the lowest: four slots of the query itself, one for each table of its FROM clause, two slots of a
subquery that looks at it from inside, then what is known before FROM was read. A slot is a table (its place in the
schema, from 1, 0 for none) and the style of its qualifier (0 while that is open).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from dbgpt_lite.sql.dialects import is_reserved, spelled
from dbgpt_lite.sql.grammar_rules import equals
from dbgpt_lite.sql.schema import Schema, TableInfo

MAX_TABLES = 63
_TABLE_BITS, _STYLE_BITS = 6, 3
NUMBERED, NAME, LETTER, SHORT, THREE, PLACE, COUNTED = range(1, 8)
"""Styles of a qualifier of customers in the second place: T2, customers, c, cu, cus, b, c2."""
STYLES = (NUMBERED, NAME, LETTER, SHORT, THREE, PLACE, COUNTED)
_LIKE_NUMBERED = re.compile("[Tt][1-9]")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of one table in a FROM clause, from 1; `inner` for a subquery that sees the query around it."""

    number: int
    inner: bool = False

    @property
    def _start(self) -> int:
        return (self.number - 1 + (4 if self.inner else 0)) * (_TABLE_BITS + _STYLE_BITS)

    @property
    def table(self) -> tuple[int, int]:
        """Bits of the table."""
        return self._start, self._start + _TABLE_BITS

    @property
    def style(self) -> tuple[int, int]:
        """Bits of the style."""
        return self._start + _TABLE_BITS, self._start + _TABLE_BITS + _STYLE_BITS

    @property
    def whole(self) -> tuple[int, int]:
        """Bits of both."""
        return self._start, self._start + _TABLE_BITS + _STYLE_BITS

    def value(self, table: int, style: int) -> int:
        """What `whole` is for a table with a style."""
        return table | style << _TABLE_BITS

    def bits(self, table: int, style: int) -> int:
        """The same at its place in the number."""
        return self.value(table, style) << self._start


OUTER = tuple(Slot(number) for number in range(1, 5))
INNER = tuple(Slot(number, inner=True) for number in range(1, 3))
SINGLE, BARE, TWICE = 54, 55, 56
"""Flags: FROM will name one table only; a column was named without its table; two slots have the same table."""
PLAN = (57, 64)
"""How the text goes on: after a column of the SELECT list, after FROM."""


def planned(number: int) -> int:
    """PLAN set to `number`, where it was 0."""
    return number << PLAN[0]


WITHOUT_PLAN = (1 << PLAN[0]) - 1
ALIASES = (INNER[0].whole, INNER[1].whole)
"""Two output names of the SELECT list, where no inner query is read: they share its bits."""
WITHOUT_INNER = WITHOUT_PLAN & ~(((1 << 2 * (_TABLE_BITS + _STYLE_BITS)) - 1) << 4 * (_TABLE_BITS + _STYLE_BITS))


@dataclass(frozen=True)
class Names:
    """How the tables and columns of a schema are written in a dialect. Tables count from 1."""

    schema: Schema
    dialect: str

    @property
    def tables(self) -> Iterator[tuple[int, TableInfo]]:
        """Every table with its number."""
        return enumerate(self.schema.tables, 1)

    def spelled(self, name: str) -> str:
        """The name as it stands in a query."""
        return spelled(name, self.dialect)

    def columns(self, table: TableInfo) -> list[str]:
        """The table's columns as they stand in a query."""
        return [self.spelled(column.name) for column in table.columns]

    @cached_property
    def holders(self) -> dict[str, tuple[int, ...]]:
        """Column in lower case -> numbers of the tables that have it."""
        found: dict[str, tuple[int, ...]] = {}
        for number, table in self.tables:
            for column in table.columns:
                found[column.name.lower()] = (*found.get(column.name.lower(), ()), number)
        return found

    def near(self, number: int, steps: int) -> frozenset[int]:
        """Tables that at most so many joins lead to from this one, itself among them."""
        reached = frozenset((number,))
        for _ in range(steps):
            reached |= frozenset().union(*(self._links[table] for table in reached))
        return reached

    @cached_property
    def _links(self) -> dict[int, set[int]]:
        """Tables that refer to each other by a foreign key, or else share a column that few tables have."""
        numbers = {table.name.lower(): number for number, table in self.tables}
        links: dict[int, set[int]] = {number: set() for number, _ in self.tables}
        rare = max(3, len(numbers) // 4)
        shared = [holders for holders in self.holders.values() if 1 < len(holders) <= rare]
        pairs = [(one, other) for holders in shared for one in holders for other in holders]
        for number, table in self.tables:
            named = [key.target.lower() for key in table.foreign_keys] + list(_named_keys(table))
            pairs += [(number, numbers[name]) for name in named if name in numbers]
        for one, other in pairs:
            links[one].add(other)
            links[other].add(one)
        return links

    def own_columns(self, number: int) -> list[str]:
        """Columns that no other table has."""
        table = self.schema.tables[number - 1]
        return [self.spelled(column.name) for column in table.columns if len(self.holders[column.name.lower()]) == 1]

    def qualifier(self, slot: Slot, number: int, style: int) -> str:
        """The text of a qualifier, "" when the style has none for this table. Inner queries count on from T1."""
        table = self.schema.tables[number - 1]
        if style == NUMBERED:
            return f"T{slot.number + slot.inner}"
        if style == NAME:
            # A table that is called T1 cannot go without an alias.
            return "" if _LIKE_NUMBERED.fullmatch(table.name) else self.spelled(table.name)
        if style in (PLACE, COUNTED) and slot.number > len(INNER):
            return ""
        if style == PLACE:
            return f"T{slot.number + 2}" if slot.inner else "ab"[slot.number - 1]
        text = _shortened(table.name, style)
        if style == COUNTED:
            return text + str(slot.number) if text and text != "t" else ""
        return "" if is_reserved(text) or self.schema.table(text) else text

    def qualifiers(self, slot: Slot) -> Iterator[tuple[int, int, str]]:
        """(table, style, text) of everything the slot can be."""
        for number, _ in self.tables:
            for style in STYLES:
                if text := self.qualifier(slot, number, style):
                    yield number, style, text

    def texts(self, slots: Sequence[Slot]) -> list[str]:
        """Every qualifier that one of the slots can have, once."""
        return sorted({text for slot in slots for _, _, text in self.qualifiers(slot)})

    def qualified(self, text: str) -> str:
        """The terminal of a qualifier and its dot."""
        return f"Q_{self.code(text).upper()}"

    @staticmethod
    def code(text: str) -> str:
        """The text in letters that names may have."""
        return text.encode().hex()

    def alias(self, text: str, style: int) -> str:
        """The terminal of the alias that makes this qualifier, "" when the table's own name does."""
        return "" if style == NAME else f"A_{self.code(text).upper()}"

    def same_text(self, slots: Sequence[Slot], text: str) -> list[str]:
        """Conditions, each of which says that one of the slots has a qualifier with this text."""
        holders = self._by_text.get(text.lower(), ())
        return [equals(slot.whole, slot.value(number, style)) for slot, number, style in holders if slot in slots]

    @cached_property
    def _by_text(self) -> dict[str, list[tuple[Slot, int, int]]]:
        found: dict[str, list[tuple[Slot, int, int]]] = {}
        for slot in (*OUTER, *INNER):
            for number, style, text in self.qualifiers(slot):
                found.setdefault(text.lower(), []).append((slot, number, style))
        return found


def _named_keys(table: TableInfo) -> Iterator[str]:
    """Names of tables that the table's columns are named after: customer_id or customerId after customer, customers."""
    for column in table.columns:
        stem = re.sub("_?id$", "", column.name.lower())
        if stem and stem != column.name.lower():
            yield from (stem, f"{stem}s", f"{stem}es", re.sub("y$", "ies", stem))


def _shortened(name: str, style: int) -> str:
    words: list[str] = _WORD.findall(name) if name.isascii() else []
    if not words:
        return ""
    first = words[0].lower()
    if style == SHORT:
        return "".join(word[0].lower() for word in words) if len(words) > 1 else first[:2]
    return first[:3] if style == THREE else first[0]
