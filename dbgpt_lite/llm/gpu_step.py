"""Many conversations on one GPU: a static cache of slots, and decoding steps recorded as CUDA graphs.

A step of a 33B model is some 400 kernels of a few microseconds each. Python starts one in about ten, so a step is
recorded once for each number of rows and replayed (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/);
so are passes of short prompts, but for their attention (gpu_recorded.py).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor

from dbgpt_lite.llm.devices import warmed
from dbgpt_lite.llm.generation import in_reserve
from dbgpt_lite.llm.gpu_products import Product, known, product
from dbgpt_lite.llm.gpu_reading import Multiply, Rows, attend_pieces, few, widened
from dbgpt_lite.llm.gpu_recorded import RecordedReading, RecordedStep, inputs_of
from dbgpt_lite.llm.kernels import decode
from dbgpt_lite.llm.kernels.nf4 import MOST_ROWS, most_rows, shared_limit
from dbgpt_lite.llm.kernels.nvrtc import CudaError
from dbgpt_lite.llm.loaded import empty_gpu_cache, is_memory
from dbgpt_lite.llm.parts import Layer, Norm, Parts
from dbgpt_lite.llm.slotted import Piece
from dbgpt_lite.llm.step_shape import (
    CHUNK,
    READINGS,
    ROWS,
    SHORTEST,
    covered,
    furthest,
    join_size,
    piece_sizes,
    reading_sizes,
    row_sizes,
)

log = logging.getLogger(__name__)

# In the place of the cached tokens that a step is recorded for: a reading, recorded without its attention, is for any.
_ANY = 0
_OVERLAPPED = 384  # shorter pieces are read faster when weights are widened in turn


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


def runs_here(parts: Parts) -> bool:
    """Whether there is a kernel for everything in a model, and a compiler for the kernels."""
    if parts.device.type != "cuda" or not decode.fits(parts) or not most_slots(parts):
        return False
    for layer in parts.layers:
        if (
            layer.down is None
            or not all(map(known, (layer.qkv, (layer.out,), (layer.down,))))
            or not known(layer.gate_up, gated=True)
        ):
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

    queues = True

    def __init__(self, parts: Parts, slots: int, window: int, chunk: int = CHUNK, wide: int = 0) -> None:
        """For a model that `runs_here` accepts, and up to `most_slots`. Raises torch.OutOfMemoryError.

        `wide`: bytes that may be taken to keep 4-bit weights in 16 bits too, so that prompts need not widen them.
        """
        self.slots, self.window, self.chunk = slots, window, min(chunk, window)
        self._device = parts.device
        # Pieces of a prompt as short as a step's rows need no widened weights.
        self._short = most_slots(parts) if parts.device.type == "cuda" else MOST_ROWS
        # Steps that are still to be recorded, for several answers at once and for pieces of prompts, then readings; and
        # all such pieces that ever were to be.
        pieces = [(rows, SHORTEST, True) for rows in piece_sizes(self._short)]
        self._to_record = [*((rows, SHORTEST, False) for rows in row_sizes(slots)[1:]), *pieces]
        self._to_record += [(rows, _ANY, True) for rows in reading_sizes(self.chunk)]
        self._wished = set(pieces)
        # Steps that there was no memory to record: computed as they are until `prepare` recorded them.
        self._unrecorded: set[tuple[int, int, bool]] = set()
        with torch.cuda.device(parts.device):
            self._make(parts, wide)

    def _make(self, parts: Parts, wide: int) -> None:
        slots, window = self.slots, self.window
        self._embedding, self._norm, self._head = parts.embedding, parts.norm, parts.head
        self._blocks = [_block(layer) for layer in parts.layers]
        self._heads = decode.heads_of(parts, window)
        shape = (len(self._blocks), 2, slots, parts.kv_heads, window, parts.head_dim)
        self._cache = torch.zeros(shape, dtype=parts.dtype, device=parts.device)
        self._graphs: dict[tuple[int, int, bool], RecordedStep] = {}
        self._readings: dict[int, RecordedReading] = {}
        self._pool: Any = None
        # What decode.room_for takes for any step: of two steps, one is over before the other begins.
        numbers = join_size(parts.heads, parts.kv_heads, parts.head_dim, window, slots, self._short)
        counters = torch.zeros(ROWS[-1] * parts.heads, dtype=torch.int32, device=parts.device)
        self._joins = torch.empty(numbers, device=parts.device), counters
        self.widened = self._keep_wide(wide)
        widest = max(one.widened for block in self._blocks for one in block.products)
        self._rooms = [torch.empty(widest, dtype=parts.dtype, device=parts.device) for _ in range(2 if widest else 0)]
        self.beside = torch.cuda.Stream(parts.device)  # type: ignore[no-untyped-call]
        # What recorded readings hand from one graph to the next.
        rows = reading_sizes(self.chunk)[-1]
        self.hidden = self._embedding.new_empty(rows, self._embedding.shape[1])
        self.queries = self._embedding.new_empty(rows, parts.heads, parts.head_dim)
        self.attended = self._embedding.new_zeros(rows, parts.heads * parts.head_dim)

    def _keep_wide(self, room: int) -> int:
        """Keep weights in 16 bits too, layer by layer as far as `room` bytes and the GPU go; how many it took."""
        taken = 0
        for block in self._blocks:
            for one in block.products:
                size = one.widened * self._embedding.element_size()
                if taken + size > room:
                    return taken
                try:
                    one.keep_wide(self._embedding.dtype)
                except (MemoryError, RuntimeError) as error:
                    if not is_memory(error):
                        raise
                    # Somebody else took what was spare.
                    clear_frames(error.__traceback__)
                    empty_gpu_cache()
                    return taken
                taken += size
        return taken

    def warm_up(self) -> None:
        """What the first answer takes: a piece of a prompt, and the step of one row. Others are recorded while nobody
        asks, or when they are first needed. See StepModel."""
        # A whole piece: what is too little memory for a prompt is found now.
        self.read(0, 0, [0] * self.chunk)
        with torch.inference_mode(), torch.cuda.device(self._device):
            self._record_step(1, self._covered(1), False)
        self.step([0], [0], [0])
        # What was rearranged and compiled with is of no more use, and others count it as taken.
        torch.cuda.empty_cache()
        warmed().add(str(self._device))

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Record one of the steps and readings that will be needed. See StepModel."""
        if self._to_record:
            key = self._to_record.pop(0)
            if not self._is_recorded(key):
                # Behind the others until it is recorded: one that cannot be must not keep them waiting.
                self._to_record.append(key)
                with torch.cuda.device(self._device):
                    if key[1] == _ANY:
                        self._record_reading(key[0])
                    else:
                        self._record_step(*key)
                self._to_record.remove(key)
            self._unrecorded.discard(key)
        return bool(self._to_record)

    @torch.inference_mode()
    def step(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | Tensor) -> Tensor:
        """One more token for each of these slots, which hold `lengths` tokens: logits (rows, vocabulary)."""
        with torch.cuda.device(self._device):
            rows = next(size for size in ROWS if size >= len(slots))
            key = rows, self._covered(max(lengths) + 1), False
            recorded = self._graphs.get(key) or self._recorded(key)
            if recorded is None:
                inputs = inputs_of(slots, lengths, tokens).to(self._device)
                if isinstance(tokens, Tensor):
                    inputs[0] = tokens
                # The room of the recorded step: fewer rows may join more parts than there is room for.
                return self.forward(inputs, self.room_for(rows, key[1]), False)
            return recorded.replay(slots, lengths, tokens)[: len(slots)]

    def _recorded(self, key: tuple[int, int, bool]) -> RecordedStep | None:
        """The step recorded now; None where there is no memory for it, then and until `prepare` found some."""
        if key in self._unrecorded:
            return None
        try:
            return self._record_step(*key)
        except (MemoryError, RuntimeError) as error:
            if not is_memory(error):
                raise
            clear_frames(error.__traceback__)
        log.warning("no memory is left to record a step of %d rows; it is computed as it is", key[0])
        empty_gpu_cache()
        self._unrecorded.add(key)
        if key not in self._to_record:
            self._to_record.append(key)
        return None

    def _is_recorded(self, key: tuple[int, int, bool]) -> bool:
        return key[0] in self._readings if key[1] == _ANY else key in self._graphs

    def _covered(self, length: int) -> int:
        return next(size for size in covered(self.window) if size >= length)

    def read(self, slot: int, start: int, ids: Sequence[int]) -> Tensor:
        """Keys and values of `ids` into the slot from `start` on; logits (vocabulary,) after the last one."""
        return self.read_together([Piece(slot, start, ids)])[0]

    @torch.inference_mode()
    def read_together(self, pieces: Sequence[Piece]) -> Tensor:
        """Keys and values of pieces for several slots; logits (pieces, vocabulary) after the last token of each."""
        with torch.cuda.device(self._device):
            step = self._step_for(pieces)
            if step is not None:
                # Started as one recorded step instead of hundreds of kernels by Python.
                rows = [(piece.slot, piece.start + at, token) for piece in pieces for at, token in enumerate(piece.ids)]
                return step.replay(*zip(*rows, strict=True))[_lasts(pieces)]
            count = sum(len(piece.ids) for piece in pieces)
            reading = self._readings.get(next((size for size in READINGS if size >= count), 0))
            hidden = self._read(pieces) if reading is None else reading.replay(self, pieces)
            ends = hidden[_lasts(pieces)]
            return self._head(decode.normalize(ends, self._norm, torch.empty_like(ends)))  # type: ignore[no-any-return]

    def _step_for(self, pieces: Sequence[Piece]) -> RecordedStep | None:
        """The step by whose rows these are read soonest; None when they are not, or as long as it is not recorded."""
        count, longest = sum(len(piece.ids) for piece in pieces), max(piece.end for piece in pieces)
        if count > self._short:
            return None
        rows = next(size for size in piece_sizes(self._short) if size >= count)
        if longest > furthest(rows, self._heads.heads // self._heads.together, self._heads.dim):
            return None
        key = rows, self._covered(longest), True
        if key not in self._wished:
            self._wished.add(key)
            self._to_record.append(key)
        return self._graphs.get(key)

    def _read(self, pieces: Sequence[Piece]) -> Tensor:
        """What the last layer makes of pieces, (rows, hidden)."""
        rows = Rows.of(pieces, self.slot_rows, self._device)
        count = rows.inputs.shape[1]
        hidden = self._embedding.new_empty(count, self._embedding.shape[1])
        self.embed(rows, hidden)
        queries = hidden.new_empty(count, self._heads.heads, self._heads.dim)
        multiply = few if count <= self._short else self._many(count)
        for at in range(self.layers):
            self.before(at, hidden, rows, queries, multiply)
            self.after(at, attend_pieces(queries, pieces, rows, self.cache(at), self.scaling), hidden, multiply)
        return hidden

    def embed(self, rows: Rows, out: Tensor) -> None:
        """The embeddings of rows into `out` (rows, hidden)."""
        torch.index_select(self._embedding, 0, rows.inputs[0], out=out)

    def before(self, at: int, hidden: Tensor, rows: Rows, queries: Tensor, multiply: Multiply | None = None) -> None:
        """What layer `at` does of hidden (rows, hidden) before its attention: `queries` (rows, heads, dim), rotated;
        keys and values into the cache."""
        block, (_, slots, places) = self._blocks[at], rows.inputs
        multiply = multiply or self._multiply(len(hidden))
        qkv = multiply(block.qkv, decode.normalize(hidden, block.norm_in, torch.empty_like(hidden)))
        decode.rotate_and_store(qkv, self._heads, block.norms, places, slots, self.cache(at), queries)

    def after(self, at: int, attended: Tensor, hidden: Tensor, multiply: Multiply | None = None) -> None:
        """What layer `at` does after its attention, of `attended` (rows, heads * dim): added to hidden."""
        block = self._blocks[at]
        multiply = multiply or self._multiply(len(hidden))
        multiply(block.out, attended, hidden)
        inner = multiply(block.gate_up, decode.normalize(hidden, block.norm_mid, torch.empty_like(hidden)))
        multiply(block.down, inner, hidden)

    def _multiply(self, count: int) -> Multiply:
        """Products of `count` rows in any order."""
        if count <= self._short:
            return few
        room = self._rooms[0] if self._rooms else None
        return lambda product, x, residual=None: product.many(x, product.wide(room), residual)

    def _many(self, count: int) -> Multiply:
        """Products of a piece of `count` tokens, to be asked for in the order in which they come."""
        beside = self.beside if count >= _OVERLAPPED else None
        wide = widened([one for block in self._blocks for one in block.products], self._rooms, beside)
        return lambda product, x, residual=None: product.many(x, next(wide), residual)

    @torch.inference_mode()
    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copy the cached tokens [start, end) of one slot into another."""
        # Four numbers as one: a copy of so many short rows moves them one by one.
        cache = self._cache.view(torch.int64)
        cache[:, :, target, :, start:end] = cache[:, :, source, :, start:end]

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self._blocks)

    @property
    def scaling(self) -> float:
        """Of attention."""
        return self._heads.scaling

    @property
    def slot_rows(self) -> int:
        """Tokens of all heads that a slot has room for."""
        return self._cache.shape[3] * self.window

    def cache(self, at: int) -> tuple[Tensor, Tensor]:
        """Keys and values (slots, kv_heads, window, dim) of layer `at`."""
        return self._cache[at, 0], self._cache[at, 1]

    def memory(self) -> dict[str, int]:
        """Bytes by device that closing gives back."""
        held = [self._embedding, self._cache, self._heads.table, *self._joins, *self._rooms, *self._head.parameters()]
        held += [self.hidden, self.queries, self.attended]
        held += [tensor for block in self._blocks for one in block.products for tensor in one.tensors]
        sizes = {tensor.data_ptr(): tensor.nbytes for tensor in held}
        return {str(self._device): sum(sizes.values()) + in_reserve(str(self._device))}

    def close(self) -> None:
        """Give everything back."""
        self._graphs.clear()
        self._readings.clear()
        self._blocks.clear()
        self._pool = None
        self._rooms.clear()
        del self._joins
        free_workspaces(self._device)
        del self._cache, self._embedding, self._head, self.hidden, self.queries, self.attended

    def _record_step(self, rows: int, most: int, piece: bool) -> RecordedStep:
        """Record a step of `rows` rows over up to `most` cached tokens; of a `piece`, rows may be of one slot."""
        captured = RecordedStep(self, rows, most, piece, self._pool)
        self._pool = self._pool or captured.graph.pool()
        self._graphs[rows, most, piece] = captured
        return captured

    def _record_reading(self, rows: int) -> None:
        recorded = self._readings[rows] = RecordedReading(self, rows, self._pool)
        self._pool = recorded.pool

    def forward(self, inputs: Tensor, room: decode.Room, piece: bool) -> Tensor:
        """The step itself, as it is recorded: inputs (3, rows) int32 of tokens, slots and lengths."""
        tokens, slots, lengths = inputs
        hidden = self._embedding[tokens]
        normed, attended = torch.empty_like(hidden), hidden.new_empty(len(hidden), self._heads.heads * self._heads.dim)
        for at, block in enumerate(self._blocks):
            qkv = block.qkv.few(decode.normalize(hidden, block.norm_in, normed))
            states = self.cache(at)
            if piece:
                decode.store(qkv, self._heads, block.norms[1], lengths, slots, states)
            decode.attend(qkv, self._heads, block.norms, lengths, slots, states, room, attended, stored=piece)
            self.after(at, attended, hidden, few)
        return self._head(decode.normalize(hidden, self._norm, normed))  # type: ignore[no-any-return]

    def room_for(self, rows: int, most: int) -> decode.Room:
        """See decode.room_for."""
        return decode.room_for(rows, self._heads, min(most, self.window), *self._joins)


def _block(layer: Layer) -> _Block:
    assert layer.down is not None
    return _Block(
        layer.norm_in, product(layer.qkv), (layer.q_norm, layer.k_norm), product((layer.out,)), layer.norm_mid,
        product(layer.gate_up, gated=True), product((layer.down,)),
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
