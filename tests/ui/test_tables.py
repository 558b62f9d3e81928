"""Rows as a table in pages, and as files that hold all of them; every cell text, every digit kept."""

import base64
import csv
import io
import json
import math
from itertools import zip_longest

import openpyxl
import pytest
from harmless import HOSTILE, Tags, check_harmless
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import NotFound, TooLarge
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.ui import downloads
from dbgpt_lite.ui.downloads import download, to_csv, to_xlsx
from dbgpt_lite.ui.kept import KeptResults
from dbgpt_lite.ui.result import query_block, result_block
from dbgpt_lite.ui.tables import MAX_CELL, result_table, table_note

CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20), st.sampled_from(["=1+1", "#N/A", "", " ", "\x00\x0b", "a\r\nb", HOSTILE, "2024-01-01"]),
)  # fmt: skip
ROWS = st.integers(1, 5).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=8))


def sheet_of(table: ResultTable) -> list[list[object]]:
    sheet = openpyxl.load_workbook(io.BytesIO(to_xlsx(table))).active
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)
    return [[cell.value for cell in row] for row in sheet.iter_rows()]


@given(ROWS)
def test_any_cell_is_shown_as_text(rows: list[tuple[object, ...]]) -> None:
    table = ResultTable(tuple(HOSTILE for _ in rows[0]), tuple(rows))
    seen = check_harmless(result_block(table, "en", "answer:1"))
    for value in (cell for row in rows for cell in row if isinstance(cell, int | str) and not isinstance(cell, bool)):
        # A browser has no NUL, and reads every line end as one.
        assert str(value).replace("\r\n", "\n").replace("\r", "\n") in seen.text.replace("\r\n", "\n").replace(
            "\r", "\n"
        )


@given(st.integers(0, 500), st.integers(-3, 60), st.sampled_from([10, 50, 200]))
def test_pages_together_hold_every_row_once(count: int, page: int, size: int) -> None:
    table = ResultTable(("n",), tuple((f"r{n}.",) for n in range(count)))
    pages = [Tags(result_table(table, "en", "answer:1", p, size)).text for p in range(max(1, -(-count // size)))]
    for n in range(count):
        assert sum(text.count(f"r{n}.") for text in pages) == 1
    assert Tags(result_table(table, "en", "answer:1", page, size)).text in pages


def test_a_page_knows_its_place() -> None:
    table = ResultTable(("n", "t"), tuple((n, f"<{n}>") for n in range(25)), truncated=True, seconds=0.42)
    html = result_table(table, "en", "answer:7", 2)
    assert html.count("<tr>") == 6
    assert "21–25 of 25" in html
    assert '<th scope="row" class="row">21</th><td class="number">20</td>' in html
    assert 'class="icon-button page-next" data-action="rows" data-of="answer:7" data-page="3"' in html
    assert html.count(" disabled>") == 1
    assert table_note(table, "en") == "25 rows · cut at the row limit · 0.42 s"
    assert '<th scope="col" class="number">n</th><th scope="col" class="text">t</th>' in html
    counted = result_table(ResultTable(("COUNT(*)",), ((3,),)), "zh")
    assert '<th scope="col" class="number" title="COUNT(*)">数量</th>' in counted
    assert "page-next" not in result_table(ResultTable(("n",), ((1,),)), "en", "answer:7")
    assert table_note(ResultTable(("n",), ((1,),)), "en") == "1 row"


def test_null_empty_and_digits_are_told_apart() -> None:
    rows = ((None, 2**63 - 1, "12345678901234567.89"), ("", -(2**53) - 1, 0.5), ("NULL", 0, 1200.0))
    html = result_table(ResultTable(("t", "big", "d"), rows), "en")
    assert '<td class="null">NULL</td><td class="number">9223372036854775807</td>' in html
    assert '<td class="number">12345678901234567.89</td>' in html
    assert '<td class=""></td><td class="number">-9007199254740993</td>' in html
    assert '<td class="">NULL</td>' in html
    assert '<td class="number">1200</td>' in html


def test_a_long_cell_is_cut_on_the_page_only() -> None:
    table = ResultTable(("t",), (("x" * 40_000,),))
    assert len(Tags(result_table(table, "en")).text) < MAX_CELL + 100
    assert "x" * 40_000 in to_csv(table)
    assert sheet_of(table)[1] == ["x" * 32_766 + "…"]


def test_an_empty_result_says_so_and_has_its_files() -> None:
    html = result_block(ResultTable(("a",), ()), "en", "answer:1")
    assert "found no rows" in html
    assert 'data-format="xlsx"' in html
    assert "<table" not in html


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "=cmd|' /C calc'!A0",
                                  "\u00a0=1", "\u200b=1", "\ufeff=1", "-１", "-1-1", "-1:00+1"])  # fmt: skip
def test_a_spreadsheet_runs_no_cell(cell: str) -> None:
    table = ResultTable((cell,), ((cell,),))
    rows = list(csv.reader(io.StringIO(to_csv(table)[1:])))
    assert all(value.startswith("'") for row in rows for value in row)
    assert [str(value).strip() for row in sheet_of(table) for value in row] == [cell.strip()] * 2


def test_csv_keeps_numbers_and_chinese() -> None:
    text = to_csv(
        ResultTable(("数量", "n"), ((-3, "中文"), (None, 'a "b", c'), (2**63 - 1, 0.1), ("-01:30:00", "-1E-7")))
    )
    assert text.startswith("\ufeff")
    rows = list(csv.reader(io.StringIO(text[1:])))
    assert rows == [
        ["数量", "n"],
        ["-3", "中文"],
        ["", 'a "b", c'],
        ["9223372036854775807", "0.1"],
        ["-01:30:00", "-1E-7"],
    ]


@given(ROWS)
def test_csv_gives_back_every_cell(rows: list[tuple[object, ...]]) -> None:
    table = ResultTable(tuple("abcde"[: len(rows[0])]), tuple(rows))
    read = list(csv.reader(io.StringIO(to_csv(table)[1:], newline="")))
    assert len(read) == len(rows) + 1
    for got, row in zip(read[1:], rows, strict=True):
        for text, value in zip(got, row, strict=True):
            if isinstance(value, int) and not isinstance(value, bool):
                assert int(text) == value
            elif isinstance(value, float):
                assert float(text) == value
            elif isinstance(value, str):
                assert text.removeprefix("'") == value.removeprefix("'") or text == f"'{value}"


@given(ROWS)
@settings(max_examples=40)
def test_a_workbook_gives_back_every_cell(rows: list[tuple[object, ...]]) -> None:
    read = sheet_of(ResultTable(tuple("abcde"[: len(rows[0])]), tuple(rows)))
    # A reader leaves out what is empty at the end.
    assert len(read) <= len(rows) + 1
    for got, row in zip_longest(read[1:], rows, fillvalue=()):
        for shown, value in zip_longest(got, row):
            if isinstance(value, float):
                assert math.isclose(shown, value, rel_tol=1e-15)
            elif isinstance(value, bool):
                assert shown is value
            elif isinstance(value, int):
                assert shown == (value if abs(value) <= 2**53 else str(value))
            elif isinstance(value, str) and value.isprintable() and value.strip():
                assert shown == value


def test_more_than_a_sheet_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SHEET_ROWS", 2)
    with pytest.raises(TooLarge):
        to_xlsx(ResultTable(("a",), ((1,), (2,))))


def test_a_download_is_for_the_browser_to_make() -> None:
    table = ResultTable(("a",), (("中",),))
    workbook, text = json.loads(download(table, "xlsx")), json.loads(download(table, "anything"))
    assert base64.b64decode(workbook["base64"]).startswith(b"PK")
    assert workbook["name"] == "result.xlsx"
    assert text["name"] == "result.csv"
    assert "中" in text["text"]


def test_a_query_can_be_edited_only_where_it_has_a_place() -> None:
    html = query_block(f"SELECT '{HOSTILE}'", "en", "answer:1", edited=True)
    check_harmless(html)
    assert 'class="edit-sql text-button" data-of="answer:1"' in html
    assert "edited by you" in html
    assert "edit-sql" not in query_block("SELECT 1", "en")


def test_results_are_kept_for_their_owner_within_a_bound() -> None:
    kept = KeptResults(max_bytes=3000, per_owner=2)
    table = ResultTable(("a",), (("x" * 400,),))
    names = [kept.keep("ana", "shop", f"SELECT {n}", table) for n in range(3)]
    assert kept.get("ana", names[2]).sql == "SELECT 2"
    assert kept.get("ana", names[1]).table == table
    for owner, name in (("ana", names[0]), ("bob", names[2]), ("ana", "guess")):
        with pytest.raises(NotFound):
            kept.get(owner, name)
    others = [kept.keep(f"reader {n}", "shop", "SELECT 1", table) for n in range(4)]
    with pytest.raises(NotFound):
        kept.get("ana", names[2])
    assert kept.get("reader 3", others[3]).table == table
