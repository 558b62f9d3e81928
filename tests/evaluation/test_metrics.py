"""The figures against values worked out by hand, and what must hold for any list."""

import math

from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.evaluation.metrics import Ranking, figures, ndcg, reciprocal_rank

RANKINGS = st.builds(
    lambda hits, more: Ranking(tuple(hits), max(1, sum(hits)) + more),
    st.lists(st.booleans(), max_size=14),
    st.integers(0, 3),
)


def test_by_hand() -> None:
    second = Ranking((False, True, False), 1)
    assert ndcg(second) == 1 / math.log2(3)
    assert reciprocal_rank(second) == 0.5
    both = Ranking((True, False, True), 2)
    assert ndcg(both) == (1 + 1 / 2) / (1 + 1 / math.log2(3))
    found = figures([second, both, Ranking((), 1), Ranking((False,) * 10 + (True,), 1)])
    assert (found.recall_1, found.recall_5, found.recall_10) == (0.25, 0.5, 0.5)
    assert found.mrr_10 == 1.5 / 4


def test_no_questions_are_zeros() -> None:
    assert figures([]).ndcg_10 == 0.0


@given(st.lists(RANKINGS, min_size=1, max_size=5))
def test_bounds_and_order(rankings: list[Ranking]) -> None:
    found = figures(rankings)
    assert 0 <= found.recall_1 <= found.recall_5 <= found.recall_10 <= 1
    assert found.recall_1 <= found.mrr_10 + 1e-9 <= found.recall_10 + 2e-9
    assert 0 <= found.ndcg_10 <= 1 + 1e-9


@given(RANKINGS)
def test_moving_a_hit_up_never_makes_it_worse(ranking: Ranking) -> None:
    better = Ranking(tuple(sorted(ranking.relevant, reverse=True)), ranking.total)
    assert ndcg(better) >= ndcg(ranking)
    assert reciprocal_rank(better) >= reciprocal_rank(ranking)
