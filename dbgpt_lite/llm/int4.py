"""Weights packed by rows, as the ChatGLM checkpoints hold them: small signed integers and one scale a row.

int4 (``quantization_bit`` 4): an int8 (rows, columns/2); the high four bits hold the even column, the low four the odd
one. row8 (``quantization_bit`` 8): an int8 (rows, columns). In both value = number x scale, the scale in float16
(quantization.py of THUDM/chatglm2-6b). They stay packed in memory; this is the plain PyTorch path.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Bits = Literal[4, 8]
# Values unpacked at once: 32 MiB in 16 bits on a GPU; on a CPU, what its caches hold.
_GPU_VALUES, _CPU_VALUES = 2**24, 2**20


def unpack_int4(packed: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 (rows, columns/2) and a scale (rows,) -> (rows, columns) of `dtype`."""
    rows, halves = packed.shape
    numbers = torch.empty(rows, halves, 2, dtype=_exact(dtype), device=packed.device)
    numbers[..., 0] = packed >> 4
    numbers[..., 1] = (packed << 4) >> 4
    return _scaled(numbers.flatten(1), scale, dtype)


def unpack_row8(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """int8 (rows, columns) and a scale (rows,) -> (rows, columns) of `dtype`."""
    return _scaled(stored.to(_exact(dtype), copy=True), scale, dtype)


def unpack(packed: Tensor, scale: Tensor, bits: Bits, dtype: torch.dtype) -> Tensor:
    """Whole weights of either packing."""
    return (unpack_int4 if bits == 4 else unpack_row8)(packed, scale, dtype)


def pack_int4(numbers: Tensor) -> Tensor:
    """Integers -8..7 (rows, columns), columns even -> int8 (rows, columns/2)."""
    numbers = numbers.to(torch.int8)
    return (numbers[:, ::2] << 4) | (numbers[:, 1::2] & 15)


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) -> packed int8 (rows, columns/2) and a float16 scale (rows,), symmetric: 7 steps to each side.

    A value is off by half a scale at most, the scale being the row's largest magnitude / 7.
    """
    values = weight.float()
    scale = (values.abs().amax(dim=1) / 7).to(torch.float16)
    # A row of zeros has no scale to divide by.
    steps = values / scale.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return pack_int4(steps.round_().clamp_(-7, 7)), scale


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Where the product is taken: bfloat16 would round the scale before it multiplies."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _scaled(numbers: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return numbers.mul_(scale.to(numbers.dtype)[:, None]).to(dtype)


class PackedLinear(nn.Linear):
    """A linear layer whose weight stays packed; it is made without memory, for a Filler to fill.

    Weight and scale are parameters so that offloading, which moves parameters, moves them too.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, bits: Bits) -> None:
        super().__init__(in_features, out_features, bias, device="meta")
        self.bits = bits
        packed = torch.empty(out_features, in_features * bits // 8, dtype=torch.int8, device="meta")
        self.weight = nn.Parameter(packed, requires_grad=False)
        scale = torch.empty(out_features, dtype=torch.float16, device="meta")
        self.weight_scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features) in the type of `x`, some rows of the weight at a time."""
        at_once = max(1, (_CPU_VALUES if x.device.type == "cpu" else _GPU_VALUES) // self.in_features)
        out = x.new_empty((*x.shape[:-1], self.out_features))
        for start in range(0, self.out_features, at_once):
            rows = slice(start, start + at_once)
            weight = unpack(self.weight[rows], self.weight_scale[rows], self.bits, x.dtype)
            bias = None if self.bias is None else self.bias[rows].to(x.dtype)
            out[..., rows] = nn.functional.linear(x, weight, bias)
        return out
