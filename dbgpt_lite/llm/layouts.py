"""TABLE: config.json's ``model_type`` -> the layout of its parameters in transformers. See `shapes`."""

from collections.abc import Mapping
from dataclasses import replace

from dbgpt_lite.llm.shapes import (
    Config,
    Layout,
    Module,
    embedding,
    experts,
    gated,
    head,
    linear,
    llama_like,
    norm,
    separate,
)

_FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_HEAD_NORMS = norm("self_attn.q_norm", "self_attn.k_norm", size="d")
_FUSED = (linear("mlp.gate_up_proj", "2f", "h"), linear("mlp.down_proj", "h", "f"))
_GLM = llama_like(separate("attention_bias", "no"), _FUSED, attention_bias=True, head_dim=128, num_key_value_heads=2)


def _wide(first: str, second: str, bias: str = "yes", width: str = "f") -> tuple[Module, ...]:
    """A feed-forward of two matrices."""
    return linear(first, width, "h", bias), linear(second, "h", width, bias)


_GPT2 = Layout(
    layers="transformer.h",
    before=(embedding("transformer.wte"), Module("transformer.wpe", ("positions", "h"), "embedding")),
    layer=(
        *norm("ln_1", "ln_2", bias="yes"),
        # GPT-2 stores its matrices transposed, with the bias as long as the second size.
        Module("attn.c_attn", ("h", "3h"), "linear"),
        Module("attn.c_attn", ("3h",), weight=".bias"),
        Module("attn.c_proj", ("h", "h"), "linear", "yes"),
    ),
    feed=(
        Module("mlp.c_fc", ("h", "f"), "linear"),
        Module("mlp.c_fc", ("f",), weight=".bias"),
        Module("mlp.c_proj", ("f", "h"), "linear"),
        Module("mlp.c_proj", ("h",), weight=".bias"),
    ),
    after=(*norm("transformer.ln_f", bias="yes"), head()),
    defaults={"tie_word_embeddings": True},
)
_CHATGLM_6B = Layout(
    layers="transformer.layers",
    before=(embedding("transformer.word_embeddings"),),
    layer=(
        *norm("input_layernorm", "post_attention_layernorm", bias="yes"),
        linear("attention.query_key_value", "3h", "h", "yes"),
        linear("attention.dense", "h", "h", "yes"),
    ),
    feed=_wide("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    after=(*norm("transformer.final_layernorm", bias="yes"), head()),
)

LAYOUTS: Mapping[str, Layout] = {
    "llama": llama_like(separate("attention_bias"), gated(bias="mlp_bias")),
    "mistral": llama_like(separate(), gated(), num_key_value_heads=8),
    "mixtral": llama_like(separate(), (), sparse=experts(), num_key_value_heads=8, num_local_experts=8),
    "qwen2": llama_like(separate("yes", "no"), gated()),
    "qwen2_moe": llama_like(
        separate("qkv_bias", "no"),
        gated(),
        sparse=(*experts(), *gated("mlp.shared_expert", "s"), linear("mlp.shared_expert_gate", "1", "h")),
        qkv_bias=True,
        num_local_experts=60,
    ),
    "qwen3": llama_like(separate("attention_bias"), gated(), extra=_HEAD_NORMS, head_dim=128),
    "qwen3_moe": llama_like(
        separate("attention_bias"),
        gated(),
        extra=_HEAD_NORMS,
        sparse=experts(),
        num_local_experts=128,
        num_key_value_heads=4,
    ),
    "glm": _GLM,
    "glm4": llama_like(
        separate("attention_bias", "no"),
        _FUSED,
        ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
        attention_bias=True,
        head_dim=128,
        num_key_value_heads=2,
    ),
    "gemma": llama_like(separate("attention_bias"), gated(), head_dim=256, tie_word_embeddings=True),
    "gemma2": llama_like(separate("attention_bias"), gated(), _FOUR_NORMS, head_dim=256, tie_word_embeddings=True),
    "gemma3_text": llama_like(
        separate("attention_bias"), gated(), _FOUR_NORMS, _HEAD_NORMS, head_dim=256, tie_word_embeddings=True
    ),
    "phi": replace(
        llama_like(
            separate("yes", out="dense"),
            _wide("mlp.fc1", "mlp.fc2"),
            (),
            (
                *norm("input_layernorm", bias="yes"),
                *norm("self_attn.q_layernorm", "self_attn.k_layernorm", size="d", bias="yes", when="qk_layernorm"),
            ),
        ),
        after=(*norm("model.final_layernorm", bias="yes"), head("yes")),
    ),
    "phi3": llama_like((linear("self_attn.o_proj", "h", "q"), linear("self_attn.qkv_proj", "qkv", "h")), _FUSED),
    "falcon": Layout(
        layers="transformer.h",
        before=(embedding("transformer.word_embeddings"),),
        layer=(
            linear("self_attention.query_key_value", "qkv", "h", "bias"),
            linear("self_attention.dense", "h", "h", "bias"),
            *norm("ln_attn", "ln_mlp", bias="yes", when="two_norms"),
            *norm("input_layernorm", bias="yes", when="not two_norms"),
            *norm("post_attention_layernorm", bias="yes", when="second_norm"),
        ),
        feed=_wide("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "bias"),
        after=(*norm("transformer.ln_f", bias="yes"), head()),
        rotary="transformer.rotary_emb",
        defaults={"tie_word_embeddings": True, "multi_query": True, "parallel_attn": True},
    ),
    "stablelm": replace(
        llama_like(
            separate("use_qkv_bias", "no"),
            gated(),
            (),
            (
                *norm("input_layernorm", bias="yes"),
                *norm("post_attention_layernorm", bias="yes", when="not use_parallel_residual"),
            ),
        ),
        after=(*norm("model.norm", bias="yes"), head()),
    ),
    "starcoder2": replace(
        llama_like(
            separate("use_bias"),
            _wide("mlp.c_fc", "mlp.c_proj", "use_bias"),
            (),
            norm("input_layernorm", "post_attention_layernorm", bias="yes"),
            use_bias=True,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        after=(*norm("model.norm", bias="yes"), head()),
    ),
    "opt": Layout(
        layers="model.decoder.layers",
        before=(
            embedding("model.decoder.embed_tokens", columns="w"),
            Module("model.decoder.embed_positions", ("positions+2", "h"), "embedding"),
            Module("model.decoder.project_in", ("h", "w"), "linear", when="projected"),
        ),
        layer=(
            *separate("enable_bias", out="out_proj"),
            *norm("self_attn_layer_norm", "final_layer_norm", bias="layer_norm_elementwise_affine"),
        ),
        feed=_wide("fc1", "fc2", "enable_bias"),
        after=(
            *norm("model.decoder.final_layer_norm", bias="layer_norm_elementwise_affine", when="last_norm"),
            Module("model.decoder.project_out", ("w", "h"), "linear", when="projected"),
            Module("lm_head", ("v", "w"), "head"),
        ),
        defaults={
            "tie_word_embeddings": True,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "do_layer_norm_before": True,
        },
    ),
    "gpt_neox": Layout(
        layers="gpt_neox.layers",
        before=(embedding("gpt_neox.embed_in"),),
        layer=(
            *norm("input_layernorm", "post_attention_layernorm", bias="yes"),
            linear("attention.query_key_value", "3h", "h", "attention_bias"),
            linear("attention.dense", "h", "h", "attention_bias"),
        ),
        feed=_wide("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        after=(*norm("gpt_neox.final_layer_norm", bias="yes"), head()),
        rotary="gpt_neox.rotary_emb",
        defaults={"attention_bias": True},
    ),
    "bloom": Layout(
        layers="transformer.h",
        before=(
            embedding("transformer.word_embeddings"),
            *norm("transformer.word_embeddings_layernorm", bias="yes"),
        ),
        layer=(
            *norm("input_layernorm", "post_attention_layernorm", bias="yes"),
            linear("self_attention.query_key_value", "3h", "h", "yes"),
            linear("self_attention.dense", "h", "h", "yes"),
        ),
        feed=_wide("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", width="4h"),
        after=(*norm("transformer.ln_f", bias="yes"), head()),
        defaults={"tie_word_embeddings": True},
    ),
    "gpt2": _GPT2,
    "gptj": Layout(
        layers="transformer.h",
        before=(embedding("transformer.wte"),),
        layer=(
            *norm("ln_1", bias="yes"),
            *(linear(f"attn.{name}", "h", "h") for name in ("k_proj", "v_proj", "q_proj", "out_proj")),
        ),
        feed=_wide("mlp.fc_in", "mlp.fc_out"),
        after=(*norm("transformer.ln_f", bias="yes"), head("yes")),
    ),
    "gpt_bigcode": replace(
        _GPT2,
        layer=(
            *norm("ln_1", "ln_2", bias="yes"),
            linear("attn.c_attn", "qkv", "h", "yes"),
            linear("attn.c_proj", "h", "h", "yes"),
        ),
        feed=_wide("mlp.c_fc", "mlp.c_proj"),
        defaults={"tie_word_embeddings": True, "multi_query": True},
    ),
    "mpt": Layout(
        layers="transformer.blocks",
        before=(embedding("transformer.wte"),),
        layer=(*norm("norm_1", "norm_2"), linear("attn.Wqkv", "3h", "h"), linear("attn.out_proj", "h", "h")),
        feed=_wide("ffn.up_proj", "ffn.down_proj", "no"),
        after=(*norm("transformer.norm_f"), head()),
        defaults={"tie_word_embeddings": True},
    ),
}


def layout(config: Config) -> Layout | None:
    """The row of a config.json; None for a family without one.

    ``chatglm`` names two architectures: ChatGLM2 and 3, which transformers' GLM computes, and ChatGLM-6B.
    """
    kind = str(config.get("model_type", ""))
    if kind == "chatglm":
        return replace(_GLM, defaults={}) if "padded_vocab_size" in config else _CHATGLM_6B
    return LAYOUTS.get(kind)


def settled(config: Config) -> Config:
    """config.json with the few choices spelled out that a row asks for and no key names."""
    kind = config.get("model_type")
    if kind == "chatglm" and "padded_vocab_size" in config:
        return {**config, "attention_bias": config.get("add_qkv_bias", False)}
    if kind == "falcon":
        new = bool(config.get("new_decoder_architecture"))
        two = new and (config.get("num_ln_in_parallel_attn") or 2) == 2
        parallel = config.get("parallel_attn", True)
        return {**config, "two_norms": two, "second_norm": not new and not parallel}
    if kind == "opt":
        narrow = config.get("word_embed_proj_dim")
        last = config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm")
        return {**config, "projected": bool(narrow) and narrow != config.get("hidden_size"), "last_norm": last}
    return config
