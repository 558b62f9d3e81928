"""Matrix products of a decoder on a CPU: linear layers that read the same input, joined into one.

Plain layers are joined by rows in one tensor of which they keep views, so nothing is held twice. Layers packed by
rows (int4) get a copy in the layout of torch's own 4-bit product, which takes a tenth of the time of unpacking them;
where that does not fit, and for layers quantized in any other way, the layers are called as they are.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dbgpt_lite.llm.int4 import PackedLinear

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


def joined(layers: Sequence[nn.Module], room: int) -> Product:
    """One product that gives these layers' outputs side by side.

    `room`: bytes that a copy of packed weights may take.
    """
    alike = len({(type(layer), getattr(layer, "bias", None) is None) for layer in layers}) == 1
    if alike and type(layers[0]) is nn.Linear and Dense.takes(layers):
        return Dense(layers)
    if alike and type(layers[0]) is PackedLinear and FourBit.takes(layers, room):
        return FourBit(layers)
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
    """Plain layers in one tensor, of which they keep views."""

    @staticmethod
    def takes(layers: Sequence[Any]) -> bool:
        """Whether they are of one type of number."""
        return len({layer.weight.dtype for layer in layers}) == 1

    def __init__(self, layers: Sequence[Any]) -> None:
        self._weight = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
        self._bias = _biases(layers)
        if len(layers) > 1:
            parts = self._weight.split([len(layer.weight) for layer in layers])
            for layer, part in zip(layers, parts, strict=True):
                layer.weight.data = part

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        return nn.functional.linear(x, self._weight, self._bias)

    def copies(self) -> tuple[Tensor, ...]:
        """None: the layers' weights are views of the joined one."""
        return ()


class FourBit(Called):
    """Layers packed by rows: torch's 4-bit product for a few rows in bfloat16, else the layers themselves.

    Rounding a row's scale to bfloat16, as that product wants it, errs like rounding its output once more.
    """

    @staticmethod
    def takes(layers: Sequence[Any], room: int) -> bool:
        """Whether torch has a product for layers of these sizes and there is room for a copy of them."""
        rows, size = sum(layer.out_features for layer in layers), sum(layer.weight.nbytes for layer in layers)
        whole = rows % _PACKED_ROWS == 0 and layers[0].in_features % _GROUPS[-1] == 0
        known = hasattr(torch, "_weight_int4pack_mm_for_cpu") and all(layer.bits == 4 for layer in layers)
        return known and whole and size <= room

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        numbers = torch.cat([_numbers(layer.weight) for layer in layers])
        rows, columns = numbers.shape
        self._group = next(size for size in _GROUPS if columns % size == 0)
        self._packed = torch._convert_weight_to_int4pack_for_cpu(numbers, 1)
        scale = torch.cat([layer.weight_scale.to(torch.bfloat16) for layer in layers])
        pairs = torch.stack((scale, torch.zeros_like(scale)), dim=-1)
        self._scales = pairs.expand(columns // self._group, rows, 2).contiguous()
        self._bias = _biases(layers)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out)."""
        if x.shape[0] > _FEW_ROWS or x.dtype != torch.bfloat16:
            return super().__call__(x)
        y = torch._weight_int4pack_mm_for_cpu(x, self._packed, self._group, self._scales)
        return y if self._bias is None else y.add_(self._bias)

    def copies(self) -> tuple[Tensor, ...]:
        """The packed numbers and the scales."""
        return self._packed, self._scales


def _numbers(packed: Tensor) -> Tensor:
    """Packed int4 (rows, columns/2) -> its numbers -8..7 as 0..15 (rows, columns), int32."""
    return torch.stack((packed >> 4, (packed << 4) >> 4), dim=-1).flatten(1).int() + 8


def _biases(layers: Sequence[Any]) -> Tensor | None:
    """The biases side by side; None when there are none."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return torch.cat(biases) if biases else None
