"""Will it fit? Pure arithmetic from a checkpoint's headers, before anything is loaded.

All sizes are bytes; GiB appears only in the texts. The weights' sizes are exact for safetensors and NF4/int8 as
bitsandbytes stores them; the working room is an allowance (activations, allocator, CUDA context).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from dbgpt_lite.errors import ConfigError, OutOfMemory
from dbgpt_lite.llm.checkpoint import TYPE_BYTES, Checkpoint, TensorInfo
from dbgpt_lite.llm.families import ModelShape, shape

GIB = 1024**3
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": GIB,
    "TIB": 2**40,
    "B": 1,
}
# 4 bits a value, one 8-bit scale for 64 values, one 32-bit scale for 256 of those.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_WORKING_ROOM = {"cpu": 64 * 2**20, "gpu": 768 * 2**20}
_ACTIVATION_TOKENS = 512
_SHORTEST_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Device:
    """A place for weights: "cuda:0", "cpu". `free` is what this app may use of it."""

    name: str
    free: int

    @property
    def kind(self) -> Literal["cpu", "gpu"]:
        """Which allowance for working room applies."""
        return "cpu" if self.name == "cpu" else "gpu"


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes: its weights, the key/value cache of one full window, and room to work."""

    weights: int
    kv_per_token: int
    context: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_per_token * self.context + self.working


@dataclass(frozen=True, slots=True)
class Plan:
    """Whether a model fits these devices, and the remedies that would help, as text names of section llm."""

    name: str
    need: Need
    devices: tuple[Device, ...]
    fits: bool
    remedies: tuple[str, ...] = ()
    context_that_fits: int = 0

    @property
    def available(self) -> int:
        """Free bytes over all devices."""
        return sum(device.free for device in self.devices)

    def check(self) -> None:
        """Raise OutOfMemory with the numbers and what to change, unless it fits."""
        if self.fits:
            return
        facts = {
            "name": self.name,
            "weights": gib(self.need.weights),
            "cache": gib(self.need.kv_per_token * self.need.context),
            "context": self.need.context,
            "total": gib(self.need.total),
            "free": gib(self.available),
            "devices": ", ".join(f"{device.name} {gib(device.free)} GiB" for device in self.devices),
            "context_that_fits": self.context_that_fits,
        }
        raise OutOfMemory(f"llm.too_large_{self.remedies[0]}", **facts)


def plan(checkpoint: Checkpoint, *, dtype: str, quantization: str, context: int, devices: tuple[Device, ...]) -> Plan:
    """Compare what the model needs with what the devices have. Weights may be spread over all of them.

    `context` 0: the model's own window, or the largest one that fits when that is at least 2,048 tokens.
    bitsandbytes keeps quantized layers on GPUs, so with GPUs the memory beside them does not count.
    """
    sizes = shape(checkpoint.config)
    gpus = tuple(device for device in devices if device.kind == "gpu")
    used = gpus if gpus and quantization != "none" else devices
    working = max(_WORKING_ROOM[device.kind] for device in used) + _activations(sizes, dtype)
    weights, per_token = weight_bytes(checkpoint, dtype, quantization), kv_bytes_per_token(sizes, dtype)
    window = min(context or sizes.context_length, sizes.context_length)
    need = Need(weights, per_token, window, working)
    name, free = checkpoint.folder.name, sum(device.free for device in used)
    if need.total <= free:
        return Plan(name, need, used, True)
    room = max(0, free - weights - working) // per_token if per_token else 0
    if not context and room >= min(window, _SHORTEST_WINDOW):
        return Plan(name, replace(need, context=room // 256 * 256), used, True)
    return Plan(name, need, used, False, _remedies(checkpoint, quantization, room), room)


def _remedies(checkpoint: Checkpoint, quantization: str, room: int) -> tuple[str, ...]:
    """What helps, best first: a shorter window when only the cache is too large, then fewer bits, then more memory."""
    found = ["context"] if room >= 512 else []
    if quantization != "nf4" and not checkpoint.packed_int4:
        found.append("quantize")
    return (*found, "memory")


def weight_bytes(checkpoint: Checkpoint, dtype: str, quantization: str) -> int:
    """Bytes of all weights once loaded. ``.bin`` files only tell their own size, taken as two bytes a value."""
    if not checkpoint.tensors:
        factor = {"nf4": _NF4_BYTES / 2, "int8": 0.5}.get(quantization, DTYPE_BYTES[dtype] / 2)
        return int(checkpoint.file_bytes * factor)
    scales = {tensor.name for tensor in checkpoint.tensors if tensor.name.endswith("_scale")}
    counted = (tensor for tensor in checkpoint.tensors if not (checkpoint.packed_int4 and tensor.name in scales))
    return int(sum(_tensor_bytes(tensor, dtype, quantization, f"{tensor.name}_scale" in scales) for tensor in counted))


def _tensor_bytes(tensor: TensorInfo, dtype: str, quantization: str, packed: bool) -> float:
    if packed:
        return tensor.count * 2 * DTYPE_BYTES[dtype]
    if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
        return tensor.count * TYPE_BYTES.get(tensor.dtype, 4)
    if quantization != "none" and _is_linear(tensor):
        rows = tensor.shape[0]
        return tensor.count * _NF4_BYTES if quantization == "nf4" else tensor.count + 4 * rows
    return tensor.count * DTYPE_BYTES[dtype]


def _is_linear(tensor: TensorInfo) -> bool:
    """bitsandbytes converts linear layers but for the output head; embeddings keep their type."""
    words = tensor.name.split(".")
    kept = ("lm_head", "embed_out", "embed_tokens", "wte", "wpe", "word_embeddings", "embed_in", "embed_positions")
    return len(tensor.shape) == 2 and words[-1] == "weight" and not set(words) & set(kept)


def kv_bytes_per_token(sizes: ModelShape, dtype: str) -> int:
    """Keys and values of one token over all layers."""
    return 2 * sizes.layers * sizes.kv_heads * sizes.head_dim * DTYPE_BYTES[dtype]


def _activations(sizes: ModelShape, dtype: str) -> int:
    """Room for one chunk's hidden states and feed-forward products."""
    return _ACTIVATION_TOKENS * sizes.hidden * 12 * DTYPE_BYTES[dtype]


def gib(size: int) -> str:
    """Bytes in GiB with three digits: 0.0625, 1.23, 12.3, 640."""
    value = size / GIB
    return f"{value:.3g}" if value < 999 else f"{value:.0f}"


def parse_size(text: str) -> int:
    """ "20GiB", "800MB" or "0.5GB" in bytes. Raises ConfigError for anything else."""
    cleaned = text.strip().upper()
    unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if cleaned.endswith(unit)), "")
    try:
        return int(float(cleaned.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError("llm.bad_size", value=text) from None
