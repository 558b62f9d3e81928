"""LoRA adapters: the loaded model answers as W + scaling * B @ A computes it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.adapter import base_folder
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.model_folders import describe
from tests.llm.tiny_models import make_tokenizer

CPU = LoadOptions(dtype="float32", device_map="cpu")
IDS = torch.tensor([[5, 9, 201, 77, 12, 100]])
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"], "bias": "none"}


@pytest.fixture
def models(tiny: Path, tmp_path: Path) -> Path:
    """A models directory with the base in it."""
    shutil.copytree(tiny, tmp_path / "llama-7b")
    return tmp_path


def base_weights(folder: Path) -> dict[str, Any]:
    return {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}


def make_adapter(
    models: Path, config: dict[str, Any] | None = None, more: dict[str, Any] | None = None, rank: int = 4, **facts: Any
) -> tuple[Path, dict[str, tuple[Any, Any]]]:
    """An adapter over q_proj and down_proj of every layer; its matrices by module."""
    torch.manual_seed(3)
    folder = models / "guanaco-7b"
    folder.mkdir()
    given = {**PLAIN, "base_model_name_or_path": "huggyllama/llama-7b", **(config or {})}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, weight in base_weights(models / "llama-7b").items():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            rows, columns = weight.shape
            pairs[name.removesuffix(".weight")] = torch.randn(rank, columns), torch.randn(rows, rank)
    stored = {
        f"base_model.model.{n}.lora_{k}.weight": m for n, ab in pairs.items() for k, m in zip("AB", ab, strict=True)
    }
    stored |= more or {}
    if facts.get("bin"):
        torch.save(stored, folder / "adapter_model.bin")
    else:
        save_file(stored, folder / "adapter_model.safetensors")
    return folder, pairs


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def reference(base: Path, change: Callable[[dict[str, Any]], None]) -> Any:
    """Logits of transformers' own model with its weights changed."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        change(dict(model.named_parameters()))
    return logits(model)


def added(pairs: dict[str, tuple[Any, Any]], scaling: Callable[[str], float]) -> Callable[[dict[str, Any]], None]:
    def change(parameters: dict[str, Any]) -> None:
        for name, (a, b) in pairs.items():
            parameters[f"{name}.weight"] += scaling(name) * (b @ a)

    return change


def loaded(folder: Path, options: LoadOptions = CPU) -> Any:
    engine = load(folder, options)
    assert engine.info.name == folder.name
    return logits(engine._runner._model)


@pytest.mark.parametrize("as_bin", [False, True])
def test_logits_are_those_of_the_sum(models: Path, as_bin: bool) -> None:
    folder, pairs = make_adapter(models, bin=as_bin)
    wanted = reference(models / "llama-7b", added(pairs, lambda name: 4.0))
    plain = reference(models / "llama-7b", lambda parameters: None)
    found = loaded(folder)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())
    assert not torch.allclose(plain, wanted, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({"use_rslora": True}, lambda name: 8.0),
        ({"alpha_pattern": {"down_proj": 2}}, lambda name: 0.5 if "down" in name else 4.0),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 32}}, lambda name: 8.0 if "1.self" in name else 4.0),
        ({"r": 64, "rank_pattern": {"q_proj": 4, "mlp.down_proj": 4}}, lambda name: 4.0),
    ],
)
def test_scaling(models: Path, config: dict[str, Any], scaling: Callable[[str], float]) -> None:
    folder, pairs = make_adapter(models, config)
    wanted = reference(models / "llama-7b", added(pairs, scaling))
    assert torch.allclose(loaded(folder), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_a_pattern_of_a_stranger_is_refused_and_not_matched(models: Path) -> None:
    """As an expression, this key takes 2 ** 40 steps for a name of 40 letters that does not end with "!"."""
    folder, _ = make_adapter(models, {"rank_pattern": {"(([a-z0-9_.]+)+)+!": 4}})
    with pytest.raises(ModelError, match=r"rank_pattern by expressions \(\(\(\[a-z"):
        loaded(folder)
    assert describe(folder).problem is not None


@pytest.mark.parametrize("config", [{"alpha_pattern": {"q_proj": "2"}}, {"rank_pattern": [1]}, {"lora_alpha": None}])
def test_numbers_that_are_none_are_named(models: Path, config: dict[str, Any]) -> None:
    folder, _ = make_adapter(models, config)
    with pytest.raises(ModelError, match=f"adapter_config.json in guanaco-7b says {next(iter(config))} = "):
        loaded(folder)


def test_a_pattern_ends_a_name_at_a_dot(models: Path) -> None:
    folder, pairs = make_adapter(models, {"alpha_pattern": {"proj": 999, "own_proj": 999, "down_proj": 32}})
    wanted = reference(models / "llama-7b", added(pairs, lambda name: 8.0 if "down" in name else 4.0))
    assert torch.allclose(loaded(folder), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_modules_saved_whole_and_embeddings(models: Path) -> None:
    head = torch.randn(512, 64)
    a, b = torch.randn(4, 512), torch.randn(64, 4)
    more = {
        "base_model.model.lm_head.weight": head,
        "base_model.model.model.embed_tokens.lora_embedding_A": a,
        "base_model.model.model.embed_tokens.lora_embedding_B": b,
    }
    folder, pairs = make_adapter(models, {"modules_to_save": ["lm_head"]}, more)

    def change(parameters: dict[str, Any]) -> None:
        added(pairs, lambda name: 4.0)(parameters)
        parameters["lm_head.weight"].copy_(head)
        parameters["model.embed_tokens.weight"] += 4.0 * (b @ a).T

    wanted = reference(models / "llama-7b", change)
    assert torch.allclose(loaded(folder), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_transposed_layers(tmp_path: Path) -> None:
    """GPT-2 keeps its matrices as (columns, rows): fan_in_fan_out."""
    from transformers import GPT2Config, GPT2LMHeadModel

    base = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=512, n_positions=64, n_embd=32, n_layer=2, n_head=2)).save_pretrained(base)
    make_tokenizer(base)
    folder = tmp_path / "lora"
    folder.mkdir()
    config = PLAIN | {"base_model_name_or_path": "gpt2", "fan_in_fan_out": True}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    a, b = torch.randn(4, 32), torch.randn(96, 4)
    name = "transformer.h.1.attn.c_attn"
    stored = {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    save_file(stored, folder / "adapter_model.safetensors")

    def change(parameters: dict[str, Any]) -> None:
        parameters[f"{name}.weight"] += 4.0 * (b @ a).T

    wanted = reference(base, change)
    assert torch.allclose(loaded(folder), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_merged_before_it_is_quantized(models: Path, tmp_path: Path) -> None:
    folder, pairs = make_adapter(models)
    merged = tmp_path / "merged"
    shutil.copytree(models / "llama-7b", merged)
    for shard in merged.glob("*.safetensors"):
        weights = load_file(shard)
        for name, (a, b) in pairs.items():
            if f"{name}.weight" in weights:
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + 4.0 * (b @ a)
        save_file(weights, shard)
    options = LoadOptions(quantization="nf4", device_map="cpu")
    assert torch.equal(loaded(folder, options), loaded(merged, options))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"peft_type": "IA3"}, "peft_type=IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias=lora_only"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
    ],
)
def test_what_is_not_supported_is_named(models: Path, config: dict[str, Any], named: str) -> None:
    folder, _ = make_adapter(models, config)
    with pytest.raises(ModelError, match=f"cannot be merged, because it uses {named}"):
        load(folder, CPU)
    assert named in str(describe(folder).problem)


def test_tensors_that_are_no_matrices_of_lora(models: Path) -> None:
    folder, _ = make_adapter(models, more={"base_model.model.model.norm.lora_magnitude_vector": torch.ones(64)})
    with pytest.raises(ModelError, match="lora_magnitude_vector"):
        load(folder, CPU)


def test_adapter_of_another_model(models: Path) -> None:
    lost = {f"base_model.model.model.layers.7.mlp.up_proj.lora_{k}.weight": torch.ones(4, 4) for k in "AB"}
    folder, _ = make_adapter(models, more=lost)
    with pytest.raises(ModelError, match=r"does not have: model\.layers\.7\.mlp\.up_proj\.weight"):
        load(folder, CPU)


def test_matrices_that_do_not_fit(models: Path) -> None:
    a, b = torch.ones(4, 9), torch.ones(128, 4)
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    folder, _ = make_adapter(models, more={f"{name}A.weight": a, f"{name}B.weight": b})
    with pytest.raises(ModelError, match=r"do not fit.*layers\.0\.mlp\.up_proj"):
        load(folder, CPU)


def test_half_a_pair(models: Path) -> None:
    folder, _ = make_adapter(
        models, more={"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(4, 64)}
    )
    with pytest.raises(ModelError, match=r"do not fit.*layers\.0\.mlp\.up_proj"):
        load(folder, CPU)


def test_no_adapter_over_quantized_weights(models: Path) -> None:
    folder, _ = make_adapter(models)
    file = models / "llama-7b" / "config.json"
    quantized = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": quantized}))
    with pytest.raises(ModelError, match="cannot be merged into llama-7b"):
        load(folder, CPU)


@pytest.mark.parametrize("named", ["decapoda/llama-13b", "/srv/secret", "..", "", "../../etc", "guanaco-7b"])
def test_base_that_is_not_beside_it(models: Path, named: str) -> None:
    folder, _ = make_adapter(models, {"base_model_name_or_path": named})
    with pytest.raises(ModelError, match="guanaco-7b is an adapter for") as caught:
        load(folder, CPU)
    assert "srv" not in str(caught.value)
    assert describe(folder).problem is not None


@pytest.mark.parametrize("named", ["C:\\models\\llama-7b", "/home/me/llama-7b/", "llama-7b"])
def test_only_the_last_part_of_the_name_counts(models: Path, named: str) -> None:
    folder, _ = make_adapter(models, {"base_model_name_or_path": named})
    assert base_folder(folder) == models / "llama-7b"


def test_dbgpt_json_names_the_base_and_the_facts(models: Path) -> None:
    folder, _ = make_adapter(models, {"base_model_name_or_path": "somebody/else"})
    (folder / "dbgpt.json").write_text(json.dumps({"base": "llama-7b", "languages": ["en"]}))
    assert load(folder, CPU).info.languages == ("en",)


def test_listed_as_an_adapter(models: Path) -> None:
    folder, _ = make_adapter(models)
    listed = describe(folder)
    assert (listed.adapter_for, listed.family, listed.problem) == ("llama-7b", "Llama", None)
    assert listed.size_bytes > describe(models / "llama-7b").size_bytes


def test_pickled_code_in_an_adapter_never_runs(models: Path, tmp_path: Path) -> None:
    from tests.llm.test_loader import Touch

    folder, _ = make_adapter(models, bin=True)
    torch.save({"base_model.model.x.lora_A.weight": Touch(tmp_path / "ran")}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="could run code"):
        load(folder, CPU)
    assert not (tmp_path / "ran").exists()


def test_adapter_inside_of_its_base(models: Path) -> None:
    folder, pairs = make_adapter(models)
    for file in folder.iterdir():
        shutil.copy(file, models / "llama-7b")
    wanted = reference_of_copy(models, pairs)
    assert torch.allclose(loaded(models / "llama-7b"), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def reference_of_copy(models: Path, pairs: dict[str, tuple[Any, Any]]) -> Any:
    """As reference, from a folder without the adapter: transformers would look for peft."""
    clean = models / "clean"
    shutil.copytree(models / "llama-7b", clean, ignore=shutil.ignore_patterns("adapter*"))
    return reference(clean, added(pairs, lambda name: 4.0))


def test_adapter_in_the_checkpoints_own_names(tmp_path: Path) -> None:
    """An adapter trained on the authors' code of ChatGLM2 names fused matrices that are split while loading."""
    golden = Path(__file__).parent.parent / "fixtures" / "golden"
    base = tmp_path / "chatglm2-6b"
    shutil.copytree(golden / "chatglm2-tiny", base)
    shutil.copy(golden / "chatglm2-tokenizer" / "tokenizer.model", base)
    weights = {n: t for f in sorted(base.glob("*.bin")) for n, t in torch.load(f, weights_only=True).items()}
    name = "transformer.encoder.layers.0.self_attention.query_key_value"
    rows, columns = weights[f"{name}.weight"].shape
    a, b = torch.randn(4, columns), torch.randn(rows, 4)
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | {"base_model_name_or_path": "THUDM/chatglm2-6b"}))
    stored = {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    save_file(stored, folder / "adapter_model.safetensors")
    found = loaded(folder)
    for file in sorted(base.glob("*.bin")):
        content = torch.load(file, weights_only=True)
        if f"{name}.weight" in content:
            content[f"{name}.weight"] += 4.0 * (b @ a)
            torch.save(content, file)
    assert torch.allclose(found, loaded(base), rtol=0, atol=1e-5)
