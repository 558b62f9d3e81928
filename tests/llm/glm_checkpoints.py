"""Random checkpoints of ChatGLM and ChatGLM2 in the authors' formats, and the published blocks in plain torch."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu

from tests.llm.tiny_models import pack_int4

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
TOKENIZERS = {
    "chatglm": GOLDEN / "chatglm-tokenizer" / "ice_text.model",
    "chatglm2": GOLDEN / "chatglm2-tokenizer" / "tokenizer.model",
}
Weights = dict[str, Tensor]


def chatglm2_config(**changes: Any) -> dict[str, Any]:
    """config.json of a small ChatGLM2."""
    config: dict[str, Any] = json.loads((GOLDEN / "chatglm2-tiny" / "config.json").read_text())
    return config | {"padded_vocab_size": 704} | changes


def chatglm_config(**changes: Any) -> dict[str, Any]:
    """config.json of a small ChatGLM-6B whose special tokens are those of the tokenizer."""
    config: dict[str, Any] = json.loads((GOLDEN / "chatglm-tiny" / "config.json").read_text())
    tokens = {"bos_token_id": 89, "eos_token_id": 90, "mask_token_id": 85, "gmask_token_id": 86}
    return config | tokens | {"vocab_size": 768} | changes


def chatglm2_weights(config: Mapping[str, Any], seed: int = 0) -> Weights:
    """Random tensors of every shape that such a config asks for."""
    torch.manual_seed(seed)
    hidden, ffn, dim = config["hidden_size"], config["ffn_hidden_size"], config["kv_channels"]
    queries = dim * config["num_attention_heads"]
    others = 2 * dim * config["multi_query_group_num"] if config["multi_query_attention"] else 2 * queries
    weights = {"transformer.embedding.word_embeddings.weight": torch.randn(config["padded_vocab_size"], hidden)}
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        weights[at + "input_layernorm.weight"] = 1 + 0.2 * torch.randn(hidden)
        weights[at + "self_attention.query_key_value.weight"] = _matrix(queries + others, hidden)
        if config["add_qkv_bias"]:
            weights[at + "self_attention.query_key_value.bias"] = torch.randn(queries + others)
        weights[at + "self_attention.dense.weight"] = _matrix(hidden, queries)
        weights[at + "post_attention_layernorm.weight"] = 1 + 0.2 * torch.randn(hidden)
        weights[at + "mlp.dense_h_to_4h.weight"] = _matrix(2 * ffn, hidden)
        weights[at + "mlp.dense_4h_to_h.weight"] = _matrix(hidden, ffn)
    weights["transformer.encoder.final_layernorm.weight"] = 1 + 0.2 * torch.randn(hidden)
    weights["transformer.rotary_pos_emb.inv_freq"] = torch.ones(dim // 4)
    weights["transformer.output_layer.weight"] = _matrix(config["padded_vocab_size"], hidden)
    return weights


def chatglm_weights(config: Mapping[str, Any], seed: int = 0) -> Weights:
    """Random tensors of every shape that such a config asks for."""
    torch.manual_seed(seed)
    hidden, inner = config["hidden_size"], config["inner_hidden_size"]
    shapes = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (inner, hidden),
        "mlp.dense_4h_to_h": (hidden, inner),
    }
    weights = {"transformer.word_embeddings.weight": torch.randn(config["vocab_size"], hidden)}
    for layer in range(config["num_layers"]):
        at = f"transformer.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights |= {f"{at}{name}.weight": 1 + 0.2 * torch.randn(hidden), f"{at}{name}.bias": torch.randn(hidden)}
        for name, (rows, columns) in shapes.items():
            weights |= {f"{at}{name}.weight": _matrix(rows, columns), f"{at}{name}.bias": 0.2 * torch.randn(rows)}
        weights[at + "attention.rotary_emb.inv_freq"] = torch.ones(2)
    weights["transformer.final_layernorm.weight"] = 1 + 0.2 * torch.randn(hidden)
    weights["transformer.final_layernorm.bias"] = torch.randn(hidden)
    weights["lm_head.weight"] = _matrix(config["vocab_size"], hidden)
    return weights


def _matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns) / columns**0.5


def save(folder: Path, config: Mapping[str, Any], weights: Weights, tokenizer: str) -> Path:
    """A folder as the authors publish it: config.json, two .bin shards with their index, the SentencePiece file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(TOKENIZERS[tokenizer], folder)
    names = list(weights)
    index: dict[str, str] = {}
    for number, held in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: weights[name] for name in held}, folder / file)
        index |= dict.fromkeys(held, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def packed(weights: Weights, bits: int) -> tuple[Weights, Weights]:
    """(tensors as the packed checkpoints store them, the values they stand for): matrices but embeddings and head."""
    stored, values = {}, {}
    for name, tensor in weights.items():
        stored[name] = values[name] = tensor
        if tensor.ndim == 2 and "embeddings" not in name and "output_layer" not in name and "lm_head" not in name:
            scale = (tensor.abs().amax(1) / (2 ** (bits - 1) - 1)).half()
            numbers = (tensor / scale.float()[:, None]).round().int()
            stored[name] = pack_int4(numbers) if bits == 4 else numbers.to(torch.int8)
            stored[name + "_scale"] = scale
            values[name] = numbers * scale.float()[:, None]
    return stored, values


def chatglm2_logits(weights: Weights, config: Mapping[str, Any], ids: list[int], base: float, stretch: float) -> Tensor:
    """Logits (tokens, vocabulary). Positions are divided by `stretch`; rotations are written as complex numbers."""
    heads, dim = config["num_attention_heads"], config["kv_channels"]
    groups = config["multi_query_group_num"] if config["multi_query_attention"] else heads
    count = len(ids)
    rates = base ** (-torch.arange(0, dim // 2, 2) / (dim // 2))
    angles = torch.outer(torch.arange(count) / stretch, rates)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]

    def turned(states: Tensor) -> Tensor:
        pairs = torch.view_as_complex(states[..., : dim // 2].reshape(count, -1, dim // 4, 2))
        return torch.cat((torch.view_as_real(pairs * turns).flatten(2), states[..., dim // 2 :]), dim=-1)

    def norm(states: Tensor, name: str) -> Tensor:
        scale = (states.pow(2).mean(-1, keepdim=True) + config["layernorm_epsilon"]).rsqrt()
        return states * scale * weights[name + ".weight"]

    states = weights["transformer.embedding.word_embeddings.weight"][ids]
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}."
        fused = norm(states, at + "input_layernorm") @ weights[at + "self_attention.query_key_value.weight"].T
        fused = fused + weights.get(at + "self_attention.query_key_value.bias", torch.zeros(()))
        if config["multi_query_attention"]:
            query, key, value = fused.split((heads * dim, groups * dim, groups * dim), dim=-1)
        else:
            query, key, value = (part.flatten(1) for part in fused.view(count, heads, 3, dim).unbind(2))
        query, key = turned(query.view(count, heads, dim)), turned(key.view(count, groups, dim))
        shared = [torch.arange(heads) // (heads // groups)]
        key, value = key[:, shared[0]], value.view(count, groups, dim)[:, shared[0]]
        mixed = _attend(query, key, value, torch.ones(count, count).tril().bool())
        states = states + mixed @ weights[at + "self_attention.dense.weight"].T
        inner = norm(states, at + "post_attention_layernorm") @ weights[at + "mlp.dense_h_to_4h.weight"].T
        gate, up = inner.chunk(2, dim=-1)
        states = states + (silu(gate) * up) @ weights[at + "mlp.dense_4h_to_h.weight"].T
    return norm(states, "transformer.encoder.final_layernorm") @ weights["transformer.output_layer.weight"].T


def chatglm_logits(weights: Weights, config: Mapping[str, Any], ids: list[int]) -> Tensor:
    """Logits (tokens, vocabulary); `ids` hold the mask token and, after it, the start of the answer."""
    width, heads, count = config["hidden_size"], config["num_attention_heads"], len(ids)
    half = width // heads // 2
    start = ids.index(config["bos_token_id"])
    mark = ids.index(config["mask_token_id"] if config["mask_token_id"] in ids else config["gmask_token_id"])
    places = torch.tensor([place if place < start else mark for place in range(count)])
    blocks = torch.tensor([0 if place < start else place - start + 1 for place in range(count)])
    allowed = torch.ones(count, count).tril().bool()
    allowed[:, :start] = True
    rates = (1 / 10000 ** (torch.arange(0, half, 2) / half)).half().float()

    def turned(states: Tensor) -> Tensor:
        both = []
        for part, position in zip(states.split(half, dim=-1), (places, blocks), strict=True):
            turn = torch.polar(torch.ones(count, half // 2), torch.outer(position.float(), rates))[:, None]
            pairs = torch.complex(part[..., : half // 2], part[..., half // 2 :]) * turn
            both += [pairs.real, pairs.imag]
        return torch.cat(both, dim=-1)

    def linear(states: Tensor, name: str) -> Tensor:
        return states @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(states: Tensor, name: str) -> Tensor:
        return layer_norm(
            states, (width,), weights[name + ".weight"], weights[name + ".bias"], config["layernorm_epsilon"]
        )

    states = weights["transformer.word_embeddings.weight"][ids]
    for layer in range(config["num_layers"]):
        at = f"transformer.layers.{layer}."
        states = norm(states, at + "input_layernorm")
        fused = linear(states, at + "attention.query_key_value").view(count, heads, 3, -1)
        query, key, value = fused.unbind(2)
        mixed = _attend(turned(query), turned(key), value, allowed)
        states = states * 56**0.5 + linear(mixed, at + "attention.dense")
        states = norm(states, at + "post_attention_layernorm")
        inner = gelu(linear(states, at + "mlp.dense_h_to_4h"), approximate="tanh")
        states = states * 56**0.5 + linear(inner, at + "mlp.dense_4h_to_h")
    return norm(states, "transformer.final_layernorm") @ weights["lm_head.weight"].T


def _attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """(tokens, heads, dim) each, allowed (tokens, keys) -> (tokens, heads x dim)."""
    scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[-1] ** 0.5
    shares = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", shares, value).flatten(1)
