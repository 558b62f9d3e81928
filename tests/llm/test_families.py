"""Model facts are rows, found by exact names, without torch."""

import subprocess
import sys
from typing import Any

import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS, chat_format, format_shown_by
from dbgpt_lite.llm.families import FAMILIES, family, shape
from dbgpt_lite.llm.model_shape import ModelShape
from dbgpt_lite.llm.renaming import ARCHITECTURES
from tests.llm.configs import cached_numbers


def test_import_is_light() -> None:
    code = (
        "import sys, dbgpt_lite.llm.families, dbgpt_lite.llm.placement, dbgpt_lite.llm.engine, dbgpt_lite.llm.manager;"
        "import dbgpt_lite.llm.renaming, dbgpt_lite.llm.architecture, dbgpt_lite.llm.chatglm_tokenizer;"
        "heavy = {'torch', 'transformers', 'accelerate', 'bitsandbytes', 'httpx', 'sentencepiece'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_rows_name_layers_that_transformers_keeps_whole() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    assert set(FAMILIES) - set(known) == {row.name for row in ARCHITECTURES}
    for model_type in set(FAMILIES) & set(known):
        model_class = AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model(model_type))]
        assert set(FAMILIES[model_type].whole) <= set(model_class._no_split_modules or ())


def test_sizes_are_those_of_transformers_defaults() -> None:
    from transformers import AutoConfig

    for model_type in ("llama", "mistral", "qwen2", "falcon", "gpt2", "bloom", "opt", "gpt_neox"):
        config = AutoConfig.for_model(model_type)
        sizes = shape(config.to_dict())
        assert sizes.layers == config.num_hidden_layers
        assert sizes.heads == config.num_attention_heads
        assert sizes.hidden == config.hidden_size


SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 64, "bos_token_id": 0}
VARIANTS: list[dict[str, Any]] = [
    {"model_type": "falcon", **SMALL},
    {"model_type": "falcon", **SMALL, "multi_query": False},
    {"model_type": "falcon", **SMALL, "new_decoder_architecture": True, "num_kv_heads": 2},
    {"model_type": "falcon", **SMALL, "alibi": True},
    {"model_type": "gpt_bigcode", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "multi_query": False},
    {"model_type": "mistral", **SMALL, "num_key_value_heads": 2, "sliding_window": None},
    {"model_type": "llama", **SMALL, "num_key_value_heads": None},
    {"model_type": "qwen2", **SMALL, "num_key_value_heads": 2, "sliding_window": 16, "use_sliding_window": False},
    {
        "model_type": "qwen3_moe",
        **SMALL,
        "sliding_window": 16,
        "use_sliding_window": True,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    },
    {"model_type": "gemma2", **SMALL, "sliding_window": 16, "layer_types": ["full_attention"] * 4},
    {"model_type": "gemma3_text", **SMALL, "num_hidden_layers": 8, "sliding_window": 16},
    {"model_type": "stablelm", **SMALL, "num_key_value_heads": 1},
]


@pytest.mark.parametrize("config", VARIANTS, ids=lambda config: f"{config['model_type']}-{len(config)}")
def test_variants_of_an_architecture(config: dict[str, Any]) -> None:
    """The cache after one reading holds what the sizes say."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dbgpt_lite.llm.cache import new_cache

    tokens = {"eos_token_id": 1, "pad_token_id": 0, "intermediate_size": 32}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**config, **tokens})).eval()
    cache = new_cache(model.config)
    with torch.inference_mode():
        model(input_ids=torch.arange(3, 43)[None], past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == cached_numbers(shape(config), 40)


# (what a published config.json says, the window its authors promise)
WINDOWS: list[tuple[str, dict[str, Any], int]] = [
    ("vicuna-7b-v1.5", {"max_position_embeddings": 4096}, 4096),
    (
        "vicuna-13b-v1.5-16k",
        {
            "max_position_embeddings": 4096,
            "max_sequence_length": 16384,
            "rope_scaling": {"factor": 4.0, "type": "linear"},
        },
        16384,
    ),
    ("longchat-7b-16k", {"max_position_embeddings": 2048, "rope_scaling": {"factor": 8.0, "type": "linear"}}, 16384),
    ("llama-2-7b-32k", {"max_position_embeddings": 32768, "rope_scaling": {"factor": 8.0, "type": "linear"}}, 32768),
    (
        "deepseek-coder-6.7b",
        {"max_position_embeddings": 16384, "rope_scaling": {"factor": 4.0, "type": "linear"}},
        16384,
    ),
    ("dynamic", {"max_position_embeddings": 4096, "rope_scaling": {"factor": 2.0, "type": "dynamic"}}, 8192),
    (
        "llama-3.1-8b",
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
        },
        131072,
    ),
    (
        "yarn-llama-2-7b-128k",
        {
            "max_position_embeddings": 131072,
            "rope_scaling": {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
        },
        131072,
    ),
    (
        "qwen2.5-7b with yarn",
        {
            "model_type": "qwen2",
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        131072,
    ),
    (
        "qwen3-8b with yarn, newer name",
        {
            "model_type": "qwen3",
            "max_position_embeddings": 40960,
            "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        131072,
    ),
    (
        "phi-3-mini-128k",
        {
            "model_type": "phi3",
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
        },
        131072,
    ),
    ("mistral-7b-v0.1", {"model_type": "mistral", "max_position_embeddings": 32768, "sliding_window": 4096}, 32768),
    (
        "gemma-3-4b",
        {
            "model_type": "gemma3",
            "text_config": {"hidden_size": 2560, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        },
        131072,
    ),
    (
        "gemma-3, saved by transformers 5",
        {
            "model_type": "gemma3_text",
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_type": "default"},
            },
        },
        131072,
    ),
    ("gpt2", {"model_type": "gpt2", "n_positions": 1024}, 1024),
    ("opt without a window", {"model_type": "opt"}, 2048),
]


@pytest.mark.parametrize(("config", "window"), [case[1:] for case in WINDOWS], ids=[case[0] for case in WINDOWS])
def test_windows(config: dict[str, Any], window: int) -> None:
    assert shape({"model_type": "llama", **config}).context_length == window


def test_gemma3_sizes_that_its_config_leaves_to_the_defaults() -> None:
    inner = {"hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    sizes = shape({"model_type": "gemma3", "text_config": inner})
    assert (sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.window) == (8, 4, 256, 1024)
    assert sizes.sliding_layers == 29
    assert cached_numbers(sizes, 8192) == 2 * 4 * 256 * (5 * 8192 + 29 * 1023)


def test_sizes_of_chatglm() -> None:
    common = {"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32, "hidden_size": 4096}
    second = common | {"kv_channels": 96, "ffn_hidden_size": 1, "padded_vocab_size": 1, "seq_length": 8192}
    grouped = second | {"multi_query_attention": True, "multi_query_group_num": 2}
    assert family(grouped).name == "ChatGLM2 and 3"
    assert shape(grouped) == ModelShape(8192, 28, 32, 2, 96, 4096)
    assert shape({**grouped, "multi_query_attention": False}).kv_heads == 32
    first = common | {"inner_hidden_size": 1, "max_sequence_length": 2048, "position_encoding_2d": True}
    assert family(first).name == "ChatGLM"
    assert shape(first) == ModelShape(2048, 28, 32, 32, 128, 4096)


def test_an_unlisted_family_keeps_its_name() -> None:
    assert family({"model_type": "olmo2"}).name == "olmo2"
    assert shape({"model_type": "olmo2"}).context_length == 2048


def test_formats_are_found_by_name_only() -> None:
    assert chat_format("guanaco").opening == "### Assistant:"
    with pytest.raises(ModelError, match="vicuna"):
        chat_format("my-guanaco-33b")


def test_special_tokens_show_a_format() -> None:
    assert format_shown_by({"<|im_start|>", "<|im_end|>", "<s>"}) == "chatml"
    assert format_shown_by({"<|user|>", "<|assistant|>", "<|end|>", "</s>"}) == "phi3"
    assert format_shown_by({"[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"}) == "glm4"
    assert format_shown_by({"<s>", "</s>"}) == ""


def test_families_name_known_formats() -> None:
    assert {row.chat_format for row in FAMILIES.values()} <= set(CHAT_FORMATS)


def test_every_format_frames_content_and_stops() -> None:
    for row in CHAT_FORMATS.values():
        assert "{content}" in row.user
        assert "{content}" in row.assistant
        assert row.stop
