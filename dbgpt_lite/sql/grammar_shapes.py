"""What the SELECT lists of a grammar are made of: the places of a column, and the kinds of lists."""

from dataclasses import dataclass, replace

ROW, TOTAL, OTHER = 1, 2, 3
"""What an output column stands for: a value of each row, an aggregate, anything else (windows, subqueries)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a column: what is written before it at the start of an item, and all that may come after it.

    In both, `@name` is another column at the place `name`, and `end` the end of the item. `kind`: what an
    output name of the item stands for.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    kind: int = ROW


_JOINED = ("end", "CONCAT TEXT end", "CONCAT @join", "CONCAT TEXT CONCAT @join")
_PLAIN = ("end", "ARITHMETIC NUMBER end", "ARITHMETIC share end", "ARITHMETIC @plain")
_PLAIN_OF = {"sqlite": ("CONCAT TEXT end", "CONCAT @plain", "CONCAT TEXT CONCAT @plain"), "mysql": ()}
_VALUES = (
    Place("function", ("ONE_ARGUMENT",), ("CLOSE end", "CLOSE ARITHMETIC NUMBER end")),
    Place("round", ("ROUND_OF",), ("rounding end", "ARITHMETIC NUMBER rounding end", "ARITHMETIC @round")),
    Place("cast", ("CAST_OF",), ("AS_TYPE end",)),
    Place("part_cast", ("CAST_OF SUBSTRING_OF",), ("COMMA NUMBER length AS_TYPE end",)),
    Place("replaced", ("REPLACE_OF",), ("COMMA TEXT COMMA TEXT CLOSE end",)),
    Place("group", ("OPEN",), ("ARITHMETIC @group", "ARITHMETIC NUMBER CLOSE more", "CLOSE more")),
    Place("part", ("SUBSTRING_OF",), ("COMMA NUMBER length end",)),
    Place("instead", ("COALESCE_OF", "IFNULL_OF", "NULLIF_OF"), ("COMMA literal CLOSE end",)),
    Place("case", ("CASE",), ("test LOGIC @case", "test THEN outcome cases end", "test THEN outcome WHEN @case")),
    Place("choice", ("IF_OF",), ("test LOGIC @choice", "test COMMA outcome COMMA outcome CLOSE end")),
)
_VALUES_OF = {
    "sqlite": (
        Place("date", ("STRFTIME_OF FORMAT COMMA",), ("shifts end",)),
        Place("shifted_date", ("DATE_OF",), ("COMMA SHIFT CLOSE end",)),
        Place("join", ("TEXT CONCAT",), _JOINED),
    ),
    "mysql": (
        Place("date", ("DATE_FORMAT_OF",), ("COMMA FORMAT CLOSE end",)),
        Place("join", ("CONCAT_OF", "CONCAT_OF TEXT COMMA"), ("CLOSE end", "COMMA @join", "COMMA TEXT COMMA @join")),
        Place("days", ("DATE_DIFF_OF",), ("COMMA moment CLOSE end", "COMMA @function")),
    ),
}
_COUNTS = ("", "COUNT_ALL ARITHMETIC ", "COUNT_ALL ARITHMETIC NUMBER ARITHMETIC ")
_TOTALS = (
    Place(
        "sum",
        tuple(f"{count}AGGREGATE" for count in _COUNTS),
        (
            "CLOSE total",
            "ARITHMETIC NUMBER CLOSE total",
            "ARITHMETIC @sum",
            "ARITHMETIC OPEN NUMBER ARITHMETIC @part_of",
        ),
    ),
    Place("part_of", (), ("CLOSE CLOSE total",)),
    Place("list", ("LIST_OF",), ("CLOSE end",)),
    Place(
        "sum_case",
        ("AGGREGATE CASE",),
        (
            "test LOGIC @sum_case",
            "test THEN outcome cases CLOSE total",
            "test THEN outcome WHEN @sum_case",
            "test THEN @sum_then",
        ),
    ),
    Place("sum_then", (), ("cases CLOSE total", "ARITHMETIC @sum_then")),
    Place("sum_of", ("AGGREGATE ONE_ARGUMENT",), ("CLOSE CLOSE total", "CLOSE ARITHMETIC ONE_ARGUMENT @sum_of")),
    Place(
        "round_sum",
        ("ROUND_OF AGGREGATE",),
        ("CLOSE rounded end", "ARITHMETIC NUMBER CLOSE rounded end", "ARITHMETIC @round_sum"),
    ),
)
_WINDOWS = (
    Place(
        "over",
        ("TOTAL",),
        ("CLOSE OVER CLOSE end", "CLOSE OVER PARTITION @over_part", "CLOSE OVER WINDOW_ORDER @ranked"),
    ),
    Place("over_part", (), ("COMMA @over_part", "WINDOW_ORDER_NEXT @ranked", "CLOSE end")),
    Place("parted", ("RANKING OVER PARTITION",), ("COMMA @parted", "WINDOW_ORDER_NEXT @ranked")),
    Place("ranked", ("RANKING OVER WINDOW_ORDER",), ("direction CLOSE end", "direction COMMA @ranked")),
    Place("ranked_sum", ("RANKING OVER WINDOW_ORDER AGGREGATE",), ("CLOSE direction CLOSE end",)),
    Place(
        "shifted",
        ("SHIFTED",),
        ("SHIFT_BY OVER WINDOW_ORDER @ranked", "SHIFT_BY OVER PARTITION @parted"),
    ),
)
_LOOKING_OUT = (
    Place("looks_out", (), ("list_more CLOSE_QUERY leave",)),
    Place("looks_in", (), ("COMPARE inner_column list_more CLOSE_QUERY leave",)),
)

# Over the output names of a subquery in FROM.
_OVER = (
    Place("name", ("",), ("end",)),
    Place("sum_name", ("AGGREGATE",), ("CLOSE total", "CLOSE ARITHMETIC NUMBER end")),
    Place("round_name", ("ROUND_OF AGGREGATE",), ("CLOSE rounding end",)),
)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of SELECT list: what an item may be, what comes after it, how its query ends.

    `free` are items without any column and their kind; `after_item` leads on.
    """

    name: str
    number: int
    places: tuple[Place, ...]
    free: tuple[tuple[str, int], ...]
    after_item: tuple[str, ...]


WHOLE = 3
"""Families up to this number are lists of a whole query."""


def families(dialect: str) -> tuple[Family, ...]:
    """All of them. `first`, `two` and `many` are lists of a whole query after no item, one, and more."""
    totals = tuple(replace(place, kind=TOTAL) for place in _TOTALS)
    others = tuple(replace(place, kind=OTHER) for place in (*_WINDOWS, *_LOOKING_OUT))
    after = (*_PLAIN, *_PLAIN_OF[dialect])
    rows = (*_VALUES, *_VALUES_OF[dialect], *totals)
    # In a whole query the start of an item is a place of its own: all columns of a table may stand there too.
    whole = (Place("start", ("",), after), Place("plain", ("NUMBER ARITHMETIC",), after), *rows, *others)
    plain = Place("plain", ("", "NUMBER ARITHMETIC"), after)
    free = (("free_count", TOTAL), ("share", OTHER), ("RANKING OVER counted CLOSE", OTHER))
    count = (("free_count", TOTAL),)
    few = (plain, *(place for place in rows if place.name in ("function", "sum", "part_of", "date")))
    key = Place("key", (), ("COMMA items_derived",))
    inside = (key, *few, *(place for place in whole if place.name in ("round_sum", "parted", "ranked")))
    return (
        Family("many", 1, whole, free, ("COMMA items_many", "FROM from")),
        Family("two", 2, whole, free, ("COMMA items_many", "FROM from")),
        Family("first", 3, whole, free, ("COMMA items_two", "FROM from")),
        Family("set1", 4, few, count, ("FROM from",)),
        Family("set2", 5, few, count, ("COMMA items_set1b",)),
        Family("set1b", 6, few, count, ("FROM from",)),
        Family("sum", 7, totals, count, ("FROM from",)),
        Family("one", 8, few[:2], (), ("FROM from",)),
        Family("derived", 9, inside, free, ("COMMA items_derived", "FROM from")),
        Family("over", 10, _OVER, count, ("COMMA items_over", "FROM OPEN_QUERY derived")),
    )
