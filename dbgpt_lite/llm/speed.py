"""Tokens a second, from the bytes that one token reads and how fast each device reads them.

Decoding one token reads all weights and the whole cache once; that bounds it, not arithmetic (Pope et al., "Efficiently
Scaling Transformer Inference", MLSys 2023). On top come a share of the bandwidth that kernels do not reach and the
time in which a layer's kernels are started.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.case import Case, Row
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.units import GIB

# Weights from pageable memory to a GPU: 7 GB/s measured beside an H100 (pinned memory moves 55); a good NVMe disk.
TO_GPU, FROM_DISK = 7e9, 2e9
# Memory bandwidth of a processor that nobody measured: two channels of DDR4-3200 at half of their 51 GB/s.
USUAL_CPU = 25e9


@dataclass(frozen=True, slots=True)
class Pace:
    """`share` of the bandwidth that the matrix products reach, and seconds a layer takes beside reading: a layer with
    the seven products of a Llama's."""

    share: float
    layer_s: float

    def layer_seconds(self, experts: int) -> float:
        """The same for a layer whose `experts` start three products each."""
        return self.layer_s * (1 + 3 * experts / 7)


# GPU: measured on an H100 (benchmarks/results/model-loading.md): ChatGLM2-6B, Llama 13B and 33B answer 49 and 42
# (none; the first two), 32, 29 and 20 (nf4), 16 and 16 (int8 and int4 of the first) tokens a second. Most of it is the
# time in which Python starts the kernels, so a slower processor beside the card means fewer.
# step: captured steps of a model that one GPU has all of, measured on an H200 (benchmarks/results/gpu-decode.md): 33B
# and ChatGLM2-6B in NF4, 141 and 470 tokens a second; the latter in int4, 400 to 433.
# CPU: 2 cores with AMX, a Llama of 120M parameters: 24, 23, 36.5 and 19 tokens/s in float32, bfloat16, NF4 and int8.
PACES: Mapping[tuple[str, str], Pace] = {
    ("gpu", "none"): Pace(0.8, 0.00045),
    ("gpu", "int8"): Pace(0.3, 0.002),
    ("gpu", "nf4"): Pace(0.25, 0.0006),
    ("gpu", "int4"): Pace(0.1, 0.002),
    ("step", "none"): Pace(0.8, 0.00004),
    ("step", "nf4"): Pace(0.79, 0.00004),
    ("step", "int4"): Pace(0.57, 0.00004),
    ("cpu", "none"): Pace(0.5, 0.0002),
    ("cpu", "int8"): Pace(0.15, 0.0002),
    ("cpu", "nf4"): Pace(0.15, 0.0002),
    ("cpu", "int4"): Pace(0.1, 0.0002),
}
_ALIKE = {"nf4_single": "nf4", "row8": "int4"}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: memory that its driver offers in GiB, bandwidth in GB/s, and at least which compute capability."""

    gib: float
    bandwidth: float
    capability: tuple[int, int] = (8, 0)


# Bandwidth from the vendor's data sheets: https://www.nvidia.com/en-us/data-center/ (h200, h100, a100, l40s, l4, a10,
# a30, a40, t4, v100) and https://www.nvidia.com/en-us/geforce/graphics-cards/ and .../products/workstations/; compute
# capability from https://developer.nvidia.com/cuda-gpus. The names are those that drivers report, without the brand.
CARDS: Mapping[str, Card] = {
    "b200": Card(178.4, 8000),
    "h200": Card(139.8, 4800),
    "h200 nvl": Card(139.8, 4800),
    "h100 80gb hbm3": Card(79.2, 3350),
    "h100 pcie": Card(79.2, 2000),
    "h100 nvl": Card(93.1, 3900),
    "a100-sxm4-80gb": Card(79.2, 2039),
    "a100 80gb pcie": Card(79.2, 1935),
    "a100-sxm4-40gb": Card(39.4, 1555),
    "a100-pcie-40gb": Card(39.4, 1555),
    "l40s": Card(44.4, 864),
    "l40": Card(44.4, 864),
    "l4": Card(22.0, 300),
    "a10": Card(22.0, 600),
    "a10g": Card(22.0, 600),
    "a30": Card(23.5, 933),
    "a40": Card(44.4, 696),
    "t4": Card(14.6, 320, (7, 5)),
    "v100-sxm2-16gb": Card(15.8, 900, (7, 0)),
    "v100-sxm2-32gb": Card(31.7, 900, (7, 0)),
    "v100-pcie-16gb": Card(15.8, 900, (7, 0)),
    "v100-pcie-32gb": Card(31.7, 900, (7, 0)),
    "rtx a6000": Card(47.5, 768),
    "rtx a5000": Card(23.5, 768),
    "rtx a4000": Card(15.6, 448),
    "rtx 6000 ada generation": Card(47.5, 960),
    "rtx 5090": Card(31.4, 1792),
    "rtx 5080": Card(15.5, 960),
    "rtx 5070 ti": Card(15.5, 896),
    "rtx 4090": Card(23.5, 1008),
    "rtx 4080": Card(15.6, 717),
    "rtx 4070": Card(11.6, 504),
    "rtx 4060 ti": Card(15.6, 288),
    "rtx 4060": Card(7.6, 272),
    "rtx 3090 ti": Card(23.5, 1008),
    "rtx 3090": Card(23.5, 936),
    "rtx 3080": Card(9.6, 760),
    "rtx 3060": Card(11.6, 360),
    "rtx 2080 ti": Card(10.6, 616, (7, 5)),
    "gtx 1080 ti": Card(10.8, 484, (6, 1)),
}
# What people call them.
_SHORT = {"h100": "h100 80gb hbm3", "a100": "a100-sxm4-80gb", "v100": "v100-sxm2-16gb", "a6000": "rtx a6000"}
_BRANDS = ("nvidia", "geforce", "tesla")


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second of one conversation: at its start, and with a full window."""

    first: float
    full: float


def card(name: str) -> Card | None:
    """The row of a GPU by the name that its driver reports; None for one that the table lacks."""
    words = [word for word in name.lower().split() if word not in _BRANDS]
    plain = " ".join(words)
    return CARDS.get(_SHORT.get(plain, plain))


def hypothetical(name: str, place: int) -> Device:
    """A card that is not there, by name. Raises ConfigError that lists the known ones."""
    found = card(name)
    if found is None:
        raise ConfigError("llm.unknown_card", value=name, known=", ".join(CARDS))
    return Device(f"cuda:{place}", int(found.gib * GIB), name, capability=found.capability)


def bandwidth(device: Device) -> float:
    """Bytes a second that a device reads of its own memory; 0 when nobody knows."""
    if device.bandwidth or device.kind != "gpu":
        return device.bandwidth or (USUAL_CPU if device.kind == "cpu" else FROM_DISK)
    found = card(device.model)
    return found.bandwidth * 1e9 if found else 0.0


def speed(case: Case) -> Speed | None:
    """Tokens a second for a case, None when a device's bandwidth is unknown."""
    places = {device.name for device in case.compute}
    if any(not bandwidth(row.device) for row in case.rows):
        return None
    reading = sum(_reading(case, row, row.device.name in places) for row in case.rows)
    cache = sum(row.cache / case.users / bandwidth(row.device) for row in case.rows)
    return Speed(1 / max(reading, 1e-6), 1 / max(reading + cache, 1e-6))


def _reading(case: Case, row: Row, computes: bool) -> float:
    """Seconds a token spends on the weights of one device."""
    first = case.compute[0]
    kind = "cpu" if first.kind != "gpu" else "step" if case.stepped else "gpu"
    pace = PACES[kind, _ALIKE.get(case.numbers, case.numbers)]
    starting = row.layers * pace.layer_seconds(case.outline.picked if case.numbers != "none" else 0)
    if not computes:
        # What is kept elsewhere crosses whole, an embedding's unread rows too.
        link = FROM_DISK if row.device.kind == "disk" else TO_GPU
        return row.weights / link + starting
    return row.read / (bandwidth(row.device) * pace.share) + starting
