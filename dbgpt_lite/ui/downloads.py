"""Query results as CSV and XLSX files, made here and handed to the browser within a reply: no path serves them."""

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from dbgpt_lite.errors import TooLarge
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.ui.tables import cell_text

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
# What a sheet of Excel holds: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3
SHEET_ROWS, SHEET_COLUMNS, SHEET_CELL = 1_048_576, 16_384, 32_767
# Excel keeps numbers as floats of 53 bits; longer ones would come out rounded.
_EXACT = 2**53
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Numbers and times that come as text: decimals of more digits than a float holds, small ones, a TIME below zero.
_NUMBER = re.compile(r"-[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|-[0-9]+(?::[0-9]{2}){1,2}(?:\.[0-9]+)?")
# What some programs skip before they look for a formula: every kind of space, also of no width.
_SKIPPED = re.compile(r"\A[\s\ufeff\u200b-\u200f\u2060\x00-\x1f]+")


def to_csv(table: ResultTable) -> str:
    """RFC 4180 with a byte order mark, which spreadsheet programs need to read Chinese.

    Text that a spreadsheet would run as a formula gets a leading apostrophe
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out)
    writer.writerow([_harmless(name) for name in table.columns])
    writer.writerows([[_harmless(value) for value in row] for row in table.rows])
    return out.getvalue()


def to_xlsx(table: ResultTable) -> bytes:
    """A workbook of one sheet. Text is written as text, never as a formula; integers beyond 2^53 as text, to be exact.
    Floats have the 16 digits that the format writes, one more than Excel shows.

    Raises TooLarge for more rows or columns than a sheet holds.
    """
    import openpyxl

    if len(table.rows) >= SHEET_ROWS or len(table.columns) > SHEET_COLUMNS:
        raise TooLarge("ui.xlsx_too_large", rows=f"{SHEET_ROWS - 1:,}", columns=f"{SHEET_COLUMNS:,}")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("result")
    sheet.freeze_panes = "A2"
    sheet.append([_sheet_cell(sheet, name, bold=True) for name in table.columns])
    for row in table.rows:
        sheet.append([_sheet_cell(sheet, value) for value in row])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _sheet_cell(sheet: Any, value: object, bold: bool = False) -> Any:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) <= _EXACT):
        return WriteOnlyCell(sheet, value)
    cell = WriteOnlyCell(sheet, "")
    text = "".join(_writable(str(value)))
    cell.value = text if len(text) <= SHEET_CELL else f"{text[: SHEET_CELL - 1]}…"
    # openpyxl takes what begins with "=" for a formula and "#N/A" for an error.
    cell.data_type = "s"
    if bold:
        cell.font = Font(bold=True)
    return cell


def _writable(text: str) -> Iterator[str]:
    """Characters that XML cannot hold become the sign for that."""
    for letter in text:
        code = ord(letter)
        allowed = code >= 0x20 or letter in "\t\n\r"
        yield letter if allowed and not 0xD800 <= code <= 0xDFFF and code not in (0xFFFE, 0xFFFF) else "\ufffd"


def _harmless(value: object) -> object:
    if isinstance(value, str) and _may_be_formula(value):
        return f"'{value}"
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 1e15):
        return str(value)  # every bit, for whoever computes with it
    return "" if value is None else cell_text(value)


def _may_be_formula(value: str) -> bool:
    if _NUMBER.fullmatch(value):
        return False
    return value.startswith(_FORMULA_STARTS) or _SKIPPED.sub("", value).startswith(_FORMULA_STARTS)


def download(table: ResultTable, kind: str, name: str = "result") -> str:
    """A file for page.js to hand to the reader; `kind` "xlsx", else CSV."""
    if kind == "xlsx":
        content = base64.b64encode(to_xlsx(table)).decode()
        return json.dumps({"name": f"{name}.xlsx", "type": XLSX, "base64": content})
    return json.dumps({"name": f"{name}.csv", "type": "text/csv;charset=utf-8", "text": to_csv(table)})
