"""Many conversations on one GPU: a static cache of slots, and decoding steps captured as CUDA graphs.

A step of a 33B model is some 400 kernels of a few microseconds each. Python starts one in about ten, so a step is
recorded once for each number of rows and replayed (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from dbgpt_lite.llm.generation import in_reserve
from dbgpt_lite.llm.gpu_products import Product, known, product
from dbgpt_lite.llm.kernels import decode
from dbgpt_lite.llm.kernels.nf4 import MOST_ROWS, most_rows, shared_limit
from dbgpt_lite.llm.kernels.nvrtc import CudaError
from dbgpt_lite.llm.parts import Layer, Norm, Parts
from dbgpt_lite.llm.slotted import Piece

log = logging.getLogger(__name__)

# Tokens of a prompt read in one go. Widening the weights costs as much as 200 tokens, and other answers wait meanwhile.
CHUNK = 1024
_OVERLAPPED = 384  # shorter pieces are read faster when weights are widened in turn
_SHORTEST = 1024  # cached tokens that a captured step is made for at least
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_PIECES = 3  # of these, the largest are recorded for short pieces of prompts too
# Bytes of one layer's cache that the rows of a short piece may read, each for itself, before it is faster to read them
# once for all, though Python starts every kernel then: measured on an H200 with ChatGLM2-6B and a 33B Llama.
_READ_BY_ROWS = 5 * 10**8


@dataclass(frozen=True, slots=True)
class _Block:
    norm_in: Norm
    qkv: Product
    norms: tuple[Norm | None, Norm | None]
    out: Product
    norm_mid: Norm
    gate_up: Product
    down: Product

    @property
    def products(self) -> tuple[Product, ...]:
        """In the order of use."""
        return self.qkv, self.out, self.gate_up, self.down


class Multiply(Protocol):
    """x times the weights of a product, plus `residual`, which may be written to."""

    def __call__(self, product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor: ...


def few(product: Product, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """A Multiply for as many rows as a step may have."""
    return product.few(x, residual)


def row_sizes(most: int) -> list[int]:
    """The numbers of rows that steps of up to `most` rows are recorded for."""
    return [size for size in _ROWS if size // 2 < most]


def runs_here(parts: Parts) -> bool:
    """Whether there is a kernel for everything in a model, and a compiler for the kernels."""
    if parts.device.type != "cuda" or not decode.fits(parts) or not most_slots(parts):
        return False
    for layer in parts.layers:
        if not all(map(known, (layer.qkv, (layer.out,), (layer.down,)))) or not known(layer.gate_up, gated=True):
            return False
    try:
        decode.prepare(parts)
    except (CudaError, OSError) as error:
        log.warning("the GPU kernels are not used: %s", error)
        return False
    return True


def most_slots(parts: Parts) -> int:
    """The most conversations that one step has kernels for on this GPU."""
    return most_rows(shared_limit(parts.device.index or 0))


class GpuStepModel:
    """A StepModel (slotted.py) of a model whose parts lie on one NVIDIA GPU. Takes its weights over."""

    def __init__(self, parts: Parts, slots: int, window: int, chunk: int = CHUNK, wide: int = 0) -> None:
        """For a model that `runs_here` accepts, and up to `most_slots`. Raises torch.OutOfMemoryError.

        `wide`: bytes that may be taken to keep 4-bit weights in 16 bits too, so that prompts need not widen them.
        """
        self.slots, self.window, self.chunk = slots, window, min(chunk, window)
        self._device = parts.device
        # Pieces of a prompt as short as a step's rows need no widened weights.
        self._short = most_slots(parts) if parts.device.type == "cuda" else MOST_ROWS
        self._pieces = row_sizes(self._short)[-_PIECES:]
        with torch.cuda.device(parts.device):
            self._make(parts, wide)

    def _make(self, parts: Parts, wide: int) -> None:
        slots, window = self.slots, self.window
        self._embedding, self._norm, self._head = parts.embedding, parts.norm, parts.head
        self._blocks = [_block(layer) for layer in parts.layers]
        self._heads = decode.heads_of(parts, window)
        shape = (len(self._blocks), 2, slots, parts.kv_heads, window, parts.head_dim)
        self._cache = torch.zeros(shape, dtype=parts.dtype, device=parts.device)
        self._graphs: dict[tuple[int, int, bool], _Captured] = {}
        self._pool: Any = None
        self._joins = self._join_room()
        self._keep_wide(wide)
        widest = max(one.widened for block in self._blocks for one in block.products)
        self._rooms = [torch.empty(widest, dtype=parts.dtype, device=parts.device) for _ in range(2 if widest else 0)]
        self.beside = torch.cuda.Stream(parts.device)  # type: ignore[no-untyped-call]
        self._warm_up()

    def _keep_wide(self, room: int) -> None:
        for block in self._blocks:
            for one in block.products:
                room -= one.widened * self._embedding.element_size()
                if room < 0:
                    return
                one.keep_wide(self._embedding.dtype)

    def _warm_up(self) -> None:
        """Compile every kernel and record the usual steps now, not in the middle of somebody's answer."""
        # A whole piece: what is too little memory for a prompt is found now.
        self.read(0, 0, [0] * self.chunk)
        for rows in row_sizes(self.slots):
            used = range(min(rows, self.slots))
            self.step(used, [0] * len(used), [0] * len(used))
        # What was rearranged and compiled with is of no more use, and others count it as taken.
        torch.cuda.empty_cache()

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Record one of the steps that short pieces of prompts take. See StepModel."""
        left = [rows for rows in self._pieces if (rows, _SHORTEST, True) not in self._graphs]
        if left:
            with torch.cuda.device(self._device):
                self._capture(left[0], _SHORTEST, piece=True)
        return len(left) > 1

    @torch.inference_mode()
    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """One more token for each of these slots, which hold `lengths` tokens: logits (rows, vocabulary)."""
        with torch.cuda.device(self._device):
            return self._replay(slots, lengths, tokens)

    def _replay(
        self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int], *, piece: bool = False
    ) -> Tensor:
        """See `step`. `piece`: the rows may follow each other in one slot."""
        rows = next(size for size in (self._pieces if piece else _ROWS) if size >= len(slots))
        covered = next(size for size in self._covered() if size > max(lengths))
        captured = self._graphs.get((rows, covered, piece)) or self._capture(rows, covered, piece)
        return captured.replay(slots, lengths, tokens)[: len(slots)]

    def _covered(self) -> Iterator[int]:
        """The lengths of caches that steps are recorded for; the last is no shorter than the window."""
        size = _SHORTEST
        while size < self.window:
            yield size
            size *= 4
        yield size

    def read(self, slot: int, start: int, ids: Sequence[int]) -> Tensor:
        """Keys and values of `ids` into the slot from `start` on; logits (vocabulary,) after the last one."""
        return self.read_together([Piece(slot, start, ids)])[0]

    @torch.inference_mode()
    def read_together(self, pieces: Sequence[Piece]) -> Tensor:
        """Keys and values of pieces for several slots; logits (pieces, vocabulary) after the last token of each."""
        with torch.cuda.device(self._device):
            if not self._by_rows(pieces):
                return self._read(pieces)
            # Started as one recorded step instead of hundreds of kernels by Python.
            rows = [(piece.slot, piece.start + at, token) for piece in pieces for at, token in enumerate(piece.ids)]
            return self._replay(*zip(*rows, strict=True), piece=True)[_lasts(pieces)]

    def _by_rows(self, pieces: Sequence[Piece]) -> bool:
        """Whether pieces are read sooner as rows of a step."""
        # Heads that share keys read them once for `together` of them.
        heads = self._heads.heads // self._heads.together
        token = 2 * heads * self._heads.dim * self._cache.element_size()
        read = sum(len(piece.ids) * (piece.start + len(piece.ids)) for piece in pieces)
        return sum(len(piece.ids) for piece in pieces) <= self._short and read * token <= _READ_BY_ROWS

    def _read(self, pieces: Sequence[Piece]) -> Tensor:
        tokens = torch.tensor([token for piece in pieces for token in piece.ids], device=self._device)
        hidden = self._embedding[tokens]
        normed, attended = torch.empty_like(hidden), hidden.new_empty(len(hidden), self._heads.heads * self._heads.dim)
        multiply = few if len(tokens) <= self._short else self._many(len(tokens))
        for block, cache in zip(self._blocks, self._cache, strict=True):
            qkv = multiply(block.qkv, decode.normalize(hidden, block.norm_in, normed))
            row = 0
            for slot, start, ids in pieces:
                keys, values, end, last = cache[0, slot], cache[1, slot], start + len(ids), row + len(ids)
                queries = decode.rotate_and_store(qkv[row:last], self._heads, block.norms, start, keys, values)
                found = attend_piece(
                    queries.transpose(0, 1)[None], keys[None, :, :end], values[None, :, :end], self._heads.scaling
                )
                attended[row:last].view_as(queries).copy_(found[0].transpose(0, 1))
                row = last
            hidden = multiply(block.out, attended, hidden)
            inner = multiply(block.gate_up, decode.normalize(hidden, block.norm_mid, normed))
            hidden = multiply(block.down, inner, hidden)
        ends = hidden[_lasts(pieces)]
        return self._head(decode.normalize(ends, self._norm, normed[: len(pieces)]))  # type: ignore[no-any-return]

    def _many(self, count: int) -> Multiply:
        """Products of a piece of `count` tokens, to be asked for in the order in which they come."""
        beside = self.beside if count >= _OVERLAPPED else None
        wide = widened([one for block in self._blocks for one in block.products], self._rooms, beside)
        return lambda product, x, residual=None: product.many(x, next(wide), residual)

    @torch.inference_mode()
    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the cached tokens [start, end) of one slot into another."""
        self._cache[:, :, target, :, start:end] = self._cache[:, :, source, :, start:end]

    def memory(self) -> dict[str, int]:
        """Bytes by device that closing gives back."""
        held = [self._embedding, self._cache, *self._rooms, *self._head.parameters()]
        held += [tensor for block in self._blocks for one in block.products for tensor in one.tensors]
        sizes = {tensor.data_ptr(): tensor.nbytes for tensor in held}
        return {str(self._device): sum(sizes.values()) + in_reserve(str(self._device))}

    def close(self) -> None:
        """Give everything back."""
        self._graphs.clear()
        self._blocks.clear()
        self._pool = None
        self._rooms.clear()
        del self._joins
        free_workspaces(self._device)
        del self._cache, self._embedding, self._head

    def _capture(self, rows: int, covered: int, piece: bool) -> "_Captured":
        """Record a step of `rows` rows over up to `covered` cached tokens."""
        captured = _Captured(self, rows, covered, piece, self._pool)
        self._pool = self._pool or captured.graph.pool()
        self._graphs[rows, covered, piece] = captured
        return captured

    def forward(self, inputs: Tensor, room: decode.Room, piece: bool) -> Tensor:
        """The step itself, as it is recorded: inputs (3, rows) int32 of tokens, slots and lengths."""
        tokens, slots, lengths = inputs
        hidden = self._embedding[tokens]
        normed, attended = torch.empty_like(hidden), hidden.new_empty(len(hidden), self._heads.heads * self._heads.dim)
        for block, cache in zip(self._blocks, self._cache, strict=True):
            qkv = block.qkv.few(decode.normalize(hidden, block.norm_in, normed))
            states = cache[0], cache[1]
            if piece:
                decode.store(qkv, self._heads, block.norms[1], lengths, slots, states)
            decode.attend(qkv, self._heads, block.norms, lengths, slots, states, room, attended, stored=piece)
            block.out.few(attended, residual=hidden)
            inner = block.gate_up.few(decode.normalize(hidden, block.norm_mid, normed))
            block.down.few(inner, residual=hidden)
        return self._head(decode.normalize(hidden, self._norm, normed))  # type: ignore[no-any-return]

    def _join_room(self) -> tuple[Tensor, Tensor]:
        """What decode.room_for takes for any step: of two steps, one is over before the other begins."""
        rows = row_sizes(max(self._short, self.slots))
        longest = [min(size, self.window) for size in self._covered()]
        size = max(decode.room_size(count, self._heads, most) for count in rows for most in longest)
        counters = torch.zeros(max(rows) * self._heads.heads, dtype=torch.int32, device=self._device)
        return torch.empty(size, device=self._device), counters

    def room_for(self, rows: int, covered: int) -> decode.Room:
        """See decode.room_for."""
        return decode.room_for(rows, self._heads, min(covered, self.window), *self._joins)


class _Captured:
    """A step recorded for a number of rows. Rows that are not used have no slot."""

    def __init__(self, model: GpuStepModel, rows: int, covered: int, piece: bool, pool: Any) -> None:
        self._rows = rows
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._host = torch.zeros(3, rows, dtype=torch.int32).pin_memory()
        self._inputs = torch.zeros(3, rows, dtype=torch.int32, device=torch.cuda.current_device())
        self._inputs[1] = -1
        self._room = model.room_for(rows, covered)
        # One stream for all: a product's workspace stays with the stream that it was first used on.
        stream = model.beside
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries choose their kernels, and ours are compiled, before anything is recorded.
            model.forward(self._inputs, self._room, piece)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile, to embed a question say.
        with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._logits = model.forward(self._inputs, self._room, piece)

    def replay(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Logits (rows, vocabulary), valid until the next replay of any graph."""
        count = len(slots)
        # The last step may not have begun: what it is to compute must stay until it is copied.
        self._copied.synchronize()
        self._host[1, count:] = -1
        self._host[:, :count] = torch.tensor((tokens, slots, lengths), dtype=torch.int32)
        self._inputs.copy_(self._host, non_blocking=True)
        self._copied.record()
        self.graph.replay()
        return self._logits


def _block(layer: Layer) -> _Block:
    return _Block(
        layer.norm_in, product(layer.qkv), (layer.q_norm, layer.k_norm), product((layer.out,)), layer.norm_mid,
        product(layer.gate_up, gated=True), product((layer.down,)),
    )  # fmt: skip


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


def _lasts(pieces: Sequence[Piece]) -> slice | list[int]:
    """The rows of the last tokens of pieces that lie one after the other."""
    ends = list(accumulate(len(piece.ids) for piece in pieces))
    # A list is copied to the GPU, a slice is not.
    return slice(ends[0] - 1, ends[0]) if len(ends) == 1 else [end - 1 for end in ends]


def free_workspaces(device: torch.device) -> None:
    """Give back the room that matrix products keep on every stream that they were used on, 32 MiB on each."""
    torch.cuda.synchronize(device)
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)  # torch has no public name for it
    if clear is not None:
        clear()


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
