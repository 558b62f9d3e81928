"""Words and sentence spans of both languages."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.knowledge.words import bigrams, is_chinese, sentences, tokens, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How long is the Warranty?", ["long", "warranty"]),
        ("RX-200", ["rx-200", "rx200", "rx", "200"]),
        ("v2.1", ["v2.1", "v2", "1"]),
        ("12,000 units", ["12000", "units"]),
        ("a/b testing in C++ and C#", ["a/b", "testing", "c++", "c#"]),
        ("ＲＸ－２００", ["rx-200", "rx200", "rx", "200"]),
        ("the company's plan", ["company", "plan"]),
        ("销售额", ["销售", "销售额"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_two_character_words_are_found_in_longer_ones() -> None:
    assert "销售" in words("公司每月公布销售额")
    assert "财务" in words("由财务部公布")


def test_question_words_carry_no_meaning() -> None:
    assert not {"多少", "什么", "的"} & set(words("这个产品的价格是多少，有什么区别？"))
    assert "the" in tokens("the price")


def test_bigrams_stay_inside_a_run() -> None:
    assert bigrams("小禾手机 X 好") == ["小禾", "禾手", "手机"]


@pytest.mark.parametrize(
    ("text", "chinese"),
    [("员工年假", True), ("iPhone 的价格是多少", True), ("the word 价 is here", False), ("", False), ("RX-200", False)],
)
def test_is_chinese(text: str, chinese: bool) -> None:
    assert is_chinese(text) is chinese


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith paid 3.5 dollars. He left.", ["Dr. Smith paid 3.5 dollars.", "He left."]),
        ("Use tools, e.g. a hammer. Done.", ["Use tools, e.g. a hammer.", "Done."]),
        ("The U.S. Senate met. J. K. Rowling wrote.", ["The U.S. Senate met.", "J. K. Rowling wrote."]),
        ('"Why?" she asked. "No."', ['"Why?" she asked.', '"No."']),
        ("1. First step. 2. Second step.", ["1. First step.", "2. Second step."]),
        ("See example.com for v2.1 now. Bye.", ["See example.com for v2.1 now.", "Bye."]),
        ("你好。世界！对吗？是；不是", ["你好。", "世界！", "对吗？", "是；", "不是"]),
        ("他说：“好吧。”然后走了。", ["他说：“好吧。”", "然后走了。"]),
        ("价格是3.5元.下一句。", ["价格是3.5元.", "下一句。"]),
        ("Title\n\nText here\nmore", ["Title", "Text here", "more"]),
        ("Wait... what? Yes", ["Wait... what?", "Yes"]),
        ("   ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


@given(st.text(alphabet=st.sampled_from("ab A.!?。！ \n”3世"), max_size=60))
def test_sentences_cover_everything_but_white_space(text: str) -> None:
    spans = sentences(text)
    covered = {position for start, end in spans for position in range(start, end)}
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert sum(end - start for start, end in spans) == len(covered)
    assert all(position in covered for position, character in enumerate(text) if not character.isspace())


def test_jieba_leaves_no_cache_behind_and_says_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("temporary")
    code = "from dbgpt_lite.knowledge.words import words; assert '销售' in words('销售额')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"TMPDIR": str(folder)}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert list(folder.iterdir()) == []
