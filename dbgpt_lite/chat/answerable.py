"""Whether a database can have anything to say about a question, for a model that writes SQL to whatever it is asked.

A question is turned away only for what it asks for: the first words that are no words of asking, where they stand after
an article, "how many" and the like. None of them may be in the schema, in a value or near a name in meaning. Names of
people and places are no reason: that nobody is called so is an answer. When in doubt the question is asked.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from dbgpt_lite.chat.answerable_words import ASKING, HOW, SAME
from dbgpt_lite.chat.support import Near
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.sql.lookup import ValueFinder
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.thesaurus import synonyms
from dbgpt_lite.sql.words import singular, split

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
_ENDINGS = tuple("ations ation ments ment ings ing ers er ed ly al ion es e y s".split())


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
        if unmeasured := _unmeasured(question, known):
            return unmeasured
        asked = _asked_thing(question)
        missing = self._missing(asked, known, finder)
        # A look-up that gave up has not seen that something is not there.
        return missing if finder.thorough else ()

    def _missing(self, asked: Sequence[str], known: "_Known", finder: ValueFinder) -> tuple[str, ...]:
        return () if any(self._is_known(word, known, finder) for word in asked) else tuple(asked[:MOST_MISSING])

    def _is_known(self, word: str, known: "_Known", finder: ValueFinder) -> bool:
        plain = singular(word.lower())
        if any(known.holds(other) for other in (plain, *SAME.get(plain, ()), *synonyms().get(plain, ()))):
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


def _asked_thing(question: str) -> list[str]:
    """The words that name what is asked for: the first ones that are no words of asking; [] when that is no thing.

    What comes later in a question is told in too many words to judge by a list.
    """
    tokens = _TOKEN.findall(_IDIOM.sub("", question))
    start = next((place for place, word in enumerate(tokens) if _is_own(word)), 0)
    if not start or not _follows_article(tokens, start):
        return []
    found = [tokens[start]]
    for word in tokens[start + 1 :]:
        # "customers signed up": what they did, not what is asked about.
        if not _is_own(word) or word.endswith("ed"):
            break
        found.append(word)
    return [] if any(word[0].isupper() for word in found) else found


def _is_own(word: str) -> bool:
    """Whether a token is a word that could name a thing of its own."""
    plain = word.lower()
    if len(word) < 3 or not word[0].isalpha() or plain.endswith(("est", "ly")):
        return False
    return not {plain, singular(plain)} & ASKING


def _follows_article(tokens: Sequence[str], place: int) -> bool:
    """Whether a word stands where a thing does: after an article and the like, adjectives between them left aside."""
    before = tokens[place - 1].lower()
    if before in _BEFORE_THING or before[0].isdigit():
        return True
    return place >= 2 and before in ASKING and tokens[place - 2].lower() in _BEFORE_THING


def _unmeasured(question: str, known: _Known) -> tuple[str, ...]:
    """ "old" of "how old ..." where nothing in the schema tells an age, and the like."""
    asked = re.findall(r"\bhow (\w+) (?:is|are|was|were)\b", question.lower())
    return tuple(word for word in asked if word in HOW and not any(known.holds(wanted) for wanted in HOW[word]))
