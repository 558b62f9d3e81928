"""The SELECT list of a grammar: columns of tables that FROM has not named yet.

A column whose qualifier is new is read first and then decides, for each table that has it, what the qualifier means.
So the text around it is cut in two: what stands before it, and a numbered plan of how the text goes on after it. The
number travels in the bits PLAN. An expression over qualifiers that are known already is the plain rule.
"""

from dataclasses import dataclass

from dbgpt_lite.sql.grammar_rules import Rules, both, either, equals, neither
from dbgpt_lite.sql.grammar_scope import (
    BARE,
    INNER,
    NUMBERED,
    OUTER,
    PLACE,
    PLAN,
    SINGLE,
    WITHOUT_INNER,
    WITHOUT_PLAN,
    Names,
    Slot,
    planned,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to use a new column: what is written before it and after it.

    In `after`, `value_end`, `total_end` and `item_end` lead to the next item; `+name` reads another new column and
    goes on as the shape `name` does. A shape without `before` only continues another one.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]


_VALUES = (
    Shape("plain", ("",), ("value_end", "ARITHMETIC +plain_2")),
    Shape("plain_2", (), ("item_end",)),
    Shape("function", ("ONE_ARGUMENT",), ("CLOSE value_end",)),
    Shape("round", ("ROUND_OF",), ("rounding value_end", "ARITHMETIC operand rounding value_end")),
    Shape("cast", ("CAST_OF",), ("AS_TYPE value_end",)),
    Shape("part", ("SUBSTRING_OF",), ("COMMA NUMBER length value_end",)),
    Shape("instead", ("COALESCE_OF", "IFNULL_OF", "NULLIF_OF"), ("COMMA literal CLOSE value_end",)),
    Shape("case", ("CASE",), ("test THEN choice cases value_end", "test THEN +case_then")),
    Shape("case_then", (), ("cases value_end",)),
)
_VALUES_OF = {
    "sqlite": (
        Shape("date", ("STRFTIME_OF FORMAT COMMA",), ("shifts value_end",)),
        Shape("join", ("TEXT CONCAT",), ("value_end", "CONCAT joined item_end")),
    ),
    "mysql": (
        Shape("date", ("DATE_FORMAT_OF",), ("COMMA FORMAT CLOSE value_end",)),
        Shape("join", ("CONCAT_OF",), ("COMMA more item_end", "COMMA TEXT COMMA +join_2")),
        Shape("join_2", (), ("CLOSE item_end",)),
    ),
}
_TOTALS = (
    Shape(
        "sum",
        ("AGGREGATE", "COUNT_ALL ARITHMETIC AGGREGATE", "COUNT_ALL ARITHMETIC NUMBER ARITHMETIC AGGREGATE"),
        ("CLOSE total_end", "ARITHMETIC operand CLOSE total_end", "ARITHMETIC +sum_2"),
    ),
    Shape("sum_2", (), ("CLOSE total_end",)),
    Shape("list", ("LIST_OF",), ("CLOSE total_end",)),
    Shape(
        "sum_case",
        ("AGGREGATE CASE",),
        ("test THEN choice cases CLOSE total_end", "test THEN +sum_case_then"),
    ),
    Shape("sum_case_then", (), ("cases CLOSE total_end",)),
    Shape(
        "round_sum",
        ("ROUND_OF AGGREGATE",),
        ("CLOSE rounded total_end", "ARITHMETIC operand CLOSE rounded total_end", "ARITHMETIC +round_sum_2"),
    ),
    Shape("round_sum_2", (), ("CLOSE rounded total_end",)),
    Shape(
        "sum_of",
        ("AGGREGATE ONE_ARGUMENT",),
        ("CLOSE CLOSE total_end", "CLOSE ARITHMETIC operand CLOSE total_end", "CLOSE ARITHMETIC ONE_ARGUMENT +sum_of_2"),
    ),
    Shape("sum_of_2", (), ("CLOSE CLOSE total_end",)),
)
_WINDOWS = (
    Shape("over", ("TOTAL",), ("CLOSE OVER framed CLOSE item_end",)),
    Shape("parted", ("RANKING OVER PARTITION",), ("parted CLOSE item_end",)),
    Shape("ranked", ("RANKING OVER WINDOW_ORDER",), ("direction ordered_on CLOSE item_end",)),
    Shape("ranked_sum", ("RANKING OVER WINDOW_ORDER AGGREGATE",), ("CLOSE direction ordered_on CLOSE item_end",)),
    Shape("shifted", ("SHIFTED",), ("SHIFT_BY OVER frame CLOSE item_end",)),
)
_LOOKING_OUT = (
    Shape("looks_out", (), ("inner_tail CLOSE_QUERY ~as",)),
    Shape("looks_in", (), ("COMPARE inner_column inner_tail CLOSE_QUERY ~as",)),
)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of SELECT list: what an item may be, what comes after it, how its query ends.

    `free` are items without any column; `after_item` leads on.
    """

    name: str
    number: int
    shapes: tuple[Shape, ...]
    bound: tuple[str, ...]
    free: tuple[str, ...]
    after_item: tuple[str, ...]


def families(dialect: str) -> tuple[Family, ...]:
    """All of them. `many`, `two` and `first` are lists of a whole query, the others of a part of one."""
    values = (*_VALUES, *_VALUES_OF[dialect])
    rows = (*values, *_TOTALS)
    whole = (*rows, *_WINDOWS, *_LOOKING_OUT)
    anything = ("value", "total", "window", "OPEN_QUERY inner_value CLOSE_QUERY")
    free = ("free_count", "share", "RANKING OVER counted CLOSE")
    few = tuple(shape for shape in rows if shape.name in ("plain", "plain_2", "function", "sum", "sum_2", "date"))
    return (
        Family("many", 1, whole, anything, free, ("COMMA items_many", "FROM from_many")),
        Family("two", 2, whole, anything, free, ("COMMA items_many", "FROM from_two")),
        Family("first", 3, whole, anything, free, ("COMMA items_two", "FROM from_first")),
        Family("set1", 4, few, ("value", "total"), ("free_count",), ("FROM from_set1",)),
        Family("set2", 5, few, ("value", "total"), ("free_count",), ("COMMA items_set1b",)),
        Family("set1b", 6, few, ("value", "total"), ("free_count",), ("FROM from_set1b",)),
        Family("sum", 7, _TOTALS, ("total",), ("free_count",), ("FROM from_sum",)),
        Family("one", 8, few[:3], ("value",), (), ("FROM from_one",)),
    )


class ListRules:
    """Writes the rules of every family's list into `rules`."""

    def __init__(self, rules: Rules, names: Names) -> None:
        self._rules, self._names = rules, names
        self._plans = 0

    def add(self) -> None:
        """items_F for each family F, and what they need."""
        self._common()
        self._new_columns()
        for family in families(self._names.dialect):
            self._family(family)

    def _common(self) -> None:
        rules = self._rules
        rules.add("as", '""', "FREE_ALIAS")
        rules.add("test", "one_test", "one_test LOGIC condition")
        rules.add("counted", "WINDOW_ORDER free_count direction")
        rules.add("parted", '""', "COMMA groups", "WINDOW_ORDER_NEXT window_orders")
        rules.add("parted", "COMMA groups WINDOW_ORDER_NEXT window_orders")
        rules.add("ordered_on", '""', "COMMA window_orders")
        rules.add("rounded", "rounding", "ARITHMETIC summand rounding")
        rules.add("inner_tail", '""', "AND condition_in")

    def _family(self, family: Family) -> None:
        rules, name = self._rules, family.name
        for step in family.after_item:
            sign, _, target = step.partition(" ")
            if target.startswith("from_"):
                target = f"from1::bit_or({hex(planned(family.number))})"
            rules.add(f"rest_{name}", f"{sign} {target}")
        rules.add(f"item_end_{name}", f"as rest_{name}")
        rules.add(f"value_end_{name}", f"item_end_{name}", f"ARITHMETIC operand item_end_{name}")
        rules.add(f"total_end_{name}", f"item_end_{name}", f"ARITHMETIC summand item_end_{name}")
        for item in (*family.bound, *family.free):
            rules.add(f"items_{name}", f"{item} item_end_{name}")
        plans = {shape.name: self._plan() for shape in family.shapes}
        for shape in family.shapes:
            self._shape(family, shape, plans)
        if "looks_out" in plans:
            self._looking_out(name, plans)
            rules.add(f"items_{name}", f"star_{name}")
            self._stars(name)

    def _plan(self) -> int:
        self._plans += 1
        if self._plans >= 1 << (PLAN[1] - PLAN[0]):
            raise ValueError("more plans than the number can hold")
        return self._plans

    def _shape(self, family: Family, shape: Shape, plans: dict[str, int]) -> None:
        rules, name = self._rules, family.name
        goes_on = f"after_{name}_{shape.name}"
        for before in shape.before:
            rules.add(f"items_{name}", f"{before} new::bit_or({hex(planned(plans[shape.name]))})")
        rules.add("then", f"{goes_on}::bit_and({hex(WITHOUT_PLAN)})", when=equals(PLAN, plans[shape.name]))
        for after in shape.after:
            rules.add(goes_on, " ".join(self._after(symbol, name, plans) for symbol in after.split()))

    @staticmethod
    def _after(symbol: str, name: str, plans: dict[str, int]) -> str:
        if symbol.startswith("+"):
            return f"new::bit_or({hex(planned(plans[symbol[1:]]))})"
        if symbol == "~as":
            return f"item_end_{name}::bit_and({hex(WITHOUT_INNER)})"
        return f"{symbol}_{name}" if symbol in ("value_end", "total_end", "item_end") else symbol

    # --- new columns

    def _new_columns(self) -> None:
        """new: a column whose qualifier is new, then `then` with the qualifier known."""
        rules, names = self._rules, self._names
        for number, _ in names.tables:
            first = OUTER[0]
            alone = both(f"bit_set({SINGLE})", equals(first.whole, 0))
            rules.add("new", f"COLUMN{number} then::bit_or({hex(first.bits(number, 0))})", when=alone)
            if names.own_columns(number):
                for slot in OUTER:
                    bits = hex(slot.bits(number, 0) | 1 << BARE)
                    open_ = both(f"bit_clear({SINGLE})", equals(slot.whole, 0))
                    rules.add("new", f"OWN{number} then::bit_or({bits})", when=open_)
        for slot in OUTER:
            self._new_qualifiers(slot)

    def _new_qualifiers(self, slot: Slot) -> None:
        rules, names = self._rules, self._names
        several = "" if slot.number == 1 else f"bit_clear({SINGLE})"
        for number, style, text in names.qualifiers(slot):
            bits = hex(slot.bits(number, style))
            open_ = _open(slot, number)
            if style in (NUMBERED, PLACE):
                after = f"new{slot.number}_{style}"
                if after not in rules.rules:
                    when = both(equals(slot.style, 0), several, neither(*names.same_text(INNER, text)))
                    rules.add("new", f"{names.qualified(text)} {after}", when=when)
                rules.add(after, f"COLUMN{number} then::bit_or({bits})", when=open_)
            else:
                when = both(open_, several, neither(*names.same_text(INNER, text)))
                rules.add("new", f"{names.qualified(text)} COLUMN{number} then::bit_or({bits})", when=when)

    def _stars(self, name: str) -> None:
        """T1.*"""
        rules, names = self._rules, self._names
        for slot in OUTER:
            for number, style, text in names.qualifiers(slot):
                if slot.number > 1 and style not in (NUMBERED,):
                    continue
                several = "" if slot.number == 1 else f"bit_clear({SINGLE})"
                known = equals(slot.whole, slot.value(number, style))
                rest = f"rest_many::bit_or({hex(slot.bits(number, style))})"
                when = both(either(_open(slot, number), known), several)
                rules.add(f"star_{name}", f"{names.qualified(text)} STAR {rest}", when=when)

    def _looking_out(self, name: str, plans: dict[str, int]) -> None:
        """A subquery in the list whose WHERE names a new qualifier of the query around."""
        rules, names = self._rules, self._names
        out, in_ = (f"new::bit_or({hex(planned(plans[shape]))})" for shape in ("looks_out", "looks_in"))
        first = INNER[0]
        rules.add(f"items_{name}", f"OPEN_QUERY SELECT COUNT_ALL FROM list_in_{name}")
        for number, style, text in names.qualifiers(first):
            alias = names.alias(text, style)
            bits = hex(first.bits(number, style))
            rules.add(f"list_in_{name}", f"TABLE{number} {alias} list_where_{name}::bit_or({bits})")
            known = f"list_of_{name}::bit_or({bits})"
            rules.add(
                f"items_{name}",
                f"OPEN_QUERY SELECT AGGREGATE {names.qualified(text)} COLUMN{number} CLOSE FROM {known}",
            )
            when = equals(first.whole, first.value(number, style))
            rules.add(f"list_of_{name}", f"TABLE{number} {alias} list_where_{name}", when=when)
        for number, _ in names.tables:
            known = f"list_bare_{name}::bit_or({hex(first.bits(number, 0))})"
            rules.add(f"items_{name}", f"OPEN_QUERY SELECT AGGREGATE COLUMN{number} CLOSE FROM {known}")
        for number, style, text in names.qualifiers(first):
            bits = hex(first.bits(number, style))
            body = f"TABLE{number} {names.alias(text, style)} list_where_{name}::bit_or({bits})"
            rules.add(f"list_bare_{name}", body, when=equals(first.table, number))
        rules.add(f"list_where_{name}", f"WHERE inner_column COMPARE {out}", f"WHERE {in_}")


def _open(slot: Slot, number: int) -> str:
    """Nothing is known of the slot, or only its table, and that is the one."""
    return either(equals(slot.whole, 0), equals(slot.whole, slot.value(number, 0)))
