"""Filling a model on several devices: the same logits wherever its weights lie, and nothing left behind."""

import gc
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.llm import architecture
from dbgpt_lite.llm.assemble import Assembly, assemble, bytes_copied, device_of
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.loading import LoadState
from dbgpt_lite.llm.matching import match, wanted_of
from dbgpt_lite.llm.shards import stored_tensors
from tests.llm.tiny_models import make_model, make_tokenizer

IDS = torch.tensor([[5, 9, 301, 77, 12, 400]])
LAYERS = {f"model.layers.{n}": "cpu" for n in range(3)}
ENDS = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
MAPS: dict[str, dict[str, str]] = {
    "all on the CPU": {"": "cpu"},
    "two layers on disk": {**LAYERS, **ENDS, "model.layers.1": "disk", "model.layers.2": "disk"},
    "ends on disk": {**LAYERS, "model.norm": "cpu", "model.embed_tokens": "disk", "lm_head": "disk"},
    "all on disk": {"": "disk"},
}


def build(
    folder: Path,
    device_map: Mapping[str, str],
    cache: Path | None = None,
    seen: list[LoadState] | None = None,
    cancel: threading.Event | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    checkpoint = read_checkpoint(folder)
    model = architecture.empty_model(architecture.transformers_config(checkpoint), dtype)
    fit = match(checkpoint.config, stored_tensors(checkpoint), wanted_of(model))
    fit.check(folder.name)
    how = Assembly(dtype, device_map, cache=cache)
    report = seen.append if seen is not None else lambda state: None
    return assemble(model, fit.routes, how, report, cancel or threading.Event())


def copied(folder: Path, device_map: Mapping[str, str]) -> int:
    checkpoint = read_checkpoint(folder)
    model = architecture.empty_model(architecture.transformers_config(checkpoint), torch.float32)
    fit = match(checkpoint.config, stored_tensors(checkpoint), wanted_of(model))
    return bytes_copied(model, fit.routes, Assembly(torch.float32, device_map))


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))


def as_bin(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(weights, folder / "pytorch_model.bin")


@pytest.mark.parametrize("name", MAPS)
def test_logits_do_not_depend_on_the_place(tiny: Path, tmp_path: Path, name: str) -> None:
    model = build(tiny, MAPS[name], tmp_path / "cache")
    assert torch.equal(logits(model), reference(tiny))
    assert not (tmp_path / "cache").exists()
    assert copied(tiny, MAPS[name]) == 0


@pytest.mark.parametrize("name", ["two layers on disk", "all on disk"])
def test_in_half_the_bits_from_the_same_files(tiny: Path, name: str) -> None:
    assert torch.equal(logits(build(tiny, MAPS[name], dtype=torch.bfloat16)), reference(tiny, torch.bfloat16))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_tied_weights(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "tied"
    make_model(folder, tie_word_embeddings=True)
    make_tokenizer(folder)
    wanted = reference(folder)
    if kind == "bin":
        as_bin(folder)
    assert torch.equal(logits(build(folder, MAPS[name], tmp_path / "cache")), wanted)


def test_what_is_not_on_disk_as_needed_is_written_and_removed(tiny: Path, copy_of: Any, tmp_path: Path) -> None:
    folder = copy_of()
    as_bin(folder)
    cache = tmp_path / "cache"
    (cache / "offload-999999999-ab").mkdir(parents=True)
    model = build(folder, MAPS["two layers on disk"], cache)
    (written,) = cache.iterdir()
    files = list(written.glob("model.layers.*.dat"))
    assert len(files) == 18
    assert copied(folder, MAPS["two layers on disk"]) == sum(file.stat().st_size for file in files)
    assert torch.equal(logits(model), reference(tiny))
    del model
    gc.collect()
    assert not list(cache.iterdir())


def test_only_what_belongs_into_memory_is_read(tiny: Path) -> None:
    everything: list[LoadState] = []
    build(tiny, {"": "cpu"}, seen=everything)
    some: list[LoadState] = []
    model = build(tiny, MAPS["two layers on disk"], seen=some)
    assert everything[-1].total == sum(place.bytes for place in stored_tensors(read_checkpoint(tiny)))
    assert everything[-1].done == everything[-1].total
    assert everything[-1].share == 1
    assert everything[-1].rate > 0
    assert 0 < some[-1].total < everything[-1].total
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    assert not model.model.layers[0].mlp.up_proj.weight.is_meta


def test_chatglm2_with_its_split_matrices_on_disk(tmp_path: Path) -> None:
    import shutil

    golden = Path(__file__).parent.parent / "fixtures" / "golden"
    folder = tmp_path / "chatglm2"
    shutil.copytree(golden / "chatglm2-tiny", folder)
    shutil.copy(golden / "chatglm2-tokenizer" / "tokenizer.model", folder)
    facts = json.loads((folder / "golden.json").read_text())
    ids = torch.tensor(facts["input_ids"]).reshape(1, -1)
    spread = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    for device_map in (
        {"": "cpu"},
        spread | {f"model.{name}": "cpu" for name in ("layers.2", "norm")} | {"lm_head": "cpu"},
    ):
        with torch.no_grad():
            last = build(folder, device_map, tmp_path / "cache")(input_ids=ids).logits[0, -1]
        assert (last - torch.tensor(facts["last_logits"])).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "falcon", "gemma2", "mistral", "bloom", "opt"])
def test_buffers_are_those_of_from_pretrained(tmp_path: Path, kind: str) -> None:
    """Masks, rotary frequencies and scales are in no file and must be made again."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"ffn_dim": 64, "word_embed_proj_dim": 64, "rotary_dim": 8}
    heads = {"head_dim": 16, "num_key_value_heads": 2, "intermediate_size": 64} if kind in ("gemma2", "mistral") else {}
    torch.manual_seed(2)
    config = AutoConfig.for_model(kind, **sizes, **more, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    model = build(tmp_path, {"": "cpu"})
    assert not [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    other = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    buffers = dict(other.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert torch.equal(logits(model), reference(tmp_path))


def test_cancelled_half_way(tiny: Path) -> None:
    cancel = threading.Event()
    places = len(stored_tensors(read_checkpoint(tiny)))
    with pytest.raises(Cancelled):
        build(tiny, {"": "cpu"}, seen=_Cancelling(cancel), cancel=cancel)
    assert places > 2


class _Cancelling(list[LoadState]):
    """Cancels at the first report."""

    def __init__(self, cancel: threading.Event) -> None:
        super().__init__()
        self._cancel = cancel

    def append(self, state: LoadState) -> None:
        super().append(state)
        assert len(self) == 1
        self._cancel.set()


def test_quantized_layers_stay_off_the_disk(tiny: Path) -> None:
    checkpoint = read_checkpoint(tiny)
    model = architecture.empty_model(architecture.transformers_config(checkpoint), torch.bfloat16)
    how = Assembly(torch.bfloat16, {"": "disk"}, "nf4")
    with pytest.raises(ModelError, match="quantized layers on disk"):
        assemble(model, (), how, lambda state: None, threading.Event())


def test_the_longest_prefix_says_where() -> None:
    places = {"": "cuda:0", "model.layers.1": "disk", "model.layers.1.mlp": "cpu"}
    assert device_of("model.layers.1.mlp.up_proj.weight", places) == "cpu"
    assert device_of("model.layers.1.norm.weight", places) == "disk"
    assert device_of("model.layers.10.norm.weight", places) == "cuda:0"
    with pytest.raises(ModelError, match=r"no device for lm_head\.weight"):
        device_of("lm_head.weight", {"model": "cpu"})
