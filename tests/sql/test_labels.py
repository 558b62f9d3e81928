"""What a reader sees above a column that the query did not name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.sql.labels import column_label


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


@given(st.text())
def test_any_name_is_answered(name: str) -> None:
    assert isinstance(column_label(name, "zh"), str)
