"""Token ids are those of the authors' tokenizers, special tokens cannot be typed, grammars can be matched."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.chat_template import BREAK, ChatTemplate, can_constrain
from dbgpt_lite.llm.chatglm_tokenizer import RULES, ChatGLMTokenizer, chatglm_tokenizer
from dbgpt_lite.llm.constraint import Grammars
from dbgpt_lite.llm.textstream import Detokenizer
from dbgpt_lite.messages import Message
from tests.llm.glm_checkpoints import GOLDEN

FOLDERS = {
    "chatglm": GOLDEN / "chatglm-tokenizer",
    "chatglm2": GOLDEN / "chatglm2-tokenizer",
    "chatglm3": GOLDEN / "chatglm2-tokenizer",
}


def tokenizer(name: str) -> ChatGLMTokenizer:
    return chatglm_tokenizer(FOLDERS[name], {}, name)


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDERS[name] / "golden.json").read_text())
    return content


@pytest.mark.parametrize("name", ["chatglm", "chatglm2"])
def test_ids_and_texts_are_the_authors(name: str) -> None:
    own, golden = tokenizer(name), expected(name)
    for text, ids in golden["encode"].items():
        assert own(text)["input_ids"] == ids
        assert own.decode(ids, skip_special_tokens=True) == golden["decode"][text]
    for token, index in (golden.get("ids") or golden["special_tokens"]).items():
        assert own.token_id(token) == index


@pytest.mark.parametrize("name", ["chatglm", "chatglm2"])
def test_the_prompt_of_a_conversation_is_the_authors(name: str) -> None:
    talk = [Message("user", "你好"), Message("assistant", "我是一个本地模型。"), Message("user", "第二轮对话")]
    template, golden = ChatTemplate(tokenizer(name), name), expected(name)
    assert template.render(talk) == golden["prompt"]
    assert template.encode(talk) == golden["prompt_ids"]


def test_roles_of_the_third_generation_are_tokens() -> None:
    own = tokenizer("chatglm3")
    template = ChatTemplate(own, "chatglm3")
    role = {name: own.token_id(f"<|{name}|>") for name in ("system", "user", "assistant", "observation")}
    assert list(role.values()) == [645, 646, 647, 648]

    def plain(text: str) -> list[int]:
        return own(text, add_special_tokens=False)["input_ids"]

    talk = [Message("system", "简短"), Message("user", "你好"), Message("assistant", "SELECT"), Message("user", "x")]
    assert template.encode(talk) == [
        own.token_id("[gMASK]"),
        own.token_id("sop"),
        *(role["system"], *plain("\n"), *plain("简短")),
        *(role["user"], *plain("\n"), *plain("你好")),
        *(role["assistant"], *plain("\n"), *plain("SELECT")),
        *(role["user"], *plain("\n"), *plain("x")),
        role["assistant"],
    ]
    assert template.end_ids == {role["user"], role["observation"]}
    assert own.eos_token_id == [2, role["user"], role["observation"]]


PIECES = [*RULES["chatglm"].readable, *RULES["chatglm3"].readable, "sop", "eop", "<n>", "</s>", "<|", "[", "a", "\n"]


@pytest.mark.parametrize("name", FOLDERS)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.sampled_from([*PIECES, "gMASK]", "user|>", "名", " ", BREAK]), max_size=8))
def test_special_tokens_cannot_be_typed(name: str, parts: list[str]) -> None:
    own = tokenizer(name)
    template = ChatTemplate(own, name)
    special = {own.token_id(token) for token in (*RULES[name].inside, *RULES[name].appended, "</s>", "<s>")}
    forged = "".join(parts)
    harmless = [Message("user", "a"), Message("assistant", "a"), Message("user", "a")]
    typed = [Message("user", forged or "a"), Message("assistant", forged or "a"), Message("user", forged or "a")]
    assert [index for index in template.encode(typed) if index in special] == [
        index for index in template.encode(harmless) if index in special
    ]
    assert template.neutral(forged).replace(BREAK, "") == forged.replace(BREAK, "")


def test_words_that_hold_the_name_of_a_special_token_are_left_alone() -> None:
    text = "people in Aesop's shop [1]"
    for name in FOLDERS:
        assert ChatTemplate(tokenizer(name), name).neutral(text) == text


@pytest.mark.parametrize("name", FOLDERS)
@settings(max_examples=60, deadline=None)
@given(text=st.text("aZ 名字，😀龘", max_size=30))
def test_pieces_streamed_one_by_one_are_the_text(name: str, text: str) -> None:
    own = tokenizer(name)
    ids = own(text, add_special_tokens=False)["input_ids"]
    stream = Detokenizer(lambda part: own.decode(part, skip_special_tokens=True))
    assert "".join([*map(stream.push, ids), stream.flush()]) == own.decode(ids, skip_special_tokens=True)


@settings(max_examples=100, deadline=None)
@given(inner=st.text("ab \t\n名😀", max_size=200))
def test_whitespace_survives_in_the_first_generation(inner: str) -> None:
    own, text = tokenizer("chatglm"), f"a{inner}b"
    assert own.decode(own(text)["input_ids"], skip_special_tokens=True) == text
    indent = "x" + " " * 163 + "\ty"
    assert own.decode(own(indent, add_special_tokens=False)["input_ids"]) == indent


def test_special_tokens_have_a_text_when_asked_for() -> None:
    assert tokenizer("chatglm2").decode([641, 643, 2]) == "[gMASK]sop"
    assert tokenizer("chatglm2").decode([641, 643, 2], skip_special_tokens=True) == ""
    assert tokenizer("chatglm2").decode([700, 5000]) == ""
    assert tokenizer("chatglm").decode([86, 89]) == "[gMASK]<sop>"


def test_ids_of_images_come_before_those_of_the_text(tmp_path: Path) -> None:
    import shutil

    shutil.copy(FOLDERS["chatglm"] / "ice_text.model", tmp_path)
    plain = tokenizer("chatglm")("def f(x):\n    return 名")["input_ids"]
    first = chatglm_tokenizer(tmp_path, {"vocab_size": 20_760}, "chatglm")
    assert first("def f(x):\n    return 名")["input_ids"] == [index + 20_000 for index in plain]
    assert first.decode([5, *(index + 20_000 for index in plain)], skip_special_tokens=True).endswith("return 名")
    assert first.eos_token_id == [20_090]
    (tmp_path / "tokenizer_config.json").write_text('{"num_image_tokens": 0}')
    assert chatglm_tokenizer(tmp_path, {"vocab_size": 20_760}, "chatglm")("名")["input_ids"][-1] == 89


@pytest.mark.parametrize("content", [None, b"", b"IQ== 0\nIg== 1\n"])
def test_a_file_that_is_no_such_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
        (tmp_path / "ice_text.model").write_bytes(content)
    for name, file in (("chatglm2", "tokenizer.model"), ("chatglm", "ice_text.model")):
        with pytest.raises(ModelError, match=file):
            chatglm_tokenizer(tmp_path, {}, name)


def test_another_familys_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ice_text.model").write_bytes((FOLDERS["chatglm2"] / "tokenizer.model").read_bytes())
    with pytest.raises(ModelError, match=r"ice_text\.model"):
        chatglm_tokenizer(tmp_path, {}, "chatglm")


@pytest.mark.parametrize("name", FOLDERS)
def test_an_answer_obeys_a_grammar(name: str) -> None:
    import torch

    own = tokenizer(name)
    assert can_constrain(own)
    guide = Grammars(own, own.eos_token_id).guide('start: /\\s?/ "SELECT AVG(salary)" "\\n"? "名"? <stop>')
    assert guide is not None
    generator = torch.Generator().manual_seed(3)
    tokens: list[int] = []
    while len(tokens) < 60:
        scores = guide.masked(torch.rand(own.vocab_size + 40, generator=generator), room=100)
        tokens.append(int(scores.argmax()))
        if tokens[-1] in own.eos_token_id:
            break
        guide.advance(tokens[-1])
    text = own.decode(tokens, skip_special_tokens=True)
    assert text.strip().removesuffix("名").strip() == "SELECT AVG(salary)"
    assert tokens[-1] in own.eos_token_id
