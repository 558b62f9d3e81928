"""A folder and the settings -> its plan, as the command line and the Models page show it. Loads nothing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.adapter import base_folder
from dbgpt_lite.llm.devices import all_devices, best_cpu_dtype, chosen, usable_devices
from dbgpt_lite.llm.outline import read_outline
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.speed import hypothetical
from dbgpt_lite.llm.units import parse_size

_CPUINFO = Path("/proc/cpuinfo")
# The instructions that oneDNN needs to multiply in bfloat16 (at::mkldnn_bf16_device_check).
_BF16_FLAGS = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a model is to be loaded, as in the settings. `gpus`: cards to suppose instead of those that are there."""

    quantization: str = "none"
    dtype: str = "auto"
    device_map: str = "auto"
    max_memory: Mapping[str, str] = field(default_factory=dict)
    context: int = 0
    users: int = 1
    gpus: tuple[str, ...] = ()


def forecast(folder: Path, wishes: Wishes, freed: Mapping[str, int] | None = None) -> Plan:
    """The plan of a folder, or of one that holds no more than a config.json; an adapter's is that of its base.

    `freed`: bytes by device that will be free as well. Raises ModelError and ConfigError.
    """
    checkpoint = read_outline(base_folder(folder))
    if wishes.gpus:
        devices = chosen(wishes.device_map, wishes.max_memory, supposed(wishes.gpus, all_devices()))
    else:
        devices = usable_devices(wishes.device_map, wishes.max_memory, freed)
    return plan(
        checkpoint,
        dtype=number_type(checkpoint.config, wishes.dtype, wishes.quantization, devices),
        quantization=wishes.quantization,
        context=wishes.context,
        devices=devices,
        strategy=wishes.device_map,
        users=wishes.users,
    )


def supposed(gpus: tuple[str, ...], found: tuple[Device, ...]) -> tuple[Device, ...]:
    """`found` with other GPUs: "24GiB" or a card's name each. Raises ConfigError for anything else."""
    if not gpus:
        return found
    cards = tuple(_card(text, place) for place, text in enumerate(gpus))
    return (*cards, *(device for device in found if device.kind != "gpu"))


def _card(text: str, place: int) -> Device:
    try:
        return Device(f"cuda:{place}", parse_size(text))
    except ConfigError:
        return hypothetical(text, place)


def number_type(config: Mapping[str, Any], dtype: str, quantization: str, devices: tuple[Device, ...]) -> str:
    """The type to compute in: the one asked for, else what suits the first device."""
    if dtype != "auto":
        return dtype
    if devices[0].kind != "gpu":
        return "bfloat16" if quantization == "nf4" else cpu_dtype()
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    return stored if stored in ("float16", "bfloat16") else "bfloat16"


def cpu_dtype() -> str:
    """`best_cpu_dtype`, or what the processor says of itself while torch, which takes seconds, is not imported."""
    known = None if "torch" in sys.modules else described_dtype()
    return known or best_cpu_dtype()


def described_dtype() -> str | None:
    """What /proc/cpuinfo says of bfloat16; None where it lists no flags (it does on x86)."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    return None if flags is None else "bfloat16" if flags >= _BF16_FLAGS else "float32"
