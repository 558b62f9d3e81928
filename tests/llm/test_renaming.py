"""Stored tensors find their places by rows of a table."""

import re

import numpy as np
import pytest

from dbgpt_lite.llm.renaming import ARCHITECTURES, Part, architecture, parts
from tests.llm.glm_checkpoints import chatglm2_config, chatglm_config

QKV = "transformer.encoder.layers.2.self_attention.query_key_value"


def test_the_architecture_is_told_by_keys_of_config_json() -> None:
    second, first = architecture(chatglm2_config()), architecture(chatglm_config())
    assert second is not None
    assert first is not None
    assert (second.name, first.name) == ("chatglm2", "chatglm")
    assert architecture({"model_type": "llama"}) is None
    assert architecture({"model_type": "chatglm", "hidden_size": 64}) is None
    assert architecture(chatglm2_config() | {"model_type": "glm"}) is None


@pytest.mark.parametrize("own", ["weight", "bias", "weight_scale"])
def test_queries_keys_and_values_are_cut_apart(own: str) -> None:
    config = chatglm2_config(num_attention_heads=4, kv_channels=16, multi_query_group_num=2)
    assert parts(config, f"{QKV}.{own}", (128, 64)) == (
        Part(f"model.layers.2.self_attn.q_proj.{own}", 0, 64),
        Part(f"model.layers.2.self_attn.k_proj.{own}", 64, 32),
        Part(f"model.layers.2.self_attn.v_proj.{own}", 96, 32),
    )


@pytest.mark.parametrize("shape", [(12, 5), (12,)])
def test_without_shared_keys_each_head_has_its_own_three(shape: tuple[int, ...]) -> None:
    config = chatglm2_config(num_attention_heads=2, kv_channels=2, multi_query_attention=False)
    stored = np.arange(np.prod(shape)).reshape(shape)
    query, key, value = (part.take(stored) for part in parts(config, f"{QKV}.weight", shape))
    assert (query == stored[[0, 1, 6, 7]]).all()
    assert (key == stored[[2, 3, 8, 9]]).all()
    assert (value == stored[[4, 5, 10, 11]]).all()


def test_what_needs_no_place_is_dropped_and_what_has_no_rule_keeps_its_name() -> None:
    assert parts(chatglm2_config(), "transformer.rotary_pos_emb.inv_freq", (4,)) == ()
    assert parts(chatglm_config(), "transformer.layers.0.attention.rotary_emb.inv_freq", (4,)) == ()
    for config, name in (
        (chatglm2_config(), "model.layers.0.mlp.down_proj.weight"),
        (chatglm2_config(), "transformer.extra.weight"),
        (chatglm_config(), "transformer.layers.0.attention.query_key_value.weight"),
        ({"model_type": "llama"}, "lm_head.weight"),
    ):
        assert parts(config, name, (4, 4)) == (Part(name),)
        assert Part(name).take(stored := np.ones((4, 4))) is stored


def test_rules_are_regular_expressions_that_exclude_each_other() -> None:
    names = [
        "transformer.embedding.word_embeddings",
        "transformer.encoder.final_layernorm",
        "transformer.output_layer",
        QKV,
        "transformer.encoder.layers.11.mlp.dense_h_to_4h",
    ]
    for name in names:
        assert sum(bool(re.fullmatch(rule.stored, name)) for rule in ARCHITECTURES[0].rules) == 1
