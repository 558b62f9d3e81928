"""Words of a question and of a schema, made comparable: names split at case and underscores, plurals folded."""

import re

_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[\u3400-\u9fff]+")
_COMMON_TEXT = """
    a an and are as at be by do does for from had has have how i in is it list many me more most much of on or our show
    than that the their there these this to was we were what when where which who whose why with you your all each every
    id ids give find get number count
"""
_COMMON = frozenset(_COMMON_TEXT.split())


def singular(word: str) -> str:
    """A plain English plural folded to its singular ("cities" -> "city", "boxes" -> "box"); other words unchanged."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _pairs(run: str) -> list[str]:
    return [run] if len(run) < 3 else [run[start : start + 2] for start in range(len(run) - 1)]


def split(text: str) -> list[str]:
    """Lower-cased words of `text` in order. Chinese, which has no spaces, gives overlapping pairs of characters."""
    words: list[str] = []
    for piece in _PIECE.findall(text):
        words.extend(_pairs(piece) if piece[0] >= "\u3400" else [singular(piece.lower())])
    return words


def content_words(text: str) -> frozenset[str]:
    """The words of `text` that say something: without articles, question words and the like."""
    return frozenset(word for word in split(text) if word not in _COMMON and (len(word) > 1 or not word.isascii()))
