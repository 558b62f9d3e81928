"""The GPU step model with plain PyTorch in the place of its kernels, graphs and streams: what is asked of it must equal
what the plain step model answers. The kernels are compared on a GPU by benchmarks/gpu_check.py."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm import gpu_reading, gpu_recorded, gpu_step, step_shape
from dbgpt_lite.llm.batch import Batch
from dbgpt_lite.llm.gpu_products import FourBitProduct, known, product
from dbgpt_lite.llm.kernels import decode, nf4
from dbgpt_lite.llm.kernels.nvrtc import CudaError
from dbgpt_lite.llm.parts import take_apart
from dbgpt_lite.llm.slotted import Piece, PlainStepModel
from tests.llm.test_nf4 import layer, packed

WINDOW, SLOTS = 40, 3


class Nothing(nullcontext[None]):
    """A device or a stream of a GPU that is not there."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def wait_stream(self, other: Any) -> None:
        """Nothing is under way."""


GRAPH_OF = gpu_recorded.graph_of


class Graph:
    """A graph that computes anew when it is replayed."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def replay(self) -> None:
        self.count(1)
        self._run()

    @staticmethod
    def count(times: int) -> None:
        """For tests to replace."""

    def pool(self) -> int:
        return 1


class Recorded:
    """A captured step that computes at once."""

    def __init__(self, model: Any, rows: int, covered: int, piece: bool, pool: Any) -> None:
        self._model, self._rows, self._room, self._piece = model, rows, model.room_for(rows, covered), piece
        self.graph = self

    def pool(self) -> int:
        return 1

    def replay(self, slots: Any, lengths: Any, tokens: Any) -> torch.Tensor:
        inputs = torch.zeros(3, self._rows, dtype=torch.int32)
        inputs[1] = -1
        inputs[:, : len(slots)] = torch.tensor((torch.as_tensor(tokens).tolist(), list(slots), list(lengths)))
        return torch.as_tensor(self._model.forward(inputs, self._room, self._piece))


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_step, "RecordedStep", Recorded)
    monkeypatch.setattr(gpu_recorded, "graph_of", lambda run, stream, pool: (Graph(run), run()))
    for module in (gpu_step, step_shape):
        monkeypatch.setattr(module, "READINGS", (4, 8, 24))
    monkeypatch.setattr(gpu_step, "free_workspaces", lambda device: None)
    # Pieces of up to so many tokens are read as one step, longer ones with widened weights.
    monkeypatch.setattr(gpu_step, "MOST_ROWS", 6)
    for name in ("device", "Stream", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Nothing)


def tiny(kind: str, **changes: Any) -> Any:
    import transformers

    sizes = {
        "vocab_size": 61, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0, **changes,
    }  # fmt: skip
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.1).requires_grad_(False)
    return model


def quantize(model: Any, numbers: str) -> Any:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and name != "lm_head" and numbers != "none":
                small: Any = (layer if numbers == "nf4" else packed)(child.out_features, child.in_features, 2)
                small.bias = child.bias
                small.compute_dtype = torch.float32
                small.in_features, small.out_features = child.in_features, child.out_features
                setattr(module, name, small)
    return model


@pytest.mark.parametrize("numbers", ["none", "nf4", "int4"])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Llama", {"attention_bias": True}),
        ("Qwen3", {"num_key_value_heads": 4}),
        ("Glm", {"attention_bias": True, "num_attention_heads": 8, "num_key_value_heads": 1}),
    ],
)
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, WINDOW - 5), min_size=1, max_size=SLOTS),
    cut=st.integers(0, 9),
    kept=st.booleans(),
    by_rows=st.sampled_from([0, 4000, 10**9]),
)
def test_it_answers_what_the_plain_one_does(
    kind: str, changes: dict[str, Any], numbers: str, lengths: list[int], cut: int, kept: bool, by_rows: int
) -> None:
    model = tiny(kind, **changes)
    parts = take_apart(quantize(model, numbers))
    assert parts is not None
    answers = [scene(PlainStepModel(parts, SLOTS, WINDOW), lengths, cut)]
    with pytest.MonkeyPatch.context() as patch:
        # As rows of a step: none, the shorter ones, all short ones.
        patch.setattr(step_shape, "READ_BY_ROWS", by_rows)
        answers.append(fast_answers(parts, lengths, cut, kept))
    rtol, atol = (0.02, 0.02) if numbers == "nf4" else (1e-3, 1e-4)
    for plain, other in zip(*answers, strict=True):
        assert torch.allclose(plain, other, rtol=rtol, atol=atol)


def fast_answers(parts: Any, lengths: list[int], cut: int, kept: bool) -> list[torch.Tensor]:
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW, wide=2**30 if kept else 0)
    fast.warm_up()
    # Loading waits for what the first answer needs, no longer.
    assert {(rows, piece) for rows, _, piece in fast._graphs} == {(1, False)}
    while fast.prepare():
        pass
    assert {(rows, piece) for rows, _, piece in fast._graphs} == {
        *((rows, False) for rows in (1, 2, 4)), *((rows, True) for rows in (2, 4, 8)),
    }  # fmt: skip
    assert [*fast._readings] == [4, 8, 24]
    handed = sum(one.nbytes for one in (fast.hidden, fast.queries, fast.attended))
    # As far as the bytes go: a weight more than they hold is not kept.
    assert fast.widened == sum(one._kept.nbytes for one in four_bits(fast) if one._kept is not None)
    assert (fast.widened > 0) == (kept and bool(four_bits(fast)))
    assert fast.memory()["cpu"] > fast._cache.nbytes + handed
    found = scene(fast, lengths, cut)
    fast.close()
    assert len(fast._readings) == len(fast._graphs) == 0
    assert not hasattr(fast, "hidden")
    return found


def four_bits(fast: gpu_step.GpuStepModel) -> list[FourBitProduct]:
    return [one for block in fast._blocks for one in block.products if isinstance(one, FourBitProduct)]


def test_weights_are_kept_wider_as_far_as_room_goes() -> None:
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    whole = 2 * sum(one.widened for one in four_bits(gpu_step.GpuStepModel(parts, 1, WINDOW)))
    for room, share in ((whole, 1.0), (whole - 1, 0.99), (whole // 2, 0.5), (1, 0.0)):
        parts = take_apart(quantize(tiny("Llama"), "int4"))
        assert parts is not None
        fast = gpu_step.GpuStepModel(parts, 1, WINDOW, wide=room)
        assert fast.widened <= room
        assert (fast.widened == whole) == (share == 1.0)
        assert (fast.widened == 0) == (share == 0.0)


def test_a_model_runs_though_what_was_spare_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []

    def keep(one: FourBitProduct, dtype: torch.dtype) -> None:
        if len(kept) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        kept.append(one)
        keep_wide(one, dtype)

    keep_wide = FourBitProduct.keep_wide
    monkeypatch.setattr(FourBitProduct, "keep_wide", keep)
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    plain = scene(PlainStepModel(parts, SLOTS, WINDOW), [5, 9, 2], 0)
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW, wide=2**30)
    # What is kept needs no room any more.
    assert [one.widened == 0 for one in four_bits(fast)].count(True) == 3
    assert fast.widened > 0
    found = scene(fast, [5, 9, 2], 0)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(plain, found, strict=True))
    monkeypatch.setattr(FourBitProduct, "keep_wide", lambda one, dtype: 1 // 0)
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    with pytest.raises(ZeroDivisionError):
        gpu_step.GpuStepModel(parts, SLOTS, WINDOW, wide=2**30)


def test_passes_are_recorded_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part for each layer and one for what comes before the first, whatever the conversations' lengths."""
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    monkeypatch.setattr(step_shape, "READ_BY_ROWS", 0)
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    while fast.prepare():
        pass
    replayed: list[int] = []
    monkeypatch.setattr(Graph, "count", replayed.append)
    for pieces, size in (
        ([Piece(0, 0, [5, 6, 7])], 4),
        ([Piece(0, 3, [5] * 5)], 8),
        ([Piece(1, 0, [9] * 9), Piece(0, 8, [1, 2])], 24),
        ([Piece(2, 0, [9] * 25)], 0),
    ):
        replayed.clear()
        fast.read_together(pieces)
        assert len(replayed) == (len(parts.layers) + 1 if size else 0)
        assert not size or fast._readings[size]._inputs.shape == (3, size)
    fast.close()


def test_a_pass_without_memory_to_record_it_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    plain = scene(PlainStepModel(parts, SLOTS, WINDOW), [5, 9, 2], 0)
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    made: list[int] = []

    def full(run: Any, stream: Any, pool: Any) -> Any:
        if len(made) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        made.append(1)
        return Graph(run), run()

    with monkeypatch.context() as patch:
        patch.setattr(gpu_recorded, "graph_of", full)
        failures = 0
        for _ in range(20):
            try:
                fast.prepare()
            except torch.OutOfMemoryError:
                failures += 1
        assert failures
        assert not fast._readings
        found = scene(fast, [5, 9, 2], 0)
    while fast.prepare():
        pass
    assert [*fast._readings]
    found += scene(fast, [5, 9, 2], 0)
    for one, other in zip(plain * 2, found, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_model_is_warm_once_it_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    warm: set[str] = set()
    monkeypatch.setattr(gpu_step, "warmed", lambda: warm)
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    asked: list[Any] = []
    read = fast.read_together
    monkeypatch.setattr(fast, "read_together", lambda pieces: asked.extend(pieces) or read(pieces))
    assert not warm
    fast.warm_up()
    # A whole piece, the largest that memory must do for.
    assert [len(piece.ids) for piece in asked] == [fast.chunk]
    assert warm == {"cpu"}


def varlen(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Any, pieces: Any, scaling: float
) -> torch.Tensor:
    """FlashAttention's kernel for several lengths in plain PyTorch, from nothing but what it is told."""
    found = torch.full_like(queries, torch.nan)
    for at, end in enumerate(rows.ends.tolist()):
        first, last, start = rows.starts[at], rows.starts[at + 1], rows.cached[at]
        own, held = queries[first:last], (states[start : start + end] for states in (keys, values))
        mask = torch.ones(len(own), end, dtype=torch.bool).tril(end - len(own))
        seen = torch.nn.functional.scaled_dot_product_attention(
            own.transpose(0, 1)[None], *(states.transpose(0, 1)[None] for states in held), mask, scale=scaling,
            enable_gqa=True,
        )  # fmt: skip
        found[first:last] = seen[0].transpose(0, 1)
    return found


@given(lengths=st.lists(st.integers(1, WINDOW - 5), min_size=2, max_size=SLOTS), cut=st.integers(0, 9))
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_are_attended_to_at_once_by_where_they_lie(lengths: list[int], cut: int) -> None:
    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    plain = scene(PlainStepModel(parts, SLOTS, WINDOW), [*lengths], cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_shape, "READ_BY_ROWS", 0)
        patch.setattr(gpu_reading, "several_at_once", lambda queries, pieces: len(pieces) > 1)
        patch.setattr(gpu_reading, "attend_at_once", varlen)
        fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
        found = scene(fast, [*lengths], cut)
        while fast.prepare():
            pass
        found += scene(fast, [*lengths], cut)
    for one, other in zip(plain * 2, found, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_the_stream_stays_where_a_graph_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ["usual"]

    class Failing:
        """torch's own, which leaves its stream only when the graph was made."""

        def __init__(self, graph: Any, **_: Any) -> None:
            """Nothing yet."""

        def __enter__(self) -> None:
            streams.append("beside")

        def __exit__(self, *_: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Failing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    with pytest.raises(torch.OutOfMemoryError):
        GRAPH_OF(lambda: None, None, None)
    assert streams == ["usual", "beside", "usual"]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: out of memory"),
     RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), CudaError("module: out of memory")],
)  # fmt: skip
def test_a_step_that_there_is_no_memory_to_record_is_computed_all_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may have taken what was free when the model was loaded; answers under way must go on."""
    tried: list[Any] = []

    def full(model: Any, *key: Any) -> None:
        tried.append(key[:3])
        raise error

    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    plain = scene(PlainStepModel(parts, SLOTS, WINDOW), [5, 9, 2], 0)
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    rooms: list[int] = []
    room_for = fast.room_for
    with monkeypatch.context() as patch:
        patch.setattr(gpu_step, "RecordedStep", full)
        patch.setattr(fast, "room_for", lambda rows, most: rooms.append(rows) or room_for(rows, most), raising=False)
        found = scene(fast, [5, 9, 2], 0)
        assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-4) for one, other in zip(plain, found, strict=True))
        # What attention is joined in was measured for these rows: fewer may need more.
        assert {*rooms} <= {*step_shape.row_sizes(SLOTS)}
        # Tried, and said, once each, not with every token.
        assert len(tried) == len({*tried}) == len(caplog.records)
        with pytest.raises(type(error)):
            fast.prepare()
        first = tried[-1]
    # What could not be recorded is so later, and keeps nothing else waiting.
    assert first in fast._to_record
    assert fast._to_record[0] != first
    while fast.prepare():
        pass
    assert not fast._unrecorded
    assert {*tried} <= {*fast._graphs}


def test_other_errors_of_recording_are_not_about_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    fast = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    monkeypatch.setattr(gpu_step, "RecordedStep", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        scene(fast, [5, 9, 2], 0)


def test_a_recorded_step_takes_tokens_from_either_side() -> None:
    """Rows that are not used have no slot, whatever the last replay left."""

    step = object.__new__(gpu_recorded.RecordedStep)
    step._host, step._inputs = torch.zeros(3, 4, dtype=torch.int32), torch.full((3, 4), 99)
    step._logits, seen, waits = torch.zeros(4, 7), list[Any](), list[tuple[str, int, int]]()

    class Event:
        def synchronize(self) -> None:
            waits.append(("waited", int(step._host[2, 0]), int(step._inputs[2, 0])))

        def record(self) -> None:
            waits.append(("copied", int(step._host[2, 0]), int(step._inputs[2, 0])))

    step._copied = Event()
    step.graph = Graph(lambda: seen.append(step._inputs.tolist()))
    assert step.replay([5, 6, 7], [10, 11, 12], [1, 2, 3]) is step._logits
    step.replay([8, 9], [20, 21], torch.tensor([40, 41]))
    step.replay([8], [22], [42])
    assert seen[0] == [[1, 2, 3, 0], [5, 6, 7, -1], [10, 11, 12, 0]]
    assert (seen[1][0][:2], seen[1][1]) == ([40, 41], [8, 9, -1, -1])
    assert seen[1][2][:2] == [20, 21]
    assert (seen[2][0][0], seen[2][1], seen[2][2][0]) == (42, [8, -1, -1, -1], 22)
    # What is to be copied stays until it is.
    assert waits[:3] == [("waited", 0, 99), ("copied", 10, 10), ("waited", 10, 10)]
    assert len(waits) == 6


def test_no_memory_for_the_first_step_is_found_while_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    parts = take_apart(quantize(tiny("Llama"), "int4"))
    assert parts is not None
    monkeypatch.setattr(gpu_step, "RecordedStep", full)
    steps = gpu_step.GpuStepModel(parts, SLOTS, WINDOW)
    with pytest.raises(torch.OutOfMemoryError):
        Batch(steps, "full")


def scene(steps: Any, lengths: list[int], cut: int) -> list[torch.Tensor]:
    torch.manual_seed(7)
    ids = torch.randint(1, 60, (SLOTS, WINDOW)).tolist()
    found = []
    for slot, length in enumerate(lengths):
        middle = min(cut, length - 1)
        if middle:
            steps.read(slot, 0, ids[slot][:middle])
        found.append(steps.read(slot, middle, ids[slot][middle:length]).clone())
    if len(lengths) > 1:
        # Some more for each at once, and one after the other.
        pieces = [Piece(slot, length, ids[slot][length : length + 1 + slot]) for slot, length in enumerate(lengths)]
        found.append(steps.read_together(pieces).clone())
        lengths = [length + 1 + slot for slot, length in enumerate(lengths)]
    rows = list(range(len(lengths)))
    found.append(steps.step(rows, lengths, [ids[slot][lengths[slot]] for slot in rows]).clone())
    steps.copy(0, SLOTS - 1, 0, lengths[0])
    # A token as it was drawn, where steps are started ahead.
    token: Any = torch.tensor([ids[0][lengths[0]]]) if steps.queues else [ids[0][lengths[0]]]
    found.append(steps.step([SLOTS - 1], [lengths[0]], token).clone())
    return found


def test_what_has_no_kernel_is_not_known() -> None:
    plain, small = torch.nn.Linear(64, 16), layer(16, 64, 1)
    assert known([plain, plain], gated=True)
    assert known([small, small], gated=True)
    assert not known([plain, small])
    # A tile of gates goes with a tile of what they gate, and the kernel that gates adds no bias.
    odd = layer(48, 64, 1)
    odd.in_features, odd.out_features = 64, 48
    assert known([odd])
    assert not known([odd], gated=True)
    small.bias = torch.nn.Parameter(torch.zeros(16))
    assert known([small])
    assert not known([small, small], gated=True)
    assert isinstance(product([small]), FourBitProduct)


def test_every_kernel_that_is_asked_for_is_there() -> None:
    folder = Path(decode.__file__).parent
    for module in (decode, nf4):
        asked = re.findall(r'_kernel\("(\w+)"|compiled\(\s*_source\(\), "(\w+)"', Path(module.__file__).read_text())
        there = re.findall(
            r"^(?:extern .*\s)?(\w+)\(const ", (folder / f"{module.__name__.split('.')[-1]}.cu").read_text(), re.M
        )
        names = {name for pair in asked for name in pair if name}
        assert names
        assert names <= set(there)
