"""Which pieces of a passage may be quoted, and in what company. Similarities are given, so no model is needed."""

from collections.abc import Sequence

import pytest

from dbgpt_lite.chat.quoting import MAX_SENTENCES, Selection, select, terms
from dbgpt_lite.messages import Passage


def ask(question: str, *texts: str, heading: str = "", near: float = 0.5) -> Selection:
    passages = [Passage(number, one, "d", "a.md", heading=heading) for number, one in enumerate(texts)]
    return select(question, passages, lambda sentences: [near] * len(sentences))


def quotes(question: str, *texts: str, heading: str = "") -> list[str]:
    return [quote.text for quote in ask(question, *texts, heading=heading).quotes]


def test_a_heading_is_context_and_never_a_quote() -> None:
    text = "# Lamps\nThe lamp is made of brass.\nBeacon lamp\nIt weighs two kilograms."
    selection = ask("What does the Beacon lamp weigh?", text)
    assert [(quote.text, quote.heading) for quote in selection.quotes] == [("It weighs two kilograms.", "Beacon lamp")]


def test_a_line_broken_by_its_width_is_one_sentence() -> None:
    text = "The largest load that the straps of this backpack are tested\nfor is 12 kilograms. More follows."
    assert quotes("What is the largest load of the straps?", text) == [text.partition(" More")[0]]


def test_a_table_row_is_quoted_under_its_header() -> None:
    rows = ("Value | Decided by", "--- | ---", "up to 25 euros | any adviser", "more than 100 euros | Ingrid Sorensen")
    text = "\n".join(f"| {row} |" for row in rows)
    (quote,) = ask("Who decided on a value of more than 100 euros?", text).quotes
    assert (quote.text, quote.heading) == ("more than 100 euros | Ingrid Sorensen", "Value | Decided by")
    assert quote.text in text


def test_a_list_item_is_quoted_without_its_mark() -> None:
    text = "Bring these:\n- a passport for the border\n- two photographs of your face"
    assert quotes("How many photographs of my face?", text) == ["two photographs of your face"]


def test_a_sentence_shared_by_two_passages_is_quoted_once() -> None:
    sentence = "The warranty lasts two years."
    selection = ask("How long is the warranty?", sentence, f"{sentence} Lamps are covered longer.")
    assert [quote.number for quote in selection.quotes] == [1]


def test_a_second_sentence_must_add_words_of_the_question() -> None:
    lamp, kettle = "The lamp costs 40 euros.", "The kettle costs 60 euros."
    assert quotes("What does the lamp cost?", lamp, kettle) == [lamp]
    assert set(quotes("What do the lamp and the kettle cost?", lamp, kettle)) == {lamp, kettle}


def test_below_the_needed_score_nothing_is_quoted() -> None:
    selection = ask("Where is Paris?", "The lamp costs 40 euros.", near=0.2)
    assert selection.quotes == ()
    assert selection.score == pytest.approx(0.2)
    assert selection.needed > 0.2


def test_without_passages_or_words_nothing_is_quoted() -> None:
    assert ask("Where?").quotes == ()
    assert ask("Where?", "", "---", "|  |").quotes == ()


def test_long_passages_are_cut_before_they_are_embedded() -> None:
    asked: list[int] = []

    def near(sentences: Sequence[str]) -> list[float]:
        asked.append(len(sentences))
        return [0.5] * len(sentences)

    text = " ".join(f"Sentence number {number} speaks of nothing." for number in range(200))
    selection = select("How heavy is the anvil?", [Passage(1, f"{text} The anvil is heavy.", "d", "a")], near)
    assert asked == [MAX_SENTENCES]
    assert selection.quotes[0].text == "The anvil is heavy."


def test_terms_match_over_endings_and_chinese_pairs() -> None:
    assert terms("How often are kettles descaled?") & terms("descale the kettle")
    assert {"年", "年假"} <= terms("带薪年假")
