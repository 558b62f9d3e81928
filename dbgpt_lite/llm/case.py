"""One case worked out: a model in given numbers, window and users, on given devices. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from dbgpt_lite.llm.outline import Outline
from dbgpt_lite.llm.placement import Block, Device, Placement, Rooms, even, fill, place
from dbgpt_lite.llm.sizes import CPU_CHUNK, CUDA_CONTEXT, CUDA_WORKSPACE, GPU_CHUNK, Numbers, working_bytes
from dbgpt_lite.llm.step_size import LIBRARIES, captured, step_bytes

Verdict = Literal["fits", "offload", "too_large"]
# bitsandbytes' layers cannot be moved between devices once they are quantized.
MOVABLE = ("none", "int4", "row8")


@dataclass(frozen=True, slots=True)
class Row:
    """One device in bytes: what it holds, and what it has free. `read`: bytes of its weights that a token reads.

    `working`: room for a chunk of a prompt, and a layer streamed in; `overhead`: what CUDA takes.
    """

    device: Device
    weights: int = 0
    cache: int = 0
    working: int = 0
    overhead: int = 0
    layers: int = 0
    read: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.working + self.overhead

    @property
    def over(self) -> int:
        """Bytes that the device lacks."""
        return max(0, self.total - self.device.free)


@dataclass(frozen=True)
class Case:
    """What is asked. `fixed`: the device of each block when a map gives it; else `strategy` decides.

    `numbers` are those in memory: a checkpoint that is stored quantized has its own. `others`: all devices there are,
    when `devices` was narrowed to one. `plain`: no captured steps, whatever the card is said to do.
    """

    outline: Outline
    dtype: str
    numbers: Numbers
    context: int
    users: int
    devices: tuple[Device, ...]
    strategy: str = "auto"
    fixed: tuple[str, ...] = ()
    others: tuple[Device, ...] = ()
    plain: bool = False

    def changed(self, **changes: object) -> "Case":
        """The same case with other facts."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The model in pieces."""
        return self.outline.blocks(self.dtype, self.numbers, self.context, self.users)

    @cached_property
    def compute(self) -> tuple[Device, ...]:
        """Devices that compute: the GPUs, or the one of them that can do it by captured steps; else the CPU."""
        gpus = tuple(device for device in self.devices if device.kind == "gpu")
        if self.fixed:
            gpus = tuple(device for device in gpus if device.name in self.fixed)
        elif able := [device for device in self._for_all(gpus) if self._steps_on(device)]:
            return (max(able, key=lambda device: device.free),)
        return gpus or tuple(device for device in self.devices if device.kind == "cpu") or self.devices[:1]

    @cached_property
    def keep(self) -> tuple[Device, ...]:
        """Devices that only keep weights: memory, then disk, which holds plain tensors and no quantized layers."""
        if self.numbers not in MOVABLE and not self.fixed:
            return ()
        on_disk = self.numbers == "none" and not self.outline.unpacked
        kinds = ("cpu", "disk") if on_disk else ("cpu",)
        others = [device for device in self.devices if device not in self.compute and device.kind in kinds]
        return tuple(sorted(others, key=lambda device: device.kind))

    @property
    def allowed(self) -> bool:
        """Whether a map leaves quantized layers where they can be."""
        kinds = {name.partition(":")[0] for name in self.fixed}
        return self.numbers == "none" or ("disk" not in kinds and (self.numbers in MOVABLE or len(kinds) <= 1))

    @cached_property
    def stepped(self) -> bool:
        """Whether one GPU has room for it all, and computes it by captured steps."""
        alone = len(self.compute) == 1 and len(set(self.fixed)) <= 1
        return alone and self._steps_on(self.compute[0])

    def _for_all(self, gpus: tuple[Device, ...]) -> tuple[Device, ...]:
        """Those of several GPUs that may be given the whole model, as the strategy wants."""
        return {"auto": gpus, "sequential": gpus[:1]}.get(self.strategy, ())

    def _steps_on(self, device: Device) -> bool:
        if self.plain or device.kind != "gpu":
            return False
        if not captured(self.outline, self.dtype, self.numbers, device.capability):
            return False
        return sum(block.size for block in self.blocks) + self._stepping(device) + self.overhead(device) <= device.free

    def _stepping(self, device: Device) -> int:
        room = step_bytes(self.outline, self.dtype, self.numbers, self.context, self.users)
        return room + (0 if device.warm else LIBRARIES)

    def overhead(self, device: Device) -> int:
        """What CUDA takes of a GPU beside the tensors."""
        if device.kind != "gpu":
            return 0
        return CUDA_WORKSPACE + (0 if device.started else CUDA_CONTEXT)

    def working(self, device: Device) -> int:
        """Room to read a chunk of a prompt with the largest matrix in plain numbers, as quantized layers multiply more
        than one row. Quantizing that matrix needs no more and happens before."""
        if self.stepped:
            return self._stepping(device)
        chunk = GPU_CHUNK if device.kind == "gpu" else CPU_CHUNK
        reading = working_bytes(self.outline.geometry, self.dtype, self.context, self.users, chunk)
        # A layer's cache is copied when it grows, which it does on a CPU only.
        growing = max(block.cache for block in self.blocks) if device.kind == "cpu" else 0
        return reading + growing + (self.outline.largest_matrix(self.dtype) if self.numbers != "none" else 0)

    @cached_property
    def placement(self) -> Placement | None:
        """Where every block goes, None when there is no room."""
        if self.fixed:
            names = [device.name for device in (*self.compute, *self.keep)]
            return Placement(tuple(names.index(name) for name in self.fixed), self._fixed_offloads)
        if not self.compute or self.compute[0].kind == "disk":
            return None
        rooms = Rooms(
            tuple(max(0, device.free - self.overhead(device) - self.working(device)) for device in self.compute),
            tuple(device.free for device in self.keep),
        )
        return place(list(self.blocks), rooms, self.strategy)

    @property
    def _fixed_offloads(self) -> bool:
        return any(name not in {device.name for device in self.compute} for name in self.fixed)

    @property
    def verdict(self) -> Verdict:
        """Whether it fits, and how."""
        if self.placement is None or any(row.over for row in self.rows):
            return "too_large"
        return "offload" if self.placement.offloads else "fits"

    @property
    def resident(self) -> int:
        """Layers that are kept where they compute."""
        return sum(row.layers for row in self.rows if row.device in self.compute)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """The device of each block, even where there is not room for it: then as evenly as the strategy wants."""
        if self.placement is not None:
            return self.placement.places
        free = [2**62] * len(self.compute)
        sizes = [block.size for block in self.blocks]
        return tuple((fill if self.strategy == "sequential" else even)(sizes, free) or ())

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every device that is used, in bytes."""
        devices = (*self.compute, *self.keep)
        rows = [Row(device) for device in devices]
        streamed = 0
        for place_, block in zip(self.places, self.blocks, strict=True):
            row = rows[place_]
            is_layer = bool(block.cache)
            rows[place_] = replace(
                row, weights=row.weights + block.weights, layers=row.layers + is_layer, read=row.read + block.read
            )
            home = place_
            if place_ >= len(self.compute):
                home, streamed = 0, max(streamed, block.weights)
            row = rows[home]
            rows[home] = replace(row, cache=row.cache + block.cache, working=row.working + block.working)
        used = [index for index, row in enumerate(rows) if row.weights or row.cache]
        for index in used:
            if index < len(self.compute):
                device = rows[index].device
                working = rows[index].working + self.working(device) + (streamed if index == 0 else 0)
                rows[index] = replace(rows[index], working=working, overhead=self.overhead(device))
        return tuple(rows[index] for index in used)

    @property
    def device_map(self) -> Mapping[str, str]:
        """Device by prefix, complete over all parameters; modules without parameters are where it computes."""
        devices = (*self.compute, *self.keep)
        made = {
            name: devices[index].name
            for index, block in zip(self.places, self.blocks, strict=True)
            for name in block.names
        }
        first = next((place for place in self.places if place < len(self.compute)), 0)
        return made | dict.fromkeys(self.outline.beside, self.compute[first].name)
