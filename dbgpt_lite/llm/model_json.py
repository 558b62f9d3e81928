"""The JSON files of a model folder: read, and refused by name when a value cannot be what it says. No torch.

What is not looked at by this app is not looked at here: other keys may hold anything.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ModelError

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_nextn_predict_layers")
_EXPERTS = (
    "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts",
)  # fmt: skip
_PER_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
_WINDOWS = (
    "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length",
    "original_max_position_embeddings", "sliding_window", "max_window_layers",
)  # fmt: skip
_SIZES = (
    "hidden_size", "n_embd", "n_embed", "d_model", "num_attention_heads", "n_head", "n_heads", "num_key_value_heads",
    "num_kv_heads", "n_head_kv", "multi_query_group_num", "head_dim", "kv_channels", "intermediate_size",
    "ffn_hidden_size", "inner_hidden_size", "ffn_dim", "n_inner", "padded_vocab_size", "vocab_size",
    "moe_intermediate_size", "shared_expert_intermediate_size", "word_embed_proj_dim", "decoder_sparse_step",
)  # fmt: skip
# The most that a whole number of config.json may be: far beyond any model, and little enough to plan in a second.
MOST: Mapping[str, int] = {
    **dict.fromkeys(_LAYERS, 1_000),
    **dict.fromkeys((*_EXPERTS, *_PER_TOKEN), 100_000),
    **dict.fromkeys(_WINDOWS, 2**32),
    **dict.fromkeys(_SIZES, 2**24),
}
# Positive numbers with a fraction, and the most they may be.
_FACTORS: Mapping[str, float] = {"factor": 100_000, "expansion_ratio": 1_000}
_SCALINGS = ("rope_scaling", "rope_parameters")
_OBJECTS = ("text_config", "quantization_config", "compression_config", "auto_map", *_SCALINGS)
_DEEPEST = 50
_LISTS = ("layer_types", "mlp_only_layers", "architectures")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError for anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or _nested(content):
        raise damaged(file)
    return content


def _nested(content: Any) -> bool:
    """Whether it nests deeper than any file of a model, so that what walks it by recursion could break."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in level if isinstance(one, dict | list)]
    return bool(level)


def read_json_if_there(file: Path) -> dict[str, Any]:
    """The object in a JSON file, {} where there is none. Raises ModelError for a file that holds anything else."""
    return read_json(file) if file.is_file() else {}


def damaged(file: Path) -> ModelError:
    """What to say of a file that is not what its name says."""
    return ModelError("llm.damaged_file", file=file.name, name=file.parent.name)


def wrong_entry(file: str, name: str, entry: str, value: Any) -> ModelError:
    """What to say of one entry of a file of the folder `name`."""
    return ModelError("llm.wrong_entry", file=file, name=name, entry=entry, value=shown(value))


def shown(value: Any) -> str:
    """A value of a file of strangers as it may stand in a sentence."""
    if isinstance(value, Mapping):
        return "{...}"
    if isinstance(value, list | tuple):
        return "[...]"
    written = value if isinstance(value, str) else json.dumps(value)
    return written if len(written) <= 60 else f"{written[:60]}..."


def strings(value: Any) -> bool:
    """Whether this is a list of strings."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Refuse a config.json with an entry of another type or size than any model has. `name`: the folder's.

    null and false count as left out, and so does a list where each layer has a size of its own. Raises ModelError.
    """
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ModelError("llm.no_model_type", name=name)
    for entry, value in _entries(config):
        if not _possible(entry, value):
            raise wrong_entry("config.json", name, entry, value)
    for part in (config, _object(config.get("text_config"))):
        numbers = {entry: value for entry, value in part.items() if type(value) is int}
        experts = max((numbers[entry] for entry in _EXPERTS if entry in numbers), default=0)
        for entry in _PER_TOKEN:
            # A mixture of one expert or none is an ordinary model, whatever is said of choosing.
            if experts > 1 and not 1 <= numbers.get(entry, 1) <= experts:
                raise wrong_entry("config.json", name, entry, numbers[entry])


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of the whole, of its language part, and of the scaling of positions, which may differ by kind of layer."""
    yield from config.items()
    text = _object(config.get("text_config"))
    yield from text.items()
    for scaling in (_object(part.get(key)) for part in (config, text) for key in _SCALINGS):
        yield from scaling.items()
        for one in scaling.values():
            yield from _object(one).items()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _possible(entry: str, value: Any) -> bool:
    if value is None or value is False:
        return True
    if entry in _OBJECTS:
        return isinstance(value, Mapping)
    if entry in _LISTS:
        return isinstance(value, list)
    if isinstance(value, list | Mapping):
        return entry not in _FACTORS
    if entry in MOST:
        # -1 stands for "none" in some files.
        return isinstance(value, int) and value is not True and -1 <= value <= MOST[entry]
    if entry in _FACTORS:
        number = isinstance(value, int | float) and value is not True
        return number and isfinite(value) and 0 < value <= _FACTORS[entry]
    return True


def token_texts(entries: Any, file: Path) -> set[str]:
    """The "content" of tokenizer entries. Raises ModelError when they are no list of such objects."""
    found = entries if isinstance(entries, Sequence) and not isinstance(entries, str) else None
    texts = [entry.get("content") if isinstance(entry, Mapping) else None for entry in found or ()]
    if found is None or not strings(texts):
        raise damaged(file)
    return {str(one) for one in texts}
