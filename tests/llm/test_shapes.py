"""Parameters from config.json alone, compared with the classes that load them."""

from typing import Any

import pytest

from dbgpt_lite.llm.families import family
from dbgpt_lite.llm.layouts import LAYOUTS, layout, settled
from dbgpt_lite.llm.outline import module_of
from dbgpt_lite.llm.shapes import Parameter, parameters
from dbgpt_lite.llm.sizes import geometry
from tests.llm.configs import CONFIGS, COUNTS

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 2}),
    ("qwen3", {"attention_bias": True, "head_dim": 24}),
    ("qwen2_moe", {"num_experts": 4, "decoder_sparse_step": 2, "mlp_only_layers": [0]}),
    ("qwen3_moe", {"num_experts": 4, "mlp_only_layers": [1]}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("falcon", {"multi_query": False, "parallel_attn": False, "tie_word_embeddings": False}),
    ("phi", {"qk_layernorm": True}),
    ("stablelm", {"use_parallel_residual": True, "use_qkv_bias": True}),
    ("opt", {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    ("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True}),
    ("gpt_bigcode", {"multi_query": False}),
    ("gpt2", {"tie_word_embeddings": False, "n_inner": 96}),
    ("starcoder2", {"use_bias": False}),
]


def from_config(config: dict[str, Any]) -> dict[str, Parameter]:
    row = layout(config)
    assert row is not None
    return {one.name: one for one in parameters(row, settled(config))}


def empty(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def small(model_type: str, **changes: Any) -> Any:
    """The family's own config with few and small layers."""
    from transformers import AutoConfig

    sizes = {
        **dict.fromkeys(("hidden_size", "n_embd", "n_embed", "d_model"), 64),
        **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 3),
        **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
        "vocab_size": 160,
        "intermediate_size": 96,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    known = AutoConfig.for_model(model_type).to_dict()
    given = {key: value for key, value in sizes.items() if key in known} | changes
    return AutoConfig.for_model(model_type, **given)


def compare(config: Any) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    model = empty(config)
    wanted = {name: tuple(value.shape) for name, value in model.named_parameters()}
    found = from_config(config.to_dict())
    assert {name: one.shape for name, one in found.items() if not one.tied} == wanted
    assert {name: one.tied for name, one in found.items() if one.tied} == dict(model.all_tied_weights_keys)
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, (torch.nn.Linear, Conv1D))}
    assert {name for name, one in found.items() if one.kind in ("linear", "head")} == linear
    whole = {
        name
        for name, part in model.named_modules()
        if type(part).__name__ in family({"model_type": config.model_type}).whole
    }
    assert whole == {module_of(name) for name in wanted if module_of(name)[-1].isdigit()}


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_every_row_is_the_class_that_loads_it(model_type: str) -> None:
    compare(small(model_type))


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=lambda value: str(value)[:40])
def test_variants_of_a_family(model_type: str, changes: dict[str, Any]) -> None:
    compare(small(model_type, **changes))


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_what_config_json_leaves_out_is_what_the_class_assumes(model_type: str) -> None:
    config = small(model_type)
    stated = config.to_dict()
    brief = {key: stated[key] for key in stated if key in config.to_diff_dict() or key == "model_type"}
    tied = {key: value for key, value in stated.items() if key == "num_key_value_heads"}
    assert from_config({**tied, **brief}) == from_config(stated)


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    assert sum(one.count for one in from_config(CONFIGS[name]).values()) == COUNTS[name]


@pytest.mark.parametrize("name", ["llama-33b", "qwen2-7b", "gemma-2-9b", "falcon-40b", "glm-4-9b", "phi-3-mini"])
def test_true_shapes_are_those_of_the_classes(name: str) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(**CONFIGS[name])
    wanted = {key: tuple(value.shape) for key, value in empty(config).named_parameters()}
    assert {key: one.shape for key, one in from_config(CONFIGS[name]).items() if not one.tied} == wanted


def test_chatglm2_is_the_native_glm() -> None:
    from transformers import GlmConfig

    given = CONFIGS["chatglm2-6b"]
    config = GlmConfig(
        vocab_size=given["padded_vocab_size"],
        hidden_size=given["hidden_size"],
        intermediate_size=given["ffn_hidden_size"],
        num_hidden_layers=given["num_layers"],
        num_attention_heads=given["num_attention_heads"],
        num_key_value_heads=given["multi_query_group_num"],
        head_dim=given["kv_channels"],
        attention_bias=True,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    wanted = {name: tuple(value.shape) for name, value in empty(config).named_parameters()}
    assert {name: one.shape for name, one in from_config(given).items()} == wanted


def test_chatglm_6b_by_its_index() -> None:
    """130,528 words twice, 28 layers of 12 matrices' worth of 4,096 squared with biases and two norms, one norm."""
    h = 4096
    layer = 12 * h * h + (3 + 1 + 4 + 1) * h + 4 * h
    assert sum(one.count for one in from_config(CONFIGS["chatglm-6b"]).values()) == 2 * 130528 * h + 28 * layer + 2 * h


@pytest.mark.parametrize(
    "name", ["llama-7b", "mistral-7b", "qwen2-7b", "gemma-2-9b", "phi-3-mini", "falcon-7b", "falcon-40b", "glm-4-9b"]
)
def test_cache_is_what_transformers_would_hold(name: str) -> None:
    from transformers import AutoConfig
    from transformers.cache_utils import DynamicCache

    config = AutoConfig.for_model(**CONFIGS[name])
    layers = DynamicCache(config=config).layers
    assert geometry(CONFIGS[name]).windows == tuple(getattr(layer, "sliding_window", 0) for layer in layers)
