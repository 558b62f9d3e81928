"""A chart fits the rows it is drawn from: chosen from their shape, changed only among what fits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import ChartKind, ChartSpec, ResultTable
from dbgpt_lite.sql.charts import MAX_BARS, MAX_POINTS, MAX_SLICES, checked, choices, plot, propose
from dbgpt_lite.sql.columns import column_kinds, moment, number

KINDS: tuple[ChartKind, ...] = ("none", "bar", "line", "scatter", "pie")
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["", "NULL", "<2 bytes>", "上海", "2024-02", "2024-Q3", "0000-00-00", "12345678901234567.89", "<b>"]
    ),
    st.text(max_size=5),
)


@st.composite
def tables(draw: st.DrawFn) -> ResultTable:
    """Any result; columns of one kind more often than chance would make them."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(0, 12))
    kinds = [
        draw(st.sampled_from([CELLS, st.integers(), st.floats(allow_nan=False), st.dates().map(str), st.text()]))
        for _ in range(width)
    ]
    rows = tuple(tuple(draw(kind) for kind in kinds) for _ in range(height))
    names = draw(st.lists(st.sampled_from(["n", "id", "year", "", "城市", "<b>"]), min_size=width, max_size=width))
    return ResultTable(tuple(names), rows)


def table(*columns: str, rows: list[tuple[object, ...]]) -> ResultTable:
    return ResultTable(columns, tuple(rows))


def named(count: int) -> list[tuple[object, ...]]:
    return [(f"name {n}", n + 1) for n in range(count)]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (table("city", "count", rows=[("London", 3), ("上海", 9)]), ChartSpec("bar", 0, (1,))),
        (table("count", "city", rows=[(3, "London"), (9, "上海")]), ChartSpec("bar", 1, (0,))),
        (table("city_id", "n", rows=[(1, 3), (2, 9)]), ChartSpec("bar", 0, (1,))),
        (table("city_id", "n", rows=[(1, 3), (1, 9)]), None),
        (table("city_id", "note", "n", rows=[(1, "a", 3), (2, "a", 9)]), None),
        (table("city", "a", "b", rows=[("x", 3, 5), ("y", 9, 4)]), ChartSpec("bar", 0, (1, 2))),
        (table("city", "a", "b", rows=[("x", 3, 5000), ("y", 9, 400)]), ChartSpec("bar", 0, (1,))),
        (table("city", "id", "b", rows=[("x", 3, 5), ("y", 9, 4)]), ChartSpec("bar", 0, (2,))),
        (table("month", "v", rows=[("2024-02", 3), ("2024-01", 9)]), ChartSpec("line", 0, (1,), "x")),
        (table("day", "v", rows=[("2024-02-03", 3), ("2024-01-01", None)]), ChartSpec("line", 0, (1,), "x")),
        (
            table("at", "v", rows=[("2024-02-03 10:11:12", 3), ("2024-01-01 00:00:00", 1)]),
            ChartSpec("line", 0, (1,), "x"),
        ),
        (table("年份", "数量", rows=[(2023, 3), (2024, 9)]), ChartSpec("line", 0, (1,), "x")),
        (table("region", "share", rows=[("a", 60), ("b", 39.9)]), ChartSpec("pie", 0, (1,), "y")),
        (table("region", "share", rows=[("a", 0.6), ("b", 0.4)]), ChartSpec("pie", 0, (1,), "y")),
        (table("age", "spent", rows=[(3, 4), (5, 6), (7, 1)]), ChartSpec("scatter", 0, (1,))),
        (table("city", "count", rows=[("London", 3)]), None),
        (table("count", rows=[(1,), (2,)]), None),
        (table("a", "b", rows=[("x", "y"), ("z", "w")]), None),
        (table("city", "count", rows=[("London", 3), ("London", 9)]), None),
        (table("blob", "count", rows=[("<2 bytes>", 3), ("<9 bytes>", 9)]), None),
        (table("city", "paid", rows=[("London", True), ("Rome", False)]), None),
        (table("name", "n", rows=named(MAX_BARS)), ChartSpec("bar", 0, (1,))),
        (table("name", "n", rows=named(MAX_BARS + 1)), None),
        (table(rows=[]), None),
    ],
)
def test_the_shape_chooses(result: ResultTable, expected: ChartSpec | None) -> None:
    assert propose(result) == expected


@given(tables())
def test_a_proposal_is_valid_and_can_be_drawn(result: ResultTable) -> None:
    spec = propose(result, "t")
    if spec is not None:
        assert checked(spec, result) == spec
        assert plot(spec, result).labels


@given(tables(), st.sampled_from(KINDS), st.integers(-2, 9), st.lists(st.integers(-2, 9), max_size=5))
def test_no_choice_gets_past_the_check(result: ResultTable, kind: ChartKind, x: int, y: list[int]) -> None:
    """Either refused, or a spec over columns that exist and hold numbers, which checks as itself and can be plotted."""
    try:
        spec = checked(ChartSpec(kind, x, tuple(y)), result)
    except UserError:
        return
    if kind == "none":
        return
    kinds = column_kinds(result)
    assert spec.kind in choices(result).kinds
    assert 0 <= spec.x < len(result.columns)
    assert spec.y
    assert spec.x not in spec.y
    assert len(set(spec.y)) == len(spec.y)
    assert all(kinds[place] == "number" for place in spec.y)
    assert checked(spec, result) == spec
    drawn = plot(spec, result)
    assert len(drawn.labels) <= {"bar": MAX_BARS, "pie": MAX_SLICES}.get(kind, MAX_POINTS)
    assert all(len(series.values) == len(drawn.labels) for series in drawn.series)
    assert len(drawn.places) in (0, len(drawn.labels))
    if kind == "line":
        assert list(drawn.places) == sorted(drawn.places)
    if kind == "pie":
        assert all((number(value) or 0) > 0 for value in drawn.series[0].values)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=40))
def test_a_pie_loses_nothing(values: list[int]) -> None:
    result = table("name", "n", rows=[(f"name {n}", value) for n, value in enumerate(values)])
    if not any(values):
        assert "pie" not in choices(result).kinds
        return
    drawn = plot(checked(ChartSpec("pie", 0, (1,)), result), result)
    assert sum(number(value) or 0 for value in drawn.series[0].values) == sum(values)
    positive = sum(value > 0 for value in values)
    assert drawn.gathered == (positive - MAX_SLICES + 1 if positive > MAX_SLICES else 0)


def test_negative_values_are_no_shares() -> None:
    result = table("name", "n", rows=[("a", -1), ("b", 3)])
    assert choices(result).kinds == ("bar",)
    with pytest.raises(UserError):
        checked(ChartSpec("pie", 0, (1,)), result)


def test_another_kind_takes_the_columns_that_fit_it_best() -> None:
    result = table("id", "city", "month", "n", rows=[(1, "a", "2024-01", 5), (2, "b", "2024-02", 6)])
    assert checked(ChartSpec("line", -1), result) == ChartSpec("line", 2, (3,), "x")
    assert checked(ChartSpec("pie", -1), result) == ChartSpec("pie", 2, (3,), "y")
    assert checked(ChartSpec("scatter", -1), result) == ChartSpec("scatter", 3, (0,))


def test_points_are_in_order_of_time_and_gaps_stay() -> None:
    result = table("day", "n", "m", rows=[("2024-03-01", 3, 1), ("2024-01-31", None, 2), ("2024-02-01", None, None)])
    drawn = plot(checked(ChartSpec("line", 0, (1, 2)), result), result)
    assert drawn.labels == ("2024-01-31", "2024-03-01")
    assert drawn.series[0].values == (None, 3)
    assert drawn.places[1] - drawn.places[0] == 30
    assert (drawn.shown, drawn.total) == (2, 3)


@given(st.datetimes(), st.datetimes())
def test_moments_order_like_time(one: object, other: object) -> None:
    first, second = moment(str(one)), moment(str(other))
    assert first is not None
    assert second is not None
    assert (first <= second) == (one <= other) or abs(first - second) < 2e-5  # type: ignore[operator]


@given(CELLS)
def test_what_is_drawn_is_finite(cell: object) -> None:
    value = number(cell)
    assert value is None or math.isfinite(value)


@pytest.mark.parametrize(
    "text", ["", "2024", "2024-13", "0000-00-00", "12:30:00", "20240101", "2024-01-01x", "2024-Q5"]
)
def test_what_is_no_moment(text: str) -> None:
    assert moment(text) is None


def test_long_decimals_are_numbers_and_card_numbers_are_not() -> None:
    rows: list[tuple[object, ...]] = [("12345678901234567.89", "4929123412341234"), (1.5, "4929123412341235")]
    assert column_kinds(table("sum", "card", rows=rows)) == ("number", "text")
