"""Tiny mixtures of experts of every kind whose experts can stay apart, and what tests ask of them."""

import json
from pathlib import Path
from typing import Any

import torch

from dbgpt_lite.llm.assemble import Assembly, assemble
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.loader import LoadOptions, fitted, load
from dbgpt_lite.llm.loading import ignore
from tests.llm.tiny_models import make_tokenizer

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OWN = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "first_k_dense_replace": 1}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**_OWN, "shared_expert_intermediate_size": 64},
    "qwen3_moe": _OWN,
    "qwen3_next": {
        **_OWN,
        "shared_expert_intermediate_size": 64,
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "laguna": {**_OWN, "head_dim": 16},
    "solar_open": {**_ROUTED, "n_group": 1, "topk_group": 1, "head_dim": 16},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "glm4_moe": {**_ROUTED, "n_group": 1, "topk_group": 1, "head_dim": 16},
    "deepseek_v2": {
        **_ROUTED,
        **_LATENT,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "head_dim": 16,
        "num_key_value_heads": 4,
    },
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64, "moe_layer_start_index": 0},
    "lfm2_moe": {**_OWN, "layer_types": ["conv", "full_attention"], "num_dense_layers": 0, "use_expert_bias": True},
    "deepseek_v3": {**_ROUTED, **_LATENT, "n_group": 1, "topk_group": 1, "head_dim": 16, "num_key_value_heads": 4},
    "jamba": {
        "num_experts": 4,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
}


def make_mixture(folder: Path, model_type: str, **changes: Any) -> None:
    """A checkpoint with random weights whose experts lie one by one on disk."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **{**SIZES, **MIXTURES[model_type], **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for value in model.parameters():
        if value.dim() == 3:  # made without values
            torch.nn.init.normal_(value, std=0.1)
    model.save_pretrained(folder)
    make_tokenizer(folder)


def make_joined(folder: Path) -> None:
    """A Granite: one tensor for all experts of a layer, in the file too."""
    from transformers import GraniteMoeConfig, GraniteMoeForCausalLM

    GraniteMoeForCausalLM(GraniteMoeConfig(**SIZES, num_local_experts=4)).save_pretrained(folder)
    make_tokenizer(folder)


def options(quantization: Any) -> LoadOptions:
    return LoadOptions(quantization=quantization, dtype="bfloat16", device_map="cpu")


def loaded(folder: Path, quantization: Any) -> Any:
    return load(folder, options(quantization))._runner._model


def apart_but_whole(folder: Path) -> Any:
    """The model with separate experts in float32, nothing quantized."""
    import threading

    model, fit = fitted(read_checkpoint(folder), "float32", "int8", "", None)
    assert fit is not None
    return assemble(model, fit.routes, Assembly(torch.float32), ignore, threading.Event())


def held_bytes(value: Any) -> int:
    """Bytes of a parameter with the constants of its quantization."""
    state = getattr(value, "quant_state", None)
    constants = [] if state is None else [state.absmax, state.code]
    if state is not None and state.nested:
        constants += [state.state2.absmax, state.state2.code, state.offset]
    scales = getattr(value, "SCB", None)
    return sum(one.nbytes for one in (value, *constants, *([] if scales is None else [scales])))


def make_adapter(base: Path, module: str, columns: int) -> tuple[Path, dict[str, Any]]:
    """An adapter of one module with 64 rows, and its matrices."""
    from safetensors.torch import save_file

    folder = base.with_name("adapter")
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base.name, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    pair = {"A": torch.randn(4, columns), "B": torch.randn(64, 4)}
    tensors = {f"base_model.model.{module}.lora_{key}.weight": value for key, value in pair.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder, pair
