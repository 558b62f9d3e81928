"""A model folder -> a model that answers: check, plan, load, check again.

Local folders only, and never the code inside them: trust_remote_code is False, and an architecture that transformers
does not know is refused. ``.bin`` files are read with weights_only (needs torch 2.6 or newer).
"""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ModelError, OutOfMemory, UserError
from dbgpt_lite.llm.chat_choice import choose_format
from dbgpt_lite.llm.chat_template import ChatTemplate, Tokenizer
from dbgpt_lite.llm.checkpoint import Checkpoint, read_checkpoint
from dbgpt_lite.llm.devices import PLACEMENTS, accelerate_max_memory, best_cpu_dtype, device_words, usable_devices
from dbgpt_lite.llm.engine import LocalEngine
from dbgpt_lite.llm.families import family
from dbgpt_lite.llm.placement import Device, plan
from dbgpt_lite.llm.quantize import SCALE, Quantization, bitsandbytes_config, expand_int4
from dbgpt_lite.messages import EngineInfo
from dbgpt_lite.model_loading import ONE_AT_A_TIME

log = logging.getLogger(__name__)

# (what happens now: "checking" | "loading" | "ready", share done from 0 to 1)
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load. `dtype`: auto, float32, float16 or bfloat16. `context` 0: the model's own window.

    `constrained`: obey the grammar of a prompt that has one.
    `max_memory`: {"0": "20GiB", "cpu": "60GiB"}. `chat_format`: used when the folder does not say.
    """

    quantization: Quantization = "none"
    dtype: str = "auto"
    device_map: str = "auto"
    max_memory: Mapping[str, str] = field(default_factory=dict)
    context: int = 0
    chat_format: str = ""
    constrained: bool = True


def load(folder: Path, options: LoadOptions, progress: Progress = lambda stage, share: None) -> LocalEngine:
    """Load a folder. Raises ModelError, or OutOfMemory before loading when it cannot fit; both say what to do."""
    progress("checking", 0.0)
    checkpoint = read_checkpoint(folder)
    _refuse_foreign(checkpoint)
    devices = usable_devices(options.device_map, options.max_memory)
    dtype = _dtype(checkpoint, options, devices)
    place = plan(checkpoint, dtype=dtype, quantization=options.quantization, context=options.context, devices=devices)
    place.check()
    with _readable_failures(folder.name), ONE_AT_A_TIME, _load_progress(progress):
        tokenizer = _tokenizer(folder)
        model = _packed(checkpoint, dtype, devices) if checkpoint.packed_int4 else _plain(checkpoint, dtype, options)
    progress("ready", 1.0)
    constrained = options.constrained and tokenizer.is_fast
    info = _info(checkpoint, options, model, place.need.context, constrained)
    return LocalEngine(model, tokenizer, _template(checkpoint, tokenizer, options.chat_format), info)


def _template(checkpoint: Checkpoint, tokenizer: Tokenizer, setting: str) -> ChatTemplate:
    kind = checkpoint.model_type
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    choice = choose_format(checkpoint.facts, setting, bool(tokenizer.chat_template), tokens, kind)
    return ChatTemplate(tokenizer, choice.name, family(kind).end_tokens)


def _info(checkpoint: Checkpoint, options: LoadOptions, model: Any, context: int, constrained: bool) -> EngineInfo:
    facts = checkpoint.facts
    return EngineInfo(
        name=checkpoint.folder.name,
        kind="local",
        context_length=context,
        device=", ".join(sorted({device_words(str(device)) for device in _places(model)})),
        quantization="int4" if checkpoint.packed_int4 else options.quantization,
        languages=facts.languages,
        sql_prompt=facts.sql_prompt,
        sql_dialect=facts.sql_dialect,
        constrained=constrained,
    )


def _places(model: Any) -> set[str]:
    placed = getattr(model, "hf_device_map", None) or {"": str(model.device)}
    return {f"cuda:{place}" if isinstance(place, int) else str(place) for place in placed.values()}


def _refuse_foreign(checkpoint: Checkpoint) -> None:
    """Refuse what would need the folder's own code, and weights quantized in ways this app does not read."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    name, kind = checkpoint.folder.name, checkpoint.model_type
    if kind not in known:
        raise ModelError(
            "llm.needs_code" if "auto_map" in checkpoint.config else "llm.unknown_family", name=name, family=kind
        )
    method = (checkpoint.config.get("quantization_config") or {}).get("quant_method", "bitsandbytes")
    if method != "bitsandbytes":
        raise ModelError("llm.unknown_quantization", name=name, method=method)


def _dtype(checkpoint: Checkpoint, options: LoadOptions, devices: tuple[Device, ...]) -> str:
    """The type to compute in: the one asked for, else what suits the device."""
    if options.dtype != "auto":
        return options.dtype
    if devices[0].kind == "cpu":
        return "bfloat16" if options.quantization == "nf4" else best_cpu_dtype()
    stored = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype"))
    return stored if stored in ("float16", "bfloat16") else "bfloat16"


def _tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return tokenizer


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _plain(checkpoint: Checkpoint, dtype: str, options: LoadOptions) -> Any:
    """from_pretrained through accelerate's placement; every weight must come from the checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM

    quantization_config = bitsandbytes_config(options.quantization)
    model, report = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder,
        config=_config(checkpoint.folder),
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=checkpoint.format == "safetensors",
        weights_only=True,
        dtype=getattr(torch, dtype),
        device_map=options.device_map if options.device_map in PLACEMENTS else {"": options.device_map},
        max_memory=accelerate_max_memory(options.max_memory),
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **({"quantization_config": quantization_config} if quantization_config else {}),
    )
    _refuse_incomplete(checkpoint, report["missing_keys"], report["mismatched_keys"])
    return model.eval()


def _refuse_incomplete(checkpoint: Checkpoint, missing: Any, mismatched: Any) -> None:
    """transformers fills a missing tensor with random numbers and only warns; such a model talks nonsense."""
    name = checkpoint.folder.name
    if missing:
        raise ModelError("llm.missing_tensors", names=_some(missing), count=len(missing), name=name)
    if mismatched:
        names = {entry[0] if isinstance(entry, tuple) else entry for entry in mismatched}
        raise ModelError("llm.wrong_shapes", names=_some(names), count=len(names), name=name)


def _some(names: Any) -> str:
    return ", ".join(sorted(str(name) for name in names)[:5])


def _packed(checkpoint: Checkpoint, dtype: str, devices: tuple[Device, ...]) -> Any:
    """Expand a packed checkpoint and give its tensors to a model made on the meta device: no second copy."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if checkpoint.format != "safetensors":
        raise ModelError("llm.packed_bin", name=checkpoint.folder.name)
    config = _config(checkpoint.folder)
    del config.quantization_bit
    target = getattr(torch, dtype)
    weights: dict[str, torch.Tensor] = {}
    for file in checkpoint.files:
        weights |= expand_int4(load_file(file), target)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=target, trust_remote_code=False)
    _refuse_misfits(checkpoint, model, weights)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    _restore_buffers(model, target)
    return model.to(devices[0].name).eval()


def _refuse_misfits(checkpoint: Checkpoint, model: Any, weights: Mapping[str, Any]) -> None:
    wanted = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or {}) if model.config.tie_word_embeddings else set()
    missing = set(wanted) - set(weights) - tied
    wrong = {name for name in set(wanted) & set(weights) if wanted[name].shape != weights[name].shape}
    _refuse_incomplete(checkpoint, missing, wrong)
    unknown = {name for name in weights if name not in wanted or name.endswith(SCALE)}
    if unknown:
        raise ModelError("llm.unknown_tensors", names=_some(unknown), count=len(unknown), name=checkpoint.folder.name)


def _restore_buffers(model: Any, dtype: Any) -> None:
    """Buffers that no checkpoint holds (rotary frequencies) were made on the meta device: make them again."""
    import torch

    for module in model.modules():
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            with torch.device("cpu"):
                fresh = type(module)(module.config)
            for name, buffer in fresh.named_buffers(recurse=False):
                module.register_buffer(name, buffer, persistent=False)


@contextmanager
def _readable_failures(name: str) -> Iterator[None]:
    """Errors of the libraries below, as the text a user can act on; the library's own words go to the log."""
    import torch

    try:
        yield
    except UserError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        log.warning("loading %s ran out of memory: %s", name, error)
        raise OutOfMemory("llm.out_of_memory_loading", name=name) from error
    except Exception as error:
        log.warning("loading %s failed", name, exc_info=error)
        if type(error).__name__ == "UnpicklingError":
            raise ModelError("llm.unsafe_bin", name=name) from error
        raise ModelError("llm.load_failed", name=name, reason=_first_line(error)) from error
    finally:
        gc.collect()


def _first_line(error: BaseException) -> str:
    """The first line of a library's message, without the host's paths."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return " ".join(Path(word).name if word.startswith("/") else word for word in line.split())[:200]


@contextmanager
def _load_progress(progress: Progress) -> Iterator[None]:
    """Turn transformers' progress bars into calls of `progress`; nothing is printed."""
    from transformers.utils import logging as transformers_logging

    def hook(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bar = factory(*args, **(kwargs | {"disable": True}))
        return _Counted(args[0], bar, progress) if args and hasattr(args[0], "__len__") else bar

    progress("loading", 0.0)
    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


class _Counted:
    """Iterates like a progress bar and reports the share done; everything else is the bar's."""

    def __init__(self, items: Any, bar: Any, progress: Progress) -> None:
        self._items, self._bar, self._progress = items, bar, progress

    def __iter__(self) -> Iterator[Any]:
        total = len(self._items)
        for done, item in enumerate(self._items, 1):
            yield item
            self._progress("loading", done / total)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)
