"""LoRA adapters in PEFT's format, merged into the weights of their base model while those are loaded.

W becomes W + scaling * B @ A in float32 (Hu et al., "LoRA", ICLR 2022), so inference needs neither peft nor extra
time. An adapter is a folder with adapter_config.json beside its base model's folder:

    models/llama-7b/      config.json, tokenizer, weights
    models/guanaco-7b/    adapter_config.json, adapter_model.safetensors or .bin

The base is looked up beside the adapter, by the last part of base_model_name_or_path, or by "base" in dbgpt.json.
"""

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.checkpoint import LONGEST_NAME, has_weights, read_facts
from dbgpt_lite.llm.model_json import read_json, shown, wrong_entry

if TYPE_CHECKING:
    import torch

    from dbgpt_lite.llm.matching import Route
    from dbgpt_lite.llm.shards import StoredTensor

CONFIG = "adapter_config.json"
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# What changes the sum above, or reaches for other tensors than a matrix's A and B.
_UNSUPPORTED = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "megatron_config",
)  # fmt: skip
# Ways to begin that take something out of the base's own weights.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
_SAVED = re.compile(r"\.(modules_to_save(\.default)?|base_layer)(?=\.)")
_PATTERNS = ("rank_pattern", "alpha_pattern")
# A module's name; PEFT would take these keys for regular expressions, where a dot stands for any letter.
_LITERAL = re.compile(r"[\w.-]+")
_LARGEST = 2**24
_ENDINGS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
}


@dataclass(frozen=True, slots=True)
class Update:
    """What one adapter does to one tensor: takes the one in `saved` instead, then adds A and B's product."""

    scaling: float = 1.0
    a: "StoredTensor | None" = None
    b: "StoredTensor | None" = None
    saved: "StoredTensor | None" = None
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter folder whose files were checked. `updates` by the name of the tensor each one changes."""

    folder: Path
    updates: "Mapping[str, Update]"

    def check(self, routes: "Sequence[Route]") -> None:
        """Raise ModelError that names what the base lacks, or has in another shape."""
        from dbgpt_lite.llm.matching import part_shape

        shapes = {route.place.name: route.place.shape for route in routes}
        for route in routes:
            for part in route.parts:
                shapes.setdefault(part.name, part_shape(part, route.place.shape) or ())
        lost = sorted(set(self.updates) - set(shapes))
        wrong = sorted(
            name for name in set(self.updates) & set(shapes) if _shapes(self.updates[name]) != {shapes[name]}
        )
        for key, names in (("llm.adapter_lost", lost), ("llm.adapter_shapes", wrong)):
            if names:
                raise ModelError(key, names=", ".join(names[:5]), count=len(names), name=self.folder.name)

    def changes(self, names: Iterable[str]) -> bool:
        """Whether one of these tensors is changed."""
        return any(name in self.updates for name in names)

    def apply(self, name: str, tensor: "torch.Tensor") -> "torch.Tensor":
        """The tensor `name` of the base with this adapter in it; the same one when the adapter leaves it alone."""
        from dbgpt_lite.llm.shards import read_one

        update = self.updates.get(name)
        if update is None:
            return tensor
        if update.saved is not None:
            tensor = read_one(update.saved)
        if update.a is None or update.b is None:
            return tensor
        product = read_one(update.b).float() @ read_one(update.a).float()
        return tensor.float().add(product.T if update.transposed else product, alpha=update.scaling)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in _FILES)


def base_folder(folder: Path) -> Path:
    """The folder with the weights: the base of an adapter, else the folder itself. Raises ModelError when the base is
    not there. Only the last part of the name counts, so no adapter leads out of its own parent."""
    if not is_adapter(folder) or ((folder / "config.json").is_file() and has_weights(folder)):
        return folder
    name = base_name(folder)
    base = folder.parent / name
    if not name or base == folder or not base.is_dir() or is_adapter(base):
        raise ModelError("llm.no_base", name=folder.name, base=name or "?")
    return base


def base_name(folder: Path) -> str:
    """Name of an adapter's base, without any path."""
    named = read_facts(folder).base or read_json(folder / CONFIG).get("base_model_name_or_path")
    name = named.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(named, str) else ""
    return "" if name in (".", "..") or "\0" in name or len(name.encode()) > LONGEST_NAME else name


def read_adapter(folder: Path) -> Adapter | None:
    """The folder's adapter, None when it holds none. Raises ModelError for what cannot be merged, by name."""
    if not is_adapter(folder):
        return None
    from dbgpt_lite.llm.shards import read_places

    config = refuse_unsupported(folder)
    file = next(folder / name for name in _FILES if (folder / name).is_file())
    if file.suffix == ".bin" and not zipfile.is_zipfile(file):
        raise ModelError("llm.damaged_file", file=file.name, name=folder.name)
    return Adapter(folder, _updates(folder, config, read_places([file], folder / f"{file.name}.index.json")))


def refuse_unsupported(folder: Path) -> Mapping[str, Any]:
    """The adapter's configuration. Raises ModelError that names what cannot be merged. Torch-free."""
    config = read_json(folder / CONFIG)
    kind = shown(config.get("peft_type") or "?")
    begun = config.get("init_lora_weights")
    found = [name for name in _UNSUPPORTED if config.get(name)]
    if kind != "LORA":
        found.append(f"peft_type={kind}")
    if config.get("bias", "none") != "none":
        found.append(f"bias={shown(config['bias'])}")
    if isinstance(begun, str) and begun.lower().startswith(_CHANGED_BASE):
        found.append(f"init_lora_weights={begun}")
    if found:
        raise ModelError("llm.adapter_kind", name=folder.name, kind=", ".join(found))
    for entry in ("r", "lora_alpha"):
        if not _is_number(config.get(entry, 8)):
            raise wrong_entry(CONFIG, folder.name, entry, config[entry])
    for entry in _PATTERNS:
        _refuse_patterns(folder, entry, config.get(entry))
    return config


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value) and 0 <= value <= _LARGEST


def _refuse_patterns(folder: Path, entry: str, patterns: Any) -> None:
    """rank_pattern and alpha_pattern: only {end of a module's name: number}. An expression of a stranger could take
    hours to match, so none is matched."""
    if not isinstance(patterns, Mapping | None) or not all(map(_is_number, (patterns or {}).values())):
        raise wrong_entry(CONFIG, folder.name, entry, patterns)
    if strange := [key for key in patterns or {} if not _LITERAL.fullmatch(key)]:
        raise ModelError("llm.adapter_pattern", name=folder.name, entry=entry, names=", ".join(map(shown, strange[:5])))


def _updates(folder: Path, config: Mapping[str, Any], places: "Sequence[StoredTensor]") -> dict[str, Update]:
    """Group the adapter's tensors by what they change."""
    pairs: dict[str, dict[str, StoredTensor]] = {}
    saved: dict[str, StoredTensor] = {}
    embeddings: set[str] = set()
    for place in places:
        name = place.name.removeprefix("base_model.model.")
        ending = next((ending for ending in _ENDINGS if name.endswith(f".{ending}")), "")
        if ending:
            module = name.removesuffix(f".{ending}")
            pairs.setdefault(module, {})[_ENDINGS[ending]] = place
            embeddings |= {module} if "embedding" in ending else set()
        elif "lora_" in name:
            raise ModelError("llm.adapter_kind", name=folder.name, kind=name)
        else:
            # Trained whole (modules_to_save), or saved because the vocabulary was changed.
            saved[_SAVED.sub("", name)] = place
    updates = {name: Update(saved=place) for name, place in saved.items()}
    for module, pair in pairs.items():
        update = _pair(folder, config, module, pair, module in embeddings)
        updates[f"{module}.weight"] = replace(update, saved=saved.get(f"{module}.weight"))
    return updates


def _pair(
    folder: Path, config: Mapping[str, Any], module: str, pair: "Mapping[str, StoredTensor]", embedding: bool
) -> Update:
    rank = int(_pattern(config.get("rank_pattern"), module, config.get("r", 8)))
    alpha = float(_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    a, b = pair.get("a"), pair.get("b")
    fits = a and b and len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] == rank
    if not fits or rank < 1:
        raise ModelError("llm.adapter_shapes", names=module, count=1, name=folder.name)
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return Update(scaling, a, b, transposed=embedding or bool(config.get("fan_in_fan_out")))


def _pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """The first entry of rank_pattern or alpha_pattern whose key is the module's name or the end of it."""
    found = (value for key, value in (patterns or {}).items() if f".{module}".endswith(f".{key}"))
    return next(found, default)


def _shapes(update: Update) -> set[tuple[int, ...]]:
    """Shapes that the tensor of an update must have: one, unless the adapter contradicts itself."""
    found = {update.saved.shape} if update.saved else set()
    if update.a and update.b:
        shape = (update.b.shape[0], update.a.shape[1])
        found.add(shape[::-1] if update.transposed else shape)
    return found
