"""ChatGLM2 and ChatGLM3 checkpoints as transformers' native GLM: their config.json translated. Torch-free.

The tensors are renamed and split by renaming.py. Source: the authors' modeling and configuration code,
https://github.com/zai-org/ChatGLM2-6B, https://github.com/zai-org/ChatGLM3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.checkpoint import Checkpoint, read_tokenizer_config

BASE = 10_000.0

# What the native GLM computes in one way only: (key, the value it must have, the value that a missing key means).
_REQUIRED: tuple[tuple[str, Any, Any], ...] = (
    ("rmsnorm", True, True),
    ("post_layer_norm", True, True),
    ("add_bias_linear", False, False),
    ("apply_residual_connection_post_layernorm", False, False),
    ("original_rope", True, True),
    ("pre_seq_len", None, None),
)


@dataclass(frozen=True, slots=True)
class Clue:
    """A sign that a folder holds ChatGLM2 or ChatGLM3: `seen` looks at its config.json and tokenizer_config.json."""

    generation: str
    seen: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]


# The two share their class names and every size, but neither chat format nor the meaning of `rope_ratio`. Best first.
_CLUES = (
    Clue("chatglm3", lambda config, tokenizer: "<|assistant|>" in str(tokenizer)),
    # The authors saved every ChatGLM2 with this version of transformers, and ChatGLM3 with a newer one.
    Clue("chatglm2", lambda config, tokenizer: str(config.get("transformers_version")).startswith("4.27.")),
    Clue("chatglm3", lambda config, tokenizer: "rope_ratio" in config),
    # ChatGLM2-6B states a window of 32,768 tokens, ChatGLM3-6B one of 8,192.
    Clue("chatglm3", lambda config, tokenizer: config.get("seq_length") == 8192),
    Clue("chatglm2", lambda config, tokenizer: True),
)


def generation(checkpoint: Checkpoint) -> str:
    """ "chatglm2" or "chatglm3", which is also the name of the chat format; `chat_format` in dbgpt.json decides."""
    if checkpoint.facts.chat_format in ("chatglm2", "chatglm3"):
        return checkpoint.facts.chat_format
    tokenizer = read_tokenizer_config(checkpoint.folder)
    return next(clue.generation for clue in _CLUES if clue.seen(checkpoint.config, tokenizer))


def refuse_variants(config: Mapping[str, Any], required: tuple[tuple[str, Any, Any], ...], name: str) -> None:
    """Raise ModelError when config.json asks for a variant of the layers that is not computed here."""
    for key, wanted, default in required:
        if config.get(key, default) != wanted:
            raise ModelError("llm.unsupported_variant", name=name, entry=key, value=config[key], wanted=wanted)


def rope_parameters(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Rotary positions over the first half of a head.

    `rope_ratio` of ChatGLM2's 32k variant divides the positions; ChatGLM3's multiplies the base of the frequencies
    (the `forward_impl` of their RotaryEmbedding; compared in https://github.com/ztxz16/fastllm/issues/374).
    """
    ratio = float(config.get("rope_ratio") or 1)
    common = {"partial_rotary_factor": 0.5, "rope_theta": BASE}
    if kind == "chatglm2" and ratio != 1:
        return common | {"rope_type": "linear", "factor": ratio}
    return common | {"rope_type": "default", "rope_theta": BASE * ratio}


def glm_config(checkpoint: Checkpoint) -> Any:
    """transformers' GlmConfig of a ChatGLM2/3 checkpoint. Raises ModelError for what the native GLM cannot compute."""
    from transformers import GlmConfig

    config = checkpoint.config
    refuse_variants(config, _REQUIRED, checkpoint.folder.name)
    heads = config["num_attention_heads"]
    grouped = config.get("multi_query_attention", True)
    return GlmConfig(
        vocab_size=config["padded_vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("multi_query_group_num", 1) if grouped else heads,
        head_dim=config["kv_channels"],
        attention_bias=config.get("add_qkv_bias", True),
        rms_norm_eps=config.get("layernorm_epsilon", 1e-5),
        max_position_embeddings=config.get("seq_length", 2048),
        rope_parameters=rope_parameters(config, generation(checkpoint)),
        tie_word_embeddings=config.get("tie_word_embeddings", False),
        pad_token_id=config.get("pad_token_id", 0),
        eos_token_id=config.get("eos_token_id", 2),
        dtype=config.get("torch_dtype"),
    )
