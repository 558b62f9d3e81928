"""Reader of xlsx files. Hidden sheets are left out: nobody who opens the file could check what is quoted from them."""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dbgpt_lite.knowledge import office_fences
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.office_fences import Fences, check_zip
from dbgpt_lite.knowledge.tables import table_lines

_BLOCK = 1 << 20
# Longest text between two blocks in which a merge or a formula is looked for.
_OVERLAP = 4096
_MAX_MERGES = 20_000
_MERGE = re.compile(rb'mergeCell\s[^>]{0,100}?ref="([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})"')
# A formula without its result, as programs write it that do not calculate.
_UNCALCULATED = re.compile(rb"</(?:\w+:)?f>\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>|</(?:\w+:)?c>)")

# Row number from 1 -> the columns (from 1) merged downwards from there, each with its last row.
Merges = Mapping[int, Sequence[tuple[int, int]]]


def read_xlsx(path: Path, check: Check = never) -> LoadedDocument:
    """Each visible sheet under its name. A formula reads as its result, else as itself; a cell merged downwards counts
    in each row it covers."""
    import openpyxl

    check_zip(path, check)
    sections, fences = Sections(keep_bare=False), Fences()
    # openpyxl judges a path by its suffix, and stored files have none.
    with path.open("rb") as stream, closing(openpyxl.load_workbook(stream, read_only=True, data_only=True)) as book:
        for number, sheet in enumerate(book.worksheets):
            if sheet.sheet_state != "visible":
                continue
            merges, calculated = _surveyed(path, sheet._worksheet_path, check)
            rows = _rows(sheet) if calculated else _with_formulas(path, number, _rows(sheet))
            sections.heading(1, sheet.title)
            for line in table_lines(_texts(_filled_down(watched(rows, check), merges), fences)):
                sections.line(line)
    return sections.document()


def _rows(sheet: Any) -> Iterator[Sequence[object]]:
    # The stored size of a sheet may be a lie of a billion empty cells; without it rows end at their last cell.
    sheet.reset_dimensions()
    # openpyxl pads a row up to its last cell, so one cell in column XFD would cost 16,384.
    sheet._get_row = _filled
    return iter(sheet.iter_rows(values_only=True))


def _filled(
    row: Sequence[dict[str, Any]], min_col: int = 1, max_col: int | None = None, values_only: bool = True
) -> tuple[object, ...]:
    """A row's values up to the last that is not empty; at most MAX_COLUMNS + 1, which the fence then refuses."""
    filled = [(cell["column"], cell["value"]) for cell in row if cell["value"] is not None]
    width = max((column for column, _ in filled), default=0)
    values: list[object] = [None] * min(width, office_fences.MAX_COLUMNS + 1)
    for column, value in filled:
        if 0 < column <= len(values):
            values[column - 1] = value
    return tuple(values)


def _with_formulas(path: Path, number: int, rows: Iterator[Sequence[object]]) -> Iterator[Sequence[object]]:
    """The rows of a sheet that holds formulas without results: those cells read as the formula."""
    import openpyxl

    with path.open("rb") as stream, closing(openpyxl.load_workbook(stream, read_only=True)) as book:
        for values, formulas in zip(rows, _rows(book.worksheets[number]), strict=False):
            if len(values) < len(formulas):
                values = (*values, *[None] * (len(formulas) - len(values)))
            yield [
                getattr(formula, "text", formula) if value is None else value
                for value, formula in zip(values, formulas, strict=False)
            ]


def _surveyed(path: Path, part: str, check: Check) -> tuple[Merges, bool]:
    """What is merged downwards in a sheet, and whether all its formulas have results."""
    merges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    calculated, last, found = True, b"", 0
    with zipfile.ZipFile(path) as archive, archive.open(part) as stream:
        while block := stream.read(_BLOCK):
            check()
            text = last + block
            for match in _MERGE.finditer(text):
                top, bottom = int(match[2]), int(match[3])
                # The end of a block is looked at twice; only what ends in the new part counts.
                if match.end() > len(last) and top < bottom and found < _MAX_MERGES:
                    merges[top].append((_column(match[1]), bottom))
                    found += 1
            calculated = calculated and not _UNCALCULATED.search(text)
            last = block[-_OVERLAP:]
    return merges, calculated


def _column(letters: bytes) -> int:
    """A column's number from 1: A is 1, AA is 27."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number


def _filled_down(rows: Iterable[Sequence[object]], merges: Merges) -> Iterator[Sequence[object]]:
    if not merges:
        yield from rows
        return
    # Column -> what stands at the top of the merge that covers it, and its last row.
    covering: dict[int, tuple[object, int]] = {}
    for number, row in enumerate(rows, start=1):
        covering = {column: merge for column, merge in covering.items() if merge[1] >= number}
        cells = list(row)
        # A row with nothing of its own is an empty part of the merge, not another row of the table.
        if any(cell is not None for cell in cells):
            for column, (value, _) in covering.items():
                cells.extend([None] * min(column - len(cells), office_fences.MAX_COLUMNS + 1))
                if column <= len(cells) and cells[column - 1] is None:
                    cells[column - 1] = value
        for column, bottom in merges.get(number, ()):
            if column <= len(row) and row[column - 1] is not None:
                covering[column] = (row[column - 1], bottom)
        yield cells


def _texts(rows: Iterable[Sequence[object]], fences: Fences) -> Iterator[list[str]]:
    for row in rows:
        fences.row(len(row))
        yield [_text(value) for value in row]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # As many digits as the programs show: 0.1 + 0.2 is 0.3 there.
        return str(int(value)) if value.is_integer() else f"{value:.15g}"
    return str(value).removesuffix(" 00:00:00")
