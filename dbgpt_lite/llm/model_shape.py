"""The sizes of a model, read from its config.json as transformers reads it. Pure: no torch.

A key that config.json leaves out has the default of the architecture's own configuration class (`Family.absent`);
a key that it states as null is derived (one key/value head per head, width divided by heads).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Linear scaling stretches a trained window by its factor, and config.json may state the window before or after
# that. No model of these families was trained on less, so a shorter quotient means: before.
_SHORTEST_TRAINED_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Family:
    """Facts of an architecture: the names of its sizes and parts, and what its checkpoints are like without a template.

    Every `*_keys` is tried in order; the first one that config.json holds wins. `default_context` counts when it names
    no window. `absent`: what other keys mean when they are missing. `window_switch`: the sliding window counts only
    where this key is true; `window_from`: layers before this key's number look at everything; `full_every`: of so many
    layers the last one does (0: none). `shared_heads`: ``multi_query`` says that all heads share one key and value, as
    in Falcon and StarCoder.

    `whole`: classes of layers that must stay on one device, as accelerate's ``no_split_module_classes``. `lora`: names
    of the linear layers that adapters are trained on. `keep`: modules that are never quantized. `chat_format`: written
    when nothing tells another; `end_tokens`: special tokens that end an answer whichever format is written.
    """

    name: str
    context_keys: tuple[str, ...] = ("max_position_embeddings",)
    layers_keys: tuple[str, ...] = ("num_hidden_layers",)
    heads_keys: tuple[str, ...] = ("num_attention_heads",)
    kv_heads_keys: tuple[str, ...] = ("num_key_value_heads",)
    hidden_keys: tuple[str, ...] = ("hidden_size",)
    head_dim_keys: tuple[str, ...] = ("head_dim",)
    default_context: int = 2048
    absent: Mapping[str, int] = field(default_factory=dict)
    window_switch: str = ""
    window_from: str = ""
    full_every: int = 0
    shared_heads: bool = False
    whole: tuple[str, ...] = ()
    lora: tuple[str, ...] = ()
    keep: tuple[str, ...] = ("lm_head",)
    chat_format: str = "plain"
    end_tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes read from config.json: window in tokens, layers, heads, width.

    `kv_heads` heads of `head_dim` numbers are what the cache holds of a key or a value. `sliding_layers` of the
    `layers` look back over `window` tokens only and keep no more than those.
    """

    context_length: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    window: int = 0
    sliding_layers: int = 0


def read_shape(config: Mapping[str, Any], row: Family) -> ModelShape:
    """Sizes of a config.json; a size that neither it nor the row holds is 0.

    Models that also see pictures state the sizes of their language part in ``text_config``.
    """
    config = {**row.absent, **config, **(config.get("text_config") or {})}
    heads = _first(config, row.heads_keys)
    hidden = _first(config, row.hidden_keys)
    layers = _first(config, row.layers_keys)
    sliding = _sliding_layers(config, row, layers)
    return ModelShape(
        context_length=_context(config, row),
        layers=layers,
        heads=heads,
        kv_heads=_kv_heads(config, row, heads),
        head_dim=_first(config, row.head_dim_keys) or (hidden // heads if heads else 0),
        hidden=hidden,
        window=_first(config, ("sliding_window",)) if sliding else 0,
        sliding_layers=sliding,
    )


def _context(config: Mapping[str, Any], row: Family) -> int:
    """Tokens that a prompt and its answer may have together: the stated window, stretched where scaling says so.

    transformers' ``rope_scaling``: "llama3" and "longrope" state the stretched window; "yarn" is
    ``original_max_position_embeddings`` times `factor`; "dynamic" states the trained window; "linear" either.
    """
    stated = _first(config, row.context_keys) or row.default_context
    scaling = _scaling(config)
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if kind not in ("yarn", "dynamic", "linear") or not isinstance(factor, int | float) or factor <= 0:
        return stated
    if original := _first(scaling, ("original_max_position_embeddings",)):
        return max(stated, int(original * factor))
    if kind == "linear":
        if longer := _first(config, ("max_sequence_length",)):
            return max(stated, longer)
        if stated / factor >= _SHORTEST_TRAINED_WINDOW:
            return stated
    return max(1, int(stated * factor))


def _scaling(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scaling of the layers that look at everything; newer config.json call it ``rope_parameters``."""
    found = config.get("rope_scaling") or config.get("rope_parameters")
    inner = found.get("full_attention", found) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def _kv_heads(config: Mapping[str, Any], row: Family, heads: int) -> int:
    """Heads in the cache. Falcon's new decoder repeats its few keys and values for all heads before it stores them;
    ChatGLM2's groups count only with ``multi_query_attention``."""
    if row.shared_heads:
        if config.get("new_decoder_architecture"):
            return heads
        if config.get("multi_query", True):
            return 1
    if config.get("multi_query_attention") is False:
        return heads
    return _first(config, row.kv_heads_keys) or heads


def _sliding_layers(config: Mapping[str, Any], row: Family, layers: int) -> int:
    """Layers with a sliding window, as transformers derives its ``layer_types`` where config.json has none."""
    if not _first(config, ("sliding_window",)) or (row.window_switch and not config.get(row.window_switch)):
        return 0
    stated = config.get("layer_types")
    if isinstance(stated, list):
        return stated.count("sliding_attention")
    first = _first(config, (row.window_from,))
    if row.full_every:
        every = _first(config, ("sliding_window_pattern",)) or row.full_every
        return layers - layers // every
    return max(layers - first, 0)


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)
