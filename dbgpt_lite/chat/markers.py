"""Citation markers in an answer: brought to the form [n], and the sentences they belong to. Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from dbgpt_lite.knowledge.words import sentences, words

MARKER = re.compile(r"[^\S\n]?\[(\d{1,2})\]")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)

_WORD = r"(?:passages?|sources?|documents?|docs?|refs?|段落|来源|出处|资料|文档)"
_NUMBERS = r"\d{1,2}(?:\s*[,，、;；&–—~-]\s*\^?\d{1,2})*"
# [1, 2], [1-3], [^1], [Passage 2], 【1】, 【1†source】, ［1］, (Passage 2)
_OTHER = re.compile(
    rf"[\[【［]\s*(?:{_WORD}\s*)?\^?(?P<square>{_NUMBERS})(?:†[^\]】］]{{0,40}})?\s*[\]】］](?!\()"
    rf"|[(（]\s*{_WORD}\s*(?P<named>{_NUMBERS})\s*[)）]",
    re.IGNORECASE,
)
# A lone (1) is a marker only at the end of words, never at the start of a line or before words.
_ROUND = re.compile(r"(?<=[^\s(（])[ \t]?[(（](\d{1,2})[)）](?=\s*(?:[.。!！?？,，;；]|\n|$|[(（]\d))")
_RANGE = re.compile(r"(\d{1,2})\s*[–—~-]\s*(\d{1,2})")
_LIST_MARK = re.compile(r"\s*(?:[-*+•>]\s+|\d{1,2}[.)、]\s+|#{1,6}\s+|\|\s*)*")
_TAIL = " \t*_"


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, or the part of one that ends at its markers: offsets in the text, and the markers' own spans."""

    start: int
    end: int
    markers: tuple[tuple[int, int, int], ...] = ()  # (start, end, number)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to everything but code."""
    parts, code = CODE.split(text), CODE.findall(text)
    return "".join(change(part) + kept for part, kept in zip(parts, [*code, ""], strict=True))


def without_markers(text: str) -> str:
    """`text` without any marker outside code; in a new prompt the numbers would mean other passages."""
    return outside_code(text, lambda part: MARKER.sub("", part))


def normalized(answer: str, count: int) -> str:
    """`answer` with every way to write a marker as [n] or [n][m], n from 1 to `count`; others are dropped."""
    changed = outside_code(answer, lambda part: _OTHER.sub(lambda match: _plain(match, count), part))
    if not any(MARKER.search(part) for part in CODE.split(changed)):
        changed = outside_code(changed, lambda part: _ROUND.sub(lambda match: _known(match, count), part))
    return outside_code(changed, lambda part: MARKER.sub(lambda match: _in_range(match, count), part))


def claims(text: str) -> list[Claim]:
    """The sentences of `text` in order, each with the markers that stand in it or right after it.

    A sentence with markers in several places is cut after each, unless a part has no words of its own.
    """
    blank = CODE.sub(lambda code: _spaces(code.group()), text)
    markers = [(m.start(), m.end(), int(m.group(1))) for m in MARKER.finditer(blank)]
    masked = MARKER.sub(lambda match: _spaces(match.group()), blank)
    spans = [_bare(masked, start, end) for start, end in sentences(masked)]
    spans = [span for span in spans if words(masked[slice(*span)])]
    found: list[Claim] = []
    for place, (start, end) in enumerate(spans):
        after = spans[place + 1][0] if place + 1 < len(spans) else len(text)
        # A marker before the first sentence of a line belongs to it, any other to what it follows.
        line = masked.rfind("\n", 0, start) + 1
        first = line if not any(line <= s < start for s, _ in spans) else start
        line_after = masked.rfind("\n", 0, after) + 1
        last = after if line_after <= end else line_after
        own = tuple(marker for marker in markers if first <= marker[0] < last)
        found += _cut(masked, start, end, own)
    return found


def _cut(masked: str, start: int, end: int, markers: tuple[tuple[int, int, int], ...]) -> list[Claim]:
    parts: list[Claim] = []
    begin = start
    group: list[tuple[int, int, int]] = []
    for marker, following in zip(markers, (*markers[1:], None), strict=False):
        group.append(marker)
        if following and not words(masked[marker[1] : following[0]]):
            continue
        if words(masked[begin : marker[0]]) and words(masked[marker[1] : end]) and following:
            parts.append(Claim(*_bare(masked, begin, marker[0]), tuple(group)))
            begin, group = marker[1], []
    rest = _bare(masked, begin, end)
    return [*parts, Claim(*rest, tuple(group))]


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without a list mark before it and white space around it."""
    mark = _LIST_MARK.match(text, start, end)
    start = mark.end() if mark else start
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip(_TAIL)), start + len(piece.rstrip(" \t"))


def _plain(match: "re.Match[str]", count: int) -> str:
    body = match["square"] or match["named"]
    body = _RANGE.sub(lambda span: ",".join(map(str, range(int(span[1]), min(int(span[2]), count) + 1))), body)
    lead = " " if match["named"] else ""
    return lead + "".join(f"[{number}]" for number in dict.fromkeys(re.findall(r"\d+", body)))


def _known(match: "re.Match[str]", count: int) -> str:
    return f" [{match.group(1)}]" if 1 <= int(match.group(1)) <= count else match.group()


def _in_range(match: "re.Match[str]", count: int) -> str:
    return match.group() if 1 <= int(match.group(1)) <= count else ""


def _spaces(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)
