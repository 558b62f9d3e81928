"""Loading through transformers' from_pretrained: for checkpoints whose tensors it rebuilds itself, such as experts
that are stored one by one and computed together, and GGUF files, which it unpacks."""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory
from dbgpt_lite.llm.checkpoint import Checkpoint
from dbgpt_lite.llm.loading import LoadState, Progress
from dbgpt_lite.llm.offload_store import new_folder, remove_with
from dbgpt_lite.llm.plan import Plan
from dbgpt_lite.llm.quantize import Quantization, bitsandbytes_config
from dbgpt_lite.llm.units import gib

# How much of the time to load a GGUF file its unpacking takes.
_UNPACKING = 0.9


def rebuilds(model: Any) -> bool:
    """Whether transformers renames or joins tensors of this model while it loads them."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return bool(get_model_conversion_mapping(model, add_legacy=False))


def require_gguf(name: str) -> None:
    """Raise ModelError that says how to install what transformers unpacks GGUF files with, unless it is there."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("llm.no_gguf", name=name)


def refuse_small_memory(checkpoint: Checkpoint, place: Plan, free: int) -> None:
    """A GGUF file is unpacked as a whole in main memory, also on its way to a GPU, and the largest tensor is there
    twice in float32. Raises OutOfMemory when `free` bytes are too few."""
    need = place.need.weights + 2 * 4 * max(tensor.count for tensor in checkpoint.tensors)
    if need > free:
        raise OutOfMemory("llm.gguf_memory", name=place.name, need=gib(need), free=gib(free))


def from_pretrained(
    checkpoint: Checkpoint,
    config: Any,
    *,
    dtype: Any,
    quantization: Quantization,
    device_map: Mapping[str, str],
    cache: Path | None,
    progress: Progress,
    cancel: threading.Event,
) -> Any:
    """The model on its devices. Every weight must come from the checkpoint. Raises ModelError and Cancelled."""
    from transformers import AutoModelForCausalLM

    folder, inside = checkpoint.folder, checkpoint.format == "gguf"
    given = _unpacked() if inside else bitsandbytes_config(quantization)
    if quantization != "none" and given is None:
        raise ModelError("llm.cannot_quantize", name=folder.name, quantization=quantization)
    disk = new_folder(cache) if "disk" in device_map.values() else None
    with _unpack_progress(progress, cancel) if inside else nullcontext(progress) as rest, _load_progress(rest, cancel):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=checkpoint.format == "safetensors",
            weights_only=True,
            dtype=dtype,
            device_map=dict(device_map),
            offload_folder=str(disk) if disk else None,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **({"quantization_config": given} if given else {}),
            **({"gguf_file": str(checkpoint.files[0])} if inside else {}),
        )
    if disk:
        remove_with(model, disk)
    _refuse_incomplete(folder.name, report["missing_keys"], report["mismatched_keys"])
    return model.eval()


def _unpacked() -> Any:
    """Plain numbers, never llama.cpp's own kernels: transformers would fetch those from the hub."""
    from transformers import GgufConfig

    return GgufConfig(dequantize=True)


def _refuse_incomplete(name: str, missing: Any, mismatched: Any) -> None:
    """transformers fills a missing tensor with random numbers and only warns; such a model talks nonsense."""
    if missing:
        raise ModelError("llm.missing_tensors", names=_some(missing), count=len(missing), name=name)
    if mismatched:
        names = {entry[0] if isinstance(entry, tuple) else entry for entry in mismatched}
        raise ModelError("llm.wrong_shapes", names=_some(names), count=len(names), name=name)


def _some(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names)[:5])


@contextmanager
def _load_progress(progress: Progress, cancel: threading.Event) -> Iterator[None]:
    """Turn transformers' progress bars into calls of `progress`; nothing is printed."""
    from transformers.utils import logging as transformers_logging

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bar = factory(*args, **(kwargs | {"disable": True}))
        return _Counted(args[0], bar, progress, cancel) if args and hasattr(args[0], "__len__") else bar

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


@contextmanager
def _unpack_progress(progress: Progress, cancel: threading.Event) -> Iterator[Progress]:
    """Report the unpacking of a GGUF file, which transformers shows by a bar of its own, and stop it on `cancel`.

    Yields where to report what comes after it.
    """
    from transformers import modeling_gguf_pytorch_utils as unpacking

    def counted(items: Any, **_: Any) -> Any:
        return _Counted(items, None, _share(progress, 0.0, _UNPACKING), cancel)

    previous, unpacking.tqdm = unpacking.tqdm, counted
    try:
        yield _share(progress, _UNPACKING, 1.0)
    finally:
        unpacking.tqdm = previous


def _share(progress: Progress, start: float, end: float) -> Progress:
    """Reports from 0 to 1 as a stretch of the whole."""
    return lambda state: progress(replace(state, share=start + state.share * (end - start)))


class _Counted:
    """Iterates like a progress bar and reports the share done; everything else is the bar's."""

    def __init__(self, items: Any, bar: Any, progress: Progress, cancel: threading.Event) -> None:
        self._items, self._bar, self._progress, self._cancel = items, bar, progress, cancel

    def __iter__(self) -> Iterator[Any]:
        total = len(self._items)
        for done, item in enumerate(self._items, 1):
            if self._cancel.is_set():
                raise Cancelled
            yield item
            self._progress(LoadState("loading", done / total))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
