"""ChatGLM2, ChatGLM3 and ChatGLM-6B give what their authors' code gives, from the authors' files, without that code."""

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.messages import Message, Sampling
from tests.llm.glm_checkpoints import (
    GOLDEN,
    TOKENIZERS,
    chatglm2_config,
    chatglm2_logits,
    chatglm2_weights,
    chatglm_config,
    chatglm_logits,
    chatglm_weights,
    packed,
    save,
)
from tests.llm.tiny_models import answer_of, ask

CPU = LoadOptions(dtype="float32", device_map="cpu")
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def logits_of(engine: Any, ids: Sequence[int]) -> Any:
    """(tokens, vocabulary), all tokens read in one pass without a cache."""
    import torch

    with torch.inference_mode():
        return engine._runner._model(input_ids=torch.tensor([list(ids)])).logits[0]


def greedy(engine: Any, ids: Sequence[int], count: int) -> list[int]:
    """Tokens as the engine finds them: the prompt in chunks, then one by one over its cache."""
    logits, _ = engine._runner.read(ids)
    tokens: list[int] = []
    for _ in range(count):
        tokens.append(int(logits.argmax()))
        logits = engine._runner.step(tokens[-1])
    return tokens


def largest_difference(left: Any, right: Any) -> float:
    import torch

    return float((torch.as_tensor(left) - torch.as_tensor(right)).abs().max())


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """A golden checkpoint through the real loading path, and what the authors' code said of it."""
    name, tokenizer = request.param
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    shutil.copy(TOKENIZERS[tokenizer], folder)
    return load(folder, CPU), json.loads((folder / "golden.json").read_text())


ALL = [("chatglm2-tiny", "chatglm2"), ("chatglm2-int4-tiny", "chatglm2"), ("chatglm-tiny", "chatglm")]


@pytest.mark.parametrize("golden", ALL, indirect=True)
def test_logits_are_the_authors(golden: tuple[Any, dict[str, Any]]) -> None:
    engine, expected = golden
    logits = logits_of(engine, expected["input_ids"])
    assert largest_difference(logits[-1], expected["last_logits"]) < 1e-5
    assert largest_difference(logits[0], expected["logits_first"]) < 1e-5
    if "logits_mean_abs" in expected:
        assert float(logits.abs().mean()) == pytest.approx(expected["logits_mean_abs"], abs=1e-5)


@pytest.mark.parametrize("golden", ALL, indirect=True)
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_greedy_tokens_are_the_authors(golden: tuple[Any, dict[str, Any]], chunk: int) -> None:
    engine, expected = golden
    engine._runner._chunk = chunk
    ids = expected["input_ids"]
    assert len(ids) > 7
    assert greedy(engine, ids, len(expected["greedy"])) == expected["greedy"]
    _, cached = engine._runner.read(ids)
    assert cached == len(ids) - 1
    assert greedy(engine, ids, len(expected["greedy"])) == expected["greedy"]


def test_a_question_read_in_both_directions_is_reused_whole_or_not_at_all(tmp_path: Path) -> None:
    config = chatglm_config()
    engine = load(save(tmp_path / "m", config, chatglm_weights(config), "chatglm"), CPU)
    runner = engine._runner
    runner._chunk = 3
    first, other = [200, 201, 202, 203, 204, 86, 89], [200, 201, 202, 203, 300, 301, 86, 89]
    alone = greedy(engine, other, 5)
    runner.forget()
    greedy(engine, first, 5)
    assert runner.read(other)[1] == 0
    assert greedy(engine, other, 5) == alone
    assert runner.read([*other, alone[0], 250])[1] == len(other) + 1


def test_beams_share_a_question_read_in_both_directions(tmp_path: Path) -> None:
    config = chatglm_config()
    engine = load(save(tmp_path / "m", config, chatglm_weights(config), "chatglm"), CPU)
    prompt, never = ask("SELECT AVG(salary)"), threading.Event()
    ids = engine._template.encode(prompt.messages)
    import torch

    expected = engine._runner._model.generate(
        torch.tensor([ids]), num_beams=3, num_return_sequences=3, max_new_tokens=6, do_sample=False
    )
    texts = [engine._text(row[len(ids) :].tolist()) for row in expected]
    assert engine.candidates(prompt, 3, 6, never) == list(dict.fromkeys(engine._before_stop(text) for text in texts))


@FEW
@given(
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 4), (6, 3)]),
    dim=st.sampled_from([4, 8, 12]),
    hidden=st.sampled_from([8, 20, 32]),
    ffn=st.sampled_from([6, 24]),
    layers=st.integers(1, 3),
    bias=st.booleans(),
    grouped=st.booleans(),
    rope=st.sampled_from([("chatglm2", None), ("chatglm2", 16), ("chatglm3", 50)]),
    seed=st.integers(0, 99),
)
def test_chatglm2_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    heads: tuple[int, int],
    dim: int,
    hidden: int,
    ffn: int,
    layers: int,
    bias: bool,
    grouped: bool,
    rope: tuple[str, int | None],
    seed: int,
) -> None:
    kind, ratio = rope
    config = chatglm2_config(
        num_attention_heads=heads[0],
        multi_query_group_num=heads[1],
        kv_channels=dim,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_layers=layers,
        add_qkv_bias=bias,
        multi_query_attention=grouped,
        **({"rope_ratio": ratio} if ratio else {}),
    )
    weights = chatglm2_weights(config, seed)
    folder = save(tmp_path_factory.mktemp("glm") / "m", config, weights, "chatglm2")
    (folder / "dbgpt.json").write_text(json.dumps({"chat_format": kind}))
    engine = load(folder, CPU)
    ids = [(37 * place + seed) % 700 for place in range(23)]
    base, stretch = (10_000 * (ratio or 1), 1) if kind == "chatglm3" else (10_000, ratio or 1)
    expected = chatglm2_logits(weights, config, ids, base, stretch)
    assert largest_difference(logits_of(engine, ids), expected) < 2e-5


@FEW
@given(
    heads=st.sampled_from([1, 2, 4]),
    dim=st.sampled_from([4, 8, 16]),
    inner=st.sampled_from([12, 64]),
    layers=st.integers(1, 4),
    context=st.integers(1, 12),
    answer=st.integers(0, 6),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chatglm_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    heads: int,
    dim: int,
    inner: int,
    layers: int,
    context: int,
    answer: int,
    masked: bool,
    seed: int,
) -> None:
    config = chatglm_config(
        num_attention_heads=heads, hidden_size=heads * dim, inner_hidden_size=inner, num_layers=layers
    )
    weights = chatglm_weights(config, seed)
    engine = load(save(tmp_path_factory.mktemp("glm") / "m", config, weights, "chatglm"), CPU)
    words = [100 + (37 * place + seed) % 600 for place in range(context + answer)]
    ids = [*([85] if masked else []), *words[:context], 86, 89, *words[context:]]
    assert largest_difference(logits_of(engine, ids), chatglm_logits(weights, config, ids)) < 2e-5


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_checkpoints(tmp_path: Path, bits: int) -> None:
    ids = [100, 300, 500, 86, 89, 211]
    second = chatglm2_config(quantization_bit=bits)
    stored, values = packed(chatglm2_weights(second), bits)
    engine = load(save(tmp_path / "second", second, stored, "chatglm2"), CPU)
    assert largest_difference(logits_of(engine, ids), chatglm2_logits(values, second, ids, 10_000, 1)) < 2e-5
    first = chatglm_config(quantization_bit=bits)
    stored, values = packed(chatglm_weights(first), bits)
    engine = load(save(tmp_path / "first", first, stored, "chatglm"), CPU)
    assert largest_difference(logits_of(engine, ids), chatglm_logits(values, first, ids)) < 2e-5


@pytest.mark.parametrize(
    ("changes", "file", "expected"),
    [
        ({}, None, "chatglm2"),
        ({"rope_ratio": 50}, None, "chatglm2"),
        ({"transformers_version": "4.30.2"}, None, "chatglm2"),
        ({"transformers_version": "4.30.2", "seq_length": 8192}, None, "chatglm3"),
        ({"transformers_version": "4.30.2", "rope_ratio": 50}, None, "chatglm3"),
        ({}, {"added_tokens_decoder": {"64796": {"content": "<|assistant|>"}}}, "chatglm3"),
        ({"transformers_version": "4.30.2", "seq_length": 8192}, {"tokenizer_class": "ChatGLMTokenizer"}, "chatglm3"),
    ],
)
def test_the_third_generation_is_told_from_the_second(
    tmp_path: Path, changes: dict[str, Any], file: dict[str, Any] | None, expected: str
) -> None:
    config = chatglm2_config(**changes)
    folder = save(tmp_path / "m", config, chatglm2_weights(config), "chatglm2")
    if file is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(file))
    engine = load(folder, CPU)
    assert engine._template.format_name == expected
    rope = engine._runner._model.config.rope_parameters
    ratio = changes.get("rope_ratio", 1)
    if expected == "chatglm3":
        assert (rope["rope_type"], rope["rope_theta"]) == ("default", 10_000 * ratio)
    else:
        assert (rope.get("factor", 1), rope["rope_theta"]) == (ratio, 10_000)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rmsnorm", False),
        ("post_layer_norm", False),
        ("add_bias_linear", True),
        ("apply_residual_connection_post_layernorm", True),
        ("original_rope", False),
        ("pre_seq_len", 128),
    ],
)
def test_variants_that_are_not_computed_are_refused(tmp_path: Path, key: str, value: object) -> None:
    config = chatglm2_config(**{key: value})
    folder = save(tmp_path / "m", config, chatglm2_weights(config), "chatglm2")
    with pytest.raises(ModelError, match=f"{key} = {value}"):
        load(folder, CPU)
    first = chatglm_config(position_encoding_2d=False)
    folder = save(tmp_path / "first", first, chatglm_weights(first), "chatglm")
    with pytest.raises(ModelError, match="position_encoding_2d = False"):
        load(folder, CPU)


@pytest.mark.parametrize("kind", ["chatglm", "chatglm2"])
def test_tensors_that_lack_or_do_not_belong_are_named(tmp_path: Path, kind: str) -> None:
    config = chatglm_config() if kind == "chatglm" else chatglm2_config()
    weights = chatglm_weights(config) if kind == "chatglm" else chatglm2_weights(config)
    gone = next(name for name in weights if name.endswith("layers.1.mlp.dense_4h_to_h.weight"))
    with pytest.raises(ModelError, match=r"lack 1 tensors: .*layers\.1\.mlp\."):
        load(save(tmp_path / "a", config, {k: v for k, v in weights.items() if k != gone}, kind), CPU)
    with pytest.raises(ModelError, match=r"another shape.*layers\.1\.mlp"):
        load(save(tmp_path / "b", config, weights | {gone: weights[gone][1:].clone()}, kind), CPU)
    with pytest.raises(ModelError, match=r"does not describe: transformer\.extra\.weight"):
        load(save(tmp_path / "c", config, weights | {"transformer.extra.weight": weights[gone]}, kind), CPU)


@pytest.mark.parametrize("kind", ["chatglm", "chatglm2", "chatglm3"])
def test_a_conversation_from_folder_to_text(tmp_path: Path, kind: str) -> None:
    never = threading.Event()
    config = chatglm_config() if kind == "chatglm" else chatglm2_config()
    weights = chatglm_weights(config) if kind == "chatglm" else chatglm2_weights(config)
    folder = save(tmp_path / "m", config, weights, kind.replace("3", "2"))
    (folder / "dbgpt.json").write_text(json.dumps({"chat_format": kind}))
    (folder / "evil.py").write_text("raise SystemExit\n")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "evil.Any"}}))
    engine = load(folder, CPU)
    before = (Message("user", "你好"), Message("assistant", "我是一个本地模型。"))
    text, usage = answer_of(engine.stream(ask("第二轮对话", *before), Sampling(0, 1, 12), never))
    ids = engine._template.encode(ask("第二轮对话", *before).messages)
    assert usage.prompt_tokens == len(ids)
    engine._runner.forget()
    tokens = greedy(engine, ids, usage.completion_tokens)
    assert text == engine._before_stop(engine._text(tokens))
    assert usage.completion_tokens


@pytest.mark.parametrize(
    ("told", "setting", "expected"),
    [
        ("", "chatglm3", "chatglm3"),
        ("chatglm2", "chatglm3", "chatglm2"),
        ("", "chatglm2", "chatglm2"),
    ],
)
def test_the_settings_format_holds_for_tokenizer_positions_and_template(
    tmp_path: Path, told: str, setting: str, expected: str
) -> None:
    config = chatglm2_config(rope_ratio=50)
    if setting == "chatglm2":
        config["transformers_version"] = "4.30.2"  # a sign of ChatGLM3
    folder = save(tmp_path / "m", config, chatglm2_weights(config), "chatglm2")
    if told:
        (folder / "dbgpt.json").write_text(json.dumps({"chat_format": told}))
    engine = load(folder, replace(CPU, chat_format=setting))
    assert engine._template.format_name == expected
    rope = engine._runner._model.config.rope_parameters
    kind = {"chatglm2": ("linear", 10_000), "chatglm3": ("default", 500_000)}
    assert (rope["rope_type"], rope["rope_theta"]) == kind[expected]
    assert ("<|user|>" in engine._tokenizer.all_special_tokens) == (expected == "chatglm3")
