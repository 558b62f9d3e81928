"""What a kernel is started with is what the driver gets. Compiling needs a GPU: benchmarks/gpu_check.py."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dbgpt_lite.llm.kernels import nvrtc

_LAUNCHER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(nvrtc._Launch), ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p
)


def at(address: int | None, kind: Any) -> Any:
    return ctypes.cast(ctypes.c_void_p(address), ctypes.POINTER(kind))[0]


def test_every_argument_arrives_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    @_LAUNCHER
    def driver(launch: Any, function: int, places: Any, extra: int | None) -> int:
        one, how = launch.contents, (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_float)
        values = tuple(at(places[number], kind) for number, kind in enumerate(how))
        overlap = one.attributes[0].value
        seen.append((list(one.grid), list(one.block), one.shared, one.stream, one.count, overlap, function, *values))
        return 0

    monkeypatch.setattr(nvrtc, "current_stream", lambda device: 70 + device)
    loaded = SimpleNamespace(cuLaunchKernelEx=driver, cuFuncSetAttribute=lambda *arguments: 0)
    kernel = nvrtc.Kernel(loaded, ctypes.c_void_p(9), ctypes.c_void_p(8), overlap=True, device=3)
    one, other = torch.zeros(4), torch.ones(3)
    kernel((1, 2, 3), 128, 0, one, 7, None, 0.5)
    kernel((4, 5, 6), 64, 60_000, other, 8, one, 0.25, stream=5)
    kernel((1, 1, 1), 32, 0, one, 9, None, -1.0)
    assert seen == [
        ([1, 2, 3], [128, 1, 1], 0, 73, 1, 1, 9, one.data_ptr(), 7, None, 0.5),
        ([4, 5, 6], [64, 1, 1], 60_000, 5, 1, 1, 9, other.data_ptr(), 8, one.data_ptr(), 0.25),
        ([1, 1, 1], [32, 1, 1], 0, 73, 1, 1, 9, one.data_ptr(), 9, None, -1.0),
    ]
    with pytest.raises(ValueError, match="zip"):
        kernel((1, 1, 1), 32, 0, one)


def test_a_compiler_too_old_for_its_purpose_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", lambda name: SimpleNamespace(nvrtcCompileProgram=None))
    with pytest.raises(OSError, match="not there"):
        nvrtc._compiler()


def test_no_memory_is_said_in_words() -> None:
    with pytest.raises(nvrtc.CudaError, match="out of memory"):
        nvrtc._check(2, "module")


def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "current_stream", lambda device: 0)
    refusing = SimpleNamespace(cuLaunchKernelEx=lambda *arguments: 700)
    kernel = nvrtc.Kernel(refusing, ctypes.c_void_p(), ctypes.c_void_p(), overlap=False, device=0)
    with pytest.raises(nvrtc.CudaError, match="700"):
        kernel((1, 1, 1), 32, 0, 1)
