"""The kernels of decode.cu; on a CPU, what they compute in plain PyTorch (reference.py)."""

from dataclasses import dataclass
from functools import cache
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor

from dbgpt_lite.llm.kernels import reference
from dbgpt_lite.llm.kernels.nvrtc import Kernel, Program, compiled, source
from dbgpt_lite.llm.parts import Norm, Parts
from dbgpt_lite.llm.step_shape import SPLITS, room_shape, together

_WIDEST_NORM = 32_768
_OLDEST = (8, 0)  # compute capability, of Ampere: the first with matrix products in bfloat16


@dataclass(frozen=True, slots=True)
class Heads:
    """Facts of attention: `table` (window, pairs, 2) of cosine and sine."""

    table: Tensor
    interleaved: bool
    heads: int
    kv_heads: int
    dim: int
    scaling: float

    @property
    def share(self) -> int:
        """Query heads for each head of keys."""
        return self.heads // self.kv_heads

    @property
    def together(self) -> int:
        """Of these, how many a block takes: they read the same keys."""
        return together(self.share, self.dim)


class Room(NamedTuple):
    """What `attend` joins its parts in: sums (rows, heads, splits, dim + 2), counters, and tokens a split."""

    parts: Tensor
    counters: Tensor
    split: int


def heads_of(parts: Parts, window: int) -> Heads:
    """The heads of a model and its rotary table for `window` tokens."""
    angles = torch.arange(window, device=parts.device).float()[:, None] * parts.rotary.frequencies.to(parts.device)
    table = torch.stack((angles.cos(), angles.sin()), dim=-1) * parts.rotary.scale
    return Heads(
        table.contiguous(), parts.rotary.interleaved, parts.heads, parts.kv_heads, parts.head_dim, parts.scaling
    )


def fits(parts: Parts) -> bool:
    """Whether the kernels are made for a model of this shape."""
    lanes = parts.head_dim // 8
    whole = parts.head_dim % 8 == 0 and lanes in (1, 2, 4, 8, 16, 32) and parts.hidden % 8 == 0
    new = torch.cuda.get_device_capability(parts.device) >= _OLDEST
    return whole and parts.hidden <= _WIDEST_NORM and new and parts.dtype in (torch.float16, torch.bfloat16)


def prepare(parts: Parts) -> None:
    """Compile something that every model needs. Raises CudaError and OSError."""
    _kernel("rotate_and_store", parts.head_dim, parts.dtype == torch.float16, parts.device.index or 0)


def normalize(x: Tensor, norm: Norm, out: Tensor) -> Tensor:
    """x (rows, width) normalized into `out`."""
    if not x.is_cuda:
        return out.copy_(reference.normalize(x, norm))
    kernel = _kernel("rms_norm", 128, x.dtype == torch.float16, x.device.index)
    kernel((len(x), 1, 1), 1024, 0, x, norm.weight, out, x.shape[1], norm.eps)
    return out


def gated(x: Tensor) -> Tensor:
    """silu(gates) * others of x (rows, 2 * width), gates first: (rows, width)."""
    if not x.is_cuda:
        return reference.gated(x)
    rows, width = x.shape[0], x.shape[1] // 2
    out = x.new_empty(rows, width)
    kernel = _kernel("gate", 128, x.dtype == torch.float16, x.device.index)
    kernel((rows, ceil(width / (8 * 256)), 1), 256, 0, x, out, width)
    return out


def attend(
    qkv: Tensor,
    heads: Heads,
    norms: tuple[Norm | None, Norm | None],
    lengths: Tensor,
    slots: Tensor,
    cache: tuple[Tensor, Tensor],
    room: Room,
    out: Tensor,
    *,
    stored: bool = False,
) -> Tensor:
    """Attention of one new token a row, whose keys and values are stored: `out` (rows, heads * dim).

    qkv (rows, (heads + 2 * kv_heads) * dim); lengths, slots: (rows,) int32; cache: keys and values (slots, kv_heads,
    window, dim); room: see `room_for`. `stored`: `store` has stored them, as it must where rows are of one slot.
    """
    if not qkv.is_cuda:
        reference.attend(qkv, heads, norms, lengths, slots, cache, out)
        return out
    parts, counters, split = room
    half, device = qkv.dtype == torch.float16, qkv.device.index
    kernel = _kernel("attend", heads.dim, half, device, heads.together, split, stored)
    kernel(
        (parts.shape[2], heads.heads // heads.together, len(qkv)), 256, 0, qkv, heads.table, heads.table.shape[1],
        int(heads.interleaved), *_weights(norms), heads.scaling, lengths, slots, *cache, heads.share,
        cache[0].shape[2], out, parts, counters,
    )  # fmt: skip
    return out


def store(
    qkv: Tensor, heads: Heads, k_norm: Norm | None, lengths: Tensor, slots: Tensor, cache: tuple[Tensor, Tensor]
) -> None:
    """The keys and values of one new token a row into the caches. Arguments as for `attend`."""
    if not qkv.is_cuda:
        return  # reference.attend goes row by row, and rows of one slot come in their order
    kernel = _kernel("store", heads.dim, qkv.dtype == torch.float16, qkv.device.index)
    weight, eps = (k_norm.weight, k_norm.eps) if k_norm else (None, 0.0)
    kernel(
        ((2 * heads.kv_heads + 3) // 4, len(qkv), 1), 128, 0, qkv, heads.table, heads.table.shape[1],
        int(heads.interleaved), weight, eps, lengths, slots, *cache, heads.heads, heads.kv_heads, cache[0].shape[2],
    )  # fmt: skip


def room_for(rows: int, heads: Heads, longest: int, parts: Tensor, counters: Tensor) -> Room:
    """Room in which `attend` joins its parts, for conversations of up to `longest` tokens, the new one counted.

    It lies in `parts` (float32, see step_shape.join_size) and `counters` (int32 zeros, a number for each row and head
    or more), in which other rooms may lie that are not used at the same time.
    """
    groups = heads.heads // heads.together
    shape, split = room_shape(rows, heads.heads, groups, heads.dim, longest)
    return Room(parts[: prod(shape)].view(shape), counters[: rows * groups].view(rows, groups), split)


def rotate_and_store(
    qkv: Tensor,
    heads: Heads,
    norms: tuple[Norm | None, Norm | None],
    places: Tensor,
    slots: Tensor,
    cache: tuple[Tensor, Tensor],
    out: Tensor,
) -> None:
    """Queries, rotated, of pieces of prompts into `out` (rows, heads, dim), keys and values into the caches.

    places, slots: (rows,) int32, where each row stands in its conversation, and which that is (negative: none, nothing
    is stored); qkv and cache as for `attend`.
    """
    if not qkv.is_cuda:
        out.copy_(reference.rotate_and_store(qkv, heads, norms, places, slots, cache))
        return
    kernel = _kernel("rotate_and_store", heads.dim, qkv.dtype == torch.float16, qkv.device.index)
    all_heads = heads.heads + 2 * heads.kv_heads
    kernel(
        ((all_heads + 3) // 4, len(qkv), 1), 128, 0, qkv, heads.table, heads.table.shape[1], int(heads.interleaved),
        *_weights(norms), places, slots, out, *cache, heads.heads, heads.kv_heads, cache[0].shape[2],
    )  # fmt: skip


def _weights(norms: tuple[Norm | None, Norm | None]) -> tuple[Tensor | None, Tensor | None, float]:
    one = norms[0] or norms[1]
    first, second = (norm.weight if norm else None for norm in norms)
    return first, second, one.eps if one else 0.0


def programs(dim: int, share: int, half: bool) -> list[Program]:
    """What there is to compile for a model with heads of `dim`, of which `share` read the same keys."""
    heads = together(share, dim)
    attending = [("attend", _defines(dim, half, heads, split, stored)) for stored in (False, True) for split in SPLITS]
    others = [("rotate_and_store", _defines(dim, half)), ("store", _defines(dim, half))]
    others += [(name, _defines(128, half)) for name in ("rms_norm", "gate")]
    return [Program(source("decode.cu"), name, tuple(defines.items())) for name, defines in (*others, *attending)]


def _defines(dim: int, half: bool, heads: int = 1, split: int = 64, stored: bool = False) -> dict[str, int]:
    return {"DIM": dim, "HALF": int(half), "HEADS": heads, "SPLIT": split, "STORED": int(stored)}


@cache
def _kernel(
    name: str, dim: int, half: bool, device: int, heads: int = 1, split: int = 64, stored: bool = False
) -> Kernel:
    defines = _defines(dim, half, heads, split, stored)
    with torch.cuda.device(device):
        return compiled(source("decode.cu"), name, defines, overlap=name in ("rms_norm", "attend", "store"))
