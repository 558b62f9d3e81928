"""Files -> text with pages and headings. READERS says which suffix is read by what."""

import csv
import io
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import DbgptError, DocumentError, TooLarge
from dbgpt_lite.knowledge.encodings import decode
from dbgpt_lite.knowledge.loaded import MAX_CHARACTERS, Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.markup import read_markdown
from dbgpt_lite.knowledge.office import read_docx, read_pptx
from dbgpt_lite.knowledge.pdf import read_pdf
from dbgpt_lite.knowledge.tables import table_lines
from dbgpt_lite.knowledge.webpage import read_html
from dbgpt_lite.knowledge.workbook import read_xlsx

# How much of a CSV file its delimiter is told from.
_JUDGED = 20_000
_JUDGED_ROWS = 50


def load(path: Path, name: str, check: Check = never, encoding: str = "") -> LoadedDocument:
    """Read the file at `path`; the suffix of `name` says what it is.

    `encoding` is the one chosen for a text file, "" to detect it; other types carry theirs. `check` is called every few
    hundred lines, rows or paragraphs; what it raises stops the reading.
    Raises DocumentError or TooLarge that names what is wrong with it and what to do.
    """
    kind = suffix(name)
    if kind not in READERS:
        raise DocumentError("knowledge.unknown_type", suffix=kind or "?", known=" ".join(sorted(READERS)))
    if path.stat().st_size == 0:
        raise DocumentError("knowledge.empty_file")
    try:
        reader = TEXT_READERS.get(kind)
        document = reader(path, check, encoding) if reader else BINARY_READERS[kind](path, check)
    except DbgptError:
        raise
    except MemoryError:
        raise TooLarge("knowledge.too_much_text", limit=f"{MAX_CHARACTERS:,}") from None
    except Exception as error:
        raise DocumentError("knowledge.unreadable", kind=kind.lstrip(".").upper()) from error
    if not document.sections:
        raise DocumentError("knowledge.no_text")
    return document


def suffix(name: str) -> str:
    """The lower-case suffix of a display name, ".pdf"; "" when it has none."""
    return Path(name).suffix.lower()


def read_text(path: Path, check: Check = never, encoding: str = "") -> LoadedDocument:
    check()
    decoded = decode(path.read_bytes(), encoding=encoding)
    sections = Sections()
    sections.line(decoded.text)
    return sections.document(decoded.encoding, undecodable=decoded.undecodable)


def read_csv(path: Path, check: Check = never, encoding: str = "") -> LoadedDocument:
    decoded = decode(path.read_bytes(), encoding=encoding)
    delimiter = _delimiter(decoded.text)
    try:
        sections = _csv_sections(decoded.text, delimiter, csv.QUOTE_MINIMAL, check)
    except csv.Error:
        # A quotation mark that is never closed makes one cell of the rest, which the csv module refuses.
        sections = _csv_sections(decoded.text, delimiter, csv.QUOTE_NONE, check)
    return sections.document(decoded.encoding, undecodable=decoded.undecodable)


def _csv_sections(text: str, delimiter: str, quoting: Literal[0, 3], check: Check) -> Sections:
    sections = Sections()
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    for line in table_lines(watched(rows, check)):
        sections.line(line)
    return sections


def _delimiter(text: str) -> str:
    """The delimiter that cuts most of the first rows into the same number of cells; a comma when none does."""
    best, found = (0, 0), ","
    for delimiter in ",;\t|":
        rows = csv.reader(io.StringIO(text[:_JUDGED], newline=""), delimiter=delimiter)
        try:
            widths = [len(row) for row in islice(rows, _JUDGED_ROWS) if row]
        except csv.Error:
            continue
        width = max(widths, key=widths.count, default=0)
        if width > 1 and (widths.count(width), width) > best:
            best, found = (widths.count(width), width), delimiter
    return found


# Plain bytes whose encoding can be chosen, and types that say themselves how they are written.
TEXT_READERS: Mapping[str, Callable[[Path, Check, str], LoadedDocument]] = {
    ".txt": read_text,
    ".text": read_text,
    ".log": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".csv": read_csv,
    ".tsv": read_csv,
}
BINARY_READERS: Mapping[str, Callable[[Path, Check], LoadedDocument]] = {
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".xlsx": read_xlsx,
    ".pptx": read_pptx,
}
READERS = frozenset((*TEXT_READERS, *BINARY_READERS))
