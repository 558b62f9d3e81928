"""Reader of PDF files, by PDFium."""

import re
import threading
from pathlib import Path

from dbgpt_lite.errors import DocumentError
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never

# PDFium must not be entered by two threads (https://pypdfium2.readthedocs.io, "Thread incompatibility").
_PDFIUM = threading.Lock()


def read_pdf(path: Path, check: Check = never) -> LoadedDocument:
    import pypdfium2

    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise DocumentError("knowledge.encrypted_pdf") from error
            raise
    sections = Sections()
    try:
        with _PDFIUM:
            pages = len(pdf)
        for number in range(pages):
            check()
            with _PDFIUM:
                page = pdf[number]
                text = page.get_textpage().get_text_bounded()
                page.close()
            sections.line(_unwrap(text))
            sections.end(number + 1)
    finally:
        with _PDFIUM:
            pdf.close()
    if not sections.sections:
        raise DocumentError("knowledge.scanned_pdf", pages=pages)
    return sections.document(pages=pages)


_ENDS = tuple('.!?:;。！？：；…”’"|')
_BULLET = re.compile(r"\s*(?:[-•·▪●○*–]|\d{1,3}[.)、]|[(（]?[一二三四五六七八九十]+[)）、])")
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def _unwrap(text: str) -> str:
    """Join the lines that a PDF's layout broke inside a sentence.

    A line goes on when it is nearly as long as the page's longest, ends no sentence, and no bullet follows.
    """
    # PDFium writes U+FFFE for the hyphen of a word broken at the end of a line.
    lines = re.sub("[\ufffe\u00ad\u0002]\r?\n?", "", text).replace("\r\n", "\n").split("\n")
    full = 0.6 * max((_width(line) for line in lines), default=0)
    joined: list[str] = []
    goes_on = False
    for line in map(str.strip, lines):
        if goes_on and line and not _BULLET.match(line):
            wide = _WIDE.match(joined[-1][-1]) and _WIDE.match(line[0])
            joined[-1] += ("" if wide else " ") + line
        else:
            joined.append(line)
        goes_on = bool(line) and _width(line) >= full and not line.endswith(_ENDS)
    return "\n".join(joined)


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))
