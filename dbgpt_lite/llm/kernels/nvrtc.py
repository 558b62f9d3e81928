"""CUDA C++ compiled when it is first needed, by the compiler that torch brings along (NVRTC), on torch's stream.

Interfaces: https://docs.nvidia.com/cuda/nvrtc and https://docs.nvidia.com/cuda/cuda-driver-api. A
kernel takes half a second to compile; CUDA keeps what it compiled in its own cache, and then it is 20 milliseconds.
"""

import ctypes
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

Grid = tuple[int, int, int]
P = ParamSpec("P")
T = TypeVar("T")


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute."""

    _fields_ = [("name", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15)]


class _Launch(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(_Attribute)), ("count", ctypes.c_uint),
    ]  # fmt: skip


# CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: start while the kernel before still runs, up to where the
# kernel itself waits for it (griddepcontrol.wait). From compute capability 9.0 on.
_OVERLAP = 6
_SHARED_LIMIT_ATTRIBUTE = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_FREE_SHARED = 48 * 1024
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY


class CudaError(RuntimeError):
    """CUDA or its compiler refused."""


class Program(NamedTuple):
    """A kernel of a source to be compiled: see `binary`."""

    source: str
    name: str
    defines: tuple[tuple[str, int], ...]


def once(make: Callable[P, T]) -> Callable[P, T]:
    """Several threads that ask for the same wait for the one that makes it, which functools.cache alone would not do.
    An error is given to those who waited, and the next call tries again. Arguments by position only."""
    lock, made = threading.Lock(), dict[tuple[object, ...], Future[T]]()

    @wraps(make)
    def found(*args: P.args, **kwargs: P.kwargs) -> T:
        with lock:
            future, mine = made.get(args), False
            if future is None:
                future, mine = made.setdefault(args, Future()), True
        if mine:
            try:
                future.set_result(make(*args, **kwargs))
            except BaseException as error:
                with lock:
                    del made[args]
                future.set_exception(error)
        return future.result()

    return found


class Kernel:
    """One compiled kernel on one device. Calling it starts it on the current stream."""

    def __init__(
        self, driver: Any, function: ctypes.c_void_p, module: ctypes.c_void_p, overlap: bool, device: int
    ) -> None:
        """`overlap`: whether the kernel waits itself for those before it."""
        self._driver, self._function, self._module, self._device = driver, function, module, device
        self._attributes = (_Attribute * 1)(_Attribute(_OVERLAP, 0, 1)) if overlap else None
        self._shared = _FREE_SHARED
        self._lock = threading.Lock()
        self._launch = _Launch(attributes=self._attributes, count=1 if overlap else 0)
        self._values: list[Any] = []
        self._addresses: Any = None

    def __call__(
        self,
        grid: Grid,
        threads: int,
        shared: int,
        *arguments: torch.Tensor | int | float | None,
        stream: int | None = None,
    ) -> None:
        """Start it. `shared`: bytes of shared memory. A tensor is passed as its address (None: zero). `stream`: CUDA's
        handle of the stream, the current one's when it is not given.

        The caller keeps the tensors alive; under torch.cuda.graph the launch becomes a part of the graph.
        """
        # A prompt starts some ten kernels a layer, and Python is what they wait for: nothing is made anew.
        with self._lock:
            if shared > self._shared:
                limit = _SHARED_LIMIT_ATTRIBUTE
                _check(self._driver.cuFuncSetAttribute(self._function, limit, shared), "shared memory")
                self._shared = shared
            if not self._values:
                self._values = [_place(value) for value in arguments]
                addresses = (ctypes.addressof(place) for place in self._values)
                self._addresses = (ctypes.c_void_p * len(arguments))(*addresses)
            for place, value in zip(self._values, arguments, strict=True):
                place.value = value.data_ptr() if isinstance(value, torch.Tensor) else value
            launch = self._launch
            launch.grid[:], launch.block[:], launch.shared = grid, (threads, 1, 1), shared
            launch.stream = current_stream(self._device) if stream is None else stream
            _check(self._driver.cuLaunchKernelEx(ctypes.byref(launch), self._function, self._addresses, None), "launch")


def current_stream(device: int) -> int:
    """CUDA's handle of the current stream of a device."""
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a tenth of the time of torch's public way
    return int(raw(device)) if raw else int(torch.cuda.current_stream(device).cuda_stream)


def source(name: str) -> str:
    """The text of a kernel file of this folder, after what all of them need."""
    folder = Path(__file__).parent
    return "\n".join((folder / file).read_text(encoding="utf-8") for file in ("common.cu", name))


def compiled(source: str, name: str, defines: Mapping[str, int], overlap: bool = False) -> Kernel:
    """The kernel `name` of a source, for the current device. Raises CudaError and OSError when there is no compiler."""
    driver = ctypes.CDLL("libcuda.so.1")
    torch.cuda.current_stream()  # the context that a module is loaded into
    image = binary(source, name, tuple(defines.items()), torch.cuda.get_device_capability())
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(driver.cuModuleLoadData(ctypes.byref(module), image), "module")
    _check(driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()), "function")
    overlap = overlap and torch.cuda.get_device_capability() >= (9, 0)
    return Kernel(driver, function, module, overlap, torch.cuda.current_device())


@cache
@once
def binary(source: str, name: str, defines: tuple[tuple[str, int], ...], capability: tuple[int, int]) -> bytes:
    """What the compiler makes of a source for GPUs of a capability. Needs no GPU and may be asked by any thread.

    Raises CudaError and OSError when there is no compiler.
    """
    compiler = _compiler()
    major, minor = capability
    options = [f"--gpu-architecture=sm_{major}{minor}", *(f"-D{key}={value}" for key, value in defines)]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    program = ctypes.c_void_p()
    _check(
        compiler.nvrtcCreateProgram(ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None),
        "program",
    )
    try:
        if compiler.nvrtcCompileProgram(program, len(options), given):
            raise CudaError(_text(compiler.nvrtcGetProgramLogSize, compiler.nvrtcGetProgramLog, program).decode())
        return _text(compiler.nvrtcGetCUBINSize, compiler.nvrtcGetCUBIN, program)
    finally:
        compiler.nvrtcDestroyProgram(ctypes.byref(program))


def _compiler() -> Any:
    """NVRTC: of the version that torch was built with, from wherever the system or a wheel beside torch has it."""
    major = str(torch.version.cuda).split(".")[0]
    name = f"libnvrtc.so.{major}"
    beside = [str(file) for root in sys.path for file in Path(root).glob(f"nvidia/*/lib/{name}")]
    for candidate in (name, *beside, f"/usr/local/cuda/lib64/{name}"):
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue
        if hasattr(library, "nvrtcGetCUBIN"):  # since CUDA 11.1
            return library
    raise OSError(f"{name} is not there")


def _text(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "size")
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer), "read")
    return buffer.raw


def _place(value: torch.Tensor | int | float | None) -> Any:
    """Where an argument of this kind is put for a launch."""
    if value is None or isinstance(value, torch.Tensor):
        return ctypes.c_void_p()
    return ctypes.c_int() if isinstance(value, int) else ctypes.c_float()


def _check(code: int, what: str) -> None:
    if code:
        raise CudaError(f"{what}: out of memory" if code == _OUT_OF_MEMORY else f"{what}: error {code}")
