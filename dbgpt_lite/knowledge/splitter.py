"""A document -> chunks of a given number of tokens, cut at paragraphs, sentences and words of both languages."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dbgpt_lite.knowledge.loaded import LoadedDocument
from dbgpt_lite.knowledge.records import Chunk
from dbgpt_lite.knowledge.words import sentences

# Coarse to fine, each linear in the text; what they match stays at the end of the piece before it. A row of a table
# reads "name: value; name: value", so it is cut between two pairs rather than inside one.
SEPARATORS = tuple(
    re.compile(separator)
    for separator in (
        r"\n{2,}",
        r"\n",
        r"[。！？；…]+[”’」』）】》]*|(?<![.!?])[.!?]++[\"')\]]*+\s+",
        r";\s+|[,，、]\s*",
        r":\s+|：",
        r"\s+",
    )
)
# A run without spaces may be one unknown token however long it is; no chunk gets longer than this per token.
CHARACTERS_PER_TOKEN = 8

_WORD = re.compile(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+")

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class _Room:
    """What one chunk takes, in tokens and in characters."""

    tokens: int

    @property
    def characters(self) -> int:
        return self.tokens * CHARACTERS_PER_TOKEN

    def holds(self, tokens: int, characters: int) -> bool:
        return tokens <= self.tokens and characters <= self.characters


def split(document: LoadedDocument, count: Count, chunk_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """Chunks in reading order, none across two sections (so none across pages).

    `count` gives the tokens of a text. Neighbours share up to `overlap_tokens`. For every chunk
    ``document.text[chunk.start : chunk.end] == chunk.text``.
    """
    overlap = min(overlap_tokens, chunk_tokens // 2)
    chunks: list[Chunk] = []
    for section, base in zip(document.sections, document.offsets, strict=True):
        for start, end in _spans(section.text, count, chunk_tokens, overlap):
            chunks.append(Chunk(section.text[start:end], base + start, base + end, section.page, section.heading))
    return chunks


def _spans(text: str, count: Count, chunk_tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Where the chunks of a section start and end, white space around them left out."""
    if _Room(chunk_tokens).holds(count(text), len(text)):
        bodies = [(0, len(text))]
    else:
        bodies = list(_packed(_pieces(text, count, _Room(chunk_tokens - overlap)), _Room(chunk_tokens - overlap)))
    previous = 0
    for begin, end in bodies:
        start = begin - _shared(text[previous:begin], count, overlap)
        previous = begin
        if text[begin:end].strip():
            shared = text[start:end]
            yield start + len(shared) - len(shared.lstrip()), start + len(shared.rstrip())


def _packed(pieces: Iterator[tuple[int, int, int]], room: _Room) -> Iterator[tuple[int, int]]:
    """Neighbouring pieces together, as many as the room holds; (start, end) of each such body."""
    start = end = tokens = 0
    for begin, after, more in pieces:
        if not room.holds(tokens + more, after - start) and begin > start:
            yield start, end
            start, tokens = begin, 0
        end, tokens = after, tokens + more
    if end > start:
        yield start, end


def _pieces(text: str, count: Count, room: _Room) -> Iterator[tuple[int, int, int]]:
    """The text in pieces (start, end, tokens) that the room holds, none finer than it takes; together they are it."""
    # Spans still to be cut with the separators from a level on, the next one last.
    waiting = [(0, len(text), 0)]
    while waiting:
        start, end, level = waiting.pop()
        piece = text[start:end]
        tokens = count(piece) if len(piece) <= room.characters else room.tokens + 1
        if room.holds(tokens, len(piece)) or len(piece) == 1:
            yield start, end, tokens
        elif level == len(SEPARATORS):
            # No separator: halves, until they fit.
            middle = start + min(room.characters, (len(piece) + 1) // 2)
            waiting += [(middle, end, level), (start, middle, level)]
        else:
            cuts = [start, *(match.end() for match in SEPARATORS[level].finditer(text, start, end)), end]
            spans = [(first, last, level + 1) for first, last in pairwise(cuts) if first < last]
            waiting += reversed(spans)


def _shared(before: str, count: Count, overlap: int) -> int:
    """Characters at the end of the piece before that a chunk repeats: whole sentences, else words, as many as fit."""
    tail = before[-overlap * CHARACTERS_PER_TOKEN :] if overlap else ""
    if not tail:
        return 0
    # The first start may lie inside a sentence or word that the cut of the tail broke.
    cut = len(before) > len(tail)
    sentence_starts = [start for start, _ in sentences(tail)][cut:]
    return _longest(tail, sentence_starts, count, overlap) or _longest(
        tail, [match.start() for match in _WORD.finditer(tail)][cut:], count, overlap
    )


def _longest(tail: str, starts: Sequence[int], count: Count, overlap: int) -> int:
    """Characters from the first of the starts from which the tail has up to `overlap` tokens; 0 when none has."""
    first = bisect_left(starts, True, key=lambda start: count(tail[start:]) <= overlap)
    return len(tail) - starts[first] if first < len(starts) else 0
