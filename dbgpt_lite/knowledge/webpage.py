"""Reader of HTML: one pass over the tags, so time and memory grow with the page, however it is nested."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from dbgpt_lite.errors import DocumentError
from dbgpt_lite.knowledge.encodings import decode
from dbgpt_lite.knowledge.loaded import WATCH_EVERY, Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.markup import declared_encoding
from dbgpt_lite.knowledge.tables import table_lines

# Each "<" of a page; far above any page people read.
MAX_TAGS = 1_000_000
# A main part shorter than this share of the page's text is taken for a mistake of its author.
_MAIN_SHARE = 0.2

_SILENT = frozenset("script style noscript template nav svg iframe object select dialog canvas math".split())
_SILENT_ROLES = frozenset(("navigation", "banner", "contentinfo", "search"))
# Part of the page's frame, unless they belong to an article.
_FRAME = frozenset(("header", "footer", "aside"))
_MAIN = frozenset(("main", "article"))
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_BLOCKS = frozenset(
    """
    address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure footer form header
    hr li main ol option p pre section summary table tbody thead tfoot tr ul
    """.split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_PARAGRAPHS = frozenset(("p", "table", "ul", "ol", "pre", "blockquote"))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the page; level is that of a heading, 0 for text; main: inside the page's main part."""

    text: str
    level: int = 0
    main: bool = False


@dataclass
class _Table:
    rows: list[list[str]] = field(default_factory=list)
    cell: list[str] | None = None


def read_html(path: Path, check: Check = never, encoding: str = "") -> LoadedDocument:
    content = path.read_bytes()
    if content.count(b"<") > MAX_TAGS:
        raise DocumentError("knowledge.too_many_elements", limit=f"{MAX_TAGS:,}")
    decoded = decode(content, declared_encoding(content), encoding)
    page = _Page(check)
    page.feed(_markup_only(decoded.text))
    page.close()
    sections = Sections()
    _write(page, sections, check)
    return sections.document(decoded.encoding, undecodable=decoded.undecodable)


# What is no content, with its end: comments, CDATA, declarations, processing instructions, scripts and styles.
_ENDS = {"<!--": "-->", "<![cdata[": "]]>", "<!": ">", "<?": ">", "<script": "</script", "<style": "</style"}
_REMARK = re.compile(r"<!--|<!\[CDATA\[|<!|<\?|<(?:script|style)(?=[\s/>])|<(?=[a-z/])", re.IGNORECASE)
# A tag that is longer, as one with a picture in it, is read as text.
_MAX_TAG = 100_000


def _markup_only(text: str) -> str:
    """The page without comments, declarations and scripts; one that is never closed goes to the end, as in browsers.

    The standard library's parser looks for each end anew, which takes hours for a page of unclosed ones.
    """
    parts: list[str] = []
    position, lower = 0, text.lower()
    if len(lower) != len(text):
        lower = text
    while True:
        found = _REMARK.search(text, position)
        if found is None:
            return "".join((*parts, text[position:]))
        parts.append(text[position : found.start()])
        end = _ENDS.get(found.group().lower())
        if end is None:
            closed = text.find(">", found.end(), found.end() + _MAX_TAG) >= 0
            parts.append("<" if closed else "&lt;")
            position = found.end()
            continue
        last = lower.find(end, found.end())
        if last < 0:
            return "".join(parts)
        position = last if end.startswith("</") else last + len(end)


def _write(page: "_Page", sections: Sections, check: Check) -> None:
    """The main part when the page has one. The title stands above all headings, unless one of them repeats it."""
    lines = _main_lines(page.finished())
    above = bool(page.title) and not any(line.level == 1 and line.text in page.title for line in lines)
    if above:
        sections.heading(1, page.title)
    for line in watched(lines, check):
        if line.level:
            sections.heading(line.level + above, line.text)
        else:
            sections.line(line.text)


def _main_lines(lines: list[_Line]) -> list[_Line]:
    inside = [line for line in lines if line.main]
    total = sum(len(line.text) for line in lines)
    return inside if sum(len(line.text) for line in inside) > _MAIN_SHARE * total else lines


class _Page(HTMLParser):
    """Collects lines. Open elements are kept on a stack; a closing tag closes what was left open inside its element."""

    def __init__(self, check: Check) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self._check = check
        self._events = 0
        self._open: list[str] = []
        self._counts: dict[str, int] = {}
        # Depths of the stack at which a silent or a main element began.
        self._silent: list[int] = []
        self._main: list[int] = []
        self._tables: list[_Table] = []
        self._lines: list[_Line] = []
        self._words: list[str] = []
        self._heading = 0
        self._titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._watch()
        if tag in _VOID:
            if tag in _BLOCKS and not self._silent:
                self._break(paragraph=False)
            return
        self._close_implied(tag)
        self._open.append(tag)
        self._counts[tag] = self._counts.get(tag, 0) + 1
        if self._silent:
            return
        if self._is_silent(tag, dict(attrs)):
            self._break(paragraph=True)
            self._silent.append(len(self._open))
            return
        self._begin(tag)

    def _begin(self, tag: str) -> None:
        if tag in _BLOCKS or tag in _HEADINGS:
            before = len(self._lines)
            self._break(tag in _PARAGRAPHS)
            if len(self._lines) > before:
                # A heading that was never closed ends with its line.
                self._heading = 0
        if tag in _MAIN:
            self._main.append(len(self._open))
        elif tag in _HEADINGS and not self._tables:
            self._heading = _HEADINGS[tag]
        elif tag == "table":
            self._tables.append(_Table())
        elif tag == "tr" and self._tables:
            self._tables[-1].rows.append([])
        elif tag in ("td", "th") and self._tables:
            self._tables[-1].cell = []

    def _is_silent(self, tag: str, attributes: dict[str, str | None]) -> bool:
        if tag in _SILENT or "hidden" in attributes or attributes.get("aria-hidden") == "true":
            return True
        if attributes.get("role") in _SILENT_ROLES:
            return True
        return tag in _FRAME and not self._main

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        self._watch()
        if tag in _HEADINGS and not self._counts.get(tag):
            # Any heading's end tag closes the one that is open (https://html.spec.whatwg.org/#parsing-main-inbody).
            tag = next((name for name in reversed(self._open) if name in _HEADINGS), tag)
        if not self._counts.get(tag):
            return
        while True:
            closed = self._open.pop()
            self._end(closed, len(self._open) + 1)
            self._counts[closed] -= 1
            if closed == tag:
                return

    def _end(self, tag: str, depth: int) -> None:
        if self._silent:
            if self._silent[-1] == depth:
                self._silent.pop()
            return
        if tag in _BLOCKS or tag in _HEADINGS:
            self._break(tag in _PARAGRAPHS)
        if tag in _HEADINGS:
            self._heading = 0
        elif tag in ("td", "th") and self._tables:
            self._end_cell(self._tables[-1])
        elif tag == "table" and self._tables:
            self._end_table()
        if self._main and self._main[-1] == depth:
            self._main.pop()

    def handle_data(self, data: str) -> None:
        self._watch()
        if self._open and self._open[-1] == "title" and "svg" not in self._open:
            self._titles.append(data)
            self.title = " ".join("".join(self._titles).split())
        elif not self._silent:
            self._words.append(data)

    def _watch(self) -> None:
        if self._events % WATCH_EVERY == 0:
            self._check()
        self._events += 1

    def _close_implied(self, tag: str) -> None:
        """Cells, rows, items and paragraphs end where the next one begins: HTML needs no closing tags for them."""
        for last in _IMPLIED.get(tag, ()):
            if self._open and self._open[-1] == last:
                self.handle_endtag(last)

    def _break(self, paragraph: bool) -> None:
        """End the line; in a cell a break is a blank, its words wait for the end of the cell."""
        text = "".join(self._words)
        self._words.clear()
        if self._tables:
            cell = self._tables[-1].cell
            if cell is not None:
                cell.append(text)
            elif text.strip():
                # A caption, or words where no cell is.
                self._tables[-1].rows.append([text])
            return
        if self._counts.get("pre"):
            self._lines.append(_Line(text, 0, bool(self._main)))
        elif text := " ".join(text.split()):
            self._lines.append(_Line(text, self._heading, bool(self._main)))
        if paragraph:
            self._lines.append(_Line("", 0, bool(self._main)))

    def _end_cell(self, table: _Table) -> None:
        self._break(paragraph=False)
        if table.cell is not None:
            if not table.rows:
                table.rows.append([])
            table.rows[-1].append(" ".join(table.cell))
            table.cell = None

    def _end_table(self) -> None:
        """A table inside a cell becomes the words of the cell."""
        table = self._tables.pop()
        if table.cell is not None:
            self._end_cell(table)
        lines = list(table_lines(table.rows))
        if self._tables:
            self._words.append(" " + "; ".join(lines) + " ")
            return
        self._lines.extend(_Line(line, 0, bool(self._main)) for line in (*lines, ""))

    def finished(self) -> list[_Line]:
        """All lines, with what was left open at the end of the page."""
        self._silent.clear()
        while self._tables:
            self._end_cell(self._tables[-1])
            self._end_table()
        self._break(paragraph=False)
        return self._lines


_IMPLIED: dict[str, tuple[str, ...]] = {
    "td": ("td", "th"),
    "th": ("td", "th"),
    "tr": ("td", "th", "tr"),
    "li": ("p", "li"),
    "p": ("p",),
    "dt": ("dd", "dt"),
    "dd": ("dd", "dt"),
    "option": ("option",),
    **dict.fromkeys(("div", "ul", "ol", "table", "section", "article", *_HEADINGS), ("p",)),
}
