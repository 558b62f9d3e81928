"""How near a word of a question is to words of a schema: the same, its stem, a synonym, shortened or misspelt."""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from dbgpt_lite.sql.thesaurus import synonyms
from dbgpt_lite.sql.words import singular

SAME, STEM, SYNONYM, SHORTENED, SPELT_LIKE = 1.0, 0.9, 0.7, 0.6, 0.5
_ENDINGS = re.compile(r"(?<=\w{3})(?:ations?|ations|ments?|ings?|ions?|als?|ed|es|y|e|s)$")
_LONGEST_SHORT = 5
_VOWELS = frozenset("aeiou")
_ALIKE = 0.7


def stem(word: str) -> str:
    """A word without its commonest English ending ("delivery", "delivered" -> "deliver"); Chinese unchanged."""
    return _ENDINGS.sub("", word) if word.isascii() else word


def shortens(short: str, word: str) -> bool:
    """Whether `short` is a usual way to shorten `word`: its beginning (cust), or its consonants in order (qty, nm)."""
    if not 2 <= len(short) <= _LONGEST_SHORT or len(short) >= len(word) or short[0] != word[0]:
        return False
    if len(short) >= 3 and word.startswith(short):
        return True
    if _VOWELS & set(short[1:]):
        return False
    letters = iter(word)
    return all(letter in letters for letter in short)


class Vocabulary:
    """The words of one schema, numbered, to be looked up by the words of questions."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self.place = {word: place for place, word in enumerate(self.words)}
        self._by_stem: dict[str, list[int]] = {}
        self._by_letter: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            self._by_stem.setdefault(stem(word), []).append(place)
            self._by_letter.setdefault(word[0], []).append(place)

    def matches(self, word: str, meanings: bool = True) -> Mapping[int, float]:
        """Numbers of the words that `word` may mean -> how near, in (0, 1]. `meanings`: look up synonyms too."""
        found: dict[int, float] = {}
        if word in self.place:
            found[self.place[word]] = SAME
        self._add(found, self._by_stem.get(stem(word), ()), STEM)
        if meanings:
            for other in self._meanings(word):
                places = [self.place[other]] if other in self.place else []
                self._add(found, [*places, *self._by_stem.get(stem(other), ())], SYNONYM)
        if word.isascii():
            self._add(found, self._shortened(word), SHORTENED)
            if not found and len(word) > 4:
                self._add(found, self._spelt_like(word), SPELT_LIKE)
        return found

    @staticmethod
    def _add(found: dict[int, float], places: Iterable[int], near: float) -> None:
        for place in places:
            found[place] = max(found.get(place, 0.0), near)

    @staticmethod
    def _meanings(word: str) -> frozenset[str]:
        known = synonyms()
        return frozenset(singular(other) for key in {word, stem(word)} for other in known.get(key, ()))

    def _shortened(self, word: str) -> list[int]:
        return [
            place
            for place in self._by_letter.get(word[0], ())
            if shortens(self.words[place], word) or (len(word) <= 4 and shortens(word, self.words[place]))
        ]

    def _spelt_like(self, word: str) -> list[int]:
        own = _trigrams(word)
        shared: dict[int, int] = {}
        for gram in own:
            for place in self._by_trigram.get(gram, ()):
                shared[place] = shared.get(place, 0) + 1
        return [
            place
            for place, count in shared.items()
            if 2 * count / (len(own) + len(_trigrams(self.words[place]))) >= _ALIKE
        ]

    @cached_property
    def _by_trigram(self) -> Mapping[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            for gram in _trigrams(word) if word.isascii() and len(word) > 3 else ():
                found.setdefault(gram, []).append(place)
        return found


def _trigrams(word: str) -> frozenset[str]:
    padded = f" {word} "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2))
