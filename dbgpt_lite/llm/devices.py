"""What this machine offers: GPUs and memory that are free now, and the number type its processor multiplies well."""

from collections.abc import Mapping
from pathlib import Path

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.placement import Device, parse_size

_CGROUP = Path("/sys/fs/cgroup")
PLACEMENTS = ("auto", "balanced", "balanced_low_0", "sequential")


def usable_devices(
    device_map: str, max_memory: Mapping[str, str], freed: Mapping[str, int] | None = None
) -> tuple[Device, ...]:
    """Devices that a placement may use with their free bytes, capped by `max_memory` ({"0": "20GiB", "cpu": ...}).
    `freed`: bytes by device that will be free as well.

    Raises ConfigError for an unknown placement or a GPU that is not there.
    """
    gpus = _gpus()
    found = {"cpu": free_ram()} | gpus
    found = {name: free + (freed or {}).get(name, 0) for name, free in found.items()}
    if device_map in PLACEMENTS:
        names = [*gpus, "cpu"]
    else:
        wanted = "cuda:0" if device_map == "cuda" else device_map
        if wanted not in found:
            raise ConfigError("llm.bad_device", value=device_map, known=", ".join((*PLACEMENTS, *found)))
        names = [wanted]
    caps = {(f"cuda:{name}" if name.isdigit() else name): parse_size(size) for name, size in max_memory.items()}
    return tuple(Device(name, min(found[name], caps.get(name, found[name]))) for name in names)


def accelerate_max_memory(max_memory: Mapping[str, str]) -> dict[int | str, int] | None:
    """`max_memory` as accelerate wants it: GPUs by number, sizes in bytes; None when nothing is set."""
    sizes = {(int(name) if name.isdigit() else name): parse_size(size) for name, size in max_memory.items()}
    return sizes or None


def free_ram() -> int:
    """Bytes of memory this process can still take, within the container's limit when there is one."""
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))


def _gpus() -> dict[str, int]:
    import torch

    if not torch.cuda.is_available():
        return {}
    return {f"cuda:{index}": torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())}


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
