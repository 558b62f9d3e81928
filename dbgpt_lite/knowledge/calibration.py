"""The evidence a space's passages must bring for a question to count as covered, learned from the space itself.

Evidence of a chunk = mean of its nearness and the share of the question's words it holds; the share alone in a language
the embedder cannot read. Both are 0 to 1, so a person can compare "best match 0.31" with "needed 0.45".

Learned from two kinds of questions: those the space does not cover (unrelated.py, and sentences of its own chunks asked
with their whole document left out) and those it does (the same sentences asked of everything). The cut lies a fixed
part of the way from the median of the first to the median of the second; that part was set on XQuAD, with spaces of
1 to 36 articles, so that 97 of 100 answerable questions stay. Medians, because a few of either kind are always wrong.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dbgpt_lite.knowledge.catalog import Version
from dbgpt_lite.knowledge.evidence import question_terms
from dbgpt_lite.knowledge.unrelated import UNRELATED
from dbgpt_lite.knowledge.words import is_chinese, sentences
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import LANGUAGES, Language

FORMAT = 1
# What is needed before a space was asked.
PRIOR = {True: 0.36, False: 0.28}
# Where the cut lies between the medians, and what a covered question scores where the space cannot be asked for it;
# by whether the embedder reads the language.
WAY = {True: 0.28, False: 0.16}
COVERED = {True: 0.9, False: 1.0}
# Below this a match is a word or two by chance, whatever the space.
LEAST = 0.2
# Questions made from the space's own chunks, by language; with fewer than FEWEST the median says nothing.
OWN_QUESTIONS, FEWEST = 24, 5
# Words of a sentence that makes a good question: a shorter one is a heading, a longer one covers several things.
QUESTION_TERMS = 25
# The share of its chunks by which a space must have changed to be asked again.
MATERIAL_CHANGE = 0.2


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is known of a space, by language. floor: the cosine of unrelated texts. needed: the evidence that covers.

    generation, chunks and embedder are the space's when it was learned.
    """

    format: int = FORMAT
    embedder: str = ""
    generation: int = 0
    chunks: int = 0
    floor: Mapping[str, float] = field(default_factory=dict)
    needed: Mapping[str, float] = field(default_factory=dict)

    def near(self, cosine: float, language: Language) -> float:
        """A cosine counted from the floor: 0 for unrelated texts, 1 for the same one. Embedders differ in the floor."""
        floor = self.floor.get(language, 0.0)
        return max(0.0, (cosine - floor) / (1 - floor))

    def needed_for(self, language: Language, readable: bool) -> float:
        """The evidence that covers a question in `language`; `readable`: the embedder reads it."""
        return self.needed.get(language, PRIOR[readable])

    def fits(self, version: Version) -> bool:
        """Whether the space is still much as it was when this was learned."""
        changed = abs(version.chunks - self.chunks) > MATERIAL_CHANGE * max(self.chunks, 1)
        return self.embedder == version.embedder and not changed


@dataclass(frozen=True, slots=True)
class Asked:
    """Evidence of the best chunk for one question, and of the best one outside `document`."""

    best: float
    outside: float


# ask(question, document, floor) -> what the space has to say; `document` "" leaves nothing out.
Ask = Callable[[str, str, Mapping[str, float]], Asked]


def language_of(question: str) -> Language:
    """The language a question is searched in."""
    return "zh" if is_chinese(question) else "en"


def evidence(near: float, share: float, readable: bool) -> float:
    """What the threshold judges, 0 to 1."""
    return (near + share) / 2 if readable else share


def learn(
    version: Version,
    passages: Sequence[Passage],
    floor: Mapping[str, float],
    readable: Callable[[Language], bool],
    ask: Ask,
) -> Calibration:
    """Ask the space. passages: a sample of its chunks. Costs a search and an embedding a question, some 100 of them."""
    needed: dict[str, float] = {}
    for language in LANGUAGES:
        uncovered = [ask(question, "", floor).best for question in UNRELATED[language]]
        covered: list[float] = []
        for passage, question in _own_questions(passages, language):
            found = ask(question, passage.document_id, floor)
            covered.append(found.best)
            uncovered.append(found.outside)
        can = readable(language)
        high = statistics.median(covered) if len(covered) >= FEWEST else COVERED[can]
        low = statistics.median(uncovered)
        needed[language] = round(max(LEAST, low + WAY[can] * (high - low)), 4)
    return Calibration(FORMAT, version.embedder, version.generation, version.chunks, dict(floor), needed)


def _own_questions(passages: Sequence[Passage], language: Language) -> Iterator[tuple[Passage, str]]:
    """Chunks at even distances in the sample, each with the sentence of it that serves best as a question."""
    ours = [passage for passage in passages if language_of(passage.text) == language]
    step = max(1, len(ours) // OWN_QUESTIONS)
    for passage in ours[::step][:OWN_QUESTIONS]:
        pieces = [passage.text[start:end] for start, end in sentences(passage.text)]
        fitting = [(abs(len(question_terms(piece)) - QUESTION_TERMS), piece) for piece in pieces]
        if fitting and min(fitting)[0] < QUESTION_TERMS:
            yield passage, min(fitting)[1]
