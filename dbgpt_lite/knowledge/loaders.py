"""Files -> text with pages and headings. READERS says which suffix is read by what."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import DbgptError, DocumentError, TooLarge
from dbgpt_lite.knowledge.encodings import decode
from dbgpt_lite.knowledge.loaded import MAX_CHARACTERS, Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.markup import read_html, read_markdown
from dbgpt_lite.knowledge.office import read_docx, read_pptx, read_xlsx
from dbgpt_lite.knowledge.pdf import read_pdf
from dbgpt_lite.knowledge.tables import table_lines


def load(path: Path, name: str, check: Check = never) -> LoadedDocument:
    """Read the file at `path`; the suffix of `name` says what it is.

    `check` is called every few hundred lines, rows or paragraphs; what it raises stops the reading.
    Raises DocumentError or TooLarge that names what is wrong with it and what to do.
    """
    reader = READERS.get(suffix(name))
    if reader is None:
        raise DocumentError("knowledge.unknown_type", suffix=suffix(name) or "?", known=" ".join(sorted(READERS)))
    if path.stat().st_size == 0:
        raise DocumentError("knowledge.empty_file")
    try:
        document = reader(path, check)
    except DbgptError:
        raise
    except MemoryError:
        raise TooLarge("knowledge.too_much_text", limit=f"{MAX_CHARACTERS:,}") from None
    except Exception as error:
        raise DocumentError("knowledge.unreadable", kind=suffix(name).lstrip(".").upper()) from error
    if not document.sections:
        raise DocumentError("knowledge.no_text")
    return document


def suffix(name: str) -> str:
    """The lower-case suffix of a display name, ".pdf"; "" when it has none."""
    return Path(name).suffix.lower()


def read_text(path: Path, check: Check = never) -> LoadedDocument:
    check()
    decoded = decode(path.read_bytes())
    sections = Sections()
    sections.line(decoded.text)
    return sections.document(decoded.encoding)


def read_csv(path: Path, check: Check = never) -> LoadedDocument:
    decoded = decode(path.read_bytes())
    try:
        dialect: Any = csv.Sniffer().sniff(decoded.text[:20_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel_tab if path.suffix == ".tsv" else csv.excel
    sections = Sections()
    rows = csv.reader(io.StringIO(decoded.text, newline=""), dialect)
    for line in table_lines(watched(rows, check)):
        sections.line(line)
    return sections.document(decoded.encoding)


READERS: dict[str, Callable[[Path, Check], LoadedDocument]] = {
    ".txt": read_text,
    ".text": read_text,
    ".log": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".pdf": read_pdf,
    ".docx": read_docx,
    ".html": read_html,
    ".htm": read_html,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".xlsx": read_xlsx,
    ".pptx": read_pptx,
}
