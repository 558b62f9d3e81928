"""What reading a prompt on a GPU takes beside kernels: weights as numbers ahead of their use, and attention."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from dbgpt_lite.llm.gpu_products import Product
from dbgpt_lite.llm.slotted import Piece

# Cached tokens for each piece from which on attending to one after the other is faster than to all at once: then a
# conversation is spread over the whole GPU (ChatGLM2-6B on an H200, 40 tokens after 8,000: 40 microseconds for one and
# 394 for seven together).
_APART = 1000


class Multiply(Protocol):
    """x times the weights of a product, added to `residual` where there is one."""

    def __call__(self, product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor: ...


def few(product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """A Multiply for as many rows as a step may have."""
    return product.few(x, residual)


class Rows(NamedTuple):
    """Pieces of prompts that are read together, a row for each token. All int32, on the device."""

    inputs: Tensor  # (3, rows): tokens, slots (negative: none), and how many tokens are before each in its conversation
    starts: Tensor  # (pieces + 1,): the first row of each piece, and how many there are in all
    cached: Tensor  # (pieces + 1,): where each piece's slot begins in `_flat`, and 0
    ends: Tensor  # (pieces,): tokens that each slot holds then

    @classmethod
    def of(cls, pieces: Sequence[Piece], slot_rows: int, device: torch.device, rows: int = 0) -> "Rows":
        """Rows of pieces, of `rows` at least. `slot_rows`: tokens of all heads that a slot has room for."""
        counts = [len(piece.ids) for piece in pieces]
        beyond = max(rows - sum(counts), 0)
        parts = (
            [*(token for piece in pieces for token in piece.ids), *[0] * beyond],
            [*(piece.slot for piece in pieces for _ in piece.ids), *[-1] * beyond],
            [*(place for piece in pieces for place in range(piece.start, piece.end)), *[0] * beyond],
            [0, *accumulate(counts)],
            [*(piece.slot * slot_rows for piece in pieces), 0],
            [piece.end for piece in pieces],
        )
        # Copied to the GPU at once.
        together = torch.tensor([number for part in parts for number in part], dtype=torch.int32, device=device)
        count = sum(counts) + beyond
        inputs, *others = together.split_with_sizes([3 * count, *map(len, parts[3:])])
        return cls(inputs.view(3, count), *others)


def attend_pieces(
    queries: Tensor, pieces: Sequence[Piece], rows: Rows, cache: tuple[Tensor, Tensor], scaling: float
) -> Tensor:
    """Attention of `rows` of pieces, queries (rows, heads, dim), each over its slot of the cache up to its own place:
    (rows, heads * dim). Cache: keys and values (slots, kv_heads, window, dim)."""
    if several_at_once(queries, pieces):
        keys, values = map(_flat, cache)
        return attend_at_once(queries, keys, values, rows, pieces, scaling).flatten(1)
    found = []
    for piece, own in zip(pieces, queries.split_with_sizes([len(piece.ids) for piece in pieces]), strict=True):
        keys, values = (states[None, piece.slot, :, : piece.end] for states in cache)
        found.append(attend_piece(own.transpose(0, 1)[None], keys, values, scaling)[0].transpose(0, 1).flatten(1))
    return found[0] if len(found) == 1 else torch.cat(found)


def attend_at_once(
    queries: Tensor, keys: Tensor, values: Tensor, rows: Rows, pieces: Sequence[Piece], scaling: float
) -> Tensor:
    """As `attend_pieces`, for pieces of any lengths, by one kernel, which takes where each conversation begins:
    FlashAttention's (Dao, https://arxiv.org/abs/2307.08691). Keys and values: see `_flat`. (rows, heads, dim)."""
    most, longest = max(len(piece.ids) for piece in pieces), max(piece.end for piece in pieces)
    return torch.ops.aten._flash_attention_forward(  # type: ignore[no-any-return]
        queries, keys, values, rows.starts, rows.cached, most, longest, 0.0, True, False, scale=scaling,
        seqused_k=rows.ends,
    )[0]  # fmt: skip


def several_at_once(queries: Tensor, pieces: Sequence[Piece]) -> bool:
    """Whether these pieces are attended to by one kernel."""
    return flash_runs(queries) and len(pieces) > 1 and max(piece.end for piece in pieces) < len(pieces) * _APART


def flash_runs(queries: Tensor) -> bool:
    """Whether FlashAttention's kernels can be asked for: some builds of torch come without them."""
    return queries.is_cuda and torch.backends.cuda.is_flash_attention_available()


def _flat(states: Tensor) -> Tensor:
    """Keys or values (slots, kv_heads, window, dim) as (tokens, kv_heads, dim), in which a slot's tokens follow each
    other from row slot * kv_heads * window on: a view, whose other rows are of no use."""
    slots, heads, window, dim = states.shape
    return states.as_strided(((slots - 1) * heads * window + window, heads, dim), (dim, window * dim, 1))


def attend_piece(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Attention of the last tokens of a text, queries (1, heads, new, dim), over keys and values (1, kv_heads, all,
    dim) up to each: (1, heads, new, dim)."""
    new, every = queries.shape[2], keys.shape[2]
    if flash_runs(queries) and new < every:
        # What torch chooses for this mask, without the tenth of a millisecond that it takes to choose.
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(queries, keys, values, 0.0, True, False, scale=scaling)[0]  # type: ignore[no-any-return]
    return scaled_dot_product_attention(
        queries, keys, values, attn_mask=causal_lower_right(new, every) if new < every else None,
        is_causal=new == every, scale=scaling, enable_gqa=queries.shape[1] != keys.shape[1],
    )  # fmt: skip


def widened(products: Sequence[Product], rooms: Sequence[Tensor], beside: torch.cuda.Stream | None) -> Iterator[Tensor]:
    """The weights of one product after the other as numbers, the next being made on the stream `beside` meanwhile."""
    if beside is None or not rooms:
        yield from (one.wide(rooms[0] if rooms else None) for one in products)
        return
    here, stream = torch.cuda.current_stream(), beside.cuda_stream
    beside.wait_stream(here)
    # Of each room: when its weights are there, and when nobody needs them any more. Waiting for an event that was not
    # recorded yet does not wait.
    ready, used = ([torch.cuda.Event() for _ in rooms] for _ in range(2))  # type: ignore[no-untyped-call]

    def start(place: int) -> Tensor:
        room = place % len(rooms)
        if not products[place].widened:
            return products[place].wide(None)
        beside.wait_event(used[room])
        wide = products[place].wide(rooms[room], stream)
        ready[room].record(beside)
        return wide

    ahead = start(0)
    for place, product_ in enumerate(products):
        wide = ahead
        if product_.widened:
            here.wait_event(ready[place % len(rooms)])
        if place + 1 < len(products):
            ahead = start(place + 1)
        yield wide
        if product_.widened:
            used[place % len(rooms)].record(here)
