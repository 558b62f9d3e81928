"""A document -> chunks of a given number of tokens, cut at paragraphs, sentences and words of both languages."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from dbgpt_lite.knowledge.loaded import LoadedDocument
from dbgpt_lite.knowledge.records import Chunk
from dbgpt_lite.knowledge.words import sentences

# Regular expressions, coarse to fine; what they match stays at the end of the piece before it.
SEPARATORS = (r"\n{2,}", r"\n", r"[。！？；…]+[”’」』）】》]*", r"[.!?]+[\"')\]]*\s+", r"[;:]\s+|[，、：]", r"\s+", "")
# A run without spaces may be one unknown token however long it is; no chunk gets longer than this per token.
CHARACTERS_PER_TOKEN = 8

_WORD = re.compile(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+")

Length = Callable[[str], int]


def split(document: LoadedDocument, count: Callable[[str], int], chunk_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """Chunks in reading order, none across two sections (so none across pages).

    `count` gives the tokens of a text. Neighbours share up to `overlap_tokens`. For every chunk
    ``document.text[chunk.start : chunk.end] == chunk.text``.
    """
    length = _length(count)
    overlap = min(overlap_tokens, chunk_tokens // 2)
    chunks: list[Chunk] = []
    for section, base in zip(document.sections, document.offsets, strict=True):
        for start, end in _spans(section.text, length, chunk_tokens, overlap):
            chunks.append(Chunk(section.text[start:end], base + start, base + end, section.page, section.heading))
    return chunks


def _length(count: Length) -> Length:
    """`count` bounded from below by the characters, and remembered: the splitter asks for each piece several times."""

    @lru_cache(maxsize=100_000)
    def length(text: str) -> int:
        return max(count(text), len(text) // CHARACTERS_PER_TOKEN)

    return length


def _spans(text: str, length: Length, chunk_tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Where the chunks of a section start and end, white space around them left out."""
    pieces = [text] if length(text) <= chunk_tokens else _pieces(text, length, chunk_tokens - overlap)
    position = previous = 0
    for piece in pieces:
        start = position - _shared(text[previous:position], length, overlap)
        previous, position = position, position + len(piece)
        if piece.strip():
            shared = text[start:position]
            yield start + len(shared) - len(shared.lstrip()), start + len(shared.rstrip())


def _pieces(text: str, length: Length, size: int) -> list[str]:
    """The text in pieces of up to `size` tokens; together they are the text, so their offsets add up."""
    from langchain_text_splitters.character import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(
        separators=list(SEPARATORS),
        is_separator_regex=True,
        keep_separator="end",
        strip_whitespace=False,
        chunk_size=size,
        chunk_overlap=0,
        # A piece of white space has no tokens; the library repeats pieces of length 0 in the next chunk.
        length_function=lambda piece: max(length(piece), 1),
    )
    return splitter.split_text(text)


def _shared(before: str, length: Length, overlap: int) -> int:
    """Characters at the end of the piece before that a chunk repeats: whole sentences, else words, as many as fit."""
    tail = before[-overlap * CHARACTERS_PER_TOKEN :] if overlap else ""
    skipped = len(before) - len(tail)
    # The first start may lie inside a sentence or word that the cut of the tail broke.
    sentence_starts = [start for start, _ in sentences(tail)][skipped > 0 :]
    word_starts = [match.start() for match in _WORD.finditer(tail)][skipped > 0 :]
    for starts in (sentence_starts, word_starts):
        for start in starts:
            if length(tail[start:]) <= overlap:
                return len(tail) - start
    return 0
