"""Figures of ranked lists with binary relevance (Manning, Raghavan and Schütze, Introduction to IR, chapter 8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

DEPTHS = (1, 5, 10)
DEPTH = 10


@dataclass(frozen=True, slots=True)
class Ranking:
    """Whether each passage of a list is relevant, best first, and how many relevant ones the documents hold."""

    relevant: tuple[bool, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over questions. recall_n: a relevant passage is among the first n."""

    recall_1: float
    recall_5: float
    recall_10: float
    ndcg_10: float
    mrr_10: float


def figures(rankings: Sequence[Ranking]) -> Figures:
    """The figures of the lists of several questions; zeros for none."""
    if not rankings:
        return Figures(0.0, 0.0, 0.0, 0.0, 0.0)
    first, fifth, tenth = (fmean(any(one.relevant[:depth]) for one in rankings) for depth in DEPTHS)
    return Figures(first, fifth, tenth, fmean(map(ndcg, rankings)), fmean(map(reciprocal_rank, rankings)))


def ndcg(ranking: Ranking) -> float:
    """Discounted gain of the first DEPTH over that of the best possible list."""
    gain = sum(_discount(rank) for rank, hit in enumerate(ranking.relevant[:DEPTH]) if hit)
    ideal = sum(_discount(rank) for rank in range(min(ranking.total, DEPTH)))
    return gain / ideal if ideal else 0.0


def reciprocal_rank(ranking: Ranking) -> float:
    """1 / place of the first relevant passage, 0 when the first DEPTH hold none."""
    return next((1 / place for place, hit in enumerate(ranking.relevant[:DEPTH], start=1) if hit), 0.0)


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 2)
