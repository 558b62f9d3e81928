"""Kernels are compiled once however many threads ask, and those compiled ahead are those that steps ask for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from dbgpt_lite.llm import stepping
from dbgpt_lite.llm.kernels import ahead, decode, nf4
from dbgpt_lite.llm.kernels.nvrtc import CudaError, once
from dbgpt_lite.llm.step_shape import SPLITS
from tests.llm.test_batch_room import planned


def test_one_makes_what_many_ask_for() -> None:
    calls: list[int] = []
    gate = threading.Barrier(8)

    @once
    def made(number: int) -> object:
        calls.append(number)
        time.sleep(0.05)
        return object()

    def ask(number: int) -> object:
        gate.wait()
        return made(number % 2)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(ask, range(8)))
    assert sorted(calls) == [0, 1]
    assert found == {made(0), made(1)}


def test_a_failure_is_told_and_tried_again() -> None:
    answers = iter([CudaError("no"), None])

    @once
    def made(number: int) -> int:
        if error := next(answers):
            raise error
        return number

    with pytest.raises(CudaError):
        made(3)
    assert made(3) == 3


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Any, ...]]:
    """What the compiler is asked for, by (name, defines), on a card that is not there."""
    asked: set[tuple[Any, ...]] = set()

    def compiled(source: str, name: str, defines: dict[str, int], overlap: bool = False) -> None:
        asked.add((name, tuple(defines.items())))

    for module in (decode, nf4):
        monkeypatch.setattr(module, "compiled", compiled)
    monkeypatch.setattr(nf4, "shared_limit", lambda device: 227 * 1024)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    return asked


@pytest.mark.parametrize(
    ("rows", "wide"), [(1, [1]), (8, [1]), (9, [1, 2]), (16, [1, 2]), (17, [1, 2, 4]), (33, [1, 2, 4, 8])]
)
def test_what_is_compiled_ahead_is_what_is_asked_for(
    compiled: set[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, rows: int, wide: list[int]
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(ahead, "compile_ahead", lambda programs, capability: begun.extend(programs))
    stepping.compile_ahead(planned("chatglm2-6b", 24, 1), CONFIG, rows)
    # As gpu_step and its kernels name them, by a device of its own so that nothing is taken from a cache.
    device = 100 + rows
    for size in wide:
        nf4._matmul_kernel(size, 1 if size == 1 else 2, False, True, device)
        nf4._matmul_kernel(size, 2, True, True, device)
    nf4._widen_kernel(True, device)
    for name, dim in (("rms_norm", 128), ("gate", 128), ("rotate_and_store", 128), ("store", 128)):
        decode._kernel(name, dim, True, device)
    for split in SPLITS:
        for stored in (False, True):
            decode._kernel("attend", 128, True, device, 4, split, stored)
    assert {(program.name, program.defines) for program in begun} == compiled
    assert len(begun) == len(compiled)


CONFIG = {
    "model_type": "chatglm", "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128, "num_layers": 28,
    "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 32, "padded_vocab_size": 65024,
    "seq_length": 32768,
}  # fmt: skip


def test_a_failing_compiler_does_not_matter_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def binary(source: str, name: str, defines: object, capability: object) -> bytes:
        asked.append(name)
        raise CudaError("no compiler")

    monkeypatch.setattr(ahead, "binary", binary)
    said: list[str] = []
    monkeypatch.setattr(ahead.log, "debug", lambda text, *arguments: said.append(text))
    ahead.compile_ahead(decode.programs(64, 8, half=False), (9, 0)).join()
    assert sorted(asked) == ["attend"] * 4 + ["gate", "rms_norm", "rotate_and_store", "store"]
    assert len(said) == 8


def test_nothing_is_compiled_for_a_plan_without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(ahead, "compile_ahead", lambda programs, capability: begun.append(programs))
    stepping.compile_ahead(planned("chatglm2-6b", 4, 1), CONFIG, 0)
    assert not begun
