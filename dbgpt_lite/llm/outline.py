"""A model's parameters grouped into what stays together, from its config.json or, slower, from its empty model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ModelError, UserError
from dbgpt_lite.llm.checkpoint import (
    Checkpoint,
    TaskFacts,
    gguf_file,
    read_checkpoint,
    read_config,
    read_gguf_checkpoint,
)
from dbgpt_lite.llm.families import shape
from dbgpt_lite.llm.layouts import layout, settled
from dbgpt_lite.llm.model_json import check_config, damaged, read_json
from dbgpt_lite.llm.placement import Block
from dbgpt_lite.llm.shapes import Config, Kind, Parameter, parameters, whole_number
from dbgpt_lite.llm.shards import stored_tensors
from dbgpt_lite.llm.sizes import (
    DTYPE_BYTES,
    Geometry,
    Numbers,
    cache_bytes,
    geometry,
    logits_bytes,
    stored_numbers,
    tensor_bytes,
)

# Matrices of single experts in files, and types of numbers in which nothing is packed.
_EXPERT = re.compile(r"\.experts\.\d+\.\w+\.weight$")
_WHOLE = ("F64", "F32", "F16", "BF16")
# What families call the number of experts that a token passes.
_PICKED = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
# The path of a decoder layer ends with the first number in a parameter's name.
_LAYER = re.compile(r"(.+?)\.(\d+)(?:\.|$)")


@dataclass(frozen=True, eq=False)
class Outline:
    """A model before it is loaded. `beside`: modules without parameters that need a device too (rotary positions).

    `unpacked`: transformers unpacks the weights as a whole (GGUF), so none can be quantized or stay on disk.
    """

    name: str
    config: Config
    parameters: tuple[Parameter, ...]
    geometry: Geometry
    stored: Numbers
    beside: tuple[str, ...] = ()
    unpacked: bool = False

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(one.count for one in self.parameters)

    def blocks(self, dtype: str, numbers: Numbers, context: int, users: int) -> tuple[Block, ...]:
        """The model in pieces that stay whole, in the order they compute; tied weights are one piece."""
        made: list[Block] = []
        for piece, block in zip(self.pieces, _weights(self, dtype, numbers), strict=True):
            layer, head = piece.layer, piece.has_head
            cache = 0 if layer is None else cache_bytes(self.geometry, layer, dtype, context, users)
            made.append(replace(block, cache=cache, working=logits_bytes(self.geometry, users) if head else 0))
        return tuple(made)

    @cached_property
    def pieces(self) -> "tuple[Piece, ...]":
        """Parameters by what stays together."""
        layers = _text_layers(self.parameters, self.geometry.layers)
        return tuple(
            Piece(names, tuple(group), layers.get(names[0])) for names, group in _groups(self.parameters).items()
        )

    def joined_experts(self, dtype: str) -> int:
        """Bytes of experts that are never quantized: the files hold them as one tensor of three sizes, or whole."""
        return sum(tensor_bytes(one, dtype, "none") for one in self.parameters if one.kind == "joined")

    @cached_property
    def picked(self) -> int:
        """Experts that compute a token in a layer, one after the other when they are quantized; 0 without such."""
        counts = [one.shape[0] for one in self.parameters if one.kind == "experts"]
        return _picked(self.config, max(counts)) if counts else 0

    def largest_matrix(self, dtype: str) -> int:
        """Bytes of the largest matrix before it is quantized."""
        linear = [one.count for one in self.parameters if one.kind == "linear"]
        experts = [prod(one.matrices[1]) for one in self.parameters if one.kind == "experts"]
        return max((*linear, *experts), default=0) * DTYPE_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Piece:
    """Parameters that stay together under the prefixes `names`. `layer`: the number of a decoder layer."""

    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    layer: int | None = None

    @property
    def has_head(self) -> bool:
        """Whether the scores of the vocabulary are computed here."""
        return any(one.kind == "head" for one in self.parameters)


@lru_cache(maxsize=32)
def _weights(drawn: Outline, dtype: str, numbers: Numbers) -> tuple[Block, ...]:
    """Blocks without cache: what does not change with window and users."""
    return tuple(
        Block(
            piece.names,
            sum(tensor_bytes(one, dtype, numbers) for one in piece.parameters),
            read=sum(_read(drawn.config, one, dtype, numbers) for one in piece.parameters),
            parameters=tuple(one.name for one in piece.parameters if not one.tied),
            tied=tuple(one.name for one in piece.parameters if one.tied),
        )
        for piece in drawn.pieces
    )


def _read(config: Config, one: Parameter, dtype: str, numbers: Numbers) -> int:
    """Bytes of a parameter that one token reads."""
    if one.tied:
        return tensor_bytes(Parameter(one.name, one.shape), dtype, numbers)
    whole = tensor_bytes(one, dtype, numbers)
    count = max(1, one.shape[0]) if one.shape else 1
    if one.kind == "embedding":
        return whole // count
    return whole * _picked(config, count) // count if one.kind in ("experts", "joined") else whole


def _picked(config: Config, experts: int) -> int:
    return min(whole_number(config, *_PICKED) or 2, experts)


def _groups(found: Sequence[Parameter]) -> dict[tuple[str, ...], list[Parameter]]:
    """Parameters by the prefixes that cover them. What is tied joins its source, with its bias."""
    home = {one.name: module_of(one.name) for one in found}
    joins = {home[one.name]: home[one.tied] for one in found if one.tied in home}
    groups: dict[str, list[Parameter]] = {}
    for one in found:
        groups.setdefault(joins.get(home[one.name], home[one.name]), []).append(one)
    return {
        tuple(dict.fromkeys((prefix, *(home[one.name] for one in group)))): group for prefix, group in groups.items()
    }


def module_of(name: str) -> str:
    """The prefix under which a parameter is placed: its decoder layer, else its module."""
    layer = _LAYER.match(name)
    return f"{layer[1]}.{layer[2]}" if layer else name.rpartition(".")[0] or name


def _text_layers(found: Sequence[Parameter], count: int) -> dict[str, int]:
    """Number of each decoder layer by its prefix. Other towers (vision) have lists of layers too: the last one of the
    right length counts."""
    lists: dict[str, dict[str, int]] = {}
    for one in found:
        if layer := _LAYER.match(one.name):
            lists.setdefault(layer[1], {})[f"{layer[1]}.{layer[2]}"] = int(layer[2])
    fitting = [layers for layers in lists.values() if len(layers) == count]
    return fitting[-1] if fitting else {}


def outline(checkpoint: Checkpoint) -> Outline:
    """A checkpoint's outline: by its family's row, else from transformers' empty model, which takes seconds.

    Raises ModelError for an architecture that transformers does not know either.
    """
    config = checkpoint.config
    name, stored, row = checkpoint.folder.name, stored_numbers(config, checkpoint.folder.name), layout(config)
    if row is None:
        found, sizes = _by_transformers(checkpoint)
        return Outline(name, config, _as_stored(checkpoint, stored, found), sizes, stored)
    full = settled(config)
    sizes = geometry(config)
    if not (sizes.layers and sizes.hidden and sizes.heads and sizes.vocabulary):
        raise ModelError("llm.config_without_sizes", name=name)
    beside = (row.rotary,) if row.rotary else ()
    unpacked = checkpoint.format == "gguf"
    return Outline(
        name,
        config,
        _as_stored(checkpoint, stored, parameters(row, full)),
        _as_cached(sizes, config),
        stored,
        beside,
        unpacked,
    )


def _as_stored(checkpoint: Checkpoint, stored: Numbers, found: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """Experts that these files hold joined stay so, and whole ones stay whole where other layers are stored
    quantized."""
    if checkpoint.format == "gguf" or not checkpoint.files or all(one.kind != "experts" for one in found):
        return found
    places = stored_tensors(checkpoint)
    joined = any(place.name.endswith("experts.gate_up_proj") for place in places)
    # A column of any type is packed.
    matrices = [place for place in places if _EXPERT.search(place.name) and place.shape[1:] != (1,)]
    whole = any(place.dtype in _WHOLE for place in matrices)
    if not joined and (stored == "none" or not whole):
        return found
    return tuple(replace(one, kind="joined") if one.kind == "experts" else one for one in found)


def _as_cached(sizes: Geometry, config: Config) -> Geometry:
    """The sizes with what the family's row knows of its cache: heads that are repeated before they are kept, windows
    that are stated but switched off."""
    known = shape(config)
    windows = sizes.windows if known.sliding_layers else (0,) * sizes.layers
    return replace(
        sizes,
        kv_heads=known.kv_heads or sizes.kv_heads,
        head_dim=known.head_dim or sizes.head_dim,
        windows=windows,
    )


def _by_transformers(checkpoint: Checkpoint) -> tuple[tuple[Parameter, ...], Geometry]:
    import torch

    from dbgpt_lite.llm.architecture import empty_model, transformers_config

    try:
        config = transformers_config(checkpoint)
        model = empty_model(config, torch.bfloat16)
    except UserError:
        raise
    except (ValueError, KeyError, ImportError) as error:
        raise ModelError(
            "llm.unknown_family", name=checkpoint.folder.name, family=checkpoint.model_type or "?"
        ) from error
    except Exception as error:
        # transformers takes a config.json at its word; what comes of a wrong one may be of any type.
        raise damaged(checkpoint.folder / "config.json") from error
    text: Mapping[str, Any] = config.get_text_config().to_dict()
    sizes = {**text, "model_type": checkpoint.model_type}
    return _parameters_of(model), _as_cached(geometry(sizes), sizes)


def _parameters_of(model: Any) -> tuple[Parameter, ...]:
    import torch

    from dbgpt_lite.llm.experts import separable

    kinds: dict[str, Kind] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kinds[f"{name}.weight"] = "linear"
        elif isinstance(module, torch.nn.Embedding):
            kinds[f"{name}.weight"] = "embedding"
        elif not type(module).__module__.startswith("torch."):
            # What is no layer of torch's own and has a third size holds one matrix for each expert.
            own = module.named_parameters(prefix=name, recurse=False)
            kinds |= {parameter: "joined" for parameter, value in own if value.dim() == 3}
    kinds |= {f"{name}.{own}": "experts" for name in separable(model) for own in ("gate_up_proj", "down_proj")}
    output = model.get_output_embeddings()
    head = next((f"{name}.weight" for name, module in model.named_modules() if module is output), "")
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    found = [
        Parameter(
            name,
            tuple(value.shape),
            "head" if name == head else kinds.get(name, "plain"),
            stacked=2 if kinds.get(name) == "experts" and name.endswith("gate_up_proj") else 1,
        )
        for name, value in model.named_parameters()
    ]
    shapes = {one.name: one.shape for one in found}
    return (
        *found,
        *(Parameter(name, shapes[source], "head" if name == head else "plain", source)
          for name, source in tied.items() if source in shapes and name not in shapes),
    )  # fmt: skip


def read_outline(folder: Path) -> Checkpoint:
    """A folder as far as it is there: the whole checkpoint, else its config.json and what an index says of its bytes.

    `folder` may also be a config.json file or a GGUF file. Raises ModelError without a readable one.
    """
    if folder.is_file() and folder.suffix.lower() == ".gguf":
        return read_gguf_checkpoint(folder)
    if folder.is_file():
        config = _config_file(folder)
        # A file's name for a folder: what is in a folder beside it is another model's.
        place = folder.parent if folder.name == "config.json" else folder
        return Checkpoint(place, config, TaskFacts(), "safetensors", (), (), 0)
    config = read_config(folder)
    if gguf_file(folder):
        return read_checkpoint(folder)
    try:
        return read_checkpoint(folder)
    except ModelError:
        size, kind = _indexed(folder)
        return Checkpoint(folder, config, TaskFacts(), kind, (), (), size)


def _config_file(file: Path) -> Mapping[str, Any]:
    config = read_json(file)
    if not config.get("model_type"):
        raise damaged(file)
    check_config(config, file.parent.name)
    return config


def _indexed(folder: Path) -> tuple[int, Any]:
    """Bytes and format that an index names; 0 without one."""
    for kind, stem in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
        try:
            index = read_json(folder / f"{stem}.index.json")
            return max(0, int(index["metadata"]["total_size"])), kind
        except (ModelError, ValueError, KeyError, TypeError, OverflowError):
            continue
    return 0, "safetensors"
