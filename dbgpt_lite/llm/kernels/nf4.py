"""Matrix products with weights of 4 bits in the order that nf4.cu reads them.

bitsandbytes keeps an NF4 matrix (rows, columns) as two values a byte, the first in the upper half, one 8-bit scale for
64 values, and those scales quantized again (https://github.com/bitsandbytes-foundation/bitsandbytes). Here the bytes
are the same in another order; the scales are float16 relative to the largest of each original matrix. Rows packed as
ChatGLM's checkpoints pack them (int4.py) are the same with whole numbers for values and one scale a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from dbgpt_lite.llm.int4 import PackedLinear
from dbgpt_lite.llm.kernels.nvrtc import Kernel, Program, compiled, source
from dbgpt_lite.llm.kernels.reference import gated

ROWS, BLOCK = 16, 64  # a tile
MOST_ROWS = 64  # input rows of one product; more are cheaper as plain products with widened weights
_TABLE_BYTES = 32 * 1024
# The 16 values are rounded to bfloat16. Times this they lose least: 0.06 % of their square sum's root instead of 0.11.
_SCALED = 1.437
_WARPS = 8
# Groups of warps a multiprocessor, by tiles of eight input rows: as many as their registers leave room for.
_GROUPS = {
    (1, False): 4,
    (1, True): 3,
    (2, False): 2,
    (2, True): 2,
    (4, False): 2,
    (4, True): 2,
    (8, False): 1,
    (8, True): 1,
}
_WIDE = (1, 2, 4, 8)  # tiles of eight input rows that there are kernels for
_AHEAD = {1: 2, 2: 2, 4: 1, 8: 2}  # turns that are loaded before they are used


@dataclass(frozen=True, slots=True)
class Tiled4Bit:
    """A weight of (rows, columns), or several with their rows one below the other.

    weights: (rows / 16, blocks, 32, 16) bytes; scales: (rows / 16, blocks, 8, 2) float16, times `factor` (rows / 16,);
    code: the 16 values, float32. blocks: of 64 columns, filled up to a multiple of 8 with scales of zero.
    """

    weights: Tensor
    scales: Tensor
    factor: Tensor
    code: Tensor
    columns: int

    @property
    def rows(self) -> int:
        """Output features."""
        return self.weights.shape[0] * ROWS

    def tiles(self, start: int, end: int) -> "Tiled4Bit":
        """The row tiles from `start` to `end`."""
        return Tiled4Bit(
            self.weights[start:end], self.scales[start:end], self.factor[start:end], self.code, self.columns
        )


def fits(layers: Sequence[Any]) -> bool:
    """Whether these layers are all bitsandbytes' NF4 with blocks of 64, or all packed int4, of whole tiles, and with
    scales that float16 can tell."""
    kinds = {_kind(layer) for layer in layers}
    return len(kinds) == 1 and None not in kinds


def _kind(layer: Any) -> str | None:
    if isinstance(layer, PackedLinear):
        rows, columns = layer.out_features, layer.in_features
        kind = "int4" if layer.bits == 4 and _keeps_scales(layer) else None
    elif (state := getattr(layer.weight, "quant_state", None)) is not None and state.blocksize == BLOCK:
        kind, (rows, columns) = state.quant_type, state.shape
    else:
        return None
    return kind if kind in ("nf4", "int4") and rows % ROWS == 0 and columns % BLOCK == 0 else None


def tiled(layers: Sequence[Any]) -> Tiled4Bit:
    """The weights of layers that `fits` accepts, put one below the other."""
    parts = [_packed_rows(layer) if isinstance(layer, PackedLinear) else _nf4(layer.weight) for layer in layers]
    return replace(
        parts[0],
        weights=torch.cat([part.weights for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
        factor=torch.cat([part.factor for part in parts]),
    )


def _nf4(weight: Any) -> Tiled4Bit:
    state = weight.quant_state
    rows, columns = state.shape
    scales = true_scales(state).view(rows, columns // BLOCK)
    largest = scales.abs().max().clamp_min(1e-30)
    return _tiled(weight.data, scales / largest, largest / _SCALED, state.code.float() * _SCALED)


def _packed_rows(layer: PackedLinear) -> Tiled4Bit:
    scales, largest = _row_scales(layer)
    values = torch.tensor([*range(8), *range(-8, 0)], dtype=torch.float32, device=scales.device)
    scales = scales[:, None].expand(layer.out_features, layer.in_features // BLOCK)
    return _tiled(layer.weight.data, scales, largest, values)


def _row_scales(layer: PackedLinear) -> tuple[Tensor, Tensor]:
    """Scales (rows,) below 1, float16, and the power of two that they are relative to.

    Scales that were float16 stay the very same numbers, but for one too small beside a largest of 1 or more.
    """
    scales = layer.weight_scale.float()
    _, exponent = torch.frexp(scales.abs().max())
    largest = torch.ldexp(torch.ones_like(scales[0]), exponent)
    return (scales / largest).half(), largest


def _keeps_scales(layer: PackedLinear) -> bool:
    """Whether float16 tells every scale, relative to the layer's largest."""
    scales, largest = _row_scales(layer)
    return torch.allclose(scales.float() * largest, layer.weight_scale.float(), rtol=2**-11, atol=0)


def _tiled(packed: Tensor, scales: Tensor, factor: Tensor, code: Tensor) -> Tiled4Bit:
    """Of bytes (rows, columns / 2) in any shape and scales (rows, columns / 64), which `factor` multiplies."""
    tiles, blocks = len(scales) // ROWS, scales.shape[1]
    packed = packed.view(torch.uint8).reshape(tiles, 2, 8, blocks, 2, 4, 4).permute(0, 3, 2, 5, 1, 4, 6)
    scales = scales.reshape(tiles, 2, 8, blocks).permute(0, 3, 2, 1)
    beyond = -blocks % _WARPS
    return Tiled4Bit(
        pad(packed.reshape(tiles, blocks, 32, 16), (0, 0, 0, 0, 0, beyond)).contiguous(),
        pad(scales.half(), (0, 0, 0, 0, 0, beyond)).contiguous(),
        factor.expand(tiles).float().contiguous(),
        code,
        blocks * BLOCK,
    )


def true_scales(state: Any) -> Tensor:
    """A scale (float32) for every 64 values, from the scales of the scales."""
    if not state.nested:
        return state.absmax.float()  # type: ignore[no-any-return]
    inner = state.state2
    wide = inner.code[state.absmax.long()]
    outer = inner.absmax.repeat_interleave(inner.blocksize)[: wide.numel()]
    return wide * outer + state.offset  # type: ignore[no-any-return]


def reference(weight: Tiled4Bit) -> Tensor:
    """The weight as numbers (rows, columns), float64: what the kernels are compared with."""
    tiles, blocks = weight.weights.shape[:2]
    packed = weight.weights.view(tiles, blocks, 8, 4, 2, 2, 4).permute(0, 4, 2, 1, 5, 3, 6)
    indices = torch.stack((packed >> 4, packed & 15), dim=-1).reshape(tiles * ROWS, blocks, BLOCK).long()
    scales = weight.scales.double().permute(0, 3, 2, 1).reshape(tiles * ROWS, blocks)
    scales = scales * weight.factor.double().repeat_interleave(ROWS)[:, None]
    wide = (weight.code.double()[indices] * scales[:, :, None]).reshape(tiles * ROWS, blocks * BLOCK)
    return wide[:, : weight.columns]


def matmul(
    x: Tensor,
    weight: Tiled4Bit,
    *,
    pair: bool = False,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """x (m, columns) times the weight's transpose: (m, rows), for m up to 64, plus `bias` (rows), `residual` (m, rows).

    `pair`: the upper half of the weight's rows are gates, the lower half what they gate; silu(gate) * other is
    (m, rows / 2). x: contiguous float16 or bfloat16.
    """
    rows = weight.rows // 2 if pair else weight.rows
    if not x.is_cuda:
        return _plain(x, weight, pair, bias, residual, out)
    out = x.new_empty(len(x), rows) if out is None else out
    wide = next(size for size in _WIDE if size * 8 >= len(x))
    at_once = 2 if pair or (wide > 1 and len(weight.weights) % 2 == 0) else 1
    kernel, threads, shared = _matmul_kernel(wide, at_once, pair, x.dtype == torch.float16, x.device.index)
    kernel(
        (_processors(x.device.index), 1, 1), threads, shared, weight.weights, weight.scales, weight.factor, weight.code,
        x, bias, residual, out, rows, weight.columns, weight.weights.shape[1] // _WARPS, len(x),
    )  # fmt: skip
    return out


def _plain(
    x: Tensor, weight: Tiled4Bit, pair: bool, bias: Tensor | None, residual: Tensor | None, out: Tensor | None
) -> Tensor:
    """The same in plain PyTorch."""
    found = linear(x, reference(weight).to(x.dtype), bias)
    found = gated(found) if pair else found
    found = found if residual is None else residual + found
    return found if out is None else out.copy_(found)


def widen(weight: Tiled4Bit, out: Tensor, stream: int | None = None) -> Tensor:
    """The weight as numbers into `out` (at least rows, columns), float16 or bfloat16; returns the part written.

    `stream`: CUDA's handle of the stream to do it on, the current one's when it is not given.
    """
    if not out.is_cuda:
        out[: weight.rows] = reference(weight)
        return out[: weight.rows]
    kernel = _widen_kernel(out.dtype == torch.float16, out.device.index)
    tiles, blocks = weight.weights.shape[:2]
    arguments = (weight.weights, weight.scales, weight.factor, weight.code, out, tiles, weight.columns, blocks)
    kernel((8 * _processors(out.device.index), 1, 1), 256, 0, *arguments, stream=stream)
    return out[: weight.rows]


@cache
def _source() -> str:
    return source("nf4.cu")


@cache
def _processors(device: int) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def programs(rows: int, half: bool, device: int) -> list[Program]:
    """What there is to compile for products of up to `rows` rows and for widening."""
    found = [Program(_source(), "nf4_widen", tuple(_widen_defines(half).items()))]
    for wide in (size for size in _WIDE if size // 2 * 8 < rows):
        for pair in (False, True):
            defines, _ = _matmul_defines(wide, 2 if pair or wide > 1 else 1, pair, half, device)
            found.append(Program(_source(), "nf4_matmul", tuple(defines.items())))
    return found


def _matmul_defines(wide: int, at_once: int, pair: bool, half: bool, device: int) -> tuple[dict[str, int], int]:
    """With the number of groups of warps."""
    limit = shared_limit(device)
    groups = next(count for count in range(_GROUPS[wide, pair], 0, -1) if _shared(wide, at_once, count) <= limit)
    defines = {"NT": wide, "MT": at_once, "PAIR": int(pair), "HALF": int(half), "GROUPS": groups, "AHEAD": _AHEAD[wide]}
    return defines, groups


@cache
def _matmul_kernel(wide: int, at_once: int, pair: bool, half: bool, device: int) -> tuple[Kernel, int, int]:
    """The kernel, its threads and its shared memory."""
    defines, groups = _matmul_defines(wide, at_once, pair, half, device)
    with torch.cuda.device(device):
        kernel = compiled(_source(), "nf4_matmul", defines, overlap=True)
    return kernel, groups * _WARPS * 32, _shared(wide, at_once, groups)


def _shared(wide: int, at_once: int, groups: int) -> int:
    """Bytes of shared memory: the table with room to align it, sums of every warp, parts of tiles that groups share."""
    return 2 * _TABLE_BYTES + 4 * (groups * _WARPS + (groups - 1) * groups) * at_once * wide * 128


def shared_limit(device: int) -> int:
    """Bytes of shared memory that a block may have."""
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)  # type: ignore[attr-defined]


def most_rows(limit: int) -> int:
    """The most input rows of one product where a block may have `limit` bytes of shared memory."""
    return max((8 * wide for wide in _WIDE if _shared(wide, 2, 1) <= limit), default=0)


def _widen_defines(half: bool) -> dict[str, int]:
    return {"NT": 1, "MT": 1, "PAIR": 0, "HALF": int(half), "GROUPS": 4, "AHEAD": 2}


@cache
def _widen_kernel(half: bool, device: int) -> Kernel:
    with torch.cuda.device(device):
        return compiled(_source(), "nf4_widen", _widen_defines(half))
