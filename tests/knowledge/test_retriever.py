"""Candidates, their fused order, repeats, joined neighbours, several spaces, and what is refused."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.errors import KnowledgeIndexError, NotFound
from dbgpt_lite.knowledge import lexical
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.evidence import comparable, question_terms, share, term_weights
from dbgpt_lite.knowledge.lexical import search_words
from dbgpt_lite.knowledge.passages import MOST_JOINED, join_neighbours, without_repeats
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from dbgpt_lite.knowledge.retriever import NEAR_MISSES, READABLE, Candidate, fuse
from dbgpt_lite.messages import Passage

TakeIn = Callable[..., list[IngestProgress]]

PAGE = "".join(f"Letter {n} of the archive was written by clerk number {n} about parcel {n}.\n" for n in range(40))
FERRY = """# Ferry
## Winter
Between November and March the ferry to Holm sails twice a day, at nine and at four.

## Bicycles
A bicycle travels free of charge; a motorcycle costs twelve crowns.
"""
TEA = "## 采摘\n\n春茶在清明前十天开始采摘，只取一芽一叶。\n\n## 仓库\n\n成品茶存放在山腰的石窖里，窖内常年保持五度。\n"


def passage(number: int, start: int, text: str, **more: object) -> Passage:
    return replace(Passage(number, text, "d1", "a.txt", start=start, end=start + len(text)), **more)  # type: ignore[arg-type]


# --- retrieve


def test_covered_questions_bring_passages_and_others_near_misses(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY, "茶.md": TEA})
    base.calibrate(space.id)
    for question, words in (
        ("How often does the ferry to Holm sail in winter?", "twice a day"),
        ("What does a motorcycle cost on the ferry?", "twelve crowns"),
        ("春茶什么时候开始采摘？", "清明前十天"),
        ("石窖里保持几度？", "五度"),
    ):
        found = base.retrieve([space.id], question, 3)
        assert found.covered, question
        assert words in found.passages[0].text
        assert found.near_misses == ()
        assert 0 < found.needed <= found.best <= 1
        assert found.passages[0].score <= found.best
    for question in ("Who composed the opera Carmen?", "木星有多少颗卫星？"):
        found = base.retrieve([space.id], question, 3)
        assert not found.covered, question
        assert found.passages == ()
        assert 0 < len(found.near_misses) <= NEAR_MISSES
        assert 0 <= found.best < found.needed < 1


def test_a_citation_of_what_was_retrieved_opens(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Archive")
    take_in(space.id, {"letters.txt": PAGE})
    [first, *_] = base.retrieve([space.id], "Who wrote letter 20 of the archive about parcel 20?", 5).passages
    assert base.passage(space.id, first.id).start == first.start
    assert first.text == PAGE[first.start : first.end]


def test_neighbours_come_as_one_stretch_of_the_document(tmp_path: Path, embedder: Embedder) -> None:
    base = KnowledgeBase(tmp_path / "k", embedder, chunk_tokens=60, chunk_overlap=20)
    space, file = base.create("Archive"), tmp_path / "letters.txt"
    file.write_text(PAGE, encoding="utf-8")
    list(base.ingest(space.id, [Upload(file, file.name)], threading.Event()))
    chunks = {chunk.id: chunk for chunk in base.chunks(space.id, base.documents(space.id)[0].id)}
    found = base.retrieve([space.id], "Which clerk wrote letter 20 about parcel 20?", 6).passages
    longest = max(chunk.end - chunk.start for chunk in chunks.values())
    assert any(one.end - one.start > longest for one in found)
    for one in found:
        assert one.text == PAGE[one.start : one.end]
        assert chunks[one.id].start == one.start
        assert len(one.text) <= MOST_JOINED * longest
    spans = sorted((one.start, one.end) for one in found)
    assert len(found) == len({one.id for one in found}) == len(spans)
    base.close()


def test_several_spaces_are_one_ranking(base: KnowledgeBase, take_in: TakeIn) -> None:
    ferry, archive = base.create("Island"), base.create("Archive")
    take_in(ferry.id, {"ferry.md": FERRY})
    take_in(archive.id, {"letters.txt": PAGE})
    question = "How often does the ferry to Holm sail in winter?"
    for spaces in ([ferry.id, archive.id], [archive.id, ferry.id], [archive.id, ferry.id, ferry.id]):
        found = base.retrieve(spaces, question, 3)
        assert found.covered
        assert found.passages[0].heading == "Ferry › Winter"
        assert len({one.id for one in found.passages}) == len(found.passages) <= 3
    assert not base.retrieve([archive.id], question, 3).covered


def test_nothing_to_search(base: KnowledgeBase) -> None:
    space = base.create("Empty")
    for found in (
        base.retrieve([space.id], "Where?", 3),
        base.retrieve([space.id], "  ", 3),
        base.retrieve([], "a", 3),
    ):
        assert (found.covered, found.passages, found.near_misses, found.best) == (False, (), (), 0.0)
    assert not base.retrieve([space.id], "a", 0).covered
    with pytest.raises(NotFound):
        base.retrieve(["../etc"], "Where?", 3)


def test_a_question_of_signs_only_is_refused(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY})
    for question in ("???", '" OR 1', "space : space1", "NEAR(", "的了吗", "a" * 20_000):
        assert not base.retrieve([space.id], question, 3).covered


def test_a_space_of_another_embedder_is_left_out_only_among_several(
    base: KnowledgeBase, take_in: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = base.create("Ours"), base.create("Theirs")
    take_in(ours.id, {"ferry.md": FERRY})
    index_of = base.retriever._index_of

    def strange(space_id: str) -> object:
        if space_id == theirs.id:
            raise KnowledgeIndexError("knowledge.other_embedder", made_with="other")
        return index_of(space_id)

    monkeypatch.setattr(base.retriever, "_index_of", strange)
    assert base.retriever.retrieve([theirs.id, ours.id], "When does the ferry to Holm sail in winter?", 3).covered
    with pytest.raises(KnowledgeIndexError):
        base.retriever.retrieve([theirs.id], "When does the ferry sail?", 3)


# --- the fused order


def candidate(number: int, near: float, bm25: float, sentence: float = 0.0) -> Candidate:
    return Candidate(passage(number, 0, "text"), "s", near, near, bm25, 0.0, sentence, 0.0)


def test_what_both_searches_rank_high_is_first() -> None:
    found = [candidate(1, 0.7, 0.0), candidate(2, 0.6, 8.0), candidate(3, 0.1, 9.0)]
    assert [one.passage.id for one in fuse(found, READABLE)] == [2, 1, 3]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=8))
def test_better_in_everything_is_never_behind(values: list[tuple[float, float, float]]) -> None:
    found = [candidate(number, *value) for number, value in enumerate(values)]
    order = [one.passage.id for one in fuse(found, READABLE)]
    assert sorted(order) == list(range(len(values)))
    for first in found:
        for second in found:
            one, other = values[first.passage.id], values[second.passage.id]
            if all(a > b + 1e-6 for a, b in zip(one, other, strict=True)):
                assert order.index(first.passage.id) < order.index(second.passage.id)


# --- repeats and neighbours


def test_near_duplicates_are_dropped_unless_a_number_differs() -> None:
    words = " ".join(f"word{chr(97 + n)}" for n in range(20))
    prices = [f"{words} price {price}" for price in (10, 20)]
    ranked = [passage(1, 0, prices[0]), passage(2, 0, prices[0] + "!"), passage(3, 0, prices[1])]
    assert [one.id for one in without_repeats(ranked, 5)] == [1, 3]
    assert [one.id for one in without_repeats(ranked, 1)] == [1]


DOCUMENT = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps until the moon has risen over the hill. " * 3
)


@given(
    st.lists(st.tuples(st.integers(0, 250), st.integers(1, 60)), min_size=1, max_size=12),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
def test_joined_passages_are_the_document(spans: list[tuple[int, int]], limit: int, draw: "object") -> None:
    ranked = [passage(n, start, DOCUMENT[start : start + length]) for n, (start, length) in enumerate(spans)]
    joined = join_neighbours(ranked, limit)
    assert 0 < len(joined) <= limit
    assert joined[0].start <= ranked[0].start
    for one in joined:
        assert one.text == DOCUMENT[one.start : one.end]
        assert ranked[one.id].start == one.start
    for one in ranked[:1]:
        assert any(other.start <= one.start and one.end <= other.end for other in joined)


def test_what_is_not_the_same_place_stays_apart() -> None:
    first = passage(1, 0, "abcdef", page=1)
    for other in (
        passage(2, 4, "efgh", page=2),
        passage(2, 4, "efgh", page=1, heading="Else"),
        passage(2, 4, "efgh", page=1, document_id="d2"),
        passage(2, 7, "h", page=1),
    ):
        assert [one.id for one in join_neighbours([other, first], 5)] == [2, 1]
    [joined] = join_neighbours([passage(2, 6, "gh", page=1, score=0.4), replace(first, score=0.2)], 5)
    assert (joined.id, joined.text, joined.end, joined.score, joined.page) == (1, "abcdefgh", 8, 0.4, 1)


def test_a_long_run_does_not_become_one_passage() -> None:
    run = [passage(n, 10 * n, DOCUMENT[10 * n : 10 * n + 12]) for n in range(9)]
    joined = join_neighbours(run, 9)
    assert len(joined) == 3
    assert all(len(one.text) <= MOST_JOINED * 12 for one in joined)


# --- words


def test_question_terms_of_both_languages() -> None:
    assert {"ferry", "sail", "holm"} <= set(question_terms("When do the ferries sail to Holm?"))
    assert not {"when", "do", "the", "to"} & set(question_terms("When do the ferries sail to Holm?"))
    chinese = question_terms("石窖里的温度是多少？")
    assert {"石窖", "温度", "石", "窖"} <= set(chinese)
    assert not {"多少", "是多", "的温"} & set(chinese)
    # Nothing but function words is better than nothing.
    assert question_terms("???") == ()


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=5))
def test_shares_are_shares(question: str, texts: list[str]) -> None:
    weight = term_weights(question_terms(question), [comparable(text) for text in texts])
    assert all(value >= 0 for value in weight.values())
    assert sum(weight.values()) == pytest.approx(1.0) if weight else True
    assert all(-1e-9 <= share(weight, comparable(text)) <= 1 + 1e-9 for text in texts)
    assert share(weight, comparable(question)) == pytest.approx(sum(weight.values()))


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    sample = [comparable(f"ferry number {number}") for number in range(60)] + [comparable("motorcycle")]
    weight = term_weights(question_terms("Does the ferry take a motorcycle?"), sample)
    assert weight["motorcycl"] > 4 * weight["ferry"]


def test_common_words_are_left_out_of_a_large_space(
    base: KnowledgeBase, take_in: TakeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "MOST_ROWS", 3)
    space = base.create("Archive")
    take_in(
        space.id, {"letters.txt": PAGE * 4, "ferry.md": FERRY, "more.md": "## Notes\n\nThe archive of the ferry.\n"}
    )
    asked: list[Sequence[str]] = []
    query = lexical._query
    monkeypatch.setattr(lexical, "_query", lambda terms: asked.append(terms) or query(terms))
    hits = search_words(base._catalog, space.id, "letter of the archive about a motorcycle", 5)
    assert "motorcycle" in asked[-1]
    assert not {"letter", "archive"} <= set(asked[-1])
    assert "motorcycle" in base.passage(space.id, hits[0].id).text
    assert all(hit.score > 0 for hit in hits)
    # A question of common words only is still answered, from a bounded number of chunks.
    assert search_words(base._catalog, space.id, "letter", 5)
    assert search_words(base._catalog, space.id, "zeppelin", 5) == []


def test_the_best_match_is_shown_first_among_the_near_misses(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Mixed")
    lines = ("Lanterns shine for nine hours.", "Bees dance in the hive.", "Ferries sail at nine.", "Pipes freeze.")
    take_in(space.id, {f"{n}.txt": line for n, line in enumerate(lines)})
    for question in ("How do I prune roses in spring?", "Which moon of Jupiter is covered with ice?"):
        found = base.retrieve([space.id], question, 3)
        assert not found.covered
        scores = [one.score for one in found.near_misses]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == pytest.approx(found.best)
