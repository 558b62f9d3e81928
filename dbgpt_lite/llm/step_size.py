"""What a model needs beside weights and cache when its steps are captured on one GPU (gpu_step.py). No torch."""

from math import ceil

from dbgpt_lite.llm.families import architecture_name
from dbgpt_lite.llm.outline import Outline
from dbgpt_lite.llm.sizes import DTYPE_BYTES, Geometry, Numbers
from dbgpt_lite.llm.units import MIB

# Names of the families table; what these are computed by is parts.py.
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "glm", "chatglm2"})
_NUMBERS = ("none", "nf4", "nf4_single", "int4")
_CHUNK = 1024  # gpu_step.CHUNK and _ROWS; a test compares them
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
_BLOCK = 64
_SPLIT = 64
# Bytes that a block's scale takes more than in the layers as they are loaded: it is in float16.
_SCALES = {"nf4": 1, "nf4_single": -2, "int4": 2}
# Code of CUDA's libraries and of the kernels, loaded as they are first used in a process: 312 MiB on an H200 with torch
# 2.11.
LIBRARIES = 312 * MIB
# Two threads multiply on two streams each, and cuBLAS keeps 32 MiB for each of the four; sizes.py counts two.
# And the allocator takes memory in pieces of 2 to 20 MiB.
_WORKSPACES = (64 + 64) * MIB
# Layers put together into one product leave holes which are smaller than what the allocator can give back.
_HOLE, _PRODUCTS = MIB, 4

_OLDEST = (8, 0)  # as kernels/decode.py
_ROPES = (None, "default", "linear", "llama3", "yarn")  # as parts.py
_ACTIVATIONS = (None, "silu", "swish")


def captured(outline: Outline, dtype: str, numbers: Numbers, capability: tuple[int, int] | None) -> bool:
    """Whether our own kernels compute a model that lies on one GPU of this `capability` (see Device)."""
    config = outline.config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (capability is not None and capability < _OLDEST) or (rope.get("rope_type") or rope.get("type")) not in _ROPES:
        return False
    if config.get("hidden_act") not in _ACTIVATIONS:
        return False
    sizes = outline.geometry
    lanes = sizes.head_dim // 8
    whole = sizes.head_dim % 8 == 0 and lanes in (1, 2, 4, 8, 16, 32)
    return (
        architecture_name(outline.config) in _FAMILIES
        and not any(sizes.windows)
        and whole
        and dtype in ("float16", "bfloat16")
        and numbers in _NUMBERS
    )


def step_bytes(outline: Outline, dtype: str, numbers: Numbers, context: int, users: int) -> int:
    """Room for a piece of a prompt and for the steps, the scales that are kept wider than in the checkpoint, and what
    comes with them, but for the libraries."""
    sizes, each = outline.geometry, DTYPE_BYTES[dtype]
    reading = min(_CHUNK, context) * (each * (6 * sizes.hidden + 3 * sizes.feed) + 8 * sizes.hidden)
    parts = 4 * sizes.heads * ceil(context / _SPLIT) * (sizes.head_dim + 2)
    # A captured step for one row, one for two, for four ... keeps its own room, and for a long window another.
    rows = sum({*(size for size in _ROWS if size < users), users})
    steps = 2 * rows * (parts + each * sizes.vocabulary) + 4 * context * sizes.head_dim
    beside = reading + steps + _WORKSPACES
    if numbers == "none":
        return beside
    linear = sum(one.count for one in outline.parameters if one.kind == "linear")
    scales = _SCALES[numbers] * linear // _BLOCK
    return beside + scales + 2 * each * _widest(sizes) + _HOLE * _PRODUCTS * sizes.layers


def _widest(sizes: Geometry) -> int:
    """Numbers of the widest product: gate and up side by side, or queries, keys and values."""
    return sizes.hidden * max(2 * sizes.feed, (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim)
