"""What a GPU step model (gpu_step.py) computes, recorded as CUDA graphs, so that Python starts no single kernel.

Steps are recorded whole. Pieces of prompts are recorded layer by layer, for their attention depends on how long each
conversation is: it is started as it is, between the graphs (as "piecewise" graphs in vLLM,
https://docs.vllm.ai/en/latest/design/cuda_graphs).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dbgpt_lite.llm.gpu_reading import Rows, attend_pieces
from dbgpt_lite.llm.slotted import Piece

if TYPE_CHECKING:
    from dbgpt_lite.llm.gpu_step import GpuStepModel


def graph_of(run: Callable[[], Any], stream: torch.cuda.Stream, pool: Any) -> tuple[Any, Any]:
    """What `run` starts on the GPU as a graph to be replayed, which takes its memory from `pool`; and what it returned,
    valid after each replay. It must have run once before, so that nothing is chosen or compiled now."""
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # Other threads may use the GPU meanwhile, to embed a question say.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            found = run()
    finally:
        # Where a graph cannot be made of what was recorded, torch goes on with its stream.
        torch.cuda.set_stream(before)
    return graph, found


def inputs_of(slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | Tensor) -> Tensor:
    """A step's inputs (3, rows) int32 on the host; anything in the place of tokens that are on the device."""
    known = slots if isinstance(tokens, Tensor) else tokens
    return torch.tensor((known, slots, lengths), dtype=torch.int32)


class RecordedStep:
    """A step recorded for a number of rows. Rows that are not used have no slot."""

    def __init__(self, model: "GpuStepModel", rows: int, most: int, piece: bool, pool: Any) -> None:
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._host = torch.zeros(3, rows, dtype=torch.int32).pin_memory()
        self._inputs = torch.zeros(3, rows, dtype=torch.int32, device=torch.cuda.current_device())
        self._inputs[1] = -1
        self._room = model.room_for(rows, most)
        # One stream for all: a product's workspace stays with the stream that it was first used on.
        stream = model.beside
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries choose their kernels, and ours are compiled, before anything is recorded.
            model.forward(self._inputs, self._room, piece)
        torch.cuda.current_stream().wait_stream(stream)
        self._logits: Tensor
        self.graph, self._logits = graph_of(lambda: model.forward(self._inputs, self._room, piece), stream, pool)

    def replay(self, slots: Sequence[int], lengths: Sequence[int], tokens: Sequence[int] | Tensor) -> Tensor:
        """Logits (rows, vocabulary), valid until the next replay of any graph. `tokens` may lie on the device."""
        count = len(slots)
        # The last step may not have begun: what it is to compute must stay until it is copied.
        self._copied.synchronize()
        self._host[1, count:] = -1
        self._host[:, :count] = inputs_of(slots, lengths, tokens)
        self._inputs.copy_(self._host, non_blocking=True)
        self._copied.record()
        if isinstance(tokens, Tensor):
            self._inputs[0, :count] = tokens
        self.graph.replay()
        return self._logits


class RecordedReading:
    """Pieces of prompts of up to `rows` tokens in all, recorded but for their attention."""

    def __init__(self, model: "GpuStepModel", rows: int, pool: Any) -> None:
        self._rows = rows
        device, stream = model.hidden.device, model.beside
        # No slot: nothing is stored anywhere.
        own = Rows.of((), model.slot_rows, device, rows)
        self._inputs = own.inputs
        hidden, queries, attended = (room[:rows] for room in (model.hidden, model.queries, model.attended))

        def part(at: int) -> None:
            """From the attention of layer `at` - 1 to that of layer `at`."""
            if at == 0:
                model.embed(own, hidden)
            else:
                model.after(at - 1, attended, hidden)
            if at < model.layers:
                model.before(at, hidden, own, queries)

        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for at in range(model.layers + 1):
                part(at)
        torch.cuda.current_stream().wait_stream(stream)
        self._parts: list[Any] = []
        for at in range(model.layers + 1):
            graph, _ = graph_of(lambda at=at: part(at), stream, pool)  # type: ignore[misc]
            pool = pool or graph.pool()
            self._parts.append(graph)
        self.pool = pool

    def replay(self, model: "GpuStepModel", pieces: Sequence[Piece]) -> Tensor:
        """What the last layer makes of the pieces, (rows, hidden); valid until the next replay of any graph. `model`:
        the one it was recorded of, which holds it."""
        rows = Rows.of(pieces, model.slot_rows, self._inputs.device, self._rows)
        self._inputs.copy_(rows.inputs)
        count = sum(len(piece.ids) for piece in pieces)
        queries, attended = model.queries[:count], model.attended[:count]
        for at, part in enumerate(self._parts):
            part.replay()
            if at < model.layers:
                attended.copy_(attend_pieces(queries, pieces, rows, model.cache(at), model.scaling))
        return model.hidden[:count]
