"""Markers [n] in an answer -> citations that hold, with the words they stand for. Pure.

Every marked sentence is compared with its passages (support.py). A marker that does not hold is pointed at the one
other passage that clearly bears the sentence out, by a stricter rule than for keeping it: the reader is led to words
that say it, whichever passage the model believed in. If there is none, or more than one, the marker goes and the
sentence is named. So is a sentence without a marker whose figures are in no passage at all.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dbgpt_lite.chat.markers import CODE, MARKER, Claim, claims, normalized, without_markers
from dbgpt_lite.chat.numerals import numbers
from dbgpt_lite.chat.support import Evidence, Near, clearly_supports, evidence, plain, share, supports
from dbgpt_lite.knowledge.words import sentences, words
from dbgpt_lite.messages import Citation, Passage

# A number alone in brackets counts an item or was meant as a marker; it states nothing.
_IN_BRACKETS = re.compile(r"\s?[(（]\d{1,2}[)）]")
_MARKS = ' \t\n"“”「」『』*>-'
_ESCAPED = re.compile(r"\\([\\`*_~<>\[\]$|#])")
_ENOUGH_SHARED = 0.5
_PART = 0.25  # of a sentence that one of several passages must hold to be cited for it


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer whose markers hold: its text, its citations, and the sentences of the text without a source."""

    text: str
    citations: tuple[Citation, ...] = ()
    unsupported: tuple[str, ...] = ()


def check(answer: str, passages: Sequence[Passage], question: str = "", near: Near | None = None) -> Checked:
    """Compare each sentence of `answer` with what it cites. `near` gives sentences in other words a second chance."""
    if not passages:
        return Checked(answer)
    answer = normalized(answer, len(passages))
    known = [evidence(passage) for passage in passages]
    edits: list[tuple[int, int, str]] = []
    failed: list[Claim] = []
    for claim in claims(answer):
        numbers = [number for _, _, number in claim.markers]
        sentence = _IN_BRACKETS.sub("", without_markers(answer[claim.start : claim.end]))
        kept = _held(sentence, numbers, known, near)
        if claim.markers and not kept:
            edits += [(start, end, "") for start, end, _ in claim.markers]
            failed.append(claim)
        elif claim.markers and kept != numbers:
            edits += _repointed(claim, kept)
        elif not claim.markers and _invented(sentence, question, known):
            failed.append(claim)
    text, moved = _edited(answer, edits)
    named = tuple(dict.fromkeys(text[moved(claim.start) : moved(claim.end)].strip() for claim in failed))
    return Checked(text, cite(text, passages), named)


def cite(answer: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """One citation a marker number, in the order of first use, quoting the passage's words that the answer rests on."""
    said: dict[int, str] = {}
    start = 0
    claim = ""
    answer = CODE.sub(lambda code: " " * len(code.group()), answer)
    for match in MARKER.finditer(answer):
        between = answer[start : match.start()]
        # Neighbouring markers, [1][2], stand for the same claim.
        claim = between if between.strip(_MARKS + ".。") else claim
        start = match.end()
        number = int(match.group(1))
        if 1 <= number <= len(passages):
            said[number] = said.get(number, "") + "\n" + claim
    return tuple(Citation(n, passages[n - 1], _quote(claim, passages[n - 1].text)) for n, claim in said.items())


def _held(sentence: str, numbers: Sequence[int], known: Sequence[Evidence], near: Near | None) -> list[int]:
    """The markers that may stay with `sentence`, or the one other passage that bears it out; none when nothing does."""
    if not numbers:
        return []
    alone = [number for number in numbers if supports(sentence, known[number - 1], near)]
    if alone or not sentence.strip():
        return alone
    together = list(dict.fromkeys(numbers))
    if len(together) > 1 and _supported_together(sentence, [known[number - 1] for number in together]):
        return [number for number in together if share(plain(sentence), known[number - 1]) >= _PART]
    others = [n for n, one in enumerate(known, 1) if n not in numbers and clearly_supports(sentence, one)]
    return others if len(others) == 1 else []


def _supported_together(sentence: str, cited: Sequence[Evidence]) -> bool:
    """Whether several passages bear out a sentence that draws on all of them."""
    joined = Evidence(
        "\n".join(one.text for one in cited),
        "\n".join(one.squeezed for one in cited),
        frozenset().union(*(one.names for one in cited)),
        tuple(figure for one in cited for figure in one.figures),
        frozenset().union(*(one.terms for one in cited)),
        frozenset().union(*(one.pairs for one in cited)),
        tuple(unit for one in cited for unit in one.units),
    )
    return supports(sentence, joined)


def _invented(sentence: str, question: str, known: Sequence[Evidence]) -> bool:
    """Whether a sentence without a marker gives a figure that neither the question nor any passage has."""
    given = numbers(plain(sentence)) - numbers(question, generous=True)
    return not given <= {figure.value for one in known for figure in one.figures}


def _repointed(claim: Claim, kept: Sequence[int]) -> list[tuple[int, int, str]]:
    """Edits that leave exactly the markers `kept`."""
    present = [number for _, _, number in claim.markers]
    new = [number for number in kept if number not in present]
    edits: list[tuple[int, int, str]] = []
    for start, end, number in claim.markers:
        if number in kept:
            continue
        lead = 1 if new else 0
        edits.append((start, end, f" [{new.pop()}]" if lead else ""))
    return edits


def _edited(text: str, edits: Sequence[tuple[int, int, str]]) -> tuple[str, "Moved"]:
    pieces: list[str] = []
    place = 0
    for start, end, instead in sorted(edits):
        pieces += [text[place:start], instead]
        place = end
    return "".join([*pieces, text[place:]]), Moved(sorted(edits))


class Moved:
    """Where an offset lies once the edits are made."""

    def __init__(self, edits: Sequence[tuple[int, int, str]]) -> None:
        self._edits = edits

    def __call__(self, offset: int) -> int:
        """The offset in the edited text."""
        shift = 0
        for start, end, instead in self._edits:
            if end <= offset:
                shift += len(instead) - (end - start)
            elif start < offset:
                shift -= offset - start
        return offset + shift


def _quote(claim: str, text: str) -> str:
    """The part of `text` the claim repeats word for word, else its sentence that shares most words, else ""."""
    for line in sorted(_parts(claim), key=len, reverse=True):
        if len(line) > 1 and line in text:
            return line
    wanted = set(words(claim))
    if not wanted:
        return ""
    best, shared_most = "", 0.0
    for start, end in sentences(text):
        sentence = text[start:end].strip()
        found = set(words(sentence))
        shared = len(found & wanted) / len(found) if found else 0.0
        if shared > shared_most:
            best, shared_most = sentence, shared
    return best if shared_most >= _ENOUGH_SHARED else ""


def _parts(claim: str) -> list[str]:
    # The built-in assistant escapes Markdown in what it quotes; the passage has the plain characters.
    claim = _ESCAPED.sub(r"\1", claim)
    quoted_parts = re.findall(r"[“\"「『]([^“”\"「」『』]+)[”\"」』]", claim)
    spans = [claim[start:end] for start, end in sentences(claim)]
    return [part.strip(_MARKS) for part in (*quoted_parts, *spans, claim)]
