"""Linear layers side by side as one product, in 4 bits by kernels of our own or in plain numbers."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from dbgpt_lite.llm.kernels import decode, nf4


class Product(Protocol):
    """x times the weights of several layers, whose outputs lie side by side."""

    def few(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """For some rows of input, without a host synchronization, so that it can be captured. Adds to `residual`, where
        there is one."""
        ...

    def many(self, x: Tensor, wide: Tensor, residual: Tensor | None = None) -> Tensor:
        """For a piece of a prompt, with the weights as numbers: see `wide`. Residual as for `few`."""
        ...

    @property
    def widened(self) -> int:
        """How many numbers of room `wide` needs."""
        ...

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it holds."""
        ...

    def wide(self, room: Tensor | None, stream: int | None = None) -> Tensor:
        """The weights as numbers (rows, columns), where they are not kept so already in `room`, made on a `stream`."""
        ...

    def keep_wide(self, dtype: torch.dtype) -> None:
        """Keep the weights as numbers too."""
        ...


class PlainProduct:
    """Weights as numbers."""

    widened = 0

    def __init__(self, layers: Sequence[nn.Linear], gated: bool = False) -> None:
        """Takes the layers' weights over: they become views of one tensor."""
        self._gated = gated
        # A copy even of one: what a layer's weights took becomes free as one piece, which the next layer's fit into.
        self._weight = torch.cat([layer.weight.data for layer in layers])
        start = 0
        for layer in layers:
            layer.weight.data = self._weight[start : start + layer.out_features]
            start += layer.out_features
        self._bias = _bias(layers)

    def few(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See Product."""
        out = linear(x, self._weight, self._bias)
        if self._gated:
            gate, up = out.chunk(2, dim=-1)
            out = silu(gate) * up
        return out if residual is None else residual.add_(out)

    def many(self, x: Tensor, wide: Tensor, residual: Tensor | None = None) -> Tensor:
        """See Product."""
        return _many(x, wide, self._bias, residual, self._gated)

    def wide(self, room: Tensor | None, stream: int | None = None) -> Tensor:
        """See Product."""
        return self._weight

    def keep_wide(self, dtype: torch.dtype) -> None:
        """They are."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See Product."""
        return (self._weight,)


class FourBitProduct:
    """bitsandbytes' NF4 or packed int4. The layers give their weights away and cannot be called any more."""

    def __init__(self, layers: Sequence[Any], gated: bool = False) -> None:
        self._gated = gated
        self._weight = nf4.tiled(layers)
        self._kept: Tensor | None = None
        self._bias = _bias(layers)
        for layer in layers:
            layer.weight = layer.weight_scale = layer.quant_state = None

    @property
    def widened(self) -> int:
        """See Product."""
        return 0 if self._kept is not None else self._weight.rows * self._weight.columns

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See Product."""
        kept = () if self._kept is None else (self._kept,)
        return self._weight.weights, self._weight.scales, self._weight.factor, *kept

    def few(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """See Product."""
        return nf4.matmul(x, self._weight, pair=self._gated, bias=self._bias, residual=residual, out=residual)

    def many(self, x: Tensor, wide: Tensor, residual: Tensor | None = None) -> Tensor:
        """See Product."""
        return _many(x, wide, self._bias, residual, self._gated)

    def wide(self, room: Tensor | None, stream: int | None = None) -> Tensor:
        """See Product."""
        if self._kept is not None:
            return self._kept
        assert room is not None
        shape = (self._weight.rows, self._weight.columns)
        return nf4.widen(self._weight, room[: self.widened].view(shape), stream)

    def keep_wide(self, dtype: torch.dtype) -> None:
        """See Product."""
        shape = (self._weight.rows, self._weight.columns)
        self._kept = nf4.widen(self._weight, torch.empty(shape, dtype=dtype, device=self._weight.weights.device))


def _many(x: Tensor, wide: Tensor, bias: Tensor | None, residual: Tensor | None, gated: bool) -> Tensor:
    if residual is not None and bias is None:
        return residual.addmm_(x, wide.T)
    out = linear(x, wide, bias)
    if gated:
        return decode.gated(out)
    return out if residual is None else residual.add_(out)


def _bias(layers: Sequence[Any]) -> Tensor | None:
    """The layers' biases side by side, zero for those that have none; None when no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    dtype = next(layer.bias.dtype for layer in layers if layer.bias is not None)
    device = next(layer.bias.device for layer in layers if layer.bias is not None)
    parts = [
        torch.zeros(layer.out_features, dtype=dtype, device=device) if layer.bias is None else layer.bias.data
        for layer in layers
    ]
    return torch.cat(parts)


def known(layers: Sequence[Any], gated: bool = False) -> bool:
    """Whether `product` can make something of these layers."""
    if all(type(layer) is nn.Linear for layer in layers):
        return True
    # The kernel that applies the gate knows no biases, and takes a tile of gates with one of what they gate.
    halves = sum(layer.out_features for layer in layers) % (2 * nf4.ROWS) == 0 and _bias(layers) is None
    return nf4.fits(layers) and (halves or not gated)


def product(layers: Sequence[Any], gated: bool = False) -> Product:
    """The product of layers that are `known`, which takes their weights over. `gated`: silu(first half) * second."""
    return PlainProduct(layers, gated) if type(layers[0]) is nn.Linear else FourBitProduct(layers, gated)
