"""The experts of a mixture one by one, as files hold them: three linear layers each, which can be quantized.

transformers joins all experts of a layer into two tensors (experts, rows, columns), which no quantization here reads.
Where such a model is quantized, or is stored quantized, its experts stay apart. Sources: Jiang et al., Mixtral of
Experts (arXiv 2401.04088); transformers' integrations/moe.py and conversion_mapping.py for names and order.
"""

import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.shapes import whole_number
from dbgpt_lite.llm.shards import StoredTensor

Rename = Callable[[str], str]
# What a stored tensor of one expert is called after `_renamer`.
_ONE_EXPERT = re.compile(r"\.experts\.(\d+)\.gate_proj\.")
_MORE = 4  # times the experts in the files that are made at most: some may be missing, which is then said by name
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


class Expert(nn.Module):
    """A feed-forward with a gate; `activation` has no weights and is shared by all experts."""

    def __init__(self, hidden: int, inner: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.act_fn = activation

    def forward(self, states: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        out: Tensor = self.down_proj(self.act_fn(self.gate_proj(states)) * self.up_proj(states))
        return out


class SeparateExperts(nn.ModuleList):
    """Experts 0, 1, ... of one layer, called as transformers calls the joined ones."""

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """States (tokens, hidden), the experts of each token (tokens, k) and their weights (tokens, k) -> (tokens,
        hidden), the weighted sum. A number beyond the last expert stands for none."""
        out = torch.zeros_like(hidden_states)
        order = top_k_index.flatten().argsort(stable=True)
        tokens = order // top_k_index.shape[-1]
        shares = top_k_weights.flatten()[order, None]
        # One look at the GPU for all experts; each then takes its stretch of the sorted places.
        counts = torch.bincount(top_k_index.flatten(), minlength=len(self)).tolist()
        start = 0
        for expert, count in zip(self, counts, strict=False):
            if count:
                end = start + count
                own = tokens[start:end]
                out.index_add_(0, own, (expert(hidden_states[own]) * shares[start:end]).to(out.dtype))
                start = end
        return out


def _is_plain(module: Any) -> bool:
    """Whether a module is joined experts of the plain kind: gate and up one below the other, no bias, no norm."""
    from transformers.integrations.moe import _default_apply_gate

    own = {name for name, _ in module.named_parameters(recurse=False)}
    return (
        own == {"gate_up_proj", "down_proj"}
        and getattr(module, "has_gate", False)
        and getattr(module, "is_concatenated", False)
        and not any(getattr(module, name, True) for name in ("has_bias", "is_transposed", "has_post_expert_norm"))
        and getattr(type(module), "_apply_gate", None) is _default_apply_gate
        and callable(getattr(module, "act_fn", None))
    )


def separable(model: Any) -> dict[str, Any]:
    """The joined experts of a model whose files hold them one by one, by name."""
    return _separable(model)[0]


def _separable(model: Any) -> tuple[dict[str, Any], Rename | None]:
    """With how stored names become those of the model with separate experts; ({}, None) for other models."""
    joined = {name: module for name, module in model.named_modules() if _is_plain(module)}
    rename = _renamer(model) if joined else None
    return (joined, rename) if rename else ({}, None)


def separate(model: Any, places: tuple[StoredTensor, ...]) -> tuple[Rename | None, tuple[StoredTensor, ...]]:
    """Put separate experts into a model on the meta device, if its files hold them one by one.

    Returns how stored names become those of the model then, and the stored tensors without those layers beyond the last
    that config.json says are for predicting further tokens (DeepSeek-V3's). Otherwise the model stays, and all tensors.
    Raises ModelError when most experts are not in the files.
    """
    joined, rename = _separable(model)
    found = [at for place in places if rename and (at := _ONE_EXPERT.search(rename(place.name)))]
    if rename is None or not found:
        return None, places
    # About as many as there are in the files: what a config.json says of their number is only compared with it.
    most = 1 + max(int(at[1]) for at in found)
    counts = {name: min(module.down_proj.shape[0], most + 1) for name, module in joined.items()}
    if (made := sum(counts.values())) > _MORE * (len(found) + len(joined)):
        stored = {rename(place.name) for place in places}
        wanted = (f"{name}.{number}.gate_proj.weight" for name, count in counts.items() for number in range(count))
        lost = [*islice((name for name in wanted if name not in stored), 5)]
        raise ModelError("llm.missing_tensors", names=", ".join(lost), count=made - len(found), name=model.name_or_path)
    for name, module in joined.items():
        _, hidden, inner = module.down_proj.shape
        with torch.device("meta"), no_init_weights():
            experts = SeparateExperts(Expert(hidden, inner, module.act_fn) for _ in range(counts[name]))
        model.set_submodule(name, experts.to(module.down_proj.dtype).eval())
    have = set(model.state_dict())
    sizes = model.config.get_text_config().to_dict()
    layers = whole_number(sizes, "num_hidden_layers")
    beyond = range(layers, layers + whole_number(sizes, "num_nextn_predict_layers"))

    def renamed(name: str) -> str:
        return name if _is_held(name, have) else rename(name)

    return renamed, tuple(place for place in places if not _is_in(renamed(place.name), beyond, have))


def _is_held(name: str, have: Collection[str]) -> bool:
    """Whether a stored name is the model's already, or belongs to a quantized weight of it: in copies."""
    words = name.split(".")
    owners = (".".join(words[:end]) for end in range(len(words), 0, -1))
    return any(owner in have or f"{owner}.weight" in have for owner in owners)


def _is_in(name: str, layers: range, have: Collection[str]) -> bool:
    found = _LAYER.search(name)
    return found is not None and int(found[1]) in layers and not _is_held(name, have)


def _renamer(model: Any) -> Rename | None:
    """From a stored name to that of a model with separate experts; None where no file holds them so, or where
    transformers does more to tensors than to rename them and to join experts."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming

    renames: list[Rename] = []
    moves: list[tuple[re.Pattern[str], str]] = []
    for transform in get_model_conversion_mapping(model, add_legacy=False):
        if isinstance(transform, WeightRenaming):
            renames.append(_renaming(transform))
        elif (found := _moves(transform)) is not None:
            moves += found
        else:
            return None

    if not moves:
        return None

    def rename(name: str) -> str:
        for step in renames:
            name = step(name)
        for pattern, target in moves:
            name = pattern.sub(target, name)
        return name

    return rename


def _renaming(transform: Any) -> Rename:
    return lambda name: str(transform.rename_source_key(name)[0])


def _moves(transform: Any) -> list[tuple[re.Pattern[str], str]] | None:
    """["...experts.*.w1.weight", "...w3.weight"] joined to "...experts.gate_up_proj" -> patterns for w1 and w3 with
    what replaces them; None for any other conversion."""
    steps = [(type(step).__name__, step.dim) for step in transform.operations if hasattr(step, "dim")]
    target, own = transform.target_patterns[0].rpartition(".")[::2]
    kinds = {
        "gate_up_proj": (["gate_proj", "up_proj"], [("MergeModulelist", 0), ("Concatenate", 1)]),
        "down_proj": (["down_proj"], [("MergeModulelist", 0)]),
    }
    names, joining = kinds.get(own, ([], []))
    sources = [source.removesuffix("$") for source in transform.source_patterns]
    plain = all(source.count("*") == 1 and source.endswith(".weight") for source in sources)
    if not plain or len(transform.operations) != len(steps) or steps != joining or len(sources) != len(names):
        return None
    return [(_pattern(source), rf"{target}.\1.{name}.") for source, name in zip(sources, names, strict=True)]


def _pattern(source: str) -> re.Pattern[str]:
    """What a tensor of an expert is called, up to the last dot: constants of quantized weights follow the same way."""
    before, after = source.removesuffix("weight").replace("\\", "").split("*")
    return re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}")
