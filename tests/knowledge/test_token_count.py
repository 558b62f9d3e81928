"""Counting tokens by words gives what the tokenizer gives, whatever the text."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.token_count import COUNT_BLOCK, MAX_WORD, TokenCounter

PIECES = st.sampled_from(
    [
        "refund",
        "RX-200's",
        "don't",
        "[SEP]",
        "naïve",
        "销售额",
        "的。",
        "，",
        "\u3400",
        "\U00020000",
        "가나",
        "\u200b",
        "\x1c",
        "\x85",
        "\u00a0",
        "\u3000",
        "\t",
        "\n\n",
        " ",
        "\r\n",
        "#" * 50,
        "a" * 120,
        "é" * (MAX_WORD + 1),
        "3.14",
        "",
    ]
)


def tokenizer() -> Tokenizer:
    found = Tokenizer.from_file(str(Embedder().folder / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


TOKENIZER = tokenizer()
COUNTER = TokenCounter(TOKENIZER)


@given(st.lists(PIECES | st.text(max_size=12), max_size=30).map("".join))
def test_words_add_up(text: str) -> None:
    expected = len(TOKENIZER.encode(text.replace("\x00", ""), add_special_tokens=False).ids)
    assert COUNTER.count(text.replace("\x00", "")) == expected


def test_other_tokenizers_are_asked_in_blocks() -> None:
    from tokenizers import models, pre_tokenizers

    plain = Tokenizer(models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    counter = TokenCounter(plain)
    assert counter.count("word other word") == 3
    assert counter.count("word " * COUNT_BLOCK) == COUNT_BLOCK
