"""TABLE of the GGUF architectures that are read: a file's metadata -> the config.json it stands for. No torch.

llama.cpp's names of facts and tensors on the left, transformers' on the right. A row is here when transformers unpacks
the architecture and a test compares it with the model the file was made of. What a file states and this table cannot
express (positions stretched in another way, heads of several sizes) is refused: it would answer, but wrongly.
"""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isclose, pi
from typing import Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.gguf_header import GgufHeader, GgufTensor

# The numbers that every Llama 3 was stretched with; the files hold their result alone, and the factor can be told.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}  # fmt: skip
_GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_TWO_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_FOUR_NORMS = {
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """An architecture. `modules`: a layer's modules by llama.cpp's names. `window`: whether layers slide over
    ``attention.sliding_window``. `more`: what else the header implies, given what is known so far."""

    model_type: str
    modules: Mapping[str, str]
    window: bool = False
    more: Callable[[GgufHeader, Config], Mapping[str, Any]] = field(default=lambda header, config: {})


def _llama(header: GgufHeader, config: Config) -> Mapping[str, Any]:
    biased = any(tensor.name == "blk.0.attn_q.bias" for tensor in header.tensors)
    factors = next((tensor for tensor in header.tensors if tensor.name == "rope_freqs.weight"), None)
    return {"attention_bias": biased} | ({"rope_parameters": _llama3(header, factors, config)} if factors else {})


def _gemma2(header: GgufHeader, config: Config) -> Mapping[str, Any]:
    """The largest Gemma 2 scales its queries by width, not by head; no file says so (llama.cpp knows it as well)."""
    return {"query_pre_attn_scalar": _query_scale(config, 46)}


def _gemma3(header: GgufHeader, config: Config) -> Mapping[str, Any]:
    """Layers that slide turn by other angles, which no file states either."""
    sliding = {"rope_type": "default", "rope_theta": 10000.0}
    rope = {"full_attention": config["rope_parameters"], "sliding_attention": sliding}
    return {"query_pre_attn_scalar": _query_scale(config, 62), "rope_parameters": rope}


def _query_scale(config: Config, layers: int) -> int:
    largest = config["num_hidden_layers"] == layers
    return int(config["hidden_size"] // config["num_attention_heads"] if largest else config["head_dim"])


ROWS: Mapping[str, Row] = {
    # Mistral and the Vicunas too: llama.cpp makes no difference.
    "llama": Row("llama", {**_ATTENTION, **_GATED, **_TWO_NORMS}, more=_llama),
    "qwen2": Row("qwen2", {**_ATTENTION, **_GATED, **_TWO_NORMS}),
    "qwen3": Row("qwen3", {**_ATTENTION, **_HEAD_NORMS, **_GATED, **_TWO_NORMS}),
    "gemma2": Row("gemma2", {**_ATTENTION, **_GATED, **_FOUR_NORMS}, window=True, more=_gemma2),
    "gemma3": Row("gemma3_text", {**_ATTENTION, **_HEAD_NORMS, **_GATED, **_FOUR_NORMS}, window=True, more=_gemma3),
    "phi3": Row(
        "phi3",
        {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            **_TWO_NORMS,
        },
        window=True,
    ),
}


def config_of(header: GgufHeader) -> Config:
    """The config.json that a file stands for. Raises ModelError for what is not read, by name."""
    name, row = header.file.parent.name, ROWS.get(header.architecture)
    if row is None:
        known = ", ".join(ROWS)
        raise ModelError("llm.gguf_architecture", name=name, architecture=header.architecture or "?", known=known)
    if not header.lengths.get("tokenizer.ggml.tokens"):
        raise ModelError("llm.no_tokenizer", name=name)
    config: Config = {"model_type": row.model_type, **_sizes(header)}
    config["rope_parameters"] = _rope(header, config)
    window = header.values.get(f"{header.architecture}.attention.sliding_window")
    if row.window and isinstance(window, int) and 0 < window < config["max_position_embeddings"]:
        config["sliding_window"] = window
    return {**config, **row.more(header, config), **_tokens(header)}


def parameter(header: GgufHeader, tensor: GgufTensor) -> str:
    """transformers' name of a tensor; "" for one that becomes part of the config; its own name for an unknown one."""
    if tensor.name == "rope_freqs.weight" and header.architecture == "llama":
        return ""
    stem, _, end = tensor.name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{end}"
    found = _BLOCK.fullmatch(tensor.name)
    module = ROWS[header.architecture].modules.get(found[2]) if found else None
    return f"model.layers.{found[1]}.{module}.{found[3]}" if found and module else tensor.name


def _sizes(header: GgufHeader) -> Config:
    """Sizes, held against the shapes of the tensors where a wrong one would cost memory or sense."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    layers = {int(found[1]) for name in shapes if (found := _BLOCK.match(name))}
    embedding = shapes.get("token_embd.weight", ())
    if len(embedding) != 2:
        raise ModelError("llm.missing_tensors", names="token_embd.weight", count=1, name=header.file.parent.name)
    hidden, heads = _whole(header, "embedding_length"), _whole(header, "attention.head_count")
    count, vocabulary = _whole(header, "block_count"), embedding[0]
    complete = len(layers) == count == max(layers, default=0) + 1
    if embedding[1] != hidden or not complete or heads > hidden:
        raise _unsupported(header, f"block_count {count}, embedding_length {hidden}, head_count {heads}")
    if header.lengths["tokenizer.ggml.tokens"] > vocabulary:
        raise _unsupported(header, f"tokenizer.ggml.tokens {header.lengths['tokenizer.ggml.tokens']}")
    kinds = {tensor.kind for tensor in header.tensors} - {"F32"}
    plain = {"F16": "float16", "BF16": "bfloat16"}.get(min(kinds)) if len(kinds) == 1 else None
    return {
        "hidden_size": hidden,
        "num_hidden_layers": count,
        "num_attention_heads": heads,
        # transformers leaves the matrices of a llama file turned when the file does not state this.
        "num_key_value_heads": _whole(header, "attention.head_count_kv"),
        "head_dim": _head_dim(header, hidden // heads),
        "intermediate_size": _whole(header, "feed_forward_length"),
        "max_position_embeddings": _whole(header, "context_length"),
        "rms_norm_eps": _real(header, "attention.layer_norm_rms_epsilon"),
        "vocab_size": vocabulary,
        "tie_word_embeddings": "output.weight" not in shapes,
        **({"dtype": plain} if plain else {}),
    }


def _head_dim(header: GgufHeader, usual: int) -> int:
    size = _whole(header, "attention.key_length", usual)
    if _whole(header, "attention.value_length", size) != size or _whole(header, "rope.dimension_count", size) != size:
        raise _unsupported(header, "attention.key_length, attention.value_length, rope.dimension_count")
    return size


def _rope(header: GgufHeader, config: Config) -> Config:
    """How positions turn, as transformers' ``rope_parameters``."""
    kind = _fact(header, "rope.scaling.type", "none")
    turned: Config = {"rope_theta": _real(header, "rope.freq_base", 10000.0)}
    if kind == "none":
        return {"rope_type": "default", **turned}
    if kind not in ("linear", "yarn") or header.architecture == "phi3":
        raise _unsupported(header, f"rope.scaling.type {kind}")
    turned |= {"rope_type": kind, "factor": _real(header, "rope.scaling.factor")}
    if kind == "yarn":
        original = _whole(header, "rope.scaling.original_context_length", config["max_position_embeddings"])
        turned["original_max_position_embeddings"] = original
    return turned


def _llama3(header: GgufHeader, factors: GgufTensor, config: Config) -> Config:
    """The stretched positions of Llama 3.1 and later, told from one factor for every pair of a head's numbers."""
    theta, size = config["rope_parameters"]["rope_theta"], config["head_dim"]
    found: tuple[float, ...] = ()
    if factors.kind == "F32" and factors.shape == (size // 2,) and config["rope_parameters"]["rope_type"] == "default":
        with header.file.open("rb") as stream:
            stream.seek(factors.start)
            found = struct.unpack(f"<{size // 2}f", stream.read(factors.bytes))
    factor = max(found, default=0.0)
    expected = [llama3_factor(theta ** (2 * place / size), factor) for place in range(size // 2)] if factor >= 1 else []
    if not expected or not all(isclose(a, b, rel_tol=1e-3) for a, b in zip(found, expected, strict=True)):
        raise _unsupported(header, factors.name)
    return {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **_LLAMA3}


def llama3_factor(wave: float, factor: float) -> float:
    """By how much Llama 3 stretches a pair whose angle is position / `wave`: short waves not, long ones by `factor`."""
    turns = _LLAMA3["original_max_position_embeddings"] / (2 * pi * wave)
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return 1 / ((1 - share) / factor + share)


def _tokens(header: GgufHeader) -> Config:
    """Special tokens. llama.cpp ends an answer at the end of a turn as well."""
    count = header.lengths["tokenizer.ggml.tokens"]

    def token(name: str) -> int | None:
        found = header.values.get(f"tokenizer.ggml.{name}_token_id")
        return found if isinstance(found, int) and 0 <= found < count else None

    ends = [found for name in ("eos", "eot", "eom") if (found := token(name)) is not None]
    return {
        "bos_token_id": token("bos"),
        "eos_token_id": list(dict.fromkeys(ends)) or None,
        "pad_token_id": token("padding"),
    }


def _fact(header: GgufHeader, key: str, default: Any = None) -> Any:
    return header.values.get(f"{header.architecture}.{key}", default)


def _whole(header: GgufHeader, key: str, default: int | None = None) -> int:
    """A size from 1 to two milliards. Raises ModelError for anything else, such as one size a layer."""
    found = _fact(header, key, default)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 < found < 2**31:
        raise _unsupported(header, f"{key} {found}")
    return found


def _real(header: GgufHeader, key: str, default: float | None = None) -> float:
    found = _fact(header, key, default)
    if not isinstance(found, float) or not 0 < found < 1e12:
        raise _unsupported(header, f"{key} {found}")
    # Files keep 32 bits; 1e-05 comes back as 9.9999997e-06.
    return float(f"{found:.7g}")


def _unsupported(header: GgufHeader, what: str) -> ModelError:
    return ModelError("llm.gguf_fact", name=header.file.parent.name, file=header.file.name, what=what[:200])
