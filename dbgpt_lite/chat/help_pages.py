"""The app's help pages as question and answer, and the entry nearest to a question.

A page is ``help/<topic>.<language>.md``: each ``## heading`` is a question, an HTML comment ``<!-- also: ...; ... -->``
under it lists other ways to ask it, and the text below is the answer.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import mul

from dbgpt_lite.chat.quoting import terms
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.texts import Language

# vectors(texts) -> a unit vector a text, in order.
Vectors = Callable[[Sequence[str]], Sequence[Sequence[float]]]

_ENTRY = re.compile(r"^## +(?P<title>.+)\n(?:<!-- also: (?P<also>.+?) -->\n)?(?P<text>(?:(?!##).*\n?)*)", re.MULTILINE)
MAX_PHRASINGS = 24

_SEPARATOR = re.compile(r"[;；]")


@dataclass(frozen=True, slots=True)
class HelpEntry:
    """One question of the help pages. phrasings: the title and the other ways to ask it."""

    topic: str
    title: str
    phrasings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class HelpRule:
    """Weights of cosine and shared words between question and phrasing, and the score that an answer needs."""

    similarity: float
    words: float
    needed: float


# Set between the help questions and the other talk of tests/chat/help_questions.json.
# all-MiniLM-L6-v2 reads no Chinese, so there the words alone decide.
HELP_RULE: Mapping[Language, HelpRule] = {
    "en": HelpRule(similarity=1.0, words=0.2, needed=0.54),
    "zh": HelpRule(similarity=0.0, words=1.0, needed=0.37),
}


@cache
def help_entries(language: Language) -> tuple[HelpEntry, ...]:
    """Every entry of the help pages in one language, in the order of file and page."""
    folder = resources.files("dbgpt_lite") / "help"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(f".{language}.md")), key=lambda f: f.name)
    return tuple(
        HelpEntry(file.name.partition(".")[0], match["title"].strip(), _phrasings(match), match["text"].strip())
        for file in files
        for match in _ENTRY.finditer(file.read_text(encoding="utf-8"))
    )


def nearest_help(question: str, vectors: Vectors) -> tuple[HelpEntry, float]:
    """The help entry nearest to `question` and its score; compare it with HELP_RULE[language].needed.

    Only the titles and the phrasings that share words with the question are embedded.
    """
    language: Language = "zh" if is_chinese(question) else "en"
    rule = HELP_RULE[language]
    phrasings = _index(language)
    same = _plain(question)
    for phrasing in phrasings:
        if phrasing.plain == same:
            return phrasing.entry, rule.similarity + rule.words
    asked = terms(question)
    shared = [_dice(asked, phrasing.terms, _weights(language)) for phrasing in phrasings]
    rows = _shortlist(phrasings, shared)
    texts = [phrasings[row].text for row in rows]
    near = _similarities(question, texts, vectors) if rule.similarity else [0.0] * len(rows)
    scores = {row: rule.similarity * n + rule.words * shared[row] for row, n in zip(rows, near, strict=True)}
    best = max(rows, key=lambda row: scores[row])
    return phrasings[best].entry, scores[best]


@dataclass(frozen=True, slots=True)
class _Phrasing:
    entry: HelpEntry
    text: str
    plain: str
    terms: frozenset[str]


@cache
def _index(language: Language) -> tuple[_Phrasing, ...]:
    entries = help_entries(language)
    return tuple(_Phrasing(entry, text, _plain(text), terms(text)) for entry in entries for text in entry.phrasings)


@cache
def _weights(language: Language) -> Mapping[str, float]:
    """idf of the words of the phrasings: what every question holds says little."""
    phrasings = _index(language)
    holding = Counter(term for phrasing in phrasings for term in phrasing.terms)
    return {term: math.log(1 + len(phrasings) / count) for term, count in holding.items()}


def _shortlist(phrasings: Sequence[_Phrasing], shared: Sequence[float]) -> list[int]:
    """Every title, and the phrasings that share most with the question."""
    titles = [row for row, phrasing in enumerate(phrasings) if phrasing.text == phrasing.entry.title]
    others = sorted((row for row, share in enumerate(shared) if share > 0), key=lambda row: -shared[row])
    return list(dict.fromkeys(titles + others[:MAX_PHRASINGS]))


def _similarities(question: str, texts: Sequence[str], vectors: Vectors) -> list[float]:
    asked, *known = vectors([question, *texts])
    return [sum(map(mul, asked, vector)) for vector in known]


def _dice(first: frozenset[str], second: frozenset[str], weights: Mapping[str, float]) -> float:
    """Dice coefficient of two sets of words weighted by idf; an unknown word weighs as much as the rarest."""
    rarest = max(weights.values())
    both = sum(weights.get(term, rarest) for term in first & second)
    size = sum(weights.get(term, rarest) for terms_ in (first, second) for term in terms_)
    return 2 * both / size if size else 0.0


def _plain(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _phrasings(match: "re.Match[str]") -> tuple[str, ...]:
    also = _SEPARATOR.split(match["also"] or "")
    return (match["title"].strip(), *(phrasing.strip() for phrasing in also if phrasing.strip()))
