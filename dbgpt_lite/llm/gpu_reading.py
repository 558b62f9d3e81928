"""What reading a prompt on a GPU takes beside kernels: weights as numbers ahead of their use, and attention."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from dbgpt_lite.llm.gpu_products import Product


class Multiply(Protocol):
    """x times the weights of a product, plus `residual`, which may be written to."""

    def __call__(self, product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor: ...


def few(product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """A Multiply for as many rows as a step may have."""
    return product.few(x, residual)


def attend_piece(queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Attention of the last tokens of a text, queries (1, heads, new, dim), over keys and values (1, kv_heads, all,
    dim) up to each: (1, heads, new, dim)."""
    new, every = queries.shape[2], keys.shape[2]
    if queries.is_cuda and new < every:
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
