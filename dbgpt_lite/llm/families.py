"""TABLE of model facts by architecture: config.json's ``model_type``, but for ChatGLM, whose name says too little.

Nothing here imports torch. Chat formats are a table of their own: chat_formats.py. A new architecture is a row; one
without a row gets the usual names and works with its tokenizer's own chat template. tests/llm/test_every_family.py
runs every row on a real model of that architecture.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dbgpt_lite.llm.model_shape import Family, ModelShape, read_shape
from dbgpt_lite.llm.renaming import architecture

__all__ = ["FAMILIES", "Family", "ModelShape", "family", "shape"]

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = (*_ATTENTION, "gate_proj", "up_proj", "down_proj")
_GLM_LINEAR = (*_ATTENTION, "gate_up_proj", "down_proj")
_FUSED = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
_END_OF_TEXT = ("<|endoftext|>",)

# Vicuna, Guanaco and Alpaca are Llamas whose config.json says no more than that. Without a template the one written is
# Guanaco's, which the first Vicuna shares; which one it is can be told: see chat_choice.py.
_LLAMA = Family(
    "Llama",
    whole=("LlamaDecoderLayer",),
    lora=_GATED,
    chat_format="guanaco",
    end_tokens=("</s>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
)
_MISTRAL = Family(
    "Mistral",
    default_context=131072,
    absent={"num_key_value_heads": 8, "sliding_window": 4096},
    whole=("MistralDecoderLayer",),
    lora=_GATED,
    chat_format="mistral",
    end_tokens=("</s>",),
)
_QWEN2 = Family(
    "Qwen2",
    default_context=32768,
    absent={"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28},
    window_switch="use_sliding_window",
    window_from="max_window_layers",
    whole=("Qwen2DecoderLayer",),
    lora=_GATED,
    chat_format="chatml",
    end_tokens=("<|im_end|>", "<|endoftext|>"),
)
_GLM = Family(
    "GLM",
    default_context=131072,
    absent={"num_key_value_heads": 2, "head_dim": 128},
    whole=("GlmDecoderLayer",),
    lora=_GLM_LINEAR,
    chat_format="glm4",
    end_tokens=("<|user|>", "<|observation|>", "<|endoftext|>"),
)
_GEMMA = Family(
    "Gemma",
    default_context=8192,
    absent={"num_key_value_heads": 16, "head_dim": 256},
    whole=("GemmaDecoderLayer",),
    lora=_GATED,
    chat_format="gemma",
    end_tokens=("<end_of_turn>", "<eos>"),
)
_GEMMA3 = replace(
    _GEMMA,
    name="Gemma 3",
    default_context=131072,
    absent={
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_size": 2304,
        "sliding_window": 4096,
    },
    full_every=6,
    whole=("Gemma3DecoderLayer",),
)
_GPT2 = Family(
    "GPT-2",
    context_keys=("n_positions",),
    layers_keys=("n_layer",),
    heads_keys=("n_head",),
    hidden_keys=("n_embd",),
    default_context=1024,
    whole=("GPT2Block",),
    lora=("c_attn", "c_proj", "c_fc"),
    end_tokens=_END_OF_TEXT,
)

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "mixtral": replace(
        _MISTRAL,
        name="Mixtral",
        absent={"num_key_value_heads": 8},
        whole=("MixtralDecoderLayer",),
        lora=_ATTENTION,  # the experts are one tensor each, not linear layers
    ),
    "qwen2": _QWEN2,
    "qwen2_moe": replace(
        _QWEN2,
        name="Qwen2 MoE",
        absent={**_QWEN2.absent, "num_key_value_heads": 16},
        whole=("Qwen2MoeDecoderLayer",),
        lora=_ATTENTION,
        keep=("lm_head", "shared_expert_gate"),  # one output: a scale a row would be most of it
    ),
    "qwen3": replace(_QWEN2, name="Qwen3", absent={**_QWEN2.absent, "head_dim": 128}, whole=("Qwen3DecoderLayer",)),
    "qwen3_moe": replace(
        _QWEN2,
        name="Qwen3 MoE",
        absent={"num_key_value_heads": 4, "sliding_window": 4096},
        window_from="",
        whole=("Qwen3MoeDecoderLayer",),
        lora=_ATTENTION,
    ),
    "glm": _GLM,
    "glm4": replace(_GLM, name="GLM-4", whole=("Glm4DecoderLayer",)),
    # Both call themselves "chatglm"; the names are those of renaming.ARCHITECTURES.
    "chatglm2": Family(
        "ChatGLM2 and 3",
        context_keys=("seq_length",),
        layers_keys=("num_layers",),
        kv_heads_keys=("multi_query_group_num",),
        head_dim_keys=("kv_channels",),
        whole=("GlmDecoderLayer",),
        lora=_GLM_LINEAR,
        chat_format="chatglm2",
        end_tokens=("</s>", "<|user|>", "<|observation|>"),
    ),
    "chatglm": Family(
        "ChatGLM",
        context_keys=("max_sequence_length",),
        layers_keys=("num_layers",),
        whole=("ChatGLMBlock",),
        lora=_FUSED,
        chat_format="chatglm",
        end_tokens=("<eop>",),
    ),
    "gemma": _GEMMA,
    "gemma2": replace(
        _GEMMA,
        name="Gemma 2",
        absent={"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096},
        full_every=2,
        whole=("Gemma2DecoderLayer",),
    ),
    "gemma3_text": _GEMMA3,
    "gemma3": _GEMMA3,
    "phi": Family(
        "Phi",
        whole=("PhiDecoderLayer",),
        lora=("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
        chat_format="phi",
        end_tokens=_END_OF_TEXT,
    ),
    "phi3": Family(
        "Phi-3",
        default_context=4096,
        whole=("Phi3DecoderLayer",),
        lora=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
        chat_format="phi3",
        end_tokens=("<|end|>", "<|user|>", "<|endoftext|>"),
    ),
    "falcon": Family(
        "Falcon",
        kv_heads_keys=("num_kv_heads",),
        hidden_keys=("hidden_size", "n_embed"),
        shared_heads=True,
        whole=("FalconDecoderLayer",),
        lora=_FUSED,
        chat_format="falcon",
        end_tokens=_END_OF_TEXT,
    ),
    "stablelm": Family(
        "StableLM",
        default_context=4096,
        absent={"num_key_value_heads": 32},
        whole=("StableLmDecoderLayer",),
        lora=_GATED,
        chat_format="stablelm",
        end_tokens=_END_OF_TEXT,
    ),
    "starcoder2": Family(
        "StarCoder2",
        default_context=4096,
        absent={"num_key_value_heads": 2},
        whole=("Starcoder2DecoderLayer",),
        lora=(*_ATTENTION, "c_fc", "c_proj"),
        chat_format="starcoder2",
        end_tokens=_END_OF_TEXT,
    ),
    "opt": Family(
        "OPT",
        whole=("OPTDecoderLayer",),
        lora=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        end_tokens=("</s>",),
    ),
    "gpt_neox": Family(
        "GPT-NeoX",
        whole=("GPTNeoXLayer",),
        lora=_FUSED,
        keep=("lm_head", "embed_out"),  # its name depends on the version of transformers
        end_tokens=_END_OF_TEXT,
    ),
    "bloom": Family(
        "BLOOM",
        context_keys=("seq_length",),
        layers_keys=("n_layer", "num_hidden_layers"),
        heads_keys=("n_head", "num_attention_heads"),
        hidden_keys=("hidden_size", "n_embed"),
        whole=("BloomBlock",),
        lora=_FUSED,
        end_tokens=("</s>",),
    ),
    "gpt2": _GPT2,
    "gptj": replace(
        _GPT2,
        name="GPT-J",
        default_context=2048,
        whole=("GPTJBlock",),
        lora=("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    ),
    "gpt_bigcode": replace(_GPT2, name="StarCoder", shared_heads=True, whole=("GPTBigCodeBlock",)),
    "mpt": Family(
        "MPT",
        context_keys=("max_seq_len",),
        layers_keys=("n_layers",),
        heads_keys=("n_heads",),
        hidden_keys=("d_model",),
        whole=("MptBlock",),
        lora=("Wqkv", "out_proj", "up_proj", "down_proj"),
        chat_format="chatml",
        end_tokens=_END_OF_TEXT,
    ),
}


def family(config: Mapping[str, Any]) -> Family:
    """The row of a config.json; an architecture without one gets the usual key names and its own name."""
    name = architecture_name(config)
    return FAMILIES.get(name) or Family(name)


def architecture_name(config: Mapping[str, Any]) -> str:
    """The key of a config.json in the table: its model_type, where that says enough."""
    own = architecture(config)
    return own.name if own else str(config.get("model_type", ""))


def shape(config: Mapping[str, Any]) -> ModelShape:
    """Sizes of a config.json."""
    return read_shape(config, family(config))
