"""Experts that stay apart: the same numbers as joined ones, every quantization, copies, and files of other programs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.assemble import Assembly, assemble
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.loader import LoadOptions, Prepared, fitted, load, prepare
from dbgpt_lite.llm.loading import ignore
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.quantized_copy import quantize_copy
from tests.llm.test_filler import logits
from tests.llm.tiny_models import make_tokenizer

_SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OWN = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "first_k_dense_replace": 1}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {**_OWN, "shared_expert_intermediate_size": 64},
    "qwen3_moe": _OWN,
    "qwen3_next": {
        **_OWN,
        "shared_expert_intermediate_size": 64,
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "laguna": {**_OWN, "head_dim": 16},
    "solar_open": {**_ROUTED, "n_group": 1, "topk_group": 1, "head_dim": 16},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16},
    "glm4_moe": {**_ROUTED, "n_group": 1, "topk_group": 1, "head_dim": 16},
    "deepseek_v2": {
        **_ROUTED,
        **_LATENT,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "head_dim": 16,
        "num_key_value_heads": 4,
    },
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64, "moe_layer_start_index": 0},
    "lfm2_moe": {**_OWN, "layer_types": ["conv", "full_attention"], "num_dense_layers": 0, "use_expert_bias": True},
    "deepseek_v3": {**_ROUTED, **_LATENT, "n_group": 1, "topk_group": 1, "head_dim": 16, "num_key_value_heads": 4},
    "jamba": {
        "num_experts": 4,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
}


def make_mixture(folder: Path, model_type: str, **changes: Any) -> None:
    """A checkpoint with random weights whose experts lie one by one on disk."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **{**_SIZES, **MIXTURES[model_type], **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for value in model.parameters():
        if value.dim() == 3:  # made without values
            torch.nn.init.normal_(value, std=0.1)
    model.save_pretrained(folder)
    make_tokenizer(folder)


def make_joined(folder: Path) -> None:
    """A Granite: one tensor for all experts of a layer, in the file too."""
    from transformers import GraniteMoeConfig, GraniteMoeForCausalLM

    GraniteMoeForCausalLM(GraniteMoeConfig(**_SIZES, num_local_experts=4)).save_pretrained(folder)
    make_tokenizer(folder)


def options(quantization: Any) -> LoadOptions:
    return LoadOptions(quantization=quantization, dtype="bfloat16", device_map="cpu")


def loaded(folder: Path, quantization: Any) -> Any:
    return load(folder, options(quantization))._runner._model


def apart_but_whole(folder: Path) -> Any:
    """The model with separate experts in float32, nothing quantized."""
    import threading

    model, fit = fitted(read_checkpoint(folder), "float32", "int8", "", None)
    assert fit is not None
    return assemble(model, fit.routes, Assembly(torch.float32), ignore, threading.Event())


@pytest.mark.parametrize("model_type", MIXTURES)
def test_separate_experts_compute_what_joined_ones_do(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / model_type
    make_mixture(folder, model_type)
    ids = torch.tensor([[5, 9, 301, 44, 7, 12, 90]])
    model = apart_but_whole(folder)
    assert any(".experts.3.down_proj." in name for name, _ in model.named_parameters())
    assert not any(value.dim() == 3 and "expert" in name for name, value in model.named_parameters())
    joined = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        got, wanted = model(input_ids=ids).logits, joined(input_ids=ids).logits
    assert wanted.std() > 1e-3
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"])
def test_experts_are_quantized_and_the_plan_knows(
    model_type: str, quantization: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the first token bitsandbytes rearranges, on a CPU, what it holds.
    monkeypatch.setattr(Prepared, "_try", lambda *_: None)
    folder = tmp_path / model_type
    make_mixture(folder, model_type)
    ready = prepare(folder, options(quantization))
    assert ready.place.unquantized == 0
    model = ready.load()._runner._model
    held = sum(_bytes(value) for _, value in model.named_parameters())
    assert ready.place.need.weights == pytest.approx(held, rel=0.01)
    assert held < 0.75 * prepare(folder, options("none")).place.need.weights
    assert prepare(folder, options("none")).fit is None


def _bytes(value: Any) -> int:
    """Bytes of a parameter with the constants of its quantization."""
    state = getattr(value, "quant_state", None)
    constants = [] if state is None else [state.absmax, state.code]
    if state is not None and state.nested:
        constants += [state.state2.absmax, state.state2.code, state.offset]
    scales = getattr(value, "SCB", None)
    return sum(one.nbytes for one in (value, *constants, *([] if scales is None else [scales])))


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
def test_quantized_experts_stay_near_whole_ones(quantization: Any, tmp_path: Path) -> None:
    folder = tmp_path / "qwen"
    make_mixture(folder, "qwen3_moe")
    states, picked = torch.randn(5, 64), torch.tensor([[0, 1], [3, 2], [1, 3], [0, 2], [2, 1]])
    shares = torch.tensor([0.75, 0.25]).expand(5, 2)
    whole, quantized = (
        model.model.layers[1].mlp.experts(states.to(dtype), picked, shares.to(dtype)).float()
        for model, dtype in ((apart_but_whole(folder), torch.float32), (loaded(folder, quantization), torch.bfloat16))
    )
    error = float((whole - quantized).norm() / whole.norm())
    assert 1e-4 < error < {"int8": 0.03, "nf4": 0.2, "int4": 0.3}[quantization]


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
def test_a_copy_of_a_mixture_equals_quantizing_while_loading(
    model_type: str, quantization: Any, tmp_path: Path
) -> None:
    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, model_type)
    note = quantize_copy(folder, copy, quantization)
    assert note.quantized_layers >= 2 * (4 + 4 * 3)
    assert note.bytes < note.source_bytes * 0.4
    planned = outline(read_checkpoint(copy)).blocks("bfloat16", quantization, 1, 1)
    assert sum(block.weights for block in planned) == prepare(copy, options("none")).place.need.weights
    assert torch.equal(logits(loaded(copy, "none")), logits(loaded(folder, quantization)))


def test_files_whose_router_is_quantized_too(tmp_path: Path) -> None:
    """As transformers 4 saved them with bitsandbytes: it was a linear layer there."""
    from safetensors.torch import load_file, save_file

    from dbgpt_lite.llm.quantized_layers import expanded, quantized

    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, "qwen3_moe")
    quantize_copy(folder, copy, "nf4")
    tensors = load_file(copy / "model.safetensors")
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.gate"
        whole = tensors.pop(f"{name}.weight")
        packed = quantized("nf4", whole)
        tensors |= {f"{name}.{own}": value for own, value in packed.items()}
        whole = expanded("nf4", tuple(whole.shape), packed, torch.bfloat16)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    model = loaded(copy, "none")
    assert torch.equal(model.model.layers[1].mlp.gate.weight, whole)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_every_mixture_runs_quantized_and_keeps_wide_what_transformers_does(model_type: str, tmp_path: Path) -> None:
    """The biases by which experts are picked are no more the same in 16 bits."""
    from transformers import AutoModelForCausalLM

    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, model_type)
    others = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    types = {name: value.dtype for name, value in others.state_dict().items()}
    for quantization in ("int8", "nf4", "int4"):
        model = loaded(folder, quantization)
        found = {name: value.dtype for name, value in model.state_dict().items() if value.dtype in _FLOATS}
        shared = set(found) & set(types)
        assert {name: found[name] for name in shared} == {name: types[name] for name in shared}
        assert logits(model).isfinite().all()
    quantize_copy(folder, copy, "int4")
    again = loaded(copy, "none")
    assert {name: value.dtype for name, value in again.state_dict().items()} == {
        name: value.dtype for name, value in model.state_dict().items()
    }
    assert torch.equal(logits(again), logits(model))


def test_biases_of_a_router_are_copied_to_the_last_bit(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, "glm4_moe")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("e_score_correction_bias"))
    tensors[name] = 8 + torch.arange(4) / 1000
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    quantize_copy(folder, copy, "nf4")
    for model in (loaded(folder, "nf4"), loaded(copy, "none")):
        assert torch.equal(model.state_dict()[name], tensors[name])


def test_names_stay_when_they_are_the_models_already(tmp_path: Path) -> None:
    """Otherwise a copy's names would be changed once more."""
    from safetensors import safe_open

    for model_type in MIXTURES:
        folder = tmp_path / model_type
        make_mixture(folder, model_type)
        _, fit = fitted(read_checkpoint(folder), "bfloat16", "int4", "", None)
        assert fit is not None
        quantize_copy(folder, tmp_path / f"{model_type}-copy", "int4")
        with safe_open(tmp_path / f"{model_type}-copy" / "model.safetensors", "pt") as file:
            stored = {name.removesuffix("_scale") for name in file.keys()}  # noqa: SIM118
        assert stored == {part.name for route in fit.routes for part in route.parts}


def test_whole_experts_beside_quantized_layers(tmp_path: Path) -> None:
    """As transformers 5 saves a mixture with bitsandbytes: the attention packed, the experts not."""
    from safetensors.torch import load_file, save_file

    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, "qwen3_moe")
    quantize_copy(folder, copy, "nf4")
    whole = {name: value for name, value in load_file(folder / "model.safetensors").items() if ".experts." in name}
    tensors = {name: value for name, value in load_file(copy / "model.safetensors").items() if ".experts." not in name}
    save_file(tensors | {n: v.bfloat16() for n, v in whole.items()}, copy / "model.safetensors", {"format": "pt"})
    ready = prepare(copy, options("none"))
    assert ready.place.unquantized == 2 * 4 * 3 * 64 * 64 * 2
    held = sum(_bytes(value) for value in ready.load()._runner._model.parameters())
    assert ready.place.need.weights == pytest.approx(held, rel=0.01)


def test_layers_for_further_tokens_are_left_out(tmp_path: Path) -> None:
    """GLM-4.5 and DeepSeek-V3 bring a layer after the last, which only training uses."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_nextn_predict_layers": 1}))
    tensors = load_file(folder / "model.safetensors")
    more = {n.replace("layers.1.", "layers.2."): v.clone() for n, v in tensors.items() if ".layers.1." in n}
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    assert logits(loaded(folder, "nf4")).isfinite().all()
    save_file(tensors | {"model.layers.1.strange": more.popitem()[1]}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"hold 1 tensors .*: model\.layers\.1\.strange"):
        prepare(folder, options("nf4"))
    # A layer that nothing is known of may be one that config.json lost.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_nextn_predict_layers": 0}))
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not describe.*layers\.2\.|layers\.2\.|hold \d+ tensors"):
        prepare(folder, options("nf4"))


@pytest.mark.parametrize("count", [2, 3, 5, 90_000])
def test_a_number_of_experts_that_the_files_do_not_have(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_routed_experts": count}))
    with pytest.raises(ModelError, match=r"another shape|lack 3 tensors|describe"):
        prepare(folder, options("nf4"))
    with pytest.raises(ModelError, match=r"another shape|lack 3 tensors|describe"):
        quantize_copy(folder, tmp_path / "copy", "nf4")


def make_adapter(base: Path, module: str, columns: int) -> tuple[Path, dict[str, Any]]:
    """An adapter of one module with 64 rows, and its matrices."""
    from safetensors.torch import save_file

    folder = base.with_name("adapter")
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base.name, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    pair = {"A": torch.randn(4, columns), "B": torch.randn(64, 4)}
    tensors = {f"base_model.model.{module}.lora_{key}.weight": value for key, value in pair.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder, pair


@pytest.mark.parametrize("model_type", ["glm4_moe", "ernie4_5_moe", "deepseek_v3"])
def test_what_is_wide_is_so_on_the_disk_too(model_type: str, tmp_path: Path) -> None:
    """With an adapter, so that the experts stand apart without being quantized."""
    folder = tmp_path / "mixture"
    make_mixture(folder, model_type)
    own = "o_proj" if model_type == "deepseek_v3" else "q_proj"
    adapter, _ = make_adapter(folder, f"model.layers.0.self_attn.{own}", 64)
    maps = ("cpu", '{"": "cpu", "model.layers.0": "disk", "model.layers.1": "disk"}')
    answers = [
        logits(load(adapter, replace(options("none"), device_map=one, cache_dir=tmp_path))._runner._model)
        for one in maps
    ]
    assert torch.equal(*answers)


@pytest.mark.parametrize("quantization", ["none", "int8"])
@pytest.mark.parametrize("stored", ["model.layers.1.block_sparse_moe.experts.2.w2", "model.layers.1.self_attn.q_proj"])
def test_adapters_of_mixtures(stored: str, quantization: Any, tmp_path: Path) -> None:
    """In the names of the files."""

    from dbgpt_lite.llm.adapter import read_adapter

    folder = tmp_path / "mixture"
    make_mixture(folder, "mixtral")
    adapter, pair = make_adapter(folder, stored, 128 if "w2" in stored else 64)
    assert read_adapter(adapter) is not None
    model = loaded(adapter, quantization)
    if quantization == "none":
        name = stored.replace("block_sparse_moe", "mlp").replace("w2", "down_proj")
        before = apart_but_whole(folder).get_submodule(name).weight
        wanted = (before + 2 * pair["B"] @ pair["A"]).bfloat16()
        assert torch.equal(model.get_submodule(name).weight, wanted)


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mixture"
    make_mixture(folder, "mixtral")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if ".1.block_sparse_moe.experts.2.w3" in name)
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors: model\.layers\.1\.mlp\.experts\.2\.up_proj\.weight"):
        prepare(folder, options("nf4"))


def test_experts_that_files_hold_joined_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "granite"
    make_joined(folder)
    ready = prepare(folder, options("int8"))
    assert ready.place.unquantized == 2 * 4 * 3 * 64 * 128 * 2
    whole = dict(loaded(folder, "none").named_parameters())
    quantized = dict(ready.load()._runner._model.named_parameters())
    experts = {name for name, value in whole.items() if value.dim() == 3}
    assert len(experts) == 2 * 2
    assert all(quantized[name].nbytes == whole[name].nbytes for name in experts)
    assert any(quantized[name].nbytes < whole[name].nbytes for name in set(quantized) - experts)
    with pytest.raises(ModelError, match="quantization int4"):
        prepare(folder, options("int4"))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_plain_experts_that_a_file_holds_joined_stay_so_too(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "mixture"
    make_mixture(folder, "qwen3_moe")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    if kind == "bin":
        torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")
    else:
        save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    ready = prepare(folder, options("nf4"))
    assert ready.place.unquantized == 2 * 4 * 3 * 64 * 64 * 2
    model = ready.load()._runner._model
    assert sum(value.dim() == 3 for value in model.parameters()) == 2 * 2
    held = sum(_bytes(value) for value in model.parameters())
    assert ready.place.need.weights == pytest.approx(held, rel=0.01)


def test_a_mixture_answers(tmp_path: Path) -> None:
    """From the files to words, through the engine."""
    import threading

    from dbgpt_lite.messages import Message, Prompt, Sampling

    folder = tmp_path / "mixture"
    make_mixture(folder, "qwen3_moe")
    engine = load(folder, replace(options("nf4"), chat_format="chatml"))
    try:
        prompt = Prompt("chat", (Message("user", "hi"),), "hi")
        seen = list(engine.stream(prompt, Sampling(max_tokens=4, temperature=0.0), threading.Event()))
    finally:
        engine.close()
    assert seen


@given(data=st.data())
def test_every_token_gets_the_weighted_sum_of_its_experts(data: Any) -> None:
    """Against the sum written out token by token; a number beyond the last expert adds nothing."""
    from dbgpt_lite.llm.experts import Expert, SeparateExperts

    tokens, k, count = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    numbers = st.lists(st.integers(0, count), min_size=tokens * k, max_size=tokens * k)
    picked = torch.tensor(data.draw(numbers), dtype=torch.long).reshape(tokens, k)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    experts = SeparateExperts(Expert(8, 12, torch.nn.SiLU()) for _ in range(count)).double()
    states, shares = torch.randn(tokens, 8, dtype=torch.double), torch.rand(tokens, k, dtype=torch.double)
    with torch.no_grad():
        wanted = torch.zeros_like(states)
        for token in range(tokens):
            for place in range(k):
                if (at := int(picked[token, place])) < count:
                    wanted[token] += shares[token, place] * experts[at](states[token : token + 1])[0]
        torch.testing.assert_close(experts(states, picked, shares), wanted)
