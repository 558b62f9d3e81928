"""A question -> passages: vectors and BM25 find candidates, one score over both orders them, a threshold judges them.

Score of a chunk = near weight x cosine, counted from what unrelated texts have
                 + words weight x BM25 over the best BM25 of the question
                 + passage weight x share of the question's words that the chunk holds, weighted by idf
                 + sentence weight x the same share for its best sentence.
Fusing scores beat fusing ranks (RRF; Cormack, Clarke and Buettcher, SIGIR 2009) on XQuAD in both languages: ranks hide
that the first hit of one list is far ahead of its second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dbgpt_lite.errors import Cancelled, KnowledgeIndexError
from dbgpt_lite.knowledge.calibration import Calibration, evidence, language_of, learn
from dbgpt_lite.knowledge.calibrator import Calibrator
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder, Vectors
from dbgpt_lite.knowledge.evidence import (
    comparable,
    comparable_sentences,
    question_terms,
    share,
    term_weights,
    together,
)
from dbgpt_lite.knowledge.indexing import embedded_text
from dbgpt_lite.knowledge.lexical import search_words
from dbgpt_lite.knowledge.passages import join_neighbours, without_repeats
from dbgpt_lite.knowledge.records import Retrieval
from dbgpt_lite.knowledge.space_sample import SpaceSamples
from dbgpt_lite.knowledge.unrelated import UNRELATED
from dbgpt_lite.knowledge.vector_index import VectorIndex
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import LANGUAGES, Language

# Candidates each search contributes, how many of the best a reranker reads, and how many near misses are shown.
CANDIDATES = 30
RERANKED = 20
NEAR_MISSES = 3


class Reranker(Protocol):
    """Orders passages by reading each together with the question."""

    def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        """A number a text, higher for a better answer."""
        ...


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part of the score counts."""

    near: float
    words: float
    passage: float
    sentence: float


# Set on XQuAD (benchmarks/results/retrieval.md). In a language the embedder cannot read its order is close to noise.
READABLE = Weights(near=0.65, words=0.35, passage=0.0, sentence=0.7)
UNREADABLE = Weights(near=0.1, words=0.9, passage=1.0, sentence=0.7)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that one of the searches found. bm25 is 0.0 for one without a word of the question.

    near: the cosine counted from the space's floor. passage_share, sentence_share: the shares of the question's words
    that the chunk and its best sentence hold. evidence: what the threshold judges. All four are 0 to 1.
    """

    passage: Passage
    space_id: str
    cosine: float
    near: float
    bm25: float
    passage_share: float
    sentence_share: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Query:
    """A question ready to be searched: its vector, float32 of shape (dimension,), and its terms."""

    text: str
    language: Language
    readable: bool
    vector: Vectors
    terms: tuple[str, ...]


class Retriever:
    """Searches the spaces of one catalogue. Safe for many threads.

    index_of(space_id) gives the vectors of a space and raises NotFound. folder: where calibrations are kept.
    """

    def __init__(
        self,
        catalog: Catalog,
        embedder: Embedder,
        index_of: Callable[[str], VectorIndex],
        folder: Path,
        reranker: Reranker | None = None,
    ) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._index_of = index_of
        self._samples = SpaceSamples(catalog)
        self._reranker = reranker
        self.calibrator = Calibrator(folder, self._learn)

    def search(self, space_id: str, question: str, limit: int) -> list[Passage]:
        """Up to `limit` chunks of a space, best first, with no threshold; `score` is the cosine (-1 to 1)."""
        if limit < 1 or not question.strip():
            return []
        found = self.candidates([space_id], question, max(CANDIDATES, 3 * limit), learn=False)
        ranked = self.rank(question, found)
        return without_repeats((replace(one.passage, score=one.cosine) for one in ranked), limit)

    def retrieve(self, space_ids: Sequence[str], question: str, limit: int) -> Retrieval:
        """Up to `limit` passages of the spaces together, or near misses when none reaches the threshold of its space.

        `score` of a passage is its evidence (0 to 1), the number that is compared with `needed`. Among several spaces,
        one made with another embedder is left out; asked alone, it raises KnowledgeIndexError.
        """
        if limit < 1 or not question.strip():
            return Retrieval((), (), 0.0, 0.0, False)
        ranked = self.rank(question, self.candidates(space_ids, question, max(CANDIDATES, 3 * limit)))
        language = language_of(question)
        needed = {one: self._needed(one, language) for one in space_ids}
        if not ranked:
            return Retrieval((), (), 0.0, max(needed.values(), default=0.0), False)
        best = max(ranked, key=lambda one: one.evidence - needed[one.space_id])
        covered = best.evidence >= needed[best.space_id]
        if not covered:
            # What was weighed is what is shown: the best match first.
            ranked = sorted(ranked, key=lambda one: needed[one.space_id] - one.evidence)
        elif best not in ranked[:limit]:
            ranked = [*ranked[: limit - 1], best, *(one for one in ranked[limit - 1 :] if one is not best)]
        kept = without_repeats((replace(one.passage, score=one.evidence) for one in ranked), 2 * limit)
        found = tuple(join_neighbours(kept, limit if covered else min(limit, NEAR_MISSES)))
        passages, misses = (found, ()) if covered else ((), found)
        return Retrieval(passages, misses, best.evidence, needed[best.space_id], covered)

    def candidates(
        self, space_ids: Sequence[str], question: str, count: int = CANDIDATES, learn: bool = True
    ) -> list[Candidate]:
        """The chunks that vectors or words find, up to `count` by each in each space, in no order.

        learn: a space that has changed is calibrated in the background.
        """
        query = self._query(question)
        found: list[Candidate] = []
        for space_id in dict.fromkeys(space_ids):
            try:
                calibration = self.calibrator.of(space_id, self._catalog.version(space_id), learn)
                found.extend(self._of_space(space_id, query, count, calibration))
            except KnowledgeIndexError:
                if len(space_ids) == 1:
                    raise
        return found

    def rank(self, question: str, found: Sequence[Candidate]) -> list[Candidate]:
        """Best first by the fused score; where there is a reranker, it orders the first RERANKED of them."""
        ranked = self.fused(question, found)
        if self._reranker is None or not ranked:
            return ranked
        head, tail = ranked[:RERANKED], ranked[RERANKED:]
        scores = self._reranker.scores(question, [embedded_text(one.passage.heading, one.passage.text) for one in head])
        order = sorted(range(len(head)), key=lambda row: -scores[row])
        return [head[row] for row in order] + tail

    def fused(self, question: str, found: Sequence[Candidate]) -> list[Candidate]:
        """Best first by the fused score alone."""
        return fuse(found, READABLE if self._readable(language_of(question)) else UNREADABLE)

    def _query(self, question: str) -> Query:
        language = language_of(question)
        vector = self._embedder.embed([question], "query")[0]
        return Query(question, language, self._readable(language), vector, question_terms(question))

    def _of_space(self, space_id: str, query: Query, count: int, calibration: Calibration) -> Iterator[Candidate]:
        index = self._index_of(space_id)
        dense = {hit.id: hit.score for hit in index.search(query.vector, self._embedder.identity, count)}
        lexical = {hit.id: hit.score for hit in search_words(self._catalog, space_id, query.text, count)}
        passages = self._catalog.passages(space_id, dense.keys() | lexical.keys())
        vectors = index.vectors([id_ for id_ in passages if id_ not in dense])
        weight = term_weights(query.terms, self._samples.of(space_id).texts)
        for id_, passage in passages.items():
            cosine = dense[id_] if id_ in dense else _cosine(vectors.get(id_), query.vector)
            sentences = comparable_sentences(passage.text)
            whole = share(weight, together((comparable(passage.heading), *sentences)))
            near = calibration.near(cosine, query.language)
            yield Candidate(
                passage=passage,
                space_id=space_id,
                cosine=cosine,
                near=near,
                bm25=lexical.get(id_, 0.0),
                passage_share=whole,
                sentence_share=max((share(weight, one) for one in sentences), default=0.0),
                evidence=evidence(near, whole, query.readable),
            )

    def _readable(self, language: Language) -> bool:
        return language in self._embedder.facts.languages

    def _needed(self, space_id: str, language: Language) -> float:
        calibration = self.calibrator.of(space_id, self._catalog.version(space_id))
        return calibration.needed_for(language, self._readable(language))

    def _learn(self, space_id: str) -> Calibration:
        version, sample = self._catalog.version(space_id), self._samples.of(space_id)
        if not sample.passages:
            return Calibration(embedder=version.embedder, generation=version.generation)
        index = self._index_of(space_id)
        index.refresh(self._embedder.identity)
        known = index.vectors([passage.id for passage in sample.passages])
        if not known:
            # Emptied since the sample was drawn.
            return Calibration(embedder=version.embedder, generation=version.generation)
        vectors = np.stack(list(known.values()))

        def ask(question: str, document: str, floor: Mapping[str, float]) -> float:
            if self.calibrator.closing:
                raise Cancelled
            found = self._of_space(space_id, self._query(question), CANDIDATES, Calibration(floor=floor))
            return max((one.evidence for one in found if one.passage.document_id != document), default=0.0)

        floor: dict[str, float] = {
            language: float(np.mean(self._embedder.embed(UNRELATED[language], "query") @ vectors.T))
            for language in LANGUAGES
        }
        return learn(version, sample.passages, floor, self._readable, ask)


def fuse(found: Sequence[Candidate], weights: Weights) -> list[Candidate]:
    """Best first. BM25 counts by its share of the best, so that a question's length does not matter."""
    best = max((one.bm25 for one in found), default=0.0) or 1.0

    def score(one: Candidate) -> float:
        words = weights.words * one.bm25 / best + weights.passage * one.passage_share
        return weights.near * one.near + words + weights.sentence * one.sentence_share

    return sorted(found, key=lambda one: (-score(one), one.passage.id))


def _cosine(first: Vectors | None, second: Vectors) -> float:
    return float(first @ second) if first is not None else 0.0
