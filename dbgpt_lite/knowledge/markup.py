"""Readers of Markdown and HTML files."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from dbgpt_lite.knowledge.encodings import decode
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never, watched
from dbgpt_lite.knowledge.tables import table_lines

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_MARKDOWN_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")


def read_markdown(path: Path, check: Check = never) -> LoadedDocument:
    decoded = decode(path.read_bytes())
    sections, fenced = Sections(), False
    for line in watched(decoded.text.splitlines(), check):
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _MARKDOWN_HEADING.match(line)
        if heading:
            sections.heading(len(heading[1]), heading[2])
        else:
            sections.line(line)
    document = sections.document(decoded.encoding)
    return document if document.sections else sections.headings_only()


_SILENT_TAGS = ["script", "style", "noscript", "template", "nav", "svg", "iframe", "object"]
_BLOCK_TAGS = (
    "address article aside blockquote br dd div dl dt figcaption figure footer form header hr li main ol p pre section "
    "table td th tr ul title"
).split()
_MARK = "\ue000"
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{2,30})", re.IGNORECASE)


def read_html(path: Path, check: Check = never) -> LoadedDocument:
    from bs4 import BeautifulSoup

    content = path.read_bytes()
    declared = _DECLARED.search(content[:4096])
    decoded = decode(content, declared[1].decode("ascii") if declared else "")
    sections = Sections()
    soup = BeautifulSoup(decoded.text.replace(_MARK, ""), "html.parser")
    for line in watched(_html_text(soup, check).split("\n"), check):
        if line.startswith(_MARK):
            sections.heading(int(line[1]), line[2:])
        else:
            sections.line(line.strip())
    document = sections.document(decoded.encoding)
    return document if document.sections else sections.headings_only()


def _html_text(soup: "BeautifulSoup", check: Check) -> str:
    """Text with line breaks at blocks; a heading is a line of _MARK, its level and its words."""
    for tag in soup(_SILENT_TAGS):
        tag.decompose()
    for string in watched(soup.find_all(string=True), check):
        if type(string).__name__ != "NavigableString":
            string.extract()
        elif string.find_parent("pre") is None:
            string.replace_with(re.sub(r"\s+", " ", string))
    for table in watched(reversed(soup("table")), check):
        rows = [[cell.get_text(" ") for cell in row(["td", "th"])] for row in table("tr")]
        table.replace_with("\n\n" + "\n".join(table_lines(rows)) + "\n\n")
    for heading in soup(["h1", "h2", "h3", "h4", "h5", "h6"]):
        heading.replace_with(f"\n{_MARK}{heading.name[1]}{' '.join(heading.get_text(' ').split())}\n")
    for block in watched(soup(_BLOCK_TAGS), check):
        gap = "\n\n" if block.name == "p" else "\n"
        block.insert_before(gap)
        block.insert_after(gap)
    return str(soup.get_text())
