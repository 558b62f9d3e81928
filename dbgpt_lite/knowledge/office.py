"""Readers of xlsx, docx and pptx files, fenced against files that are small on disk and huge when read."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import DocumentError, TooLarge
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.tables import table_lines

if TYPE_CHECKING:
    from docx.table import Table

MAX_EXPANDED_BYTES = 100_000_000
# Tags (each "<" of the unpacked parts): trees of docx and pptx take 100 to 150 bytes of memory for each.
MAX_TAGS = 5_000_000
MAX_PARAGRAPHS = 200_000
# Of a row, and of the whole file (rows count too, so that empty ones end).
MAX_COLUMNS = 1_000
MAX_CELLS = 2_000_000

_SCAN_BLOCK = 1 << 20
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@dataclass
class _Fences:
    """Counts what a file brings. Raises DocumentError beyond the limits."""

    paragraphs: int = 0
    cells: int = 0

    def paragraph(self) -> None:
        self.paragraphs += 1
        if self.paragraphs > MAX_PARAGRAPHS:
            raise DocumentError("knowledge.too_many_paragraphs", limit=f"{MAX_PARAGRAPHS:,}")

    def row(self, cells: int) -> None:
        """A row of so many cells."""
        if cells > MAX_COLUMNS:
            raise DocumentError("knowledge.too_many_columns", limit=f"{MAX_COLUMNS:,}")
        self.cells += 1 + cells
        if self.cells > MAX_CELLS:
            raise DocumentError("knowledge.too_many_cells", limit=f"{MAX_CELLS:,}")


def read_xlsx(path: Path, check: Check = never) -> LoadedDocument:
    import openpyxl

    _check_zip(path, check)
    sections, fences = Sections(), _Fences()
    # openpyxl judges a path by its suffix, and stored files have none.
    with path.open("rb") as stream, closing(openpyxl.load_workbook(stream, read_only=True, data_only=True)) as book:
        for sheet in book.worksheets:
            # The stored size of a sheet may be a lie of a billion empty cells; without it rows end at their last cell.
            sheet.reset_dimensions()
            # openpyxl pads a row up to its last cell, so one cell in column XFD would cost 16,384.
            sheet._get_row = _filled
            sections.heading(1, sheet.title)
            for line in table_lines(_sheet_rows(watched(sheet.iter_rows(values_only=True), check), fences)):
                sections.line(line)
    return sections.document()


def _filled(
    row: Sequence[dict[str, Any]], min_col: int = 1, max_col: int | None = None, values_only: bool = True
) -> tuple[object, ...]:
    """A row's values up to the last that is not empty; at most MAX_COLUMNS + 1, which the fence then refuses."""
    filled = [(cell["column"], cell["value"]) for cell in row if cell["value"] is not None]
    width = max((column for column, _ in filled), default=0)
    values: list[object] = [None] * min(width, MAX_COLUMNS + 1)
    for column, value in filled:
        if 0 < column <= len(values):
            values[column - 1] = value
    return tuple(values)


def _sheet_rows(rows: Iterable[Sequence[object]], fences: _Fences) -> Iterator[list[str]]:
    for row in rows:
        fences.row(len(row))
        yield [_cell(value) for value in row]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).removesuffix(" 00:00:00")


def _check_zip(path: Path, check: Check) -> None:
    """Refuse what is not a whole zip file, or unpacks to more than MAX_EXPANDED_BYTES or MAX_TAGS.

    zipfile never reads more of an entry than the size it declares, so the declared sizes can be trusted.
    """
    with path.open("rb") as stream:
        magic = stream.read(len(_OLE_MAGIC))
    if magic == _OLE_MAGIC:
        raise DocumentError("knowledge.encrypted_or_old_office")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_EXPANDED_BYTES:
            raise TooLarge("knowledge.expands_too_much", limit=MAX_EXPANDED_BYTES // 1_000_000)
        tags = 0
        for block in _xml_blocks(archive):
            check()
            tags += block.count(b"<")
            if tags > MAX_TAGS:
                raise DocumentError("knowledge.too_many_elements", limit=f"{MAX_TAGS:,}")


def _xml_blocks(archive: zipfile.ZipFile) -> Iterator[bytes]:
    """The unpacked parts in blocks, without the pictures."""
    for entry in archive.infolist():
        if entry.filename.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".mp4")):
            continue
        with archive.open(entry) as part:
            while block := part.read(_SCAN_BLOCK):
                yield block


def read_docx(path: Path, check: Check = never) -> LoadedDocument:
    import docx
    from docx.table import Table

    _check_zip(path, check)
    sections, fences = Sections(), _Fences()
    levels: dict[str | None, int] = {}
    for block in watched(docx.Document(str(path)).iter_inner_content(), check):
        if isinstance(block, Table):
            for line in table_lines(watched(_docx_rows(block, fences), check)):
                sections.line(line)
            sections.line("")
            continue
        fences.paragraph()
        text = block.text
        # Looking up a style searches all styles, so it is done once for each id, not for each paragraph.
        style = block._p.style
        if style not in levels:
            levels[style] = _heading_level(block.style.name if block.style is not None else "")
        if levels[style] and text.strip():
            sections.heading(levels[style], text)
        else:
            # Word's paragraphs are what blank lines are in plain text.
            sections.line(text + "\n")
    document = sections.document()
    return document if document.sections else sections.headings_only()


def _docx_rows(table: "Table", fences: _Fences) -> Iterator[list[str]]:
    """The texts of the rows; a merged cell counts in each column and row it covers.

    ``row.cells`` does the same, but follows a merge upwards anew for each row and believes any width.
    """
    above: list[str] = []
    for tr in table._tbl.tr_lst:
        row = [""] * min(tr.grid_before, MAX_COLUMNS + 1)
        for tc in tr.tc_lst:
            if tc.vMerge == "continue":
                text = above[len(row)] if len(row) < len(above) else ""
            else:
                text = "\n".join(_paragraph_texts(tc, fences))
            row.extend([text] * min(tc.grid_span, MAX_COLUMNS + 1))
            if len(row) > MAX_COLUMNS:
                break
        fences.row(len(row))
        above = row
        yield row


def _paragraph_texts(tc: Any, fences: _Fences) -> Iterator[str]:
    for paragraph in tc.p_lst:
        fences.paragraph()
        yield paragraph.text


def _heading_level(style: str | None) -> int:
    """Word's built-in styles: "Title" and "Heading 1" to "Heading 9"; 0 for any other."""
    if style == "Title":
        return 1
    found = re.fullmatch(r"[Hh]eading (\d)", style or "")
    return int(found[1]) if found else 0


def read_pptx(path: Path, check: Check = never) -> LoadedDocument:
    import pptx

    _check_zip(path, check)
    slides = pptx.Presentation(str(path)).slides
    sections, fences = Sections(), _Fences()
    for page, slide in enumerate(slides, start=1):
        check()
        title = slide.shapes.title
        heading = title.text_frame.text if title is not None else ""
        sections.heading(1, heading)
        for text in watched(_shape_texts(slide.shapes, title, fences), check):
            sections.line(text)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            sections.line("\n" + slide.notes_slide.notes_text_frame.text)
        if heading.strip() and sections.is_blank():
            sections.line(heading)
        sections.end(page)
    return sections.document(pages=len(slides))


def _shape_texts(shapes: Iterable[Any], title: Any, fences: _Fences) -> Iterator[str]:
    waiting = list(shapes)[::-1]
    while waiting:
        shape = waiting.pop()
        fences.paragraph()
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if hasattr(shape, "shapes"):
            waiting.extend(list(shape.shapes)[::-1])
        elif shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            yield from table_lines(_pptx_rows(shape.table, fences))


def _pptx_rows(table: Any, fences: _Fences) -> Iterator[list[str]]:
    """The texts of the rows; ``table.rows`` would search the table anew for each."""
    for tr in table._tbl.tr_lst:
        row = [tc.text for tc in tr.tc_lst]
        fences.row(len(row))
        yield row
