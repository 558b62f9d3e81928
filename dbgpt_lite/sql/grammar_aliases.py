"""Output names that a grammar remembers, so that GROUP BY, HAVING and ORDER BY may use them.

A grammar cannot tie two free words to each other. It can tie a word of a list, by its place there. The list holds the
words that people and models use most, and those that they make of a schema's own names. Any other alias may be given
to an output column too; only its use elsewhere is left out.
"""

import re
from collections.abc import Iterable, Iterator

from dbgpt_lite.sql.dialects import RESERVED, is_reserved
from dbgpt_lite.sql.grammar_rules import Rules, both, either, equals, neither
from dbgpt_lite.sql.grammar_scope import ALIASES, Names
from dbgpt_lite.sql.grammar_shapes import OTHER, ROW, TOTAL
from dbgpt_lite.sql.grammar_words import SPACE, words_pattern
from dbgpt_lite.sql.schema import ColumnInfo, TableInfo

_KIND_BITS = 2
_WORDS = 127
_COMMON_TEXT = """
    n m y cnt num number value share percent percentage ratio difference day weekday week month quarter year hour
    period size bucket decade place position rnk rn row_num running running_total previous next_value
    count total sum average avg amount sales revenue spent orders customers total_amount total_sales total_revenue
    total_spent total_orders total_quantity order_count customer_count product_count avg_price avg_rating
    average_price average_rating avg_salary max_price min_price
"""


def alias_words(names: Names) -> list[str]:
    """The words, in lower case, at most 127; none is a column's or table's name or reserved."""
    found: dict[str, None] = {}
    for word in (*_COMMON_TEXT.split(), *_made(names)):
        taken = word in names.holders or is_reserved(word) or names.schema.table(word) is not None
        if not taken and re.fullmatch(r"[a-z][a-z0-9_]{0,39}", word):
            found[word] = None
    return list(found)[:_WORDS]


def _made(names: Names) -> Iterator[str]:
    tables = [table for _, table in names.tables]
    for table in tables:
        yield f"{_singular(table)}_count"
        yield f"num_{table.name.lower()}"
    for column in _numbers(tables):
        yield from (f"total_{column}", f"avg_{column}", f"average_{column}", f"max_{column}", f"min_{column}")


def _singular(table: TableInfo) -> str:
    name = table.name.lower()
    return re.sub("ies$", "y", name) if name.endswith("ies") else name.removesuffix("s")


def _numbers(tables: Iterable[TableInfo]) -> list[str]:
    def counts(column: ColumnInfo) -> bool:
        return column.kind != "TEXT" and not column.primary_key and not column.name.lower().endswith("id")

    return list(dict.fromkeys(column.name.lower() for table in tables for column in table.columns if counts(column)))


class AliasRules:
    """Writes what declares and what uses a remembered word."""

    def __init__(self, rules: Rules, names: Names) -> None:
        self._rules = rules
        self._words = alias_words(names)
        taken = {*(name for name in names.holders if name.isascii()), *RESERVED, *self._words}
        for number, word in enumerate(self._words, 1):
            rules.terminal(f"W_{number}", f"(?i:{word})")
        rules.terminal("AS", rf"{SPACE}(?i:as) ")
        rules.terminal("FREE_WORD", "[A-Za-z_][A-Za-z_0-9]{0,40}", but=f"(?i:{words_pattern(taken)})")

    def declare(self, name: str, rest: str, kind: int) -> None:
        """`name`: the end of an item of that kind, with or without an alias, then `rest`."""
        rules, (first, second) = self._rules, ALIASES
        rules.add(name, rest, f"AS FREE_WORD {rest}", f"AS known_{name}")
        full = neither(equals(first, 0), equals(second, 0))
        for number in range(1, len(self._words) + 1):
            terminal = f"W_{number}"
            value = number << _KIND_BITS | kind
            free = equals(first, 0)
            rules.add(f"known_{name}", f"{terminal} {rest}::bit_or({hex(value << first[0])})", when=free)
            free = both(neither(equals(first, 0)), equals(second, 0))
            rules.add(f"known_{name}", f"{terminal} {rest}::bit_or({hex(value << second[0])})", when=free)
            rules.add(f"known_{name}", f"{terminal} {rest}", when=full)

    def use(self) -> None:
        """grouped_alias, having_alias and ordered_alias: a word that was declared and may stand there."""
        for rule, kinds in (
            ("grouped_alias", (ROW,)),
            ("having_alias", (TOTAL,)),
            ("ordered_alias", (ROW, TOTAL, OTHER)),
        ):
            for number in range(1, len(self._words) + 1):
                values = [number << _KIND_BITS | kind for kind in kinds]
                when = either(*(equals(place, value) for place in ALIASES for value in values))
                self._rules.add(rule, f"W_{number}", when=when)

    # --- subqueries in FROM: the list before FROM wants words, the subquery must give them

    def want(self) -> None:
        """`wanted`: a word of the subquery that FROM will name, then `then` with the word noted."""
        for number in range(1, len(self._words) + 1):
            first, second = (either(equals(_word(place), 0), equals(_word(place), number)) for place in ALIASES)
            taken = neither(first)
            for place, when in zip(ALIASES, (first, both(taken, second)), strict=True):
                value = hex(number << _KIND_BITS + place[0])
                self._rules.add("wanted", f"W_{number} then::bit_or({value})", when=when)

    def supply(self, name: str, rest: str, kind: int) -> None:
        """`name`: the end of an item of the subquery; its alias, which it must have, is one that is wanted or new."""
        self._rules.add(name, f"AS supplied_{name}")
        for number in range(1, len(self._words) + 1):
            wanted = number << _KIND_BITS
            first, second = (either(equals(place, 0), equals(place, wanted)) for place in ALIASES)
            other = neither(equals(_word(ALIASES[0]), 0), equals(_word(ALIASES[0]), number))
            for place, when in zip(ALIASES, (first, both(other, second)), strict=True):
                value = hex((wanted | kind) << place[0])
                self._rules.add(f"supplied_{name}", f"W_{number} {rest}::bit_or({value})", when=when)

    @staticmethod
    def complete() -> str:
        """The condition that the subquery gives every word that is wanted."""
        return both(*(either(equals(place, 0), neither(equals(_kind(place), 0))) for place in ALIASES))

    @staticmethod
    def room() -> str:
        """The condition that one more item of the subquery finds an alias."""
        return either(*(equals(_kind(place), 0) for place in ALIASES))


def _kind(place: tuple[int, int]) -> tuple[int, int]:
    return place[0], place[0] + _KIND_BITS


def _word(place: tuple[int, int]) -> tuple[int, int]:
    return place[0] + _KIND_BITS, place[1]
