"""Whether a database can have anything to say about a question, for a model that writes SQL to whatever it is asked.

A question is turned away only for a word that names a thing (it stands after an article, a preposition or "how many")
and that is nowhere in the schema, in no value, in no list of words that ask, and near no name in meaning. Names of
people and places are no reason: that nobody is called so is an answer. When in doubt the question is asked.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from dbgpt_lite.chat.answerable_words import ASKING, HOW, SAME
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.sql.lookup import ValueFinder
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.words import singular, split

Near = Callable[[str, Sequence[str]], list[float]]
"""Cosine of a text with each of the others (ExtractiveEngine.near)."""

NEAR_ENOUGH = 0.6  # cosine of a word with a name of the schema from which it may mean it
MOST_NAMES = 600  # names that are compared by meaning; a schema with more holds most words anyway
LONGEST_VALUE = 40  # characters; longer texts mention anything
MOST_MISSING = 3

_TOKEN = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d[\d.,:/-]*|[^\sA-Za-z\d]")
_BEFORE_THING = frozenset(
    """a an the of in on at for with without from by per our your my his her its their this that these those which what
    whose all any each every some no many much most more fewer fewest less least number list show name names named count
    total average how different various other another about between than into through and or"""
    """ one two three four five six seven eight nine ten""".split()
)
_IDIOM = re.compile(r"\bbrand(?= new\b)|\b(?:so|by) far\b|\bof course\b|\bin terms of\b", re.IGNORECASE)
_ENDINGS = (
    "ations",
    "ation",
    "ments",
    "ment",
    "ings",
    "ing",
    "ers",
    "er",
    "ed",
    "ly",
    "al",
    "ion",
    "es",
    "e",
    "y",
    "s",
)


class Answerable:
    """Tells which things of a question a database has nothing about."""

    def __init__(self, near: Near | None = None) -> None:
        """Without `near`, words are compared by their letters only."""
        self._near = near

    def missing(self, question: str, schema: Schema, finder: ValueFinder) -> tuple[str, ...]:
        """Words of an English question for things that the database does not hold, as written; () when in doubt."""
        if is_chinese(question) or not schema.tables:
            return ()
        known = _Known(schema)
        found = [word for word in _things(question) if not self._is_known(word, known, finder)]
        return (*_unmeasured(question, known), *dict.fromkeys(found))[:MOST_MISSING]

    def _is_known(self, word: str, known: "_Known", finder: ValueFinder) -> bool:
        plain = singular(word.lower())
        if known.holds(plain) or any(known.holds(other) for other in SAME.get(plain, ())):
            return True
        if any(len(place.value) <= LONGEST_VALUE for place in finder.parts(plain)):
            return True
        return self._is_near(plain, known.names)

    def _is_near(self, word: str, names: tuple[str, ...]) -> bool:
        if self._near is None or len(names) > MOST_NAMES:
            return False
        return max(self._near(word, names), default=0.0) >= NEAR_ENOUGH


class _Known:
    """The words of a schema, by stem."""

    def __init__(self, schema: Schema) -> None:
        words = [split(f"{table.name} {table.comment}") for table in schema.tables]
        words += [split(f"{column.name} {column.comment}") for table in schema.tables for column in table.columns]
        self.names = tuple(dict.fromkeys(" ".join(name) for name in words if name))
        self._stems = frozenset(_stem(word) for name in words for word in name)

    def holds(self, word: str) -> bool:
        """Whether a word, in whatever form, is part of a name or a comment."""
        return _stem(word) in self._stems


@lru_cache(maxsize=4096)
def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _things(question: str) -> list[str]:
    """Words that name a thing and are no word of asking, in order."""
    tokens = _TOKEN.findall(_IDIOM.sub("", question))
    found: list[str] = []
    for place, word in enumerate(tokens):
        plain = singular(word.lower())
        if not word[0].isalpha() or len(word) < 3 or plain in ASKING or word.lower() in ASKING:
            continue
        if word[0].isupper() and (place > 0 or len(tokens) < 2):
            continue
        if place and word.endswith("ed") and tokens[place - 1].lower() not in _BEFORE_THING:
            # "customers signed up": what they did, not what is asked about.
            continue
        before = tokens[place - 1].lower() if place else ""
        follows = before in {thing.lower() for thing in found} or (
            before in ASKING and _stands_before_thing(tokens, place)
        )
        if not place or before in _BEFORE_THING or before[:1].isdigit() or follows:
            found.append(word)
    return found


def _stands_before_thing(tokens: Sequence[str], place: int) -> bool:
    """Whether the word before `place` is an adjective between an article and the word ("the new machine")."""
    return place >= 2 and tokens[place - 2].lower() in _BEFORE_THING


def _unmeasured(question: str, known: _Known) -> list[str]:
    """ "old" of "how old ..." where nothing in the schema tells an age, and the like."""
    asked = re.findall(r"\bhow (\w+) (?:is|are|was|were)\b", question.lower())
    return [word for word in asked if word in HOW and not any(known.holds(wanted) for wanted in HOW[word])]
