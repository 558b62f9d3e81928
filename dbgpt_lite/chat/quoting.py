"""Choose the sentences of passages that answer a question. Pure: the caller supplies the similarities.

Score of a sentence = similarity weight x cosine(question, sentence)
                    + word weight x share of the question's words, weighted by idf, that the sentence holds
                    + passage weight x the same share for its whole passage.
The idf is taken over the sentences at hand (BM25's form; Robertson and Zaragoza 2009, "The Probabilistic Relevance
Framework: BM25 and Beyond"), so it needs no corpus statistics.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dbgpt_lite.knowledge.words import is_chinese, sentences, stem, words
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import Language

# similarities(texts) -> cosine of the question with each text, in order.
Similarities = Callable[[Sequence[str]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of the score and the score that a quote needs."""

    similarity: float
    words: float
    passage: float
    needed: float


# `needed` is about the score that refuses 98 % of questions asked of four random other paragraphs, set on seeds 0 and 1
# of benchmarks/extractive.py (XQuAD); benchmarks/results/ holds those figures and held-out ones. Paragraphs on the same
# subject are refused much less often. all-MiniLM-L6-v2 reads no Chinese, so there the words decide.
CALIBRATION: Mapping[Language, Calibration] = {
    "en": Calibration(similarity=1.0, words=0.6, passage=0.3, needed=0.69),
    "zh": Calibration(similarity=0.25, words=1.0, passage=0.3, needed=0.42),
}

MAX_SENTENCES = 40  # embedded a question: a bound on the time of one answer; see benchmarks/results/
MAX_QUOTES = 3
HEADING_SHARE = 0.5  # a question word in the heading above counts half as much as in the sentence itself
FRAGMENT_PENALTY = 0.15  # list items, table rows and cut sentences: quoted only when clearly better
CLOSE = 0.85  # share of the best score that a further quote needs
UNCOVERED = 0.1  # share of the question's weight that a further quote must add

FULL_LINE, FULL_LINE_ZH = 60, 30  # characters of a line that was broken because it was full

_HAN_RUN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]+")
_END = re.compile(r"[.!?。！？；…:：][\"'”’»)\]」』）】》]*$")
_MARKED = re.compile(r"^\s*(?:[-*+•·|>]\s|#{1,6}\s)|\|")
_HEADING_MARK = re.compile(r"^#{1,6}\s+")
_RULE = re.compile(r"^[\s|:\-=_*+]+$")
_LIST_MARK = re.compile(r"^\s*(?:[-*+•·]|\d+[.)])\s+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of passage [number], word for word, and the heading above it where that is needed to understand it."""

    number: int
    text: str
    score: float
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """The quotes, best first (none: the passages do not answer), the best score and the one that was needed."""

    quotes: tuple[Quote, ...]
    score: float
    needed: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    number: int
    text: str
    heading: str
    terms: frozenset[str]
    heading_terms: frozenset[str]
    passage_terms: frozenset[str]
    whole: bool


def select(question: str, passages: Sequence[Passage], similarities: Similarities) -> Selection:
    """The sentences of `passages` that best answer `question`; passage numbers count from 1 in the given order."""
    calibration = CALIBRATION["zh" if is_chinese(question) else "en"]
    asked = terms(question)
    candidates = _shortlist(list(_candidates(passages)), asked)
    if not candidates:
        return Selection((), 0.0, calibration.needed)
    weight = _weights(asked, [candidate.terms for candidate in candidates])
    # "It gives 800 lumens" says nothing about a lamp without its heading.
    near = similarities([f"{c.heading}: {c.text}" if c.heading else c.text for c in candidates])
    scores = [_score(c, s, weight, calibration) for c, s in zip(candidates, near, strict=True)]
    best = max(scores)
    if best < calibration.needed:
        return Selection((), best, calibration.needed)
    order = sorted(range(len(candidates)), key=lambda row: (-scores[row], row))
    return Selection(tuple(_pick(order, candidates, scores, weight)), best, calibration.needed)


@lru_cache(maxsize=4096)
def terms(text: str) -> frozenset[str]:
    """The words of `text` for comparing: English ones without endings; Chinese ones with their characters and pairs."""
    found = {stem(word) for word in words(text)}
    for run in _HAN_RUN.findall(text):
        found.update(run)
        found.update(run[place : place + 2] for place in range(len(run) - 1))
    return frozenset(found)


def _candidates(passages: Sequence[Passage]) -> Iterator[_Candidate]:
    """Every quotable sentence once; neighbouring passages share some."""
    seen: set[str] = set()
    for number, passage in enumerate(passages, start=1):
        passage_terms = terms(passage.text) | terms(passage.heading)
        for text, heading in _sentences_under_headings(passage):
            if text not in seen:
                seen.add(text)
                whole = bool(_END.search(text)) and not text[:1].islower() and "|" not in text
                yield _Candidate(number, text, heading, terms(text), terms(heading), passage_terms, whole)


def _sentences_under_headings(passage: Passage) -> Iterator[tuple[str, str]]:
    """(sentence, heading above it). Headings themselves and lines without words are left out.

    The heading of a table row is the table's header row.
    """
    pieces = _pieces(passage.text)
    above = passage.heading.rpartition(" › ")[2]
    header = ""
    for place, piece in enumerate(pieces):
        before = pieces[place - 1] if place else ""
        after = pieces[place + 1] if place + 1 < len(pieces) else ""
        header = header if piece.startswith("|") else ""
        if _RULE.match(piece):
            continue
        if piece.startswith("|") and after.startswith("|") and _RULE.match(after):
            header = _unmarked(piece)
        elif _is_heading(piece, before, after):
            above = _unmarked(piece)
        elif len(terms(piece)) > 1:
            yield _unmarked(piece), header or above


def _pieces(text: str) -> list[str]:
    """The sentences of `text`; a sentence that is broken over lines, as PDF files do, is one piece."""
    joined: list[tuple[int, int]] = []
    for start, end in sentences(text):
        if joined and _goes_on(text[slice(*joined[-1])], text[start:end]):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [text[start:end] for start, end in joined]


def _goes_on(line: str, following: str) -> bool:
    if _END.search(line) or _MARKED.search(line) or _MARKED.search(following) or _RULE.match(following):
        return False
    last = line.rpartition("\n")[2]
    return following[:1].islower() or len(last) >= (FULL_LINE_ZH if is_chinese(last) else FULL_LINE)


def _is_heading(piece: str, before: str, after: str) -> bool:
    """A marked heading, or a short line that does not end like a sentence, between lines that do."""
    if _HEADING_MARK.match(piece):
        return True
    short = len(piece) <= (30 if is_chinese(piece) else 70)
    if not short or _END.search(piece) or _MARKED.search(piece):
        return False
    return bool(_END.search(after)) if after else bool(_END.search(before))


def _unmarked(piece: str) -> str:
    """`piece` without the marks of a heading, a list item or the edges of a table row."""
    return _LIST_MARK.sub("", _HEADING_MARK.sub("", piece)).strip("| \t")


def _shortlist(candidates: list[_Candidate], asked: frozenset[str]) -> list[_Candidate]:
    """At most MAX_SENTENCES candidates: those that share most words with the question, then the earlier ones."""
    if len(candidates) <= MAX_SENTENCES:
        return candidates
    shared = [len(asked & (candidate.terms | candidate.heading_terms)) for candidate in candidates]
    kept = sorted(range(len(candidates)), key=lambda row: (-shared[row], row))[:MAX_SENTENCES]
    return [candidates[row] for row in sorted(kept)]


def _weights(asked: frozenset[str], sentences_terms: Sequence[frozenset[str]]) -> dict[str, float]:
    """Each question word's share of the question's idf; the shares add up to 1."""
    total = len(sentences_terms)
    weight: dict[str, float] = {}
    for term in sorted(asked):
        holding = sum(term in sentence for sentence in sentences_terms)
        weight[term] = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
    everything = sum(weight.values()) or 1.0
    return {term: value / everything for term, value in weight.items()}


def _share(weight: Mapping[str, float], found: frozenset[str]) -> float:
    return sum(value for term, value in weight.items() if term in found)


def _score(candidate: _Candidate, near: float, weight: Mapping[str, float], calibration: Calibration) -> float:
    own = _share(weight, candidate.terms)
    above = _share(weight, candidate.heading_terms - candidate.terms)
    whole_passage = _share(weight, candidate.passage_terms)
    score = calibration.similarity * near + calibration.words * (own + HEADING_SHARE * above)
    return score + calibration.passage * whole_passage - (0.0 if candidate.whole else FRAGMENT_PENALTY)


def _pick(
    order: Sequence[int], candidates: Sequence[_Candidate], scores: Sequence[float], weight: Mapping[str, float]
) -> Iterator[Quote]:
    """The best sentence, then close ones that hold question words which no quote before them holds."""
    covered: frozenset[str] = frozenset()
    floor = CLOSE * scores[order[0]]
    count = 0
    for row in order:
        candidate = candidates[row]
        adds = _share(weight, candidate.terms - covered)
        if count == MAX_QUOTES or scores[row] < floor:
            return
        if count and (adds < UNCOVERED or not candidate.whole):
            continue
        told_by_heading = _share(weight, candidate.heading_terms - candidate.terms) > 0
        yield Quote(candidate.number, candidate.text, scores[row], candidate.heading if told_by_heading else "")
        covered |= candidate.terms | candidate.heading_terms
        count += 1
