"""What a reader sees above a column that the query did not name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.labels import column_label
from dbgpt_lite.ui.tables import result_table


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("SUM(total)", "sum of total", "total 合计"),
        ("AVG(o.total)", "average total", "total 平均值"),
        ("ROUND(AVG(price), 2)", "average price", "price 平均值"),
        ("COUNT(*)", "count", "数量"),
        ("count( * )", "count", "数量"),
        ("COUNT(DISTINCT customer_id)", "different customer_id", "不同的 customer_id 数量"),
        ("MAX(`unit_price`)", "highest unit_price", "unit_price 最大值"),
        ("STRFTIME('%Y-%m', order_date)", "month", "月"),
        ("strftime('%Y', o.order_date)", "year", "年"),
        ("DATE_FORMAT(order_date, '%Y-%m')", "month", "月"),
        ("YEAR(hired)", "year", "年"),
    ],
)
def test_in_words(name: str, english: str, chinese: str) -> None:
    assert (column_label(name, "en"), column_label(name, "zh")) == (english, chinese)


@pytest.mark.parametrize(
    "name",
    ["total", "total revenue", "SUM(quantity * price)", "STRFTIME('%w', day)", "SUM(a) / SUM(b)", "f(x)",
     "COUNT(*) + 1", "ROUND(SUM(a) / 2, 1)", "ROUND(SUM(a * b))", "Price (USD)", "()", ""],
)  # fmt: skip
def test_what_is_not_known_stays(name: str) -> None:
    assert column_label(name, "en") == name


@pytest.mark.parametrize(
    "name",
    [
        "round(" * 20_000 + "1" + ")" * 20_000,
        "sum(" + "a" * 1_000_000,
        "ROUND(" + ",1" * 500_000 + ")",
        "max(" + "x." * 99_999,
    ],
)
def test_a_query_cannot_name_a_column_that_stops_the_page(name: str) -> None:
    assert column_label(name, "en") == name
    html = result_table(ResultTable((name,), ((1,),)), "en")
    assert html.count("<th ") == 3


def test_a_name_is_text() -> None:
    hostile = 'COUNT(*)"><script>alert(1)</script>'
    assert "<script>" not in result_table(ResultTable((hostile, "SUM(total)"), ((1, 2),)), "en")


@given(st.text())
def test_any_name_is_answered(name: str) -> None:
    assert isinstance(column_label(name, "zh"), str)
