"""A model folder -> a quantized copy of it, which loads without the original.

Tensor by tensor: one shard of the copy and the tensors read ahead are in memory, never the whole model. Weights are
written as they were quantized, before anything computes with them: bitsandbytes repacks them for a CPU, and a copy
saved after that differs. The layout of nf4 and int8 copies is bitsandbytes' own, so transformers reads them too, but
for mixtures, whose experts it joins; int4 copies are packed like the ChatGLM checkpoints. The copy appears under its
name when it is complete, never before.
"""

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import Busy, ModelError
from dbgpt_lite.llm.adapter import Adapter, base_folder, read_adapter
from dbgpt_lite.llm.checkpoint import Checkpoint, read_checkpoint
from dbgpt_lite.llm.filler import kept_wide
from dbgpt_lite.llm.loader import fitted, readable_failures, refuse_foreign
from dbgpt_lite.llm.loading import LoadState, Meter, Progress, ignore
from dbgpt_lite.llm.matching import Route, part_shape
from dbgpt_lite.llm.model_json import read_json
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.quantize import Quantization, bitsandbytes_config, stored_quantization
from dbgpt_lite.llm.shards import read
from dbgpt_lite.llm.sizes import Numbers, quantized_bytes
from dbgpt_lite.llm.units import gib
from dbgpt_lite.model_loading import ONE_AT_A_TIME

try:
    import fcntl
except ImportError:  # Windows: two copies of one name at a time are the user's care
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import torch

NOTE = "quantized.json"
SHARD_BYTES = 2**30
# What belongs to a model beside its weights and its code.
_COPIED = (
    "tokenizer*.json", "tokenizer.model", "ice_text.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "chat_template*", "generation_config.json", "dbgpt.json",
    "LICENSE*", "LICENCE*", "NOTICE*", "MODEL_LICENSE*", "USE_POLICY*",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Note:
    """How a copy was made; quantized.json holds these facts. Sizes in bytes of all weights."""

    source: str
    base: str
    method: str
    dtype: str
    quantized_layers: int
    source_bytes: int
    bytes: int
    made: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder that passed the checks. `layers`: {weight: (rows, columns)} of what is quantized, `turned` those that
    the model keeps as (columns, rows), `whole` the linear layers that are not quantized, `wide` what stays in
    float32."""

    folder: Path
    checkpoint: Checkpoint
    adapter: Adapter | None
    dtype: str
    routes: tuple[Route, ...]
    layers: Mapping[str, tuple[int, int]]
    turned: frozenset[str]
    whole: tuple[str, ...]
    wide: frozenset[str]
    tied: Mapping[str, str]


def quantize_copy(
    source: Path,
    target: Path,
    quantization: Quantization,
    progress: Progress = ignore,
    cancel: threading.Event | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Note:
    """Write a quantized copy of `source` as the folder `target`. Raises ModelError, Busy, and Cancelled."""
    if target.name.startswith(".") or target.name in ("", "models") or "\\" in target.name:
        raise ModelError("llm.bad_copy_name", name=target.name)
    if target.exists():
        raise ModelError("llm.copy_exists", name=target.name)
    with readable_failures(source.name):
        with ONE_AT_A_TIME:
            checked = _check(source, quantization)
        with _readable_writing(target.name):
            _refuse_full_disk(checked, target.parent, quantization)
            with _unfinished(target) as folder:
                note = _write(checked, folder, quantization, progress, cancel or threading.Event(), shard_bytes)
                _sync(folder)
                if target.exists():
                    raise ModelError("llm.copy_exists", name=target.name)
                folder.rename(target)
                _sync_folder(target.parent)
    return note


def _check(source: Path, quantization: Quantization) -> _Source:
    import torch

    from dbgpt_lite.llm.quantized_layers import is_transposed, linear_shape, replaceable

    checkpoint = read_checkpoint(base_folder(source))
    refuse_foreign(checkpoint)
    name = checkpoint.folder.name
    if checkpoint.format == "gguf":
        raise ModelError("llm.gguf_copy", name=name)
    if stored := stored_quantization(checkpoint.config, name):
        raise ModelError("llm.already_quantized", name=name, quantization=stored)
    bitsandbytes_config(quantization)
    adapter, dtype = read_adapter(source), _dtype(checkpoint.config)
    model, fit = fitted(checkpoint, dtype, quantization, "", adapter)
    if fit is None:
        raise _not_copied(checkpoint, quantization)
    linear = {name: module for name, module in model.named_modules() if linear_shape(module)}
    chosen = replaceable(model, quantization, ())
    return _Source(
        folder=source,
        checkpoint=checkpoint,
        adapter=adapter,
        dtype=dtype,
        routes=fit.routes,
        layers={f"{name}.weight": linear_shape(linear[name]) or (0, 0) for name in chosen},
        turned=frozenset(f"{name}.weight" for name in chosen if is_transposed(linear[name])),
        whole=tuple(sorted(linear.keys() - set(chosen))),
        wide=kept_wide(model, getattr(torch, dtype)),
        tied=dict(getattr(model, "all_tied_weights_keys", None) or {}),
    )


def _not_copied(checkpoint: Checkpoint, quantization: Quantization) -> ModelError:
    """Why there is no copy of a model that transformers builds from pieces, and what loading does instead."""
    name = checkpoint.folder.name
    if outline(checkpoint).joined_experts("bfloat16"):
        return ModelError("llm.copy_experts", name=name)
    return ModelError("llm.copy_rebuilt", name=name, quantization="nf4" if quantization == "int4" else quantization)


def _dtype(config: Mapping[str, Any]) -> str:
    """The type of what stays whole: the stored one when it has 16 bits."""
    stored = str(config.get("dtype") or config.get("torch_dtype"))
    return stored if stored in ("float16", "bfloat16") else "bfloat16"


def _refuse_full_disk(source: _Source, folder: Path, quantization: Numbers) -> None:
    needed = sum(
        quantized_bytes(source.layers[part.name], quantization)
        if part.name in source.layers
        else (4 if part.name in source.wide else 2) * prod(part_shape(part, route.place.shape) or ())
        for route in source.routes
        for part in route.parts
    )
    # Headers, the facts of every quantized layer, and the tokenizer's files.
    needed += 256 * len(source.routes) + 4096 * len(source.layers)
    needed += sum(file.stat().st_size for file in _companions(source))
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError("llm.copy_no_space", name=source.folder.name, needed=gib(needed), free=gib(free))


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target that no other process writes to; what is left of it at the end is removed.

    The lock ends with its process, so what a killed one left behind is taken over and emptied.
    """
    folder = target.with_name(f".{target.name}.unfinished")
    if folder.is_symlink():
        folder.unlink()  # what it leads to is not ours to empty
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("llm.copy_running", name=target.name) from None
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _readable_writing(name: str) -> Iterator[None]:
    """A full disk or missing permission, in words."""
    try:
        yield
    except OSError as error:
        raise ModelError("llm.copy_not_written", name=name, reason=error.strerror or type(error).__name__) from error


def _write(
    source: _Source,
    folder: Path,
    quantization: Quantization,
    progress: Progress,
    cancel: threading.Event,
    shard_bytes: int,
) -> Note:
    shards = _Shards(folder, shard_bytes)
    progress(LoadState("loading"))
    for name, tensor in _tensors(source, quantization, progress, cancel):
        shards.add(name, tensor)
    shards.finish()
    for file in _companions(source):
        _copy(file, folder / file.name)
    _write_json(folder / "config.json", _config(source, quantization))
    note = Note(
        source=source.folder.name,
        base=source.checkpoint.folder.name,
        method=_METHODS[quantization],
        dtype=source.dtype,
        quantized_layers=len(source.layers),
        source_bytes=source.checkpoint.file_bytes,
        bytes=shards.total,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
    )
    _write_json(folder / NOTE, asdict(note))
    return note


_METHODS: Mapping[str, str] = {
    "nf4": "nf4: blocks of 64 values, double quantization (bitsandbytes)",
    "int8": "int8: LLM.int8, one scale a row (bitsandbytes)",
    "int4": "int4: signed 4-bit numbers, one float16 scale a row (the packing of the ChatGLM checkpoints)",
}


def _tensors(
    source: _Source, quantization: str, progress: Progress, cancel: threading.Event
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Every tensor of the copy with its name, on the CPU, in memory of its own."""
    import torch

    from dbgpt_lite.llm.quantized_layers import quantized

    places = [route.place for route in source.routes]
    held = {part.name for route in source.routes for part in route.parts}
    device = _device(max((place.bytes for place in places), default=0))
    dtype, meter = getattr(torch, source.dtype), Meter(sum(place.bytes for place in places), progress)
    with closing(read(places, cancel, pinned=device != "cpu")) as read_ahead:
        for route, (place, tensor) in zip(source.routes, read_ahead, strict=True):
            merged = source.adapter.apply(place.name, tensor) if source.adapter else tensor
            for part in route.parts:
                if source.tied.get(part.name) in held:
                    continue
                value = part.take(merged)
                if source.adapter and part.name != place.name:
                    value = source.adapter.apply(part.name, value)
                if part.name not in source.layers:
                    whole = torch.float32 if part.name in source.wide else dtype
                    whole = whole if value.is_floating_point() else value.dtype
                    yield part.name, value.to(whole, copy=True).contiguous()
                    continue
                value = value.to(device).to(dtype)
                layer = part.name.removesuffix("weight")
                for own, stored in quantized(quantization, value.T if part.name in source.turned else value).items():
                    yield layer + own, stored.cpu().contiguous()
            meter.add(place.bytes)


def _device(largest: int) -> str:
    """Where to quantize: a GPU with room for the largest tensor and the steps between, else the CPU."""
    import torch

    if torch.cuda.is_available() and torch.cuda.mem_get_info(0)[0] > 6 * largest + 2**29:
        return "cuda:0"
    return "cpu"


class _Shards:
    """Collects tensors and writes them as safetensors files of at most `limit` bytes (or one tensor), with an index."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._names: list[list[str]] = []
        self.total = 0

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """One more tensor, which must be nobody else's."""
        size = tensor.numel() * tensor.element_size()
        if self._held and self._held_bytes + size > self._limit:
            self._flush()
        self._held[name] = tensor
        self._held_bytes += size
        self.total += size

    def finish(self) -> None:
        """Write the rest, and the names as transformers expects them."""
        self._flush()
        count = len(self._names)
        files = [
            f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else "model.safetensors"
            for number in range(1, count + 1)
        ]
        for number, file in enumerate(files):
            self._part(number).rename(self._folder / file)
        if count > 1:
            places = {name: file for file, names in zip(files, self._names, strict=True) for name in names}
            index = {"metadata": {"total_size": self.total}, "weight_map": dict(sorted(places.items()))}
            _write_json(self._folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        from safetensors.torch import save_file

        save_file(self._held, self._part(len(self._names)), metadata={"format": "pt"})
        self._names.append(list(self._held))
        self._held, self._held_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}"


def _config(source: _Source, quantization: Quantization) -> dict[str, Any]:
    """The source's config.json, which no longer names code, and how the weights are stored."""
    config = {key: value for key, value in source.checkpoint.config.items() if key != "auto_map"}
    config.pop("torch_dtype", None)
    config["dtype"] = source.dtype
    if quantization == "int4":
        return config | {"quantization_bit": 4}
    stored = bitsandbytes_config(quantization).to_dict()
    return config | {"quantization_config": stored | {"llm_int8_skip_modules": list(source.whole)}}


def _companions(source: _Source) -> list[Path]:
    """Files to copy; an adapter's own come before its base's."""
    found: dict[str, Path] = {}
    for folder in (source.checkpoint.folder, source.folder):
        for pattern in _COPIED:
            found |= {file.name: file for file in folder.glob(pattern) if file.is_file() and file.suffix != ".py"}
    return list(found.values())


def _copy(file: Path, target: Path) -> None:
    """A file's content; a tokenizer's configuration loses the code that it names."""
    if file.name != "tokenizer_config.json":
        shutil.copyfile(file, target)
        return
    content = read_json(file)
    content.pop("auto_map", None)
    _write_json(target, content)


def _versions() -> dict[str, str]:
    found = {}
    for name in ("dbgpt-lite", "torch", "transformers", "bitsandbytes", "safetensors"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _sync(folder: Path) -> None:
    """Everything on disk, so that the name that comes next stands for whole files."""
    for file in folder.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
