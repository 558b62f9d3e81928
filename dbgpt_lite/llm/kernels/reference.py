"""What the kernels of decode.cu compute, in plain PyTorch: what they are compared with, and what runs on a CPU."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from dbgpt_lite.llm.parts import Norm

if TYPE_CHECKING:
    from dbgpt_lite.llm.kernels.decode import Heads

Norms = tuple[Norm | None, Norm | None]


def normalize(x: Tensor, norm: Norm) -> Tensor:
    """x (..., width) / sqrt(mean(x^2) + eps) * weight, the mean in float32."""
    wide = x.float()
    return norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).to(x.dtype)


def gated(x: Tensor) -> Tensor:
    """silu(gates) * others of x (rows, 2 * width), gates first."""
    gates, others = x.chunk(2, dim=-1)
    return silu(gates) * others


def rotate(states: Tensor, heads: "Heads", norm: Norm | None, places: Tensor) -> Tensor:
    """states (rows, heads, dim) normalized where there is a norm, and turned by the angles of `places` (rows,)."""
    normed = normalize(states, norm) if norm else states
    cos, sin = heads.table[places.long()].unbind(-1)
    size = 2 * cos.shape[-1]
    first, rest = normed[..., :size].float(), normed[..., size:]
    one, other = (first[..., 0::2], first[..., 1::2]) if heads.interleaved else first.chunk(2, dim=-1)
    turned = one * cos[:, None] - other * sin[:, None], other * cos[:, None] + one * sin[:, None]
    joined = torch.stack(turned, dim=-1).flatten(-2) if heads.interleaved else torch.cat(turned, dim=-1)
    return torch.cat((joined.to(states.dtype), rest), dim=-1)


def split(qkv: Tensor, heads: "Heads", norms: Norms, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned, and values (rows, heads, dim each) of qkv (rows, all heads * dim)."""
    parts = qkv.view(len(qkv), -1, heads.dim)
    queries, keys, values = parts.tensor_split((heads.heads, heads.heads + heads.kv_heads), dim=1)
    return rotate(queries, heads, norms[0], places), rotate(keys, heads, norms[1], places), values


def rotate_and_store(
    qkv: Tensor, heads: "Heads", norms: Norms, places: Tensor, slots: Tensor, cache: tuple[Tensor, Tensor]
) -> Tensor:
    """See decode.rotate_and_store."""
    queries, *new = split(qkv, heads, norms, places)
    there = slots >= 0
    for states, one in zip(cache, new, strict=True):
        states[slots[there].long(), :, places[there].long()] = one[there]
    return queries


def attend(
    qkv: Tensor, heads: "Heads", norms: Norms, lengths: Tensor, slots: Tensor, cache: tuple[Tensor, Tensor], out: Tensor
) -> None:
    """See decode.attend. Rows without a slot (negative) are left as they are."""
    queries, new_keys, new_values = split(qkv, heads, norms, lengths)
    for row, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=True)):
        if slot < 0:
            continue
        keys, values = cache[0][slot], cache[1][slot]
        keys[:, length], values[:, length] = new_keys[row], new_values[row]
        found = scaled_dot_product_attention(
            queries[row][None, :, None], keys[None, :, : length + 1], values[None, :, : length + 1],
            scale=heads.scaling, enable_gqa=True,
        )  # fmt: skip
        out[row] = found.flatten()
