"""Results that say the same and results that do not, by hand and against a plain statement of the rule."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.evaluation.matching import Difference, compare
from dbgpt_lite.messages import ResultTable

Rows = list[tuple[object, ...]]


def table(rows: Rows, width: int = 1) -> ResultTable:
    width = len(rows[0]) if rows else width
    return ResultTable(tuple(f"c{n}" for n in range(width)), tuple(rows))


def reason(gold: Rows, found: Rows, ordered: bool = False) -> str:
    difference = compare(table(gold), table(found), ordered)
    return difference.reason if difference else ""


@pytest.mark.parametrize(
    ("gold", "found", "expected"),
    [
        ([], [], ""),
        ([(1,)], [(1.0,)], ""),
        ([(1,)], [(True,)], ""),
        ([("2024",)], [(2024,)], ""),
        ([("03",)], [(3,)], ""),
        ([("1.50",)], [(1.5,)], ""),
        ([(None,)], [(None,)], ""),
        ([(0.1 + 0.2,)], [(0.3,)], ""),
        ([(1234.5,)], [(1234.5005,)], ""),
        ([(1234.5,)], [(1234.51,)], "values"),
        ([(3,)], [(2.9999999,)], ""),
        ([(1_000_000,)], [(1_000_001,)], "values"),
        ([(9_007_199_254_740_993,)], [("9007199254740993",)], ""),
        ([(9_007_199_254_740_993,)], [("9007199254740992",)], "values"),
        ([(None,)], [(0,)], "values"),
        ([(None,)], [("",)], "values"),
        ([("",)], [(0,)], "values"),
        ([("上海",)], [("上海 ",)], "values"),
        ([("a",)], [("A",)], "values"),
        ([("1e3",)], [(1000,)], "values"),
        ([("٣",)], [(3,)], "values"),
        # As often as in the known rows.
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], "values"),
        ([(1,), (1,)], [(1,)], "rows"),
        ([(1,)], [], "rows"),
        ([], [(1,)], "rows"),
        ([(1, 2)], [(1,)], "columns"),
        # Any order of the columns, but the same one for all rows.
        ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], ""),
        ([(1, 2), (3, 4)], [(2, 1), (4, 3)], ""),
        ([(1, 2), (2, 1)], [(1, 1), (2, 2)], "values"),
        ([(1, 2), (3, 4)], [(2, 1), (3, 4)], "values"),
        # Nearly equal numbers sort differently from equal ones.
        ([(1.1, 2.0), (1.1000000001, 1.0)], [(1.1, 1.0), (1.1, 2.0)], ""),
    ],
)
def test_by_hand(gold: Rows, found: Rows, expected: str) -> None:
    assert reason(gold, found) == expected


def test_order_counts_only_where_it_is_asked() -> None:
    gold: Rows = [(3, "c"), (1, "a"), (2, "b")]
    other: Rows = [("a", 1), ("b", 2), ("c", 3)]
    assert reason(gold, other) == ""
    assert compare(table(gold), table(other), ordered=True) == Difference("values", tuple(gold), tuple(other))
    swapped: Rows = [(3, "c"), (2, "b"), (1, "a")]
    assert compare(table(gold), table(swapped), ordered=True) == Difference(
        "order", tuple(gold[1:]), tuple(swapped[1:])
    )
    assert reason(gold, [("c", 3), ("a", 1), ("b", 2)], ordered=True) == ""


def test_the_first_rows_that_differ_are_told() -> None:
    gold: Rows = [(n, "x") for n in range(20)]
    difference = compare(table(gold), table([*gold[:10], *gold[17:], (99, "x")]), ordered=False)
    assert difference == Difference("rows", tuple(gold[10:15]), ((99, "x"),))


def test_many_columns_alike_and_many_rows_end() -> None:
    alike: Rows = [(0,) * 12 + (n,) for n in range(3000)]
    assert reason(alike, [(row[-1], *row[:-1]) for row in reversed(alike)]) == ""
    near: Rows = [(n + 0.5,) for n in range(3000)]
    assert reason(near, [(n + 0.5 + 1e-9,) for n in reversed(range(3000))]) == ""
    assert reason(near, [(n + 0.5001,) for n in range(3000)]) == "values"


CELLS = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["", "a", "b", "1"]), st.sampled_from([0.5, 1.0]))


def by_definition(gold: Rows, found: Rows, ordered: bool) -> bool:
    """Whether some order of the columns makes the rows equal; cells here are exact."""
    exact = [[tuple(1 if cell == "1" else cell for cell in row) for row in rows] for rows in (gold, found)]
    if len(exact[0]) != len(exact[1]):
        return False
    for order in itertools.permutations(range(len(gold[0]))):
        moved = [tuple(row[n] for n in order) for row in exact[1]]
        if moved == exact[0] or (not ordered and Counter(moved) == Counter(exact[0])):
            return True
    return False


@given(st.data(), st.integers(1, 4), st.booleans())
def test_as_defined(data: st.DataObject, width: int, ordered: bool) -> None:
    rows = st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=6)
    gold = data.draw(rows)
    change = data.draw(st.booleans())
    if change:
        found = data.draw(rows)
    else:
        order = data.draw(st.permutations(range(width)))
        found = [tuple(row[n] for n in order) for row in data.draw(st.permutations(gold))]
    assert (compare(table(gold), table(found), ordered) is None) == by_definition(gold, found, ordered)
