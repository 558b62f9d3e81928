"""Fewer bits a weight: bitsandbytes while loading, and checkpoints that are stored packed to 4 bits.

none: as stored, or as LLM_DTYPE says. int8: LLM.int8 (Dettmers et al., NeurIPS 2022). nf4: 4-bit NormalFloat with
double quantization, computing in bfloat16 (Dettmers et al., "QLoRA", NeurIPS 2023).
"""

import importlib.util
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from dbgpt_lite.errors import ModelError

if TYPE_CHECKING:
    import torch

Quantization = Literal["none", "int8", "nf4"]
SCALE = "_scale"


def bitsandbytes_config(quantization: Quantization) -> Any:
    """transformers' quantization_config, None for "none". Raises ModelError when bitsandbytes is not installed."""
    if quantization == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("llm.no_bitsandbytes", quantization=quantization)
    import torch
    from transformers import BitsAndBytesConfig

    # It prints a line for every matrix product on a CPU.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def unpack_int4(packed: "torch.Tensor", scale: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """int8 (rows, columns/2) and a scale (rows,) -> (rows, columns) of `dtype`.

    The layout of the ChatGLM int4 checkpoints: the high four bits hold the even column, the low four the odd one,
    both signed; value = number x scale.
    """
    import torch

    high = packed >> 4
    low = (packed << 4) >> 4
    both = torch.stack((high, low), dim=-1).flatten(1)
    return (both.float() * scale.float()[:, None]).to(dtype)


def unpack_int8(stored: "torch.Tensor", scale: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """int8 (rows, columns) and a scale (rows,) -> (rows, columns) of `dtype`; value = number x scale."""
    return (stored.float() * scale.float()[:, None]).to(dtype)


def expand_int4(stored: Mapping[str, "torch.Tensor"], dtype: "torch.dtype", bits: int = 4) -> "dict[str, torch.Tensor]":
    """Every ``X.weight`` with its ``X.weight_scale`` expanded, the other tensors cast. Raises ModelError.

    `bits` 8: one int8 a value. 0: nothing is packed.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        if bits and name.endswith(SCALE) and name.removesuffix(SCALE) in stored:
            continue
        scale = stored.get(name + SCALE) if bits else None
        if scale is None:
            weights[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
            continue
        if tensor.ndim != 2 or scale.shape != tensor.shape[:1] or tensor.element_size() != 1:
            raise ModelError("llm.bad_packing", tensor=name)
        weights[name] = unpack_int4(tensor, scale, dtype) if bits == 4 else unpack_int8(tensor, scale, dtype)
    return weights
