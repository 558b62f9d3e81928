"""A loaded Llama-like model taken apart: what a decoder of our own needs to run it without transformers' modules.

Llama (Vicuna, Guanaco), Mistral, Qwen2 and 3, GLM (ChatGLM2 and 3) are one computation, pre-normalized blocks of
grouped-query attention with rotary positions and a gated feed-forward or a mixture of such, and differ in a few facts:
these.
Rotary positions: Su et al., https://arxiv.org/abs/2104.09864. Gated feed-forward: Shazeer, https://arxiv.org/abs/2002.05202.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "glm"})
_MIXTURES = frozenset({"mixtral", "qwen2_moe", "qwen3_moe"})
# Positions whose frequencies depend on how long the text is cannot be tabulated beforehand.
_FIXED_ROPE = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True, slots=True)
class Norm:
    """Root mean square normalization: x * weight / sqrt(mean(x^2) + eps), in float32."""

    weight: Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions of the first 2 * len(frequencies) dimensions of a head.

    `frequencies`: radians a token (float32). `interleaved`: pairs are neighbours (GLM), not halves apart (Llama).
    `scale` multiplies cosine and sine.
    """

    frequencies: Tensor
    interleaved: bool
    scale: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `qkv`: linear layers whose outputs side by side are queries, keys, values; `gate_up` likewise.

    `mixture`: a router with its experts in the place of `gate_up` and `down`, from states (rows, tokens, hidden) to the
    same.
    """

    norm_in: Norm
    qkv: tuple[nn.Module, ...]
    q_norm: Norm | None
    k_norm: Norm | None
    out: nn.Module
    norm_mid: Norm
    gate_up: tuple[nn.Module, ...]
    down: nn.Module | None
    mixture: nn.Module | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The whole model. `embedding`: (vocabulary, hidden). `scaling` multiplies queries times keys."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Norm
    head: nn.Module
    rotary: Rotary
    heads: int
    kv_heads: int
    head_dim: int
    scaling: float

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return int(self.embedding.shape[1])

    @property
    def vocabulary(self) -> int:
        """How many logits there are."""
        return int(self.embedding.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.embedding.device


def take_apart(model: Any) -> Parts | None:
    """The parts of a model that lies on one device; None for an architecture or a placement that this cannot run.

    The parts are the model's own modules and tensors, nothing is copied.
    """
    config = model.config
    if config.model_type not in _ARCHITECTURES | _MIXTURES or not _lies_together(model) or _slides(config):
        return None
    body = model.model
    if body.rotary_emb.rope_type not in _FIXED_ROPE or config.hidden_act not in ("silu", "swish"):
        return None
    rotary = Rotary(
        body.rotary_emb.inv_freq.float(), config.model_type == "glm", float(body.rotary_emb.attention_scaling)
    )
    layers = tuple(_layer(block) for block in body.layers)
    attention = body.layers[0].self_attn
    return Parts(
        body.embed_tokens.weight,
        layers,
        _norm(body.norm),
        model.lm_head,
        rotary,
        config.num_attention_heads,
        config.num_key_value_heads,
        attention.head_dim,
        float(attention.scaling),
    )


def _layer(block: Any) -> Layer:
    attention, feed = block.self_attn, block.mlp
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    shared = (
        _norm(block.input_layernorm),
        (attention.q_proj, attention.k_proj, attention.v_proj),
        q_norm and _norm(q_norm),
        k_norm and _norm(k_norm),
        attention.o_proj,
        _norm(block.post_attention_layernorm),
    )
    if hasattr(feed, "experts"):
        return Layer(*shared, (), None, feed)
    gate_up = (feed.gate_up_proj,) if hasattr(feed, "gate_up_proj") else (feed.gate_proj, feed.up_proj)
    return Layer(*shared, gate_up, feed.down_proj)


def _norm(module: Any) -> Norm:
    return Norm(module.weight, float(module.variance_epsilon))


def _lies_together(model: Any) -> bool:
    """Whether all weights are on one device and nothing moves them about."""
    places = {parameter.device for parameter in model.parameters()}
    hooks: Sequence[Any] = [module for module in model.modules() if hasattr(module, "_hf_hook")]
    return len(places) == 1 and "meta" not in {place.type for place in places} and not hooks


def _slides(config: Any) -> bool:
    """Whether a layer forgets what lies further back than a window."""
    kinds = getattr(config, "layer_types", None) or ()
    return any(kind != "full_attention" for kind in kinds) or bool(
        not kinds and getattr(config, "sliding_window", None)
    )
