"""Reader of Markdown files, and the encoding that an HTML page declares."""

import re
from pathlib import Path

from dbgpt_lite.knowledge.encodings import decode
from dbgpt_lite.knowledge.loaded import Check, LoadedDocument, Sections, never, watched

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
_MAX_HEADING = 1_000
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{2,30})", re.IGNORECASE)
_DECLARED_WITHIN = 4096


def read_markdown(path: Path, check: Check = never, encoding: str = "") -> LoadedDocument:
    decoded = decode(path.read_bytes(), encoding=encoding)
    sections, fence = Sections(), ""
    for line in watched(decoded.text.splitlines(), check):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        heading = _HEADING.match(line) if not fence and len(line) <= _MAX_HEADING else None
        if heading:
            sections.heading(len(heading[1]), heading[2])
        else:
            sections.line(line)
    return sections.document(decoded.encoding, undecodable=decoded.undecodable)


def declared_encoding(content: bytes) -> str:
    """The encoding a page names in its first bytes, "" when it names none."""
    found = _DECLARED.search(content[:_DECLARED_WITHIN])
    return found[1].decode("ascii") if found else ""
