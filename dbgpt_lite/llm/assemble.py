"""Stored tensors -> parameters on their devices -> a model that answers."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.adapter import Adapter
from dbgpt_lite.llm.filler import Filler
from dbgpt_lite.llm.loading import Meter, Progress
from dbgpt_lite.llm.matching import Route
from dbgpt_lite.llm.offload_store import OffloadStore, lies_ready
from dbgpt_lite.llm.quantize import Quantization
from dbgpt_lite.llm.shards import read

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Assembly:
    """How to fill a model: `device_map` says where (a device for every prefix), `stored` how the files are quantized,
    `cache` where weights go that must lie on disk and do not lie there as they are needed, `buffers` the names
    of the model's buffers."""

    dtype: "torch.dtype"
    device_map: Mapping[str, str] = field(default_factory=lambda: {"": "cpu"})
    quantization: Quantization = "none"
    stored: str = ""
    adapter: Adapter | None = None
    cache: Path | None = None
    buffers: frozenset[str] = frozenset()

    def device_of(self, name: str) -> str:
        """Where a tensor goes; buffers never stay on the disk."""
        device = device_of(name, self.device_map)
        return _computes(name, self.device_map) if device == "disk" and name in self.buffers else device


def assemble(model: Any, routes: Sequence[Route], how: Assembly, progress: Progress, cancel: threading.Event) -> Any:
    """Fill a model that was made on the meta device, and spread it over its devices.

    Raises ModelError for files that do not fit after all, and Cancelled.
    """
    if (how.stored or how.quantization != "none") and "disk" in how.device_map.values():
        raise ModelError("llm.quantized_on_disk", name=model.name_or_path)
    filler = Filler(model, how.dtype, how.quantization, how.stored)
    # accelerate carries parameters from the disk, and no buffers.
    how = replace(how, buffers=frozenset(name for name, _ in model.named_buffers()))
    store = OffloadStore(how.cache, how.dtype, filler.wide)
    try:
        _fill(
            filler, [route for route in routes if not _stays(route, how, store, filler)], how, store, progress, cancel
        )
        filler.finish()
        model.tie_weights()
        _restore_buffers(model, how)
        return _dispatch(model, how.device_map, store)
    except BaseException:
        store.remove()
        raise


def device_of(name: str, device_map: Mapping[str, str]) -> str:
    """The device of a parameter: that of its longest prefix in the map. Raises ModelError for one without."""
    words = name.split(".")
    prefixes = (".".join(words[:end]) for end in range(len(words), -1, -1))
    device = next((device_map[prefix] for prefix in prefixes if prefix in device_map), None)
    if device is None:
        raise ModelError("llm.no_device", tensor=name)
    return device


def bytes_copied(model: Any, routes: Sequence[Route] | None, how: Assembly) -> int:
    """Bytes that go to the disk as copies, at most; without `routes` it is transformers that reads the files."""
    sizes = {name: tensor.nbytes for name, tensor in model.named_parameters()}
    if routes is None:
        names = set(sizes)
    else:
        copied = [route for route in routes if not lies_ready(route) or _adapted(route, how)]
        names = {part.name for route in copied for part in route.parts} & set(sizes)
    return sum(sizes[name] for name in names if device_of(name, how.device_map) == "disk")


def _adapted(route: Route, how: Assembly) -> bool:
    names = (route.place.name, *(part.name for part in route.parts))
    return bool(how.adapter and how.adapter.changes(names))


def _stays(route: Route, how: Assembly, store: OffloadStore, filler: Filler) -> bool:
    """Whether a tensor needs no reading now: it belongs on disk and lies there as it is needed."""
    import torch

    if any(how.device_of(part.name) != "disk" for part in route.parts):
        return False
    if _adapted(route, how) or not store.take_in_place(route):
        return False
    name = route.parts[0].name
    filler.put(name, torch.empty(route.place.shape, dtype=store.dtype_of(name), device="meta"), "meta")
    return True


def _fill(
    filler: Filler,
    routes: Sequence[Route],
    how: Assembly,
    store: OffloadStore,
    progress: Progress,
    cancel: threading.Event,
) -> None:
    places = [route.place for route in routes]
    meter = Meter(sum(place.bytes for place in places), progress)
    on_gpu = any(device.startswith("cuda") for device in how.device_map.values())
    with closing(read(places, cancel, pinned=on_gpu)) as tensors:
        for route, (place, tensor) in zip(routes, tensors, strict=True):
            merged = how.adapter.apply(place.name, tensor) if how.adapter else tensor
            for part in route.parts:
                value = part.take(merged)
                if how.adapter and part.name != place.name:
                    value = how.adapter.apply(part.name, value)
                device = how.device_of(part.name)
                if device == "disk":
                    store.write(part.name, value)
                    value, device = value.to("meta"), "meta"
                filler.put(part.name, value, device)
            meter.add(place.bytes)


def _restore_buffers(model: Any, how: Assembly) -> None:
    """Buffers that no checkpoint holds (rotary frequencies, masks) were made on the meta device: take them from a
    second model whose parameters are on the meta device and whose buffers are not."""
    import torch
    from accelerate import init_empty_weights

    empty = {name for name, buffer in model.named_buffers() if buffer.is_meta} - set(model.state_dict())
    if not empty:
        return
    usual = torch.get_default_dtype()
    torch.set_default_dtype(how.dtype)
    try:
        with init_empty_weights(include_buffers=False):
            twin = type(model)(model.config)
    finally:
        torch.set_default_dtype(usual)
    for name, buffer in twin.named_buffers():
        if name in empty:
            owner, _, own = name.rpartition(".")
            model.get_submodule(owner)._buffers[own] = buffer.to(_computes(name, how.device_map))


def _computes(name: str, device_map: Mapping[str, str]) -> str:
    """Where a buffer is used. A map covers parameters; what lies beside them goes to the first device that computes."""
    gpus = [device for device in device_map.values() if device.startswith("cuda")]
    first = gpus[0] if gpus else "cpu"
    device = device_of(name, {"": first, **device_map})
    return device if device.startswith("cuda") else first


def _dispatch(model: Any, device_map: Mapping[str, str], store: OffloadStore) -> Any:
    """Let accelerate carry activations between devices, and offloaded weights to where they are computed with."""
    devices = set(device_map.values())
    if len(devices) == 1 and devices != {"disk"}:
        return model
    from accelerate import dispatch_model

    store.share(getattr(model, "all_tied_weights_keys", None) or {})
    dispatched = dispatch_model(
        model,
        device_map=dict(device_map),
        main_device=_computes("", device_map),
        offload_dir=str(store.folder) if store.folder else None,
        offload_index=store.index or None,
        skip_keys=getattr(model, "_skip_keys_device_placement", None),
        force_hooks=True,
    )
    store.remove_with(dispatched)
    return dispatched
