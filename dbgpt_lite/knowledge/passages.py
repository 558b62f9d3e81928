"""What is done to ranked passages before they are handed over: repeats dropped, neighbours joined."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dbgpt_lite.knowledge.words import bigrams
from dbgpt_lite.messages import Passage

# The share of common words from which a lower passage repeats a higher one.
NEAR_DUPLICATE = 0.9
# Chunks that one joined passage may hold: a window is better filled by several places than by one long stretch.
MOST_JOINED = 3

_WORD = re.compile(r"\w+(?:\.\d+)?")


def without_repeats(ranked: Iterable[Passage], limit: int) -> list[Passage]:
    """The first `limit` passages, leaving out those that only repeat one before."""
    kept: list[Passage] = []
    seen: list[frozenset[str]] = []
    for passage in ranked:
        if len(kept) == limit:
            break
        found = _features(passage.text)
        if not any(_repeats(found, other) for other in seen):
            kept.append(passage)
            seen.append(found)
    return kept


def join_neighbours(ranked: Sequence[Passage], limit: int) -> list[Passage]:
    """Up to `limit` passages in the order of their best chunk; overlapping chunks of one document become one passage.

    A joined passage is still ``text[start:end]`` of the document: it spans from its first chunk to its last, and takes
    id, page and heading of the first, the score of the best. Chunks on other pages or under other headings stay apart.
    """
    groups: list[list[Passage]] = []
    for passage in ranked:
        home = next((group for group in groups if len(group) < MOST_JOINED and _touches(group, passage)), None)
        if home is not None:
            home.append(passage)
            home.sort(key=lambda chunk: (chunk.start, chunk.end))
        elif len(groups) < limit:
            groups.append([passage])
    return [_joined(group) for group in groups]


def _touches(group: Sequence[Passage], passage: Passage) -> bool:
    """Whether no character is missing between the group (in reading order) and the passage."""
    first = group[0]
    same = (first.document_id, first.page, first.heading) == (passage.document_id, passage.page, passage.heading)
    return same and passage.start <= max(chunk.end for chunk in group) and passage.end >= first.start


def _joined(group: Sequence[Passage]) -> Passage:
    first = group[0]
    text, end = first.text, first.end
    for chunk in group[1:]:
        if chunk.end > end:
            text += chunk.text[end - chunk.start :]
            end = chunk.end
    return replace(first, text=text, end=end, score=max(chunk.score for chunk in group))


def _features(text: str) -> frozenset[str]:
    lower = text.lower()
    return frozenset(_WORD.findall(lower)) | frozenset(bigrams(lower))


def _repeats(first: frozenset[str], second: frozenset[str]) -> bool:
    """Nearly the same words and no other number: a price list of another year is no repetition."""
    different = first ^ second
    if any(character.isdigit() for word in different for character in word):
        return False
    return len(different) <= (1 - NEAR_DUPLICATE) * len(first | second)
