"""Weights that stay on disk while a model answers: in the checkpoint's own files where they lie there as the model
needs them, else in a folder that goes when the model goes."""

import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.matching import Route
from dbgpt_lite.llm.units import gib

if TYPE_CHECKING:
    import torch


# A model's attribute: bytes of the copies that are deleted with it.
OFFLOADED = "dbgpt_offloaded_bytes"


class OffloadStore:
    """The index of what is on disk, as accelerate reads it. `cache`: where to write; None: the system's own place.
    `wide`: names of what stays in float32 whatever is computed in."""

    def __init__(self, cache: Path | None, dtype: "torch.dtype", wide: Collection[str] = ()) -> None:
        self._cache = cache
        self._dtype = dtype
        self._wide = wide
        self._folder: Path | None = None
        self.index: dict[str, dict[str, Any]] = {}

    @property
    def folder(self) -> Path | None:
        """The folder that was written to, if any was."""
        return self._folder

    def take_in_place(self, route: Route) -> bool:
        """Whether a stored tensor can be read from the checkpoint itself; it is in the index then."""
        if not lies_ready(route):
            return False
        place, name = route.place, route.parts[0].name
        entry = {"safetensors_file": str(place.file), "weight_name": place.name}
        if place.dtype in ("F64", "F32", "F16", "BF16"):
            entry["dtype"] = str(self.dtype_of(name)).removeprefix("torch.")
        self.index[name] = entry
        return True

    def dtype_of(self, name: str) -> "torch.dtype":
        """The type in which a tensor is computed with."""
        import torch

        return torch.float32 if name in self._wide else self._dtype

    def write(self, name: str, tensor: "torch.Tensor") -> None:
        """Keep a tensor in the folder, in the type to compute in: its bytes in a file, as accelerate reads them.

        Not by accelerate's offload_weight, which writes into a mapped file: a full disk ends the process then.
        Raises OSError.
        """
        import torch

        if self._folder is None:
            self._folder = new_folder(self._cache)
        value = tensor.to(self.dtype_of(name)) if tensor.is_floating_point() else tensor
        (self._folder / f"{name}.dat").write_bytes(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self.index[name] = {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}

    def share(self, tied: Mapping[str, str]) -> None:
        """Give names that share a tensor the same entry."""
        for name, source in tied.items():
            entry = self.index.get(source) or self.index.get(name)
            if entry is None:
                continue
            if "safetensors_file" not in entry and self._folder:
                entry = self._copy(name if name not in self.index else source, entry)
            self.index.setdefault(name, entry)
            self.index.setdefault(source, entry)

    def _copy(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        """accelerate finds a written tensor by its name alone."""
        held = next(other for other, known in self.index.items() if known is entry)
        if self._folder and not (self._folder / f"{name}.dat").exists():
            os.link(self._folder / f"{held}.dat", self._folder / f"{name}.dat")
        return entry

    def remove_with(self, owner: object) -> None:
        """Delete the folder once `owner` is gone, at the latest when the process ends."""
        if self._folder:
            remove_with(owner, self._folder)

    def remove(self) -> None:
        """Delete the folder now."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def lies_ready(route: Route) -> bool:
    """Whether a stored tensor is whole and in a file that single tensors can be read from."""
    return route.place.file.suffix == ".safetensors" and len(route.parts) == 1 and not route.parts[0].rows


def check_room(cache: Path | None, needed: int, freed: int, name: str) -> None:
    """Raise ModelError unless `needed` bytes of a model can be written. `freed`: bytes that will be free as well."""
    folder = cache or Path(tempfile.gettempdir())
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    free = shutil.disk_usage(there).free + freed
    if needed > free:
        raise ModelError("llm.offload_no_space", name=name, needed=gib(needed), free=gib(free))


def remove_with(owner: object, folder: Path) -> None:
    """Delete a folder once `owner`, a model, is gone, at the latest when the process ends; it knows the bytes then."""
    setattr(owner, OFFLOADED, sum(file.stat().st_size for file in folder.iterdir()))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)


def new_folder(cache: Path | None) -> Path:
    """A folder named after this process; those of processes that are gone are removed."""
    import psutil

    if cache is None:
        return Path(tempfile.mkdtemp(prefix="dbgpt-offload-"))
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in cache.glob("offload-*-*"):
        number = old.name.split("-")[1]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    folder = cache / f"offload-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder
