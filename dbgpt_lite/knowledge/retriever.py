"""A question -> passages: vectors and BM25, fused by reciprocal rank (Cormack, Clarke and Buettcher, SIGIR 2009)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder, Vectors
from dbgpt_lite.knowledge.lexical import search_words
from dbgpt_lite.knowledge.vector_store import VectorStore
from dbgpt_lite.knowledge.words import is_chinese, tokens
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import Language

# The constant of the paper; it says how much less the second rank is worth than the first.
RRF_CONSTANT = 60
# Candidates each search contributes; the share of common words from which a lower passage repeats a higher one.
CANDIDATES = 30
NEAR_DUPLICATE = 0.9


@dataclass(frozen=True, slots=True)
class Weights:
    """What a rank in each list counts."""

    vectors: float
    words: float


# Measured on XQuAD: half the weight for vectors gave the best first rank. In a language the embedder cannot read its
# order is noise, and any weight made it worse; its hits then only follow those that share words.
READABLE = Weights(0.5, 1.0)
UNREADABLE = Weights(0.0, 1.0)


def search(
    catalog: Catalog, store: VectorStore, embedder: Embedder, space_id: str, question: str, limit: int
) -> list[Passage]:
    """Up to `limit` passages, best first; `score` is the cosine of passage and question (-1 to 1)."""
    if limit < 1 or not question.strip() or not catalog.version(space_id).chunks:
        return []
    count = max(CANDIDATES, 3 * limit)
    query = embedder.embed([question], "query")[0]
    dense = store.search(query, embedder.identity, count)
    lexical = search_words(catalog, space_id, question, count)
    language: Language = "zh" if is_chinese(question) else "en"
    weights = READABLE if language in embedder.facts.languages else UNREADABLE
    order = fuse([hit.id for hit in dense], lexical, weights)
    passages = catalog.passages(space_id, order)
    kept = _without_repeats([id_ for id_ in order if id_ in passages], passages, limit)
    vectors = store.vectors(kept)
    return [replace(passages[id_], score=_cosine(vectors.get(id_), query)) for id_ in kept]


def fuse(dense: Sequence[int], lexical: Sequence[int], weights: Weights) -> list[int]:
    """Ids by the sum over both lists of weight / (RRF_CONSTANT + rank), ranks from 1."""
    scores: dict[int, float] = {}
    for ids, weight in ((dense, weights.vectors), (lexical, weights.words)):
        for rank, id_ in enumerate(ids, start=1):
            scores[id_] = scores.get(id_, 0.0) + weight / (RRF_CONSTANT + rank)
    return sorted(scores, key=lambda id_: -scores[id_])


def _without_repeats(order: Sequence[int], passages: Mapping[int, Passage], limit: int) -> list[int]:
    """The first `limit` ids, leaving out those that only repeat one before."""
    kept: list[int] = []
    seen: list[frozenset[str]] = []
    for id_ in order:
        if len(kept) == limit:
            break
        found = frozenset(tokens(passages[id_].text))
        if not any(_repeats(found, other) for other in seen):
            kept.append(id_)
            seen.append(found)
    return kept


def _repeats(first: frozenset[str], second: frozenset[str]) -> bool:
    """Nearly the same words and no other number: a price list of another year is no repetition."""
    different = first ^ second
    if any(character.isdigit() for word in different for character in word):
        return False
    return len(different) <= (1 - NEAR_DUPLICATE) * len(first | second)


def _cosine(first: Vectors | None, second: Vectors) -> float:
    return float(first @ second) if first is not None else 0.0
