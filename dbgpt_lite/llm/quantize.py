"""Fewer bits a weight: the choices while loading, and what a checkpoint says of how it is stored itself. No torch.

none: as stored, or as LLM_DTYPE says. int8: LLM.int8 (Dettmers et al., NeurIPS 2022). nf4: 4-bit NormalFloat with
double quantization, computing in bfloat16 (Dettmers et al., "QLoRA", NeurIPS 2023). int4: rows of signed 4-bit numbers
with one scale each, the packing of the ChatGLM checkpoints (int4.py).
"""

import importlib.util
import logging
from collections.abc import Mapping
from typing import Any, Literal

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.model_json import shown

Quantization = Literal["none", "int8", "nf4", "int4"]
Stored = Literal["", "nf4", "fp4", "int8", "int4", "row8"]
# What a checkpoint holds of a quantized layer beside its "weight".
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "nf4": (
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        "weight.quant_state.bitsandbytes__nf4",
    ),
    "fp4": (
        "weight.absmax",
        "weight.quant_map",
        "weight.nested_absmax",
        "weight.nested_quant_map",
        "weight.quant_state.bitsandbytes__fp4",
    ),
    "int8": ("SCB", "weight_format"),
    "int4": ("weight_scale",),
    "row8": ("weight_scale",),
}


def stored_quantization(config: Mapping[str, Any], name: str = "") -> Stored:
    """How the weights beside this config.json are quantized, "" when they are not.

    Raises ModelError for ways that this app does not read; `name` is the folder's, for the message.
    """
    given = config.get("quantization_config")
    bits = config.get("quantization_bit") or 0
    if isinstance(given, Mapping):
        method = given.get("quant_method", "bitsandbytes")
        if method == "bitsandbytes" and _flag(given, "load_in_8bit"):
            return "int8"
        kind = given.get("bnb_4bit_quant_type", "fp4")
        if method == "bitsandbytes" and _flag(given, "load_in_4bit") and kind in ("nf4", "fp4"):
            return "nf4" if kind == "nf4" else "fp4"
        raise ModelError("llm.unknown_quantization", name=name, method=shown(method))
    if bits not in (0, 4, 8):
        raise ModelError("llm.unknown_quantization", name=name, method=f"quantization_bit {shown(bits)}")
    return {0: "", 4: "int4", 8: "row8"}[bits]  # type: ignore[return-value]


def _flag(given: Mapping[str, Any], name: str) -> bool:
    """transformers writes it with and without an underscore, depending on its version."""
    return bool(given.get(name) or given.get(f"_{name}"))


def bitsandbytes_config(quantization: Quantization) -> Any:
    """transformers' quantization_config, None for what it does not do. Raises ModelError without bitsandbytes."""
    if quantization in ("none", "int4"):
        return None
    prepare_bitsandbytes(quantization)
    import torch
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def prepare_bitsandbytes(quantization: str) -> None:
    """Call before the library is used. Raises ModelError that says how to install it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("llm.no_bitsandbytes", quantization=quantization)
    # It prints a line for every matrix product on a CPU. Setting a level takes long, and mixtures have 20,000 layers.
    library = logging.getLogger("bitsandbytes")
    if library.level != logging.ERROR:
        library.setLevel(logging.ERROR)
