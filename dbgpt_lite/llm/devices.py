"""What this machine offers: GPUs and memory that are free now, and the number type its processor multiplies well."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.device_map import device_name, read_map
from dbgpt_lite.llm.gpus import DriverError, driver_gpus
from dbgpt_lite.llm.placement import DISK_FREE, STRATEGIES, Device
from dbgpt_lite.llm.units import MIB, parse_size

_CGROUP = Path("/sys/fs/cgroup")


def usable_devices(
    device_map: str, max_memory: Mapping[str, str], freed: Mapping[str, int] | None = None
) -> tuple[Device, ...]:
    """Devices that a placement may use with their free bytes, capped by `max_memory` ({"0": "20GiB", "cpu": ...}).
    `freed`: bytes by device that will be free as well.

    A strategy may use all of them, at last the disk: weights are read from the checkpoint where it lies. Raises
    ConfigError for an unknown placement, and for a device that is not there.
    """
    found = (replace(device, free=device.free + (freed or {}).get(device.name, 0)) for device in all_devices())
    return chosen(device_map, max_memory, tuple(found))


def chosen(device_map: str, max_memory: Mapping[str, str], found: tuple[Device, ...]) -> tuple[Device, ...]:
    """Those of `found` that a placement may use, with their caps. Raises ConfigError for a name that none has."""
    known = [device.name for device in found]
    if device_map in STRATEGIES:
        names = known
    elif device_map.lstrip().startswith("{"):
        names = [name for name in known if name in {*read_map(device_map).values(), "cpu"}]
    else:
        names = [device_name(device_map)]
        if names[0] not in known or names[0] == "disk":
            raise ConfigError("llm.bad_device", value=device_map, known=", ".join((*STRATEGIES, *known)))
    caps = {device_name(name): parse_size(size) for name, size in max_memory.items()}
    if strange := [name for name in max_memory if device_name(name) not in known]:
        numbers = (name.removeprefix("cuda:") for name in known)
        raise ConfigError("llm.bad_max_memory", value=", ".join(strange), known=", ".join(numbers))
    return tuple(_capped(device, caps.get(device.name)) for device in found if device.name in names)


def _capped(device: Device, cap: int | None) -> Device:
    return device if cap is None else replace(device, free=min(device.free, cap))


def all_devices() -> tuple[Device, ...]:
    """GPUs, memory and disk."""
    cpu = Device("cpu", free_ram(), bandwidth=memory_bandwidth())
    return (*_gpus(), cpu, Device("disk", DISK_FREE))


def free_ram() -> int:
    """Bytes of memory this process can still take, within the container's limit when there is one."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used + _reclaimable()))


def _reclaimable() -> int:
    """Bytes of files that the kernel keeps at hand for this container (a model just read, say) and gives up for any
    program that asks; they count as used."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    except (OSError, ValueError, IndexError):
        return 0


@cache
def memory_bandwidth() -> float:
    """Bytes a second that one thread moves through memory, read and written; measured once, in about 0.1 s.

    The best of three copies counts, as others may be at work.
    """
    source, target = bytearray(b"1" * (16 * MIB)), bytearray(b"2" * (16 * MIB))
    best = min(_copy_s(source, target) for _ in range(3))
    return 2 * len(source) / max(best, 1e-9)


def _copy_s(source: bytearray, target: bytearray) -> float:
    start = time.perf_counter()
    memoryview(target)[:] = source
    return time.perf_counter() - start


def _gpus() -> tuple[Device, ...]:
    """From the driver, as long as torch has not started CUDA in this process; then torch knows better."""
    if _started() or "rocm" in _torch_version():
        return _torch_gpus()
    try:
        return tuple(
            Device(f"cuda:{place}", gpu.free, gpu.name, capability=gpu.capability)
            for place, gpu in enumerate(driver_gpus())
        )
    except DriverError:
        return _torch_gpus()


@cache
def warmed() -> set[str]:
    """Names of the GPUs that have computed captured steps in this process, which nothing unloads the libraries of."""
    return set()


def _started() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def _torch_gpus() -> tuple[Device, ...]:
    """Asking torch for what is free starts a context on the GPU, so its share is gone from what is free."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(
        Device(
            f"cuda:{index}",
            torch.cuda.mem_get_info(index)[0],
            torch.cuda.get_device_name(index),
            started=True,
            warm=f"cuda:{index}" in warmed(),
            # ROCm has numbers of its own.
            capability=(0, 0) if torch.version.hip else torch.cuda.get_device_capability(index),
        )
        for index in range(torch.cuda.device_count())
    )


def device_words(name: str) -> str:
    """A device as a person calls it."""
    import torch

    if name.startswith("cuda") and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(name)} ({name})"
    return "CPU" if name == "cpu" else name


def best_cpu_dtype() -> str:
    """bfloat16 where the processor has instructions for it, else float32 (bfloat16 is emulated there)."""
    import torch

    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
