"""Markers: read in every form, checked against their passages, dropped or pointed elsewhere when they do not hold."""

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.chat.citations import check, cite
from dbgpt_lite.chat.markers import MARKER, claims, normalized, without_markers
from dbgpt_lite.chat.numerals import numbers
from dbgpt_lite.chat.support import Near, evidence, supports
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.messages import Passage

PASSAGES = (
    Passage(1, "Goods may be returned within 30 days. Opened food is excluded.", "a", "returns.md"),
    Passage(2, "保修期为两年。电池的保修期为六个月。", "b", "保修.docx"),
    Passage(3, "Opened _food_ is excluded.", "c", "notes.md"),
    Passage(4, "The Beacon gives 800 lumens at 9 watts and weighs 1.4 kilograms.", "d", "lamps.pdf", heading="Beacon"),
)
# held_out_*: written after the rules; what they showed (18 of 23 kept, 18 of 22 caught) mended some of them.
PAIRS = json.loads(Path(__file__).with_name("citation_pairs.json").read_text(encoding="utf-8"))


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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Yes [1, 2].", "Yes [1][2]."),
        ("Yes [1,2][4].", "Yes [1][2][4]."),
        ("Yes [1-3].", "Yes [1][2][3]."),
        ("Yes [1–9].", "Yes [1][2][3][4]."),
        ("Yes [2; 9].", "Yes [2]."),
        ("是【1】。", "是[1]。"),
        ("是【1†source】。", "是[1]。"),
        ("是［2］。", "是[2]。"),
        ("Yes [^1].", "Yes [1]."),
        ("Yes [Passage 2].", "Yes [2]."),
        ("Yes (Source 2).", "Yes  [2]."),
        ("是[段落3]。", "是[3]。"),
        ("Yes (1). No (2)", "Yes [1]. No [2]"),
        ("(1) first\n(2) second", "(1) first\n(2) second"),
        ("f(2) is big (9).", "f(2) is big (9)."),
        ("Yes [1] (2).", "Yes [1] (2)."),
        ("Yes [5]. No [1].", "Yes. No [1]."),
        ("In [2024] and [2019-2020].", "In [2024] and [2019-2020]."),
        ("`row[1,2]` and [7]", "`row[1,2]` and"),
        ("[1](https://example.com)", "[1](https://example.com)"),
    ],
)
def test_markers_in_every_form(written: str, read: str) -> None:
    assert normalized(written, 4) == read


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One is. Two is. [1]", [("One is.", []), ("Two is.", [1])]),
        ("Lamps shine [1] and boats swim [2].", [("Lamps shine", [1]), ("and boats swim    .", [2])]),
        ("Lamps shine [1] [2].", [("Lamps shine        .", [1, 2])]),
        ("According to [1], lamps shine.", [("According to    , lamps shine.", [1])]),
        ("- **Lamps** shine. [1]\n- Boats swim [2]", [("Lamps** shine.", [1]), ("Boats swim", [2])]),
        ("[1] says lamps shine. Boats swim.", [("says lamps shine.", [1]), ("Boats swim.", [])]),
        ("灯很亮。[1]船会游。[2]", [("灯很亮。", [1]), ("船会游。", [2])]),
        ("> Lamps shine. [2]", [("Lamps shine.", [2])]),
    ],
)
def test_sentences_and_their_markers(text: str, parts: list[tuple[str, list[int]]]) -> None:
    masked = MARKER.sub(lambda match: " " * len(match.group()), text)
    assert [(masked[c.start : c.end], [n for _, _, n in c.markers]) for c in claims(text)] == parts


@pytest.fixture(scope="module")
def near() -> Near:
    embed = Embedder().embed

    def compare(sentence: str, others: list[str]) -> list[float]:
        said, *vectors = embed([sentence, *others], "passage")
        return [float(said @ vector) for vector in vectors]

    return compare  # type: ignore[return-value]


@pytest.mark.parametrize("part", ["", "held_out_"])
@pytest.mark.parametrize("with_embedder", [False, True])
def test_rates_of_faithful_and_invented_sentences(part: str, with_embedder: bool, near: Near) -> None:
    known = {name: evidence(Passage(1, text, "d", f"{name}.md")) for name, text in PAIRS[part + "passages"].items()}
    compare = near if with_embedder else None
    dropped = [pair for pair in PAIRS[part + "faithful"] if not supports(pair[1], known[pair[0]], compare)]
    passed = [pair for pair in PAIRS[part + "unfaithful"] if supports(pair[1], known[pair[0]], compare)]
    kept = f"{len(PAIRS[part + 'faithful']) - len(dropped)} of {len(PAIRS[part + 'faithful'])} faithful kept"
    sys.stdout.write(
        f"{kept}, {len(passed)} of {len(PAIRS[part + 'unfaithful'])} invented passed: {dropped} {passed}\n"
    )
    assert len(dropped) <= (1 if with_embedder else 2)
    assert len(passed) <= 3


FIGURE = re.compile(r"\d")


def test_no_figure_of_digits_is_invented_unseen() -> None:
    """Every faithful sentence with a figure changed is refused: the main harm."""
    known = {name: evidence(Passage(1, text, "d", f"{name}.md")) for name, text in PAIRS["passages"].items()}
    changed = [(name, FIGURE.sub("7", text)) for name, text in PAIRS["faithful"] if FIGURE.search(text)]
    tried = [(name, text) for name, text in changed if not numbers(text) <= numbers(known[name].text, generous=True)]
    assert len(tried) >= 20
    assert [pair for pair in tried if supports(pair[1], known[pair[0]])] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000.50 euros on 3 March 2009", {"1000.5", "3", "2009"}),
        ("forty-five days, two hundred and five people", {"45", "205"}),
        ("1.2 million and 3万 and 1.2 亿元", {"1200000", "30000", "120000000"}),
        ("十五天，二〇二三年，两倍，百分之三十", {"15", "2023", "2", "30"}),
        ("一起统一十分努力", set()),
        ("one of the RX-200 lamps (IP67)", set()),
        ("1. first\n2. second", set()),
        ("twice", {"2"}),
    ],
)
def test_figures_in_one_form(text: str, expected: set[str]) -> None:
    assert numbers(text) == expected


def test_a_marker_that_does_not_hold_goes_and_the_sentence_is_named() -> None:
    checked = check("Goods may be returned within 90 days [1]. Opened food is excluded [1].", PASSAGES)
    assert checked.text == "Goods may be returned within 90 days. Opened food is excluded [1]."
    assert checked.unsupported == ("Goods may be returned within 90 days.",)
    assert [c.number for c in checked.citations] == [1]


def test_a_marker_moves_to_the_one_passage_that_clearly_says_it() -> None:
    checked = check("The Beacon gives 800 lumens at 9 watts [1].", PASSAGES)
    assert checked.text == "The Beacon gives 800 lumens at 9 watts [4]."
    assert checked.unsupported == ()


def test_a_marker_does_not_move_where_two_passages_say_it() -> None:
    checked = check("Opened food is excluded. [4]", (*PASSAGES, PASSAGES[0]))
    assert checked.text == "Opened food is excluded."
    assert checked.unsupported == ("Opened food is excluded.",)


def test_a_sentence_may_rest_on_two_passages() -> None:
    checked = check("Goods may be returned within 30 days and the Beacon weighs 1.4 kilograms [1, 4].", PASSAGES)
    assert [c.number for c in checked.citations] == [1, 4]
    assert checked.unsupported == ()


def test_a_figure_from_nowhere_is_named_without_a_marker() -> None:
    checked = check("Goods may be returned within 30 days [1]. Shipping takes 12 days.", PASSAGES)
    assert checked.unsupported == ("Shipping takes 12 days.",)
    question = "What about orders of 2023?"
    assert check("The documents do not say anything about 2023.", PASSAGES, question).unsupported == ()


def test_saying_that_it_is_not_there_is_no_invention() -> None:
    assert check("The passages do not mention a price for the Flare [4].", PASSAGES).unsupported == ()


def test_another_language_is_held_to_figures_and_names() -> None:
    assert check("商品可以在 30 天内退货。[1]", PASSAGES).unsupported == ()
    assert check("商品可以在 90 天内退货。[1]", PASSAGES).unsupported == ("商品可以在 90 天内退货。",)
    assert check("Batteries are covered for six months [2].", PASSAGES).unsupported == ()


def test_chinese_answer() -> None:
    checked = check("保修期为两年。[2]电池的保修期为八个月。【2】", PASSAGES)
    assert checked.text == "保修期为两年。[2]电池的保修期为八个月。"
    assert checked.unsupported == ("电池的保修期为八个月。",)


def test_code_is_no_citation() -> None:
    answer = "Take `row[1]` or\n```python\nrow[9]\n```\nOpened food is excluded [1]."
    assert check(answer, PASSAGES).text == answer
    assert [c.number for c in cite(answer, PASSAGES)] == [1]
    assert cite("`row[1]`", PASSAGES) == ()
    assert check("a[3]", ()).text == "a[3]"


WORDS = st.lists(
    st.sampled_from(
        ["goods", "food", "30 days", "90 days", "[1]", "[2]", "[9]", "[1,3]", "【4】", ". ", "\n", "- ", "> ", "| a |",
         "**Beacon**", "`x[1]`", "```", "保修期为两年。", "八个月。", "not", "\\[7\\]"]
    ),
    max_size=20,
)  # fmt: skip


@given(WORDS)
def test_checking_changes_nothing_but_markers(pieces: list[str]) -> None:
    answer = " ".join(pieces)
    checked = check(answer, PASSAGES)
    bare = "".join(without_markers(normalized(answer, len(PASSAGES))).split())
    assert "".join(without_markers(checked.text).split()) == bare
    assert all(sentence in checked.text for sentence in checked.unsupported)
    assert {c.number for c in checked.citations} <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("The document does not state the colour, but the warranty lasts ten years and covers theft [1].", False),
        ("The price is not mentioned here; Zorgon Ltd refunds 500 euros within 3 days [1].", False),
        ("The document does not state the colour, but the warranty lasts two years [1].", True),
        ("The document does not mention the price, the colour or the weight [1].", True),
        ("文件没有提到颜色，但保修期为十年，盗窃也在内[1]。", False),
    ],
)
def test_what_stands_beside_a_denial_needs_a_source(answer: str, kept: bool) -> None:
    warranty = Passage(1, "The warranty of the lantern lasts two years. It covers defects of material.", "d", "w.md")
    assert bool(check(answer, [warranty]).citations) == kept
    assert bool(check(answer, [warranty]).unsupported) == (not kept)
