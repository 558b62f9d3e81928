"""The evidence a space's passages must bring for a question to count as covered, learned from the space itself.

Evidence of a chunk, of its nearness and the share of the question's words it holds: the nearness or the mean of both,
whichever is more, for a good answer may use other words than the question. In a language the embedder cannot read,
nearly the share alone. All are 0 to 1, so a person can compare "best match 0.31" with "needed 0.45".

What a space says to questions it does not cover is learned by asking it some: unrelated.py, and sentences of its own
chunks asked with their whole document left out. A broad space says more to them than a narrow one. The cut is a fixed
part plus a share of their median; both were set on XQuAD in spaces of 1, 6 and 36 articles and on the shipped exam in
spaces of 12 and 40 documents (benchmarks/results/retrieval.md). The median, because a few of them always hit something.
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

FORMAT = 2
# The cut is BASE + OF_UNCOVERED x what uncovered questions score; PRIOR is taken before a space was asked. By whether
# the embedder reads the language. Set so that few answerable questions are lost: the reader can see that an answer
# misses the point, but not that a refusal does.
BASE = {True: 0.33, False: 0.18}
OF_UNCOVERED = 0.25
PRIOR = {True: 0.39, False: 0.22}
# How much of the evidence is nearness where the embedder cannot read: a little order in the noise.
BLIND_NEAR = 0.2
# Below this a match is a word or two by chance, whatever the space.
LEAST = 0.2
# Questions made from the space's own chunks, by language.
OWN_QUESTIONS = 24
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


# ask(question, document, floor) -> the evidence of the best chunk outside of `document`; "" leaves nothing out.
Ask = Callable[[str, str, Mapping[str, float]], float]


def language_of(question: str) -> Language:
    """The language a question is searched in."""
    return "zh" if is_chinese(question) else "en"


def evidence(near: float, share: float, readable: bool) -> float:
    """What the threshold judges, 0 to 1."""
    if readable:
        return max(near, (near + share) / 2)
    return BLIND_NEAR * near + (1 - BLIND_NEAR) * share


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
        uncovered = [ask(question, "", floor) for question in UNRELATED[language]]
        for passage, question in _own_questions(passages, language):
            uncovered.append(ask(question, passage.document_id, floor))
        cut = BASE[readable(language)] + OF_UNCOVERED * statistics.median(uncovered)
        needed[language] = round(max(LEAST, cut), 4)
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
