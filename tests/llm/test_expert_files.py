"""Files of mixtures: copies, adapters, what other programs saved, and what does not fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm import experts
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.loader import fitted, load, prepare
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.quantized_copy import quantize_copy
from tests.llm.mixtures import (
    MIXTURES,
    apart_but_whole,
    held_bytes,
    loaded,
    make_adapter,
    make_joined,
    make_mixture,
    options,
)
from tests.llm.test_filler import logits


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
    held = sum(held_bytes(value) for value in ready.load()._runner._model.parameters())
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


@pytest.mark.parametrize("number", ["9" * 5000, "999999999", "١", "-1", "0x1", ""])
@pytest.mark.parametrize("place", ["layers.1.", "experts.1."])
def test_numbers_in_names_that_are_none_or_huge(place: str, number: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.1.gate_proj.weight"
    strange = name.replace(place, f"{place.split('.')[0]}.{number}.")
    save_file(tensors | {strange: tensors[name].clone()}, folder / "model.safetensors", {"format": "pt"})
    for refused in (lambda: prepare(folder, options("nf4")), lambda: quantize_copy(folder, tmp_path / "copy", "nf4")):
        with pytest.raises(ModelError, match=r"does not describe|could not be loaded|damaged"):
            refused()


@pytest.mark.parametrize("value", ["1", 10**12, True])
def test_a_number_of_further_layers_that_is_none(value: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_nextn_predict_layers": value}))
    with pytest.raises(ModelError, match="num_nextn_predict_layers"):
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


def test_a_few_bytes_do_not_make_a_million_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge number of experts, and a tensor of the last of them to bear it out."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_routed_experts": 90_000}))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.1.gate_proj.weight"
    far = {name.replace("experts.1.", "experts.89999."): tensors[name].clone()}
    save_file(tensors | far, folder / "model.safetensors", {"format": "pt"})
    made: list[int] = []
    make = experts.Expert.__init__
    monkeypatch.setattr(experts.Expert, "__init__", lambda *given: made.append(1) or make(*given))
    for refused in (lambda: prepare(folder, options("int8")), lambda: quantize_copy(folder, tmp_path / "copy", "nf4")):
        with pytest.raises(ModelError, match=r"another shape|lack \d+ tensors|describe"):
            refused()
    assert len(made) < 100


def test_a_name_without_end_is_refused_at_once_and_briefly(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mixture"
    make_mixture(folder, "glm4_moe")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"a." * 80_000: torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="damaged") as refused:
        prepare(folder, options("int8"))
    assert len(str(refused.value)) < 500


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
    held = sum(held_bytes(value) for value in model.parameters())
    assert ready.place.need.weights == pytest.approx(held, rel=0.01)
