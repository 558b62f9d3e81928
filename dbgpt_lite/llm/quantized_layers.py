"""Linear layers of fewer bits: bitsandbytes' own (int8, nf4, fp4), and rows packed as ChatGLM packs them (int4, row8).

A quantized layer is described by the tensors that a checkpoint holds of it, named as in the checkpoint after the
layer's name: ``weight``, ``weight.absmax``, ``SCB`` ... Quantizing makes them, filling takes them, saving writes them.
"""

from collections.abc import Collection, Mapping
from functools import cache
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from dbgpt_lite.llm.int4 import PackedLinear, quantize_rows, unpack
from dbgpt_lite.llm.quantize import COMPANIONS, prepare_bitsandbytes

FOUR_BIT = ("nf4", "fp4")
_AT_ONCE = 2**22  # values quantized at once: the steps between take up to 20 bytes a value on a CPU
_BLOCK = 64  # values that share a scale, bitsandbytes' default
_THRESHOLD = 6.0  # LLM.int8: inputs with a larger feature are multiplied in 16 bits (Dettmers et al., section 3.2)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class MisfitError(ValueError):
    """Tensors that cannot be one quantized layer; the text is the name of the first that does not fit."""


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(rows, columns) of a linear layer's weight as nn.Linear keeps it; None for other modules.

    transformers' Conv1D of the GPT-2 family is a linear layer that keeps its weight transposed.
    """
    if type(module) is nn.Linear:
        return module.out_features, module.in_features
    if is_transposed(module):
        weight: Any = module.weight
        return weight.shape[1], weight.shape[0]
    return None


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer keeps its weight as (columns, rows)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def replaceable(model: Any, kind: str, keep: Collection[str]) -> list[str]:
    """Names of the linear layers to quantize: all but the output head, tied weights and those in `keep`.

    Rows that are no whole blocks stay too: bitsandbytes 0.50 unpacks those wrongly on a CPU.
    A name in `keep` stands for a module, all below it, and every module whose name ends in it.
    """
    head = model.get_output_embeddings()
    kept = {*keep}
    for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"):
        kept |= {entry.removesuffix(".weight") for entry in getattr(model, name, None) or ()}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    kept |= {name.removesuffix(".weight") for pair in tied.items() for name in pair}
    return [
        name
        for name, module in model.named_modules()
        if (shape := linear_shape(module)) is not None
        and module is not head
        and not any(_stands_for(entry, name) for entry in kept)
        and shape[1] % (_BLOCK if kind in FOUR_BIT else 2 if kind == "int4" else 1) == 0
    ]


def _stands_for(entry: str, name: str) -> bool:
    return name == entry or name.startswith(f"{entry}.") or name.endswith(f".{entry}")


def replace(model: Any, name: str, kind: str) -> nn.Module:
    """Put an empty layer of fewer bits in a linear layer's place; its bias stays. Returns the new layer."""
    old = model.get_submodule(name)
    shape = linear_shape(old)
    if shape is None:
        raise TypeError(f"{name} is no linear layer")
    with torch.device("meta"):
        new = _empty(kind, shape, old.bias is not None)
    new.bias = old.bias
    new.requires_grad_(False)
    new.train(old.training)
    model.set_submodule(name, new)
    return new


def _empty(kind: str, shape: tuple[int, int], bias: bool) -> nn.Module:
    rows, columns = shape
    if kind in COMPANIONS and kind not in (*FOUR_BIT, "int8"):
        return PackedLinear(columns, rows, bias, 4 if kind == "int4" else 8)
    prepare_bitsandbytes(kind)
    from bitsandbytes.nn import Linear4bit

    layer: nn.Module
    if kind == "int8":
        layer = _int8_layer()(columns, rows, bias, has_fp16_weights=False, threshold=_THRESHOLD)
    else:
        layer = Linear4bit(columns, rows, bias, compute_dtype=torch.bfloat16, quant_type=kind)
    return layer


@cache
def _int8_layer() -> type[nn.Module]:
    from bitsandbytes.nn import Linear8bitLt

    class Int8Linear(Linear8bitLt):  # type: ignore[misc]
        """bitsandbytes 0.50 takes inputs of two or three sizes; of four (DeepSeek's latents) it makes a wrong shape."""

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x.reshape(-1, x.shape[-1]))
            return out.reshape(*x.shape[:-1], out.shape[-1])

    return Int8Linear


def quantized(kind: str, weight: Tensor) -> dict[str, Tensor]:
    """A weight (rows, columns) as the tensors of a quantized layer, on the weight's device."""
    if kind in FOUR_BIT:
        return _quantized_4bit(kind, weight)
    some_rows = torch.split(weight, max(1, _AT_ONCE // weight.shape[1]))
    if kind == "int4":
        packed, scales = zip(*(quantize_rows(rows) for rows in some_rows), strict=True)
        return {"weight": torch.cat(packed), "weight_scale": torch.cat(scales)}
    from bitsandbytes.functional import int8_vectorwise_quant

    numbers, scales, _ = zip(*(int8_vectorwise_quant(rows.to(torch.float16)) for rows in some_rows), strict=True)
    layout = torch.tensor(0, dtype=torch.uint8)  # by rows, the only one there is today
    return {"weight": torch.cat(numbers), "SCB": torch.cat(scales), "weight_format": layout}


def _quantized_4bit(kind: str, weight: Tensor) -> dict[str, Tensor]:
    """What functional.quantize_4bit with compress_statistics gives, some blocks at a time."""
    from bitsandbytes import functional

    parts = [
        functional.quantize_4bit(part, blocksize=_BLOCK, quant_type=kind)
        for part in torch.split(weight.reshape(-1), weight.numel() if weight.is_cuda else _AT_ONCE)
    ]
    state = parts[0][1]
    scales = torch.cat([part[1].absmax for part in parts])
    offset = scales.mean()
    state.absmax, state.state2 = functional.quantize_blockwise(scales - offset, blocksize=256)
    state.offset, state.nested, state.shape = offset, True, weight.shape
    kept = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    return {"weight": torch.cat([part[0] for part in parts])} | kept


def absent(kind: str, tensors: Mapping[str, Tensor]) -> list[str]:
    """Which tensors of a quantized layer are still to come."""
    needed = ["weight", *COMPANIONS[kind]]
    if kind == "int8":
        needed.remove("weight_format")
    if kind in FOUR_BIT and needed[-1] in tensors and "nested_offset" not in _facts(tensors[needed[-1]]):
        needed = [name for name in needed if "nested" not in name]
    return [name for name in needed if name not in tensors]


def fill(layer: nn.Module, kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    """Give a layer the tensors of its weight, all on the device where it shall work. Raises MisfitError."""
    if kind in FOUR_BIT:
        _fill_4bit(layer, kind, shape, tensors)
    elif kind == "int8":
        _fill_int8(layer, shape, tensors)
    else:
        check_packed(kind, shape, tensors)
        layer.weight = nn.Parameter(tensors["weight"], requires_grad=False)
        layer.weight_scale = nn.Parameter(tensors["weight_scale"], requires_grad=False)


def check_packed(kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    """Raise MisfitError unless weight and scale are what `shape` takes."""
    rows, columns = shape
    wanted = (rows, columns // 2 if kind == "int4" else columns)
    _demand("weight", tensors["weight"].shape == wanted and tensors["weight"].dtype == torch.int8)
    _demand("weight_scale", tensors["weight_scale"].shape == (rows,) and tensors["weight_scale"].dtype in _FLOATS)


def must_expand(kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer cannot stay packed: bitsandbytes 0.50 unpacks rows that are no whole blocks wrongly on a CPU."""
    return (
        kind in FOUR_BIT and tensors["weight"].device.type == "cpu" and shape[1] % _check_4bit(kind, shape, tensors) > 0
    )


def expanded(kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The values of packed tensors (rows, columns), for what cannot stay packed. Raises MisfitError."""
    if kind in FOUR_BIT:
        return _expanded_4bit(kind, shape, tensors, dtype)
    if kind == "int8":
        raise MisfitError("weight")
    check_packed(kind, shape, tensors)
    return unpack(tensors["weight"], tensors["weight_scale"], 4 if kind == "int4" else 8, dtype)


def _expanded_4bit(kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    block, facts = _check_4bit(kind, shape, tensors), _facts(tensors[f"weight.quant_state.bitsandbytes__{kind}"])
    scales = tensors["weight.absmax"]
    if "nested_offset" in facts:
        outer = tensors["weight.nested_absmax"].repeat_interleave(facts["nested_blocksize"])[: scales.numel()]
        scales = tensors["weight.nested_quant_map"][scales.flatten().int()] * outer + facts["nested_offset"]
    numbers = tensors["weight"].view(torch.uint8).flatten()
    levels = tensors["weight.quant_map"][torch.stack((numbers >> 4, numbers & 15), dim=-1).flatten().int()]
    count = shape[0] * shape[1]
    return (levels[:count] * scales.flatten().repeat_interleave(block)[:count]).reshape(shape).to(dtype)


def _check_4bit(kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> int:
    """Values in a block. bitsandbytes' kernels believe the sizes in the state, so every one is checked against the
    tensors first. Raises MisfitError."""
    weight, state = tensors["weight"], f"weight.quant_state.bitsandbytes__{kind}"
    facts, count = _facts(tensors[state]), shape[0] * shape[1]
    block, nested_block = _size(facts, "blocksize"), _size(facts, "nested_blocksize")
    known = facts.get("quant_type") == kind and facts.get("dtype") in ("float16", "bfloat16", "float32")
    _demand(state, known and tuple(facts.get("shape") or ()) == shape and block > 0)
    scales, nested = ceil(count / block), "nested_offset" in facts
    wanted = {
        "weight.absmax": (scales, torch.uint8 if nested else torch.float32),
        "weight.quant_map": (16, torch.float32),
    }
    if nested:
        _demand(state, facts.get("nested_dtype") == "float32" and nested_block > 0)
        _demand(state, isinstance(facts["nested_offset"], float))
        wanted["weight.nested_absmax"] = (ceil(scales / nested_block), torch.float32)
        wanted["weight.nested_quant_map"] = (256, torch.float32)
    _demand("weight", weight.numel() * weight.element_size() == ceil(count / 2))
    for name, (size, dtype) in wanted.items():
        _demand(name, tensors[name].numel() == size and tensors[name].dtype == dtype)
    return block


def _fill_4bit(layer: nn.Module, kind: str, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    from bitsandbytes.nn import Params4bit

    _check_4bit(kind, shape, tensors)
    weight = tensors["weight"]
    stats = {name.removeprefix("weight."): tensor for name, tensor in tensors.items() if name != "weight"}
    layer.weight = Params4bit.from_prequantized(weight, stats, device=weight.device, module=layer)
    if shape[0] % 32:
        # Its fast path on a CPU repacks 32 rows at a time, and fails for other shapes.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _fill_int8(layer: nn.Module, shape: tuple[int, int], tensors: Mapping[str, Tensor]) -> None:
    from bitsandbytes.nn import Int8Params

    weight, scale = tensors["weight"], tensors["SCB"]
    _demand("weight", weight.shape == shape and weight.dtype == torch.int8)
    _demand("SCB", scale.numel() == shape[0] and scale.is_floating_point())
    layer.weight = Int8Params(
        weight, requires_grad=False, has_fp16_weights=False, CB=weight, SCB=scale.float().flatten()
    )


def _facts(state: Tensor) -> dict[str, Any]:
    """The JSON text that bitsandbytes keeps in a tensor of bytes; {} for anything else."""
    import json

    try:
        facts = json.loads(bytes(state.cpu().to(torch.uint8).flatten().tolist()))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _size(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) else 0


def _demand(name: str, holds: bool) -> None:
    if not holds:
        raise MisfitError(name)
