"""Matrix products of a decoder on a CPU: linear layers that read the same input, joined into one.

Plain layers are joined by rows in one tensor of which they keep views, so nothing is held twice. Layers packed by
rows (int4) get a copy that is quick to multiply with where memory allows it: in bfloat16 in the layout of torch's own
4-bit product, which takes a tenth of the time of unpacking them, else unpacked. All others are called as they are.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dbgpt_lite.llm.int4 import PackedLinear, unpack

# Torch's 4-bit product does one row after the other; for more rows unpacking for a real matrix product is quicker.
_FEW_ROWS = 16
# Columns that share a scale in torch's 4-bit product, largest first, and how many rows it packs together.
_GROUPS = (256, 128, 64, 32)
_PACKED_ROWS = 16


class Product(Protocol):
    """Some layers' outputs side by side."""

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        ...

    def copies(self) -> tuple[Tensor, ...]:
        """What is held beside the layers' own weights."""
        ...


class Room:
    """Memory for a tensor that is needed for a moment, again and again."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.held = torch.empty(0, dtype=dtype)

    def of(self, shape: Sequence[int]) -> Tensor:
        """A tensor of this shape, not cleared; valid until the next call."""
        size = prod(shape)
        if self.held.numel() < size:
            self.held = self.held.new_empty(size + size // 4)
        return self.held[:size].view(shape)


def copied_bytes(layers: Sequence[nn.Module], dtype: torch.dtype) -> int:
    """What `joined` takes for a copy of these layers."""
    numbers = sum(layer.in_features * layer.out_features for layer in layers if isinstance(layer, PackedLinear))
    return numbers // 2 if dtype == torch.bfloat16 else numbers * dtype.itemsize


def joined(layers: Sequence[Any], dtype: torch.dtype, room: Room, copy: bool) -> Product:
    """One product that gives the outputs of these layers side by side, computed in `dtype`.

    `copy`: packed weights may be copied. `room`, of the same type, is used while a product is taken.
    """
    alike = len({(type(layer), getattr(layer, "bias", None) is None) for layer in layers}) == 1
    if alike and type(layers[0]) is nn.Linear and len({layer.weight.dtype for layer in layers}) == 1:
        return Dense.of(layers)
    if alike and copy and type(layers[0]) is PackedLinear:
        if dtype != torch.bfloat16:
            return Dense.unpacked(layers, dtype)
        if FourBit.takes(layers):
            return FourBit(layers, room)
    return Called(layers)


class Called:
    """Layers called as they are, one after the other."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._layers = layers

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        outputs = [layer(x) for layer in self._layers]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def copies(self) -> tuple[Tensor, ...]:
        """None."""
        return ()


class Dense:
    """One weight (out, in), its bias, and which tensors nobody else holds."""

    def __init__(self, weight: Tensor, bias: Tensor | None, own: tuple[Tensor, ...]) -> None:
        self._weight, self._bias, self._own = weight, bias, own

    @classmethod
    def of(cls, layers: Sequence[Any]) -> "Dense":
        """Plain layers, which keep views of the joined weight."""
        if len(layers) == 1:
            return cls(layers[0].weight, layers[0].bias, ())
        weight, bias = torch.cat([layer.weight for layer in layers]), _biases(layers)
        parts = torch.split_with_sizes(weight, [layer.out_features for layer in layers])
        for layer, part in zip(layers, parts, strict=True):
            layer.weight.data = part
        return cls(weight, bias, () if bias is None else (bias,))

    @classmethod
    def unpacked(cls, layers: Sequence[Any], dtype: torch.dtype) -> "Dense":
        """Packed layers, unpacked once."""
        weight = torch.cat([unpack(layer.weight, layer.weight_scale, layer.bits, dtype) for layer in layers])
        bias = _biases(layers)
        return cls(weight, None if bias is None else bias.to(dtype), (weight,))

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        return nn.functional.linear(x, self._weight, self._bias)

    def copies(self) -> tuple[Tensor, ...]:
        """Unpacked weights, joined biases."""
        return self._own


class FourBit:
    """Layers packed by rows, in bfloat16: torch's 4-bit product for a few rows, an ordinary one for more.

    Rounding a row's scale to bfloat16, as the 4-bit product wants it, errs like rounding its output once more.
    """

    @staticmethod
    def takes(layers: Sequence[Any]) -> bool:
        """Whether torch has a product for layers of these sizes."""
        rows = sum(layer.out_features for layer in layers)
        known = hasattr(torch, "_weight_int4pack_mm_for_cpu") and all(layer.bits == 4 for layer in layers)
        return known and rows % _PACKED_ROWS == 0 and layers[0].in_features % _GROUPS[-1] == 0

    def __init__(self, layers: Sequence[Any], room: Room) -> None:
        self._layers = layers
        self._room = room
        numbers = torch.cat([_numbers(layer.weight) for layer in layers])
        self._shape = numbers.shape
        rows, columns = self._shape
        self._group = next(size for size in _GROUPS if columns % size == 0)
        self._packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
        self._scale = torch.cat([layer.weight_scale.to(torch.bfloat16) for layer in layers])
        pairs = torch.stack((self._scale, torch.zeros_like(self._scale)), dim=-1)
        self._scales = pairs.expand(columns // self._group, rows, 2).contiguous()
        self._bias = _biases(layers)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        if x.shape[0] > _FEW_ROWS:
            y = self._many(x)
        else:
            y = torch._weight_int4pack_mm_for_cpu(x, self._packed, self._group, self._scales)
        return y if self._bias is None else y.add_(self._bias)

    def copies(self) -> tuple[Tensor, ...]:
        """The packed numbers and the scales."""
        return self._packed, self._scales, self._scale

    def _many(self, x: Tensor) -> Tensor:
        """With the numbers unpacked, which bfloat16 holds exactly: even columns first, as they lie in the high bits."""
        numbers, start, half = self._room.of(self._shape), 0, self._shape[1] // 2
        for layer in self._layers:
            rows = numbers[start : start + layer.out_features]
            rows[:, :half].copy_(layer.weight >> 4)
            rows[:, half:].copy_((layer.weight << 4) >> 4)
            start += layer.out_features
        swapped = torch.cat((x[:, ::2], x[:, 1::2]), dim=1)
        return nn.functional.linear(swapped, numbers).mul_(self._scale)


def _numbers(packed: Tensor) -> Tensor:
    """Packed int4 (rows, columns/2) -> its numbers -8..7 as 0..15 (rows, columns), int32."""
    return torch.stack((packed >> 4, (packed << 4) >> 4), dim=-1).flatten(1).int() + 8


def _biases(layers: Sequence[Any]) -> Tensor | None:
    """The biases side by side; None when there are none."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return torch.cat(biases) if biases else None
