"""The NVIDIA GPUs of this machine, asked of the driver's own libraries: milliseconds instead of torch's seconds.

CUDA's driver says which GPUs a process sees and in what order (it obeys CUDA_VISIBLE_DEVICES as torch does), NVML how
much of each is free without starting a context on it. https://docs.nvidia.com/cuda/cuda-driver-api/ (device
management), https://docs.nvidia.com/deploy/nvml-api/ (nvmlDeviceGetMemoryInfo).
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_CUDA, _NVML = "libcuda.so.1", "libnvidia-ml.so.1"
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's name as its driver says it, its free bytes, and its compute capability."""

    name: str
    free: int
    capability: tuple[int, int]


class DriverError(RuntimeError):
    """The driver's libraries are there and refused; torch has to be asked."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Uuid(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_ubyte * 16),)


def driver_gpus(open_library: Callable[[str], Any] = ctypes.CDLL) -> tuple[Gpu, ...]:
    """GPUs in torch's order; none where no driver is installed. Raises DriverError when it cannot say."""
    try:
        cuda = open_library(_CUDA)
    except OSError:
        return ()
    try:
        nvml = open_library(_NVML)
        if cuda.cuInit(0) == 100:  # CUDA_ERROR_NO_DEVICE
            return ()
        _ask(nvml, "nvmlInit_v2")
        try:
            count = ctypes.c_int()
            _ask(cuda, "cuDeviceGetCount", ctypes.byref(count))
            return tuple(_gpu(cuda, nvml, index) for index in range(count.value))
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError) as error:
        raise DriverError(str(error)) from error


def _gpu(cuda: Any, nvml: Any, index: int) -> Gpu:
    name, uuid, memory = ctypes.create_string_buffer(128), _Uuid(), _Memory()
    device, handle = ctypes.c_int(), ctypes.c_void_p()
    _ask(cuda, "cuDeviceGet", ctypes.byref(device), index)
    _ask(cuda, "cuDeviceGetName", name, len(name), device)
    _ask(cuda, "cuDeviceGetUuid", ctypes.byref(uuid), device)
    _ask(nvml, "nvmlDeviceGetHandleByUUID", _written(bytes(uuid.bytes)), ctypes.byref(handle))
    _ask(nvml, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    major, minor = (_attribute(cuda, device, number) for number in _CAPABILITY)
    return Gpu(name.value.decode(errors="replace"), int(memory.free), (major, minor))


def _attribute(cuda: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    _ask(cuda, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _written(uuid: bytes) -> bytes:
    """16 bytes as NVML writes them: GPU-8-4-4-4-12 hexadecimal digits."""
    digits = uuid.hex()
    return "-".join(("GPU", digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode()


def _ask(library: Any, function: str, *arguments: Any) -> None:
    """Call a function that returns 0 when all is well."""
    status = getattr(library, function)(*arguments)
    if status:
        raise DriverError(f"{function}: {status}")
