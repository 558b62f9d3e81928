"""One model, many conversations: a step over the cached tokens of several slots at once, in plain PyTorch.

PlainStepModel is the readable reference that faster step models are compared with, and what runs where theirs cannot.
Attention: grouped queries (Ainslie et al., https://arxiv.org/abs/2305.13245) over a static cache, each row masked by
its own length.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention, silu

from dbgpt_lite.llm.generation import in_reserve
from dbgpt_lite.llm.parts import Layer, Norm, Parts, Rotary

CHUNK = 512


class Piece(NamedTuple):
    """Tokens `ids` to be written into a slot from `start` on."""

    slot: int
    start: int
    ids: Sequence[int]

    @property
    def end(self) -> int:
        """How many tokens the slot holds then."""
        return self.start + len(self.ids)


class StepModel(Protocol):
    """A model with a static cache of `slots` rows of `window` tokens each; one `read` takes `chunk` tokens at most.

    Used by one thread. Logits stay on the model's device and are valid until the next call.
    """

    @property
    def slots(self) -> int:
        """How many conversations it holds."""
        ...

    @property
    def window(self) -> int:
        """Tokens that each of them may have."""
        ...

    @property
    def chunk(self) -> int:
        """The most tokens of one `read`."""
        ...

    @property
    def widened(self) -> int:
        """Bytes that keep weights in 16 bits too."""
        ...

    @property
    def queues(self) -> bool:
        """Whether `step` returns before its logits are computed, and takes tokens from the device that draws them."""
        ...

    def read(self, slot: int, start: int, ids: Sequence[int]) -> Tensor:
        """Write `ids` at [start, start + len(ids)) of a slot; logits (vocabulary,) after the last one."""
        ...

    def read_together(self, pieces: "Sequence[Piece]") -> Tensor:
        """`read` for several slots at once, of `chunk` tokens at most in all: logits (pieces, vocabulary)."""
        ...

    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | Tensor) -> Tensor:
        """One more token for each of these slots, which hold `lengths` tokens so far: logits (rows, vocabulary).

        `tokens`: a tensor (rows,) on the model's device only where it `queues`.
        """
        ...

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the cached tokens [start, end) of one slot into another."""
        ...

    def warm_up(self) -> None:
        """Make what the first answer takes; called once, before anything is asked. Raises torch.OutOfMemoryError."""
        ...

    def prepare(self) -> bool:
        """Make one thing that is likely to be of use; called while nobody asks. Whether there is more to make."""
        ...

    def memory(self) -> dict[str, int]:
        """Bytes by device that closing gives back."""
        ...

    def close(self) -> None:
        """Give them back."""
        ...


class PlainStepModel:
    """A StepModel on any device. `window`: tokens of a slot; `chunk`: the most that one `read` takes."""

    widened = 0
    queues = False

    def __init__(self, parts: Parts, slots: int, window: int, chunk: int = CHUNK) -> None:
        self.slots, self.window, self.chunk = slots, window, min(chunk, window)
        self._parts = parts
        shape = (len(parts.layers), slots, parts.kv_heads, window, parts.head_dim)
        # Not uninitialized: what is masked is multiplied by zero, which leaves a NaN a NaN.
        self._keys = torch.zeros(shape, dtype=parts.dtype, device=parts.device)
        self._values = torch.zeros_like(self._keys)
        self._cos, self._sin = rotary_table(parts.rotary, window, parts.dtype)

    @torch.inference_mode()
    def read(self, slot: int, start: int, ids: Sequence[int]) -> Tensor:
        """Write `ids` into a slot from `start` on; logits (vocabulary,) after the last. See StepModel."""
        places = torch.arange(start, start + len(ids), device=self._parts.device)
        return self._forward(self._ints([slot]), self._ints(ids)[None], places[None], start + len(ids))[0]

    def read_together(self, pieces: Sequence[Piece]) -> Tensor:
        """One after the other. See StepModel."""
        return torch.stack([self.read(*piece) for piece in pieces])

    @torch.inference_mode()
    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | Tensor) -> Tensor:
        """One more token for each of these slots: logits (rows, vocabulary). See StepModel."""
        ids, places = self._ints(tokens)[:, None], self._ints(lengths)[:, None]
        return self._forward(self._ints(slots), ids, places, max(lengths) + 1)

    @torch.inference_mode()
    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the cached tokens [start, end) of one slot into another."""
        for states in (self._keys, self._values):
            states[:, target, :, start:end] = states[:, source, :, start:end]

    def warm_up(self) -> None:
        """Nothing to make. See StepModel."""

    def prepare(self) -> bool:
        """Nothing to make. See StepModel."""
        return False

    def memory(self) -> dict[str, int]:
        """Bytes by device that closing gives back: the weights, the cache, and what a GPU's allocator keeps."""
        held = {tensor.data_ptr(): tensor for tensor in (*tensors(self._parts), self._keys, self._values)}
        found: Counter[str] = Counter()
        for tensor in held.values():
            found[str(tensor.device)] += tensor.nbytes
        return {device: size + in_reserve(device) for device, size in found.items()}

    def close(self) -> None:
        """Let go of the weights and the cache."""
        del self._parts, self._keys, self._values, self._cos, self._sin

    def _forward(self, slots: Tensor, ids: Tensor, places: Tensor, longest: int) -> Tensor:
        """Logits (rows, vocabulary) after the last of ids (rows, n), which go to `places` (rows, n) of `slots` (rows,).

        No row has more than `longest` tokens then.
        """
        parts = self._parts
        # What stands behind a row's own last token is another conversation's.
        seen = torch.arange(longest, device=ids.device) <= places[..., None]
        turns = self._cos[places][:, None], self._sin[places][:, None]
        hidden = embedding(ids, parts.embedding)
        for number, layer in enumerate(parts.layers):
            queries, keys, values = self._projected(layer, normed(hidden, layer.norm_in), turns)
            held: list[Tensor] = []
            for cache, new in ((self._keys[number], keys), (self._values[number], values)):
                cache[slots[:, None], :, places] = new.transpose(1, 2)
                held.append(cache[slots, :, :longest])
            found = self._attend(queries, held[0], held[1], seen)
            hidden = hidden + layer.out(found)
            hidden = hidden + fed(layer, normed(hidden, layer.norm_mid))
        logits: Tensor = parts.head(normed(hidden[:, -1], parts.norm))
        return logits

    def _projected(self, layer: Layer, hidden: Tensor, turns: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both turned) and values (rows, heads, n, dim) of hidden (rows, n, width)."""
        parts = self._parts
        heads = side_by_side(layer.qkv, hidden).reshape(*hidden.shape[:2], -1, parts.head_dim).transpose(1, 2)
        queries, keys, values = heads.tensor_split((parts.heads, parts.heads + parts.kv_heads), dim=1)
        queries = normed(queries, layer.q_norm) if layer.q_norm else queries
        keys = normed(keys, layer.k_norm) if layer.k_norm else keys
        turned = (turn(states, *turns, parts.rotary.interleaved) for states in (queries, keys))
        return (*turned, values)  # type: ignore[return-value]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """(rows, n, heads * dim) of queries (rows, heads, n, dim) over keys and values (rows, kv_heads, longest, dim).

        `seen` (rows, n, longest): which of them each query may look at. The queries of a group stand below each other,
        so that no key is repeated for them.
        """
        rows, heads, new, dim = queries.shape
        group = heads // self._parts.kv_heads
        grouped = queries.reshape(rows, self._parts.kv_heads, group * new, dim)
        mask = seen.repeat(1, group, 1)[:, None]
        found = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=self._parts.scaling)
        return found.reshape(rows, heads, new, dim).transpose(1, 2).flatten(2)

    def _ints(self, numbers: Sequence[int] | Tensor) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.int64, device=self._parts.device)


def side_by_side(modules: tuple[nn.Module, ...], hidden: Tensor) -> Tensor:
    """The outputs of several linear layers over the same input, one after the other in the last dimension."""
    return torch.cat([module(hidden) for module in modules], dim=-1)


def fed(layer: Layer, hidden: Tensor) -> Tensor:
    """The feed-forward of a layer, or its mixture of such: (rows, n, width) -> the same."""
    if layer.down is None:
        return layer.mixture(hidden)  # type: ignore[misc, no-any-return]
    gate, up = side_by_side(layer.gate_up, hidden).chunk(2, dim=-1)
    return layer.down(silu(gate) * up)  # type: ignore[no-any-return]


def normed(hidden: Tensor, norm: Norm) -> Tensor:
    """Root mean square normalization over the last dimension, in float32."""
    wide = hidden.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return norm.weight * scaled.to(hidden.dtype)


def rotary_table(rotary: Rotary, window: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine (window, frequencies) of every position."""
    places = torch.arange(window, dtype=torch.float32, device=rotary.frequencies.device)
    angles = torch.outer(places, rotary.frequencies)
    return (angles.cos() * rotary.scale).to(dtype), (angles.sin() * rotary.scale).to(dtype)


def turn(states: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """States (rows, heads, n, dim) turned by angles (rows, 1, n, frequencies); dimensions behind them stay."""
    size = 2 * cos.shape[-1]
    first, rest = states[..., :size], states[..., size:]
    one, other = (first[..., 0::2], first[..., 1::2]) if interleaved else first.chunk(2, dim=-1)
    turned = one * cos - other * sin, other * cos + one * sin
    joined = torch.stack(turned, dim=-1).flatten(-2) if interleaved else torch.cat(turned, dim=-1)
    return torch.cat((joined, rest), dim=-1)


def tensors(parts: Parts) -> Iterator[Tensor]:
    """Every weight of a model that was taken apart; one that is tied comes twice."""
    yield parts.embedding
    yield parts.norm.weight
    yield from (*parts.head.parameters(), *parts.head.buffers())
    for layer in parts.layers:
        yield from (norm.weight for norm in (layer.norm_in, layer.q_norm, layer.k_norm, layer.norm_mid) if norm)
        for module in (*layer.qkv, layer.out, *layer.gate_up, layer.down, layer.mixture):
            yield from (*module.parameters(), *module.buffers()) if module else ()
