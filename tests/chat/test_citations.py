import pytest

from dbgpt_lite.chat.citations import cite, drop_unknown_markers
from dbgpt_lite.messages import Passage

PASSAGES = (
    Passage(1, "Goods may be returned within 30 days. Opened food is excluded.", "a", "returns.md"),
    Passage(2, "保修期为两年。电池的保修期为六个月。", "b", "保修.docx"),
    Passage(3, "Opened _food_ is excluded.", "c", "notes.md"),
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("“Opened food is excluded.” [1]", [(1, "Opened food is excluded.")]),
        ("Opened food is excluded. [1]", [(1, "Opened food is excluded.")]),
        ("You can return goods within 30 days [1].", [(1, "Goods may be returned within 30 days.")]),
        ("电池的保修期为六个月。[2]", [(2, "电池的保修期为六个月。")]),
        (
            "“保修期为两年。”[2] “Opened food is excluded.” [1]",
            [(2, "保修期为两年。"), (1, "Opened food is excluded.")],
        ),
        ("“Opened \\_food\\_ is excluded.” [3]", [(3, "Opened _food_ is excluded.")]),
        ("The moon is made of cheese [1].", [(1, "")]),
        ("No marker at all.", []),
        ("Wrong number [7] and [0].", []),
    ],
)
def test_citations_quote_what_the_claim_rests_on(answer: str, expected: list[tuple[int, str]]) -> None:
    assert [(c.number, c.quote) for c in cite(answer, PASSAGES)] == expected
    for citation in cite(answer, PASSAGES):
        assert citation.quote in citation.passage.text
        assert citation.passage is PASSAGES[citation.number - 1]


def test_neighbouring_markers_share_the_claim() -> None:
    found = cite("Goods may be returned within 30 days [1][2].", PASSAGES)
    assert [(c.number, c.quote) for c in found] == [(1, "Goods may be returned within 30 days"), (2, "")]


def test_markers_without_a_passage_are_dropped() -> None:
    assert drop_unknown_markers("Yes [5]. No [1].", PASSAGES) == "Yes. No [1]."
    assert drop_unknown_markers("a[3]", ()) == "a[3]"


def test_code_is_no_citation() -> None:
    answer = "Take `row[1]` or\n```python\nrow[9]\n```\nas said [1]."
    assert drop_unknown_markers(answer, PASSAGES) == answer
    assert [c.number for c in cite(answer, PASSAGES)] == [1]
    assert cite("`row[1]`", PASSAGES) == ()
