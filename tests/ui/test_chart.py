"""Drawings: harmless, within their frame, finite, whatever the rows hold; and numbers as people read them."""

import math
import re
from itertools import pairwise

import pytest
from harmless import HOSTILE, check_harmless
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import ChartKind, ChartSpec, ResultTable
from dbgpt_lite.sql.charts import checked, propose
from dbgpt_lite.ui.chart import chart
from dbgpt_lite.ui.result import chart_block, chosen_chart
from dbgpt_lite.ui.scale import cut, exact, short, text_width, ticks

NUMBERS = st.one_of(
    st.none(), st.integers(), st.integers(-5, 5), st.floats(allow_nan=False), st.just(10**400), st.just(5e-324)
)
NAMES = st.one_of(st.none(), st.dates().map(str), st.just(HOSTILE), st.text(max_size=60), st.just("呼和浩特" * 20))
MONTHS = ResultTable(("month", "收入"), tuple((f"2024-{m:02d}", m * 1234.5) for m in range(12, 0, -1)))


@given(
    st.lists(st.tuples(NAMES, NUMBERS, NUMBERS), min_size=2, max_size=30),
    st.sampled_from(["bar", "line", "scatter", "pie"]),
    st.sampled_from(["en", "zh"]),
)
def test_any_rows_make_a_harmless_drawing_within_its_frame(
    rows: list[tuple[object, ...]], kind: ChartKind, language: str
) -> None:
    table = ResultTable((HOSTILE, "n", "<b>m"), tuple(rows))
    try:
        spec = checked(ChartSpec(kind, 0, (1, 2), title=HOSTILE), table)
    except UserError:
        return
    drawn = chart(spec, table, language)  # type: ignore[arg-type]
    seen = check_harmless(drawn)
    assert "nan" not in drawn
    assert "inf" not in re.sub(r'(aria-label|data-tip)="[^"]*"|>[^<]*<', "", drawn)
    for tag, name, value in seen.attributes:
        if name in ("width", "height", "r") and tag != "svg":
            assert float(value) >= 0, (tag, name, value)
        if name in ("x", "y", "cx", "cy", "x1", "x2", "y1", "y2"):
            assert -1 <= float(value) <= 1600, (tag, name, value)


def test_a_chart_says_what_it_shows() -> None:
    spec = propose(MONTHS, "How much did we earn?")
    assert spec is not None
    drawn = chart(spec, MONTHS, "en")
    seen = check_harmless(drawn)
    assert {value for tag, name, value in seen.attributes if (tag, name) == ("svg", "aria-label")} == {spec.title}
    assert "12 points. Largest: 2024-12, 14,814. Smallest: 2024-01, 1,234.5." in seen.text
    tips = [value for _, name, value in seen.attributes if name == "data-tip"]
    assert tips[0] == "2024-01\n收入: 1,234.5"
    assert tips[11] == "2024-12\n收入: 14,814"
    assert seen.text.index("2024-01") < seen.text.index("2024-11")
    assert "<figcaption>收入 by month</figcaption>" in drawn
    assert "1.5万" in chart(spec, MONTHS, "zh")


def test_a_name_that_is_too_long_is_cut_and_told_in_full_under_the_pointer() -> None:
    table = ResultTable(("name", "n"), tuple((f"{HOSTILE * 3} {n}", n) for n in range(1, 4)))
    seen = check_harmless(chart(ChartSpec("bar", 0, (1,)), table, "en"))
    assert "…" in seen.text
    assert any(value.startswith(f"{HOSTILE * 3} 2\nn: 2") for _, name, value in seen.attributes if name == "data-tip")


def test_a_single_share_is_a_whole_ring() -> None:
    table = ResultTable(("name", "n"), (("all", 4), ("none", 0)))
    drawn = chart(checked(ChartSpec("pie", 0, (1,)), table), table, "en")
    assert drawn.count("ring") == 2
    assert "100.0%" in drawn


def test_a_tail_becomes_one_slice() -> None:
    table = ResultTable(("name", "n"), tuple((f"n{n}", 10) for n in range(10)))
    text = check_harmless(chart(checked(ChartSpec("pie", 0, (1,)), table), table, "en")).text
    assert "3 others" in text
    assert "30 · 30.0%" in text


def test_what_is_left_out_is_said() -> None:
    table = ResultTable(("name", "n"), tuple((f"n{n}", n) for n in range(100)))
    assert "40 of 100 rows are drawn" in chart(checked(ChartSpec("bar", 0, (1,)), table), table, "en")


def test_choices_are_those_that_fit_and_the_chosen_one_is_marked() -> None:
    block = chart_block(MONTHS, ChartSpec("bar", 0, (1,)), "en", "answer:3")
    check_harmless(block)
    assert '<option value="bar" selected>Bars</option>' in block
    assert 'value="scatter"' not in block
    assert chart_block(ResultTable(("a",), ((1,),)), None, "en", "answer:3") == ""
    assert "<svg" not in chart_block(MONTHS, ChartSpec("none"), "en", "answer:3")
    # A choice for a query that was edited meanwhile gives way.
    assert 'data-kind="line"' in chart_block(MONTHS, ChartSpec("scatter", 7, (8,)), "en", "answer:3")


@pytest.mark.parametrize(
    "facts",
    [{}, {"kind": "exec"}, {"kind": "bar", "x": "-1"}, {"kind": "bar", "x": "1e3"}, {"kind": "bar", "x": "١"},
     {"kind": "bar", "y": "1,x"}, {"kind": "bar", "x": "9" * 5000}, {"kind": "bar", "x": "<b>"}],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused(facts: dict[str, str]) -> None:
    with pytest.raises(UserError):
        chosen_chart(facts)


@given(st.floats(-1e299, 1e299), st.floats(-1e299, 1e299), st.integers(1, 10), st.booleans())
def test_ticks_hold_the_values_between_them(one: float, other: float, count: int, whole: bool) -> None:
    low, high = (float(round(value)) if whole else value for value in sorted((one, other)))
    marks = ticks(low, high, count, whole)
    slack = 1e-6 * (high - low) + 1e-9 * max(abs(low), abs(high))
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= count + 3
    assert all(math.isfinite(mark) for mark in marks)
    assert all(a < b for a, b in pairwise(marks))


@pytest.mark.parametrize(
    ("value", "english", "chinese"),
    [(0, "0", "0"), (2024, "2024", "2024"), (-12_500, "-12.5K", "-1.25万"), (1e6, "1M", "100万"),
     (1.5e8, "150M", "1.5亿"), (2.5e12, "2.5T", "2.5万亿"), (9.2e18, "9.2e18", "9.2e18"),
     (0.00001, "1.00e-05", "1.00e-05"), (0.25, "0.25", "0.25")],
)  # fmt: skip
def test_short_numbers(value: float, english: str, chinese: str) -> None:
    assert short(value, "en") == english
    assert short(value, "zh") == chinese


@given(st.integers())
def test_exact_numbers_keep_every_digit(value: int) -> None:
    assert int(exact(value).replace(",", "")) == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2**63 - 1, "9,223,372,036,854,775,807"), (1234.5, "1,234.5"), (-0.25, "-0.25"), (1e21, "1e+21"), (3.0, "3"),
     ("-12345678901234567.89", "-12,345,678,901,234,567.89"), ("-0.12345678901234567", "-0.12345678901234567")],
)  # fmt: skip
def test_exact_numbers(value: object, shown: str) -> None:
    assert exact(value) == shown


@given(st.text(max_size=80), st.floats(20, 400))
def test_cut_text_fits(text: str, width: float) -> None:
    assert text_width(cut(text, width, 12), 12) <= width
