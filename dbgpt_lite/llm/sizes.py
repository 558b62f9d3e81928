"""Bytes: of every tensor by number type, of the key/value cache, and of the room a forward pass works in. No torch.

Weights are exact for what bitsandbytes and the packed layers keep in memory; the working room is an estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from dbgpt_lite.llm.layouts import layout, settled
from dbgpt_lite.llm.quantize import stored_quantization
from dbgpt_lite.llm.shapes import Config, Parameter, dimensions, known_config, whole_number
from dbgpt_lite.llm.units import MIB

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
Numbers = Literal["none", "int8", "nf4", "nf4_single", "int4", "row8"]
# Tokens of a prompt read in one pass; the engine's own numbers (generation.py needs torch, a test compares them).
GPU_CHUNK, CPU_CHUNK = 2048, 256
# What a process holds on a GPU before its first tensor (context and kernels, 450 to 520 MiB with CUDA 12 on Ampere
# and Hopper), and what cuBLAS and the allocator's rounding add.
CUDA_CONTEXT = 512 * MIB
CUDA_WORKSPACE = 64 * MIB


def stored_numbers(config: Config, name: str = "") -> Numbers:
    """`stored_quantization` by the bytes it takes: fp4 those of nf4, and a scale four instead of one without double
    quantization. Raises ModelError for what is not read."""
    stored = stored_quantization(config, name)
    if stored in ("nf4", "fp4"):
        return "nf4" if config["quantization_config"].get("bnb_4bit_use_double_quant") else "nf4_single"
    return stored or "none"  # type: ignore[return-value]


def tensor_bytes(one: Parameter, dtype: str, numbers: Numbers) -> int:
    """Bytes of a parameter in memory; 0 for one that shares another's."""
    if one.kind == "linear" and not one.tied and _is_quantized(one.shape, numbers):
        return quantized_bytes(one.shape, numbers)
    if one.kind == "experts" and one.count and _is_quantized(one.matrices[1], numbers):
        count, matrix = one.matrices
        return count * quantized_bytes(matrix, numbers)
    return one.count * DTYPE_BYTES[dtype]


def _is_quantized(shape: tuple[int, ...], numbers: Numbers) -> bool:
    """Whether a matrix is: rows that are no whole blocks stay as they are (quantized_layers.replaceable)."""
    block = {"nf4": 64, "nf4_single": 64, "int4": 2}.get(numbers, 1)
    return numbers != "none" and shape[1] % block == 0


def quantized_bytes(shape: tuple[int, ...], numbers: Numbers) -> int:
    """Bytes of a quantized matrix (rows, columns) with its scales.

    nf4 by bitsandbytes: an 8-bit scale for 64 values, a 32-bit scale for 256 of those, and tables of 16 and 256
    floats a matrix with one offset. int8: a 32-bit scale a row. int4 and row8: a 16-bit scale a row.
    """
    count, rows = prod(shape), shape[0]
    if numbers in ("nf4", "nf4_single"):
        blocks, half = ceil(count / 64), ceil(count / 2)
        scales = blocks + 4 * ceil(blocks / 256) + 4 * (256 + 1) if numbers == "nf4" else 4 * blocks
        return half + scales + 4 * 16
    return count + 4 * rows if numbers == "int8" else ceil(count / (2 if numbers == "int4" else 1)) + 2 * rows


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes that cache and working room depend on. `windows`: tokens each layer remembers, 0 for all."""

    hidden: int
    feed: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    windows: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.windows)


def geometry(config: Config) -> Geometry:
    """Sizes of a config.json."""
    row = layout(config)
    full = known_config(row, settled(config)) if row else config
    sizes = dimensions(full)
    return Geometry(
        sizes["h"],
        sizes["f"],
        sizes["heads"],
        sizes["kv_heads"],
        sizes["d"],
        sizes["v"],
        tuple(_window(full, index) for index in range(sizes["layers"])),
    )


def _window(config: Config, index: int) -> int:
    """Tokens that a layer's cache keeps, as transformers' DynamicCache reads it from the config; 0 for all of them."""
    window = whole_number(config, "sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) > index:
        return window if kinds[index] == "sliding_attention" else 0
    every = {"gemma2": 2, "gemma3_text": whole_number(config, "sliding_window_pattern") or 6}.get(
        str(config["model_type"]), 0
    )
    if every:
        return window if (index + 1) % every else 0
    # Qwen slides only from max_window_layers on.
    return window if index >= whole_number(config, "max_window_layers") else 0


def cache_bytes(sizes: Geometry, layer: int, dtype: str, context: int, users: int) -> int:
    """Keys and values of one layer for `users` conversations of `context` tokens."""
    tokens = min(context, sizes.windows[layer] or context)
    return 2 * users * tokens * sizes.kv_heads * sizes.head_dim * DTYPE_BYTES[dtype]


def working_bytes(sizes: Geometry, dtype: str, context: int, users: int, chunk: int) -> int:
    """Room for one chunk of a prompt to pass through a layer: states, feed-forward, mask, and keys for every head.

    The normalization works in float32; the mask is a boolean and its float copy; grouped keys and values are
    repeated for all heads of a layer when a mask is given (transformers' sdpa attention).
    """
    each, tokens = DTYPE_BYTES[dtype], min(chunk, context)
    states = tokens * (each * (6 * sizes.hidden + 3 * sizes.feed) + 8 * sizes.hidden)
    mask = tokens * context * (1 + each)
    repeated = 0
    if sizes.kv_heads != sizes.heads:
        repeated = 2 * users * context * sizes.heads * sizes.head_dim * each
    return states + mask + repeated


def logits_bytes(sizes: Geometry, users: int) -> int:
    """The vocabulary's scores in float32 with a copy for sampling, where the output head lives."""
    return 2 * 4 * users * sizes.vocabulary
