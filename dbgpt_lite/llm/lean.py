"""A Llama-like model on a CPU without transformers' modules: for one token most of the time they take is Python.

The computation is that of parts.py. What makes it quick for one token: joined matrix products (products.py), rotary
tables made once, a cache that grows in place (cache.py), and attention in float32 over a copy of the layer's keys and
values: torch's attention of one query in 16 bits takes several times as long as copying them and attending.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dbgpt_lite.llm.cache import GrowingLayer
from dbgpt_lite.llm.parts import Layer, Norm, Parts, Rotary
from dbgpt_lite.llm.products import Product, Room, copied_bytes, joined

# A prompt is read in chunks of so many tokens that no matrix product has more multiplications: about 10 ms on two
# cores with bfloat16 instructions, and a stop waits for one; the whole experts of a mixture's layer take up to 0.25 s.
_MULTIPLICATIONS = 1_500_000_000
_SHORTEST, _LONGEST = 64, 512
_FIRST_POSITIONS = 1024


@dataclass(frozen=True, slots=True)
class Block:
    """A layer with its products joined; `feed`: gate and up, and down, or nothing where there is a mixture."""

    layer: Layer
    qkv: Product
    out: Product
    feed: tuple[Product, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the tokens of a pass are: cosines and sines of their positions, and what each may see (None: all)."""

    rows: int
    count: int
    cosines: Tensor
    sines: Tensor
    mask: Tensor | None
    causal: bool


class LeanDecoder:
    """Decodes over Parts on a CPU. `check` is called before every matrix product and may raise.

    Plain layers that read the same input are joined in place: the model they come from keeps views and works as before.
    `spare`: bytes that copies of packed weights may take; they are made of all or of none.
    """

    def __init__(self, parts: Parts, check: Callable[[], None], spare: int = 0) -> None:
        self._parts = parts
        self._check = check
        self._groups = parts.heads // parts.kv_heads
        self._sizes = (parts.heads, parts.kv_heads, parts.kv_heads)
        self._turns = _Turns(parts.rotary, parts.dtype)
        self._wide = _Wide()
        self.chunk = _chunk(parts)
        self._room = Room(parts.dtype)
        copy = sum(copied_bytes(group, parts.dtype) for layer in parts.layers for group in _groups(layer)) <= spare
        with torch.no_grad():
            self.blocks = [self._block(layer, copy) for layer in parts.layers]
            self._head = joined((parts.head,), parts.dtype, self._room, False)

    def __call__(self, ids: Tensor, cache: Sequence[GrowingLayer]) -> Tensor:
        """ids (rows, tokens) after what the cache's layers hold, which they are added to -> logits (rows, vocabulary)
        of the last tokens."""
        place = self._place(ids.shape[0], ids.shape[1], cache[0].get_seq_length())
        x = functional.embedding(ids.flatten(), self._parts.embedding)
        for block, cached in zip(self.blocks, cache, strict=True):
            self._attend(block, x, cached, place)
            self._feed(block, x)
        last = _normed(x.view(*ids.shape, -1)[:, -1], self._parts.norm)
        self._check()
        return self._head(last)

    def tensors(self) -> list[Tensor]:
        """What this holds beside the model's own weights."""
        copies = [copy for block in self.blocks for copy in _copies(block)]
        return [*copies, self._room.held, *self._turns.tensors(), *self._wide.tensors()]

    def _block(self, layer: Layer, copy: bool) -> Block:
        qkv, out, *feed = (joined(group, self._parts.dtype, self._room, copy) for group in _groups(layer))
        return Block(layer, qkv, out, tuple(feed))

    def _place(self, rows: int, count: int, start: int) -> _Place:
        mask = _mask(start, count, self._parts.dtype) if start and count > 1 else None
        return _Place(rows, count, *self._turns.at(start, start + count), mask, mask is None and count > 1)

    def _attend(self, block: Block, x: Tensor, cached: GrowingLayer, place: _Place) -> None:
        """Add a block's attention to the stream x (rows * tokens, hidden)."""
        parts, norms = self._parts, block.layer
        self._check()
        states = block.qkv(_normed(x, norms.norm_in)).view(place.rows, place.count, -1, parts.head_dim)
        queries, keys, values = torch.split_with_sizes(states, self._sizes, dim=2)
        if norms.q_norm and norms.k_norm:
            queries, keys = _normed(queries, norms.q_norm), _normed(keys, norms.k_norm)
            self._turns.turn(queries, place)
            self._turns.turn(keys, place)
        else:
            self._turns.turn(states[:, :, : parts.heads + parts.kv_heads], place)
        keys, values = cached.update(keys.transpose(1, 2), values.transpose(1, 2))
        seen = (self._many if place.count > 1 else self._one)(queries, keys, values, place)
        self._check()
        x.add_(block.out(seen))

    def _feed(self, block: Block, x: Tensor) -> None:
        """Add a block's feed-forward to the stream x (rows * tokens, hidden)."""
        self._check()
        normed = _normed(x, block.layer.norm_mid)
        if block.layer.mixture is not None:
            x.add_(block.layer.mixture(normed[None])[0])
            return
        gate_up, down = block.feed
        gate, up = gate_up(normed).chunk(2, dim=-1)
        wide = functional.silu(gate).mul_(up)
        self._check()
        x.add_(down(wide))

    def _one(self, queries: Tensor, keys: Tensor, values: Tensor, place: _Place) -> Tensor:
        """Attention of one token a row: queries (rows, 1, heads, dim) -> (rows, heads * dim).

        The heads that share keys are the queries of one attention.
        """
        grouped = queries.reshape(place.rows, self._parts.kv_heads, self._groups, -1).float()
        keys, values = self._wide.of(keys, values)
        seen = functional.scaled_dot_product_attention(grouped, keys, values, scale=self._parts.scaling)
        return seen.to(queries.dtype).reshape(place.rows, -1)

    def _many(self, queries: Tensor, keys: Tensor, values: Tensor, place: _Place) -> Tensor:
        """Attention of several tokens: queries (rows, tokens, heads, dim) -> (rows * tokens, heads * dim)."""
        seen = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            _repeated(keys, self._groups),
            _repeated(values, self._groups),
            attn_mask=place.mask,
            is_causal=place.causal,
            scale=self._parts.scaling,
        )
        return seen.transpose(1, 2).reshape(place.rows * place.count, -1)


class _Turns:
    """Rotary positions, tabulated as far as they were needed."""

    def __init__(self, rotary: Rotary, dtype: torch.dtype) -> None:
        self._rotary = rotary
        self._dtype = dtype
        self._cosines, self._sines = self._tables(_FIRST_POSITIONS)

    def at(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (tokens, 1, turned dimensions) of the positions [start, end)."""
        if end > len(self._cosines):
            self._cosines, self._sines = self._tables(max(end, 2 * len(self._cosines)))
        return self._cosines[start:end], self._sines[start:end]

    def turn(self, states: Tensor, place: _Place) -> None:
        """Turn states (rows, tokens, heads, dim) in place: x cos + (x with each pair swapped) (-sin, sin)."""
        size = place.cosines.shape[-1]
        turned = states if states.shape[-1] == size else states[..., :size]
        if self._rotary.interleaved:
            swapped = turned.view(*turned.shape[:-1], -1, 2).flip(-1).flatten(-2)
        else:
            swapped = turned.roll(size // 2, -1)
        turned.mul_(place.cosines).addcmul_(swapped, place.sines)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both tables."""
        return self._cosines, self._sines

    def _tables(self, positions: int) -> tuple[Tensor, Tensor]:
        frequencies = self._rotary.frequencies
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies
        cosines, sines = angles.cos() * self._rotary.scale, angles.sin() * self._rotary.scale
        if self._rotary.interleaved:
            pairs = cosines.repeat_interleave(2, -1), torch.stack((-sines, sines), -1).flatten(1)
        else:
            pairs = torch.cat((cosines, cosines), -1), torch.cat((-sines, sines), -1)
        return pairs[0].to(self._dtype)[:, None], pairs[1].to(self._dtype)[:, None]


class _Wide:
    """Room for one layer's keys and values in float32, used by one layer after the other."""

    def __init__(self) -> None:
        self._keys, self._values = Room(torch.float32), Room(torch.float32)

    def of(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Both in float32; valid until the next call."""
        if keys.dtype == torch.float32:
            return keys, values
        return self._keys.of(keys.shape).copy_(keys), self._values.of(values.shape).copy_(values)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The room."""
        return self._keys.held, self._values.held


def _groups(layer: Layer) -> tuple[tuple[nn.Module, ...], ...]:
    """The linear layers that read the same input."""
    attention = layer.qkv, (layer.out,)
    return attention if layer.down is None else (*attention, layer.gate_up, (layer.down,))


def _copies(block: Block) -> list[Tensor]:
    products: tuple[Any, ...] = (block.qkv, block.out, *block.feed)
    return [tensor for product in products for tensor in product.copies()]


def _chunk(parts: Parts) -> int:
    """How many tokens of a prompt to read in one pass."""
    rows = max(sum(map(_outputs, group)) for group in _groups(parts.layers[0]))
    return min(max(_MULTIPLICATIONS // (rows * parts.hidden), _SHORTEST), _LONGEST)


def _outputs(module: Any) -> int:
    return int(module.out_features)


def _normed(x: Tensor, norm: Norm) -> Tensor:
    return torch.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


def _mask(start: int, count: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores (tokens, start + tokens): minus infinity for what comes later."""
    later = torch.full((count, start + count), -torch.inf, dtype=dtype)
    return later.triu_(start + 1)


def _repeated(states: Tensor, times: int) -> Tensor:
    """(rows, heads, tokens, dim) -> every head `times` times."""
    return states if times == 1 else states.repeat_interleave(times, dim=1)
