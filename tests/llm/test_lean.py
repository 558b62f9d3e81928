"""The lean decoder against transformers' own modules, for random shapes of every architecture it takes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from dbgpt_lite.llm.cache import new_cache
from dbgpt_lite.llm.lean import LeanDecoder
from dbgpt_lite.llm.parts import take_apart
from dbgpt_lite.llm.products import Called, Room, copied_bytes, joined
from dbgpt_lite.llm.quantized_layers import fill, quantized, replace, replaceable

ROPES: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
]


_EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**_EXPERTS, "mlp_only_layers": [0]},
}


@st.composite
def models(draw: Any) -> Any:
    """A model of random weights and shape, in float32."""
    kind = draw(st.sampled_from(("llama", "mistral", "qwen2", "qwen3", "glm", *MIXTURES)))
    kv_heads, groups = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2, 4)))
    sizes = {
        "vocab_size": 97,
        "hidden_size": draw(st.sampled_from((24, 40))) * kv_heads * groups,
        "intermediate_size": draw(st.sampled_from((48, 80))),
        "num_hidden_layers": 2,
        "num_attention_heads": kv_heads * groups,
        "num_key_value_heads": kv_heads,
        "head_dim": draw(st.sampled_from((8, 24))),
        "max_position_embeddings": 256,
        "attention_bias": kind != "mistral" and draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "sliding_window": None,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        **MIXTURES.get(kind, {}),
    }
    rope = {"rope_theta": 1000.0, **(draw(st.sampled_from(ROPES)) if kind != "glm" else ROPES[0])}
    if kind == "glm":
        rope["partial_rotary_factor"] = draw(st.sampled_from((0.5, 1.0)))
    torch.manual_seed(draw(st.integers(0, 9)))
    config = AutoConfig.for_model(kind, **sizes, rope_parameters=rope)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.uniform_(0.5, 1.5)
            elif weight.dim() == 3:
                weight.normal_(0, 0.2)
    return model


def lean(model: Any, spare: int = 0) -> LeanDecoder:
    parts = take_apart(model)
    assert parts is not None
    return LeanDecoder(parts, lambda: None, spare)


@settings(max_examples=25, deadline=None)
@given(model=models(), reads=st.lists(st.integers(1, 20), min_size=2, max_size=4))
def test_it_computes_what_transformers_computes(model: Any, reads: list[int]) -> None:
    """A prompt in pieces of any length, then beams that change places."""
    ids = torch.randint(1, 97, (1, sum(reads)))
    with torch.inference_mode():
        whole = model(input_ids=ids, use_cache=False).logits[0]
        decoder, ours, theirs = lean(model), new_cache(model.config), new_cache(model.config)
        end = 0
        for count in reads:
            logits = decoder(ids[:, end : end + count], ours.layers)
            end += count
            torch.testing.assert_close(logits[0], whole[end - 1], rtol=1e-4, atol=1e-4)
        model(input_ids=ids, past_key_values=theirs, use_cache=True)
        for cache in (ours, theirs):
            cache.batch_repeat_interleave(3)
        for _ in range(3):
            tokens, parents = torch.randint(1, 97, (3, 1)), torch.randint(0, 3, (3,))
            ours.reorder_cache(parents)
            theirs.reorder_cache(parents)
            expected = model(input_ids=tokens, past_key_values=theirs, use_cache=True).logits[:, -1]
            torch.testing.assert_close(decoder(tokens, ours.layers), expected, rtol=1e-4, atol=1e-4)


def sharp(kind: str = "llama", **sizes: Any) -> Any:
    """A model whose greedy tokens are far from ties."""
    torch.manual_seed(3)
    shape = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    config = AutoConfig.for_model(kind, **{**shape, **heads, "initializer_range": 0.4, "pad_token_id": 0, **sizes})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@torch.inference_mode()
def greedy(decoder: LeanDecoder, config: Any, prompt: torch.Tensor, count: int) -> list[int]:
    cache = new_cache(config)
    logits, written = decoder(prompt, cache.layers), []
    for _ in range(count):
        written.append(int(logits.argmax()))
        logits = decoder(torch.tensor([written[-1:]]), cache.layers)
    return written


def test_greedy_tokens_are_those_of_generate() -> None:
    model = sharp()
    prompt = torch.randint(1, 128, (1, 30))
    expected = model.generate(prompt, do_sample=False, max_new_tokens=40, min_new_tokens=40)[0, 30:].tolist()
    assert greedy(lean(model), model.config, prompt, 40) == expected


def test_joined_layers_are_held_once_and_the_model_goes_on_working() -> None:
    model = sharp()
    ids = torch.randint(1, 128, (1, 12))
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        decoder = lean(model)
        after = model(input_ids=ids).logits
    torch.testing.assert_close(after, before)
    layer = model.model.layers[0]
    attention, feed = layer.self_attn, layer.mlp
    for group in ((attention.q_proj, attention.k_proj, attention.v_proj), (feed.gate_proj, feed.up_proj)):
        assert len({module.weight.untyped_storage().data_ptr() for module in group}) == 1
    held = {tensor.untyped_storage().data_ptr() for tensor in decoder.tensors()}
    assert not held & {weight.untyped_storage().data_ptr() for weight in model.parameters()}


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.02), (torch.float32, 1e-5)])
def test_packed_layers_joined_give_what_they_give_alone(rows: int, bias: bool, dtype: torch.dtype, near: float) -> None:
    torch.manual_seed(rows)
    layers = torch.nn.ModuleList(torch.nn.Linear(96, out, bias, dtype=dtype) for out in (32, 16, 64))
    for place in range(3):
        weight: Any = layers[place].weight
        fill(replace(layers, str(place), "int4"), "int4", tuple(weight.shape), quantized("int4", weight))
    packed = list(layers)
    x = torch.randn(rows, 96, dtype=dtype)
    with torch.inference_mode():
        expected = torch.cat([layer(x) for layer in packed], dim=-1)
        product = joined(packed, dtype, Room(dtype), True)
        torch.testing.assert_close(product(x), expected, rtol=near, atol=near)
        held = sum(copy.nbytes for copy in product.copies())
    assert not isinstance(product, Called)
    assert copied_bytes(packed, dtype) <= held <= 1.5 * copied_bytes(packed, dtype)
    assert isinstance(joined(packed, dtype, Room(dtype), False), Called)


def test_a_stop_comes_between_any_two_products() -> None:
    model = sharp()
    parts = take_apart(model)
    assert parts is not None
    asked: list[int] = []
    decoder = LeanDecoder(parts, lambda: asked.append(len(asked)))
    products = 4 * len(parts.layers) + 1
    with torch.inference_mode():
        decoder(torch.randint(1, 128, (1, 5)), new_cache(model.config).layers)
    assert len(asked) == products


def test_quantized_layers_of_others_are_called_as_they_are() -> None:
    model = sharp(dtype="bfloat16").bfloat16()
    names = replaceable(model, "int8", ())
    for name in names:
        weight = model.get_submodule(name).weight.detach()
        fill(replace(model, name, "int8"), "int8", tuple(weight.shape), quantized("int8", weight))
    ids = torch.randint(1, 128, (1, 20))
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0, -1]
        got = lean(model)(ids, new_cache(model.config).layers)[0]
    torch.testing.assert_close(got, expected, rtol=0.05, atol=0.2)
