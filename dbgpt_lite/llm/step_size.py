"""What a model needs beside weights and cache when its steps are captured on one GPU (gpu_step.py). No torch."""

from functools import lru_cache

from dbgpt_lite.llm.families import architecture_name
from dbgpt_lite.llm.outline import Outline
from dbgpt_lite.llm.quantize import stored_quantization
from dbgpt_lite.llm.shapes import Config
from dbgpt_lite.llm.sizes import DTYPE_BYTES, Geometry, Numbers
from dbgpt_lite.llm.step_shape import CHUNK, ROWS, join_size, piece_sizes, reading_sizes, row_sizes
from dbgpt_lite.llm.units import KIB, MIB

# Names of the families table; what these are computed by is parts.py.
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "glm", "chatglm2"})
_NUMBERS = ("none", "nf4", "nf4_single", "int4")
_BLOCK, _TILE = 64, 16  # kernels/nf4.py: columns with one scale, rows of a tile
_WIDEST = 32_768  # kernels/decode.py: the widest normalization
_GATE_BIASES = ("gate_proj.bias", "up_proj.bias")
# Bytes that a block's scale takes more than in the layers as they are loaded: it is in float16.
_SCALES = {"nf4": 1, "nf4_single": -2, "int4": 2}
# Code of CUDA's libraries and of the kernels, loaded as they are first used in a process: 248 MiB on an H200 with torch
# 2.11.
LIBRARIES = 248 * MIB
_GRAPH = 144 * KIB  # that the driver keeps for one layer's part of a recorded reading
# Layers put together into one product leave holes which are smaller than what the allocator can give back.
_HOLE, _PRODUCTS = MIB, 4

_OLDEST = (8, 0)  # as kernels/decode.py
_ROPES = (None, "default", "linear", "llama3", "yarn")  # as parts.py
_ACTIVATIONS = (None, "silu", "swish")


def captured(outline: Outline, dtype: str, numbers: Numbers, capability: tuple[int, int] | None) -> bool:
    """Whether our own kernels compute a model that lies on one GPU of this `capability` (see Device)."""
    if capability is not None and capability < _OLDEST:
        return False
    # Widths last: they go through every parameter.
    return (
        dtype in ("float16", "bfloat16")
        and numbers in _NUMBERS
        and architecture_name(outline.config) in _FAMILIES
        and _computed(outline.config)
        and not any(outline.geometry.windows)
        and _widths(outline, numbers)
    )


def _computed(config: Config) -> bool:
    """Whether positions, activation and stored numbers are of a kind that there are kernels for."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    known = (rope.get("rope_type") or rope.get("type")) in _ROPES and config.get("hidden_act") in _ACTIVATIONS
    return known and stored_quantization(config) != "fp4"


@lru_cache(maxsize=32)
def _widths(outline: Outline, numbers: Numbers) -> bool:
    """Whether every matrix is a whole number of the kernels' tiles, and no gate of 4 bits has a bias."""
    sizes = outline.geometry
    lanes = sizes.head_dim // 8
    if sizes.head_dim % 8 or lanes not in (1, 2, 4, 8, 16, 32) or sizes.hidden % 8 or sizes.hidden > _WIDEST:
        return False
    if numbers == "none":
        return True
    linear = [one for one in outline.parameters if one.kind == "linear"]
    tiles = all(one.shape[0] % _TILE == 0 and one.shape[1] % _BLOCK == 0 for one in linear)
    return tiles and sizes.feed % _TILE == 0 and not any(one.name.endswith(_GATE_BIASES) for one in outline.parameters)


def step_bytes(outline: Outline, dtype: str, numbers: Numbers, context: int, users: int) -> int:
    """Room for a piece of a prompt and for the steps, the scales that are kept wider than in the checkpoint, and what
    comes with them, but for the libraries."""
    sizes, each = outline.geometry, DTYPE_BYTES[dtype]
    reading = min(CHUNK, context) * (each * (6 * sizes.hidden + 3 * sizes.feed) + 8 * sizes.hidden)
    joined = join_size(sizes.heads, sizes.kv_heads, sizes.head_dim, context, users, ROWS[-1])
    # A captured step for one row, one for two, for four ... keeps its scores, and for a long window another.
    rows = sum(row_sizes(users)) + sum(piece_sizes(ROWS[-1]))
    steps = 4 * joined + 2 * rows * each * sizes.vocabulary + 4 * context * sizes.head_dim
    beside = reading + steps + _recorded_readings(sizes, each, min(CHUNK, context))
    if numbers == "none":
        return beside
    linear = sum(one.count for one in outline.parameters if one.kind == "linear")
    scales = _SCALES[numbers] * linear // _BLOCK
    return beside + scales + 2 * each * _widest(sizes) + _HOLE * _PRODUCTS * sizes.layers


def _recorded_readings(sizes: Geometry, each: int, chunk: int) -> int:
    """What gpu_recorded.py keeps for passes of up to `chunk` tokens: what its graphs hand on, their room, and they."""
    found = reading_sizes(chunk)
    handed = sizes.hidden + 2 * sizes.heads * sizes.head_dim
    room = sizes.hidden + 3 * sizes.feed
    return each * found[-1] * (handed + room) + len(found) * sizes.layers * _GRAPH


def _widest(sizes: Geometry) -> int:
    """Numbers of the widest product: gate and up side by side, or queries, keys and values."""
    return sizes.hidden * max(2 * sizes.feed, (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim)
