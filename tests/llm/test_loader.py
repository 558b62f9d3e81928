"""Every way a folder can be wrong ends in a sentence that says what to do, before anything runs."""

import errno
import gc
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.loader import LoadOptions, load, prepare
from dbgpt_lite.messages import Sampling
from tests.llm.mixtures import make_mixture
from tests.llm.tiny_models import answer_of, ask, make_model, make_tokenizer, pack_int4

CPU = LoadOptions(dtype="float32", device_map="cpu")
Copy = Callable[..., Path]


def refused(folder: Path, match: str, options: LoadOptions = CPU) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        load(folder, options)
    assert str(folder.parent) not in str(caught.value)
    return caught.value


def as_bin(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = {name: tensor for shard in shards(folder) for name, tensor in load_file(shard).items()}
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def shards(folder: Path) -> list[Path]:
    found = sorted(folder.glob("model-*.safetensors"))
    assert len(found) > 1
    return found


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no model folder named nothing")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("config.json", r"no config\.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors.index.json", "no weights"),
    ],
)
def test_missing_file(copy_of: Copy, name: str, match: str) -> None:
    folder = copy_of()
    (folder / name).unlink()
    refused(folder, match)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_unreadable_json(copy_of: Copy, name: str, content: bytes) -> None:
    folder = copy_of()
    (folder / name).write_bytes(content)
    refused(folder, f"{name} in copy is cut short or damaged")


def test_no_model_type(copy_of: Copy) -> None:
    refused(copy_of(model_type=None), "model_type")


def test_missing_shard_is_named(copy_of: Copy) -> None:
    folder = copy_of()
    gone = shards(folder)[1]
    gone.unlink()
    refused(folder, gone.name)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_shard_is_named(copy_of: Copy, keep: int) -> None:
    folder = copy_of()
    shard = shards(folder)[0]
    shard.write_bytes(shard.read_bytes()[:keep])
    refused(folder, shard.name)


def test_index_cannot_leave_the_folder(copy_of: Copy) -> None:
    folder = copy_of()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../../secret.safetensors"}}))
    refused(folder, "damaged")


def test_tensor_promised_by_the_index_but_absent(copy_of: Copy) -> None:
    folder = copy_of()
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.layers.9.mlp.up_proj.weight"] = shards(folder)[0].name
    index.write_text(json.dumps(content))
    refused(folder, r"lack 1 tensors: model\.layers\.9\.mlp\.up_proj\.weight")


def test_missing_tensors_are_never_filled_at_random(copy_of: Copy) -> None:
    refused(copy_of(num_hidden_layers=4), r"lack \d+ tensors: model\.layers\.3\.")


def test_wrong_shapes_are_named(copy_of: Copy) -> None:
    refused(copy_of(intermediate_size=96), r"another shape.*mlp\.down_proj")


def test_damaged_tokenizer(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    refused(folder, "could not be loaded")


def test_layers_that_do_not_compute_quantized_are_found_while_loading(tmp_path: Path) -> None:
    """Mamba's mixers multiply with a layer's weight themselves."""
    from transformers import MambaConfig, MambaForCausalLM

    folder = tmp_path / "mamba"
    MambaForCausalLM(MambaConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2)).save_pretrained(folder)
    make_tokenizer(folder)
    load(folder, CPU).close()
    with pytest.raises(ModelError, match="does not compute with int4") as caught:
        load(folder, LoadOptions(quantization="int4", device_map="cpu"))
    assert "LLM_QUANTIZATION=none" in caught.value.render("zh")


def test_experts_are_joined_by_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "mixture"
    make_mixture(folder, "mixtral")
    seen: list[str] = []
    model = load(folder, CPU, lambda state: seen.append(state.stage))._runner._model
    assert set(seen) == {"checking", "loading", "ready"}
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[5, 9, 301]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, other(input_ids=ids).logits)
    with pytest.raises(Cancelled):
        load(folder, CPU, cancel=_set())


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_cancelled_before_a_weight_is_read(tiny: Path) -> None:
    with pytest.raises(Cancelled):
        load(tiny, CPU, cancel=_set())


def test_tensors_that_config_json_does_not_describe(copy_of: Copy) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of()
    weights = {name: tensor for shard in shards(folder) for name, tensor in load_file(shard).items()}
    for file in folder.glob("model*"):
        file.unlink()
    norm = weights["model.norm.weight"]
    more = {"model.layers.0.self_attn.rotary_emb.inv_freq": norm[:8].clone(), "v_head.weight": norm.clone()}
    save_file(weights | more, folder / "model.safetensors")
    refused(folder, r"hold 1 tensors that its config\.json does not describe: v_head\.weight")


def test_refusals_of_names_and_shapes_come_before_anything_is_read(copy_of: Copy) -> None:
    for changes in ({"num_hidden_layers": 4}, {"intermediate_size": 96}, {"num_hidden_layers": 2}):
        folder = copy_of(f"copy{len(str(changes))}{next(iter(changes.values()))}", **changes)
        with pytest.raises(ModelError):
            prepare(folder, CPU)


def test_generation_config_names_the_tokens_that_end_an_answer(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 77]}))
    assert {2, 77} <= load(folder, CPU)._end


@pytest.mark.parametrize(
    "content", ["[1", "[1]", '{"max_new_tokens": -1}', '{"eos_token_id": [{}]}', '{"eos_token_id": 2.5}']
)
def test_a_damaged_generation_config_is_named_before_anything_is_read(copy_of: Copy, content: str) -> None:
    folder = copy_of()
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"generation_config\.json in copy"):
        prepare(folder, CPU)


@pytest.mark.parametrize("place", ["folder", "setting"])
def test_a_format_that_does_not_exist_is_named_before_anything_is_read(copy_of: Copy, place: str) -> None:
    folder = copy_of()
    if place == "folder":
        (folder / "dbgpt.json").write_text('{"chat_format": "guanacoo"}')
    options = replace(CPU, chat_format="guanacoo" if place == "setting" else "")
    with pytest.raises(ModelError, match="guanacoo"):
        prepare(folder, options)


SOME_ON_DISK = {"": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}


def test_a_disk_that_fills_while_weights_are_copied_ends_the_load_alone(
    copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache, written = copy_of(), tmp_path / "model-cache", []
    as_bin(folder)

    def write_bytes(file: Path, content: bytes) -> int:
        written.append(file.name)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with file.open("wb") as out:
            return out.write(content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(ModelError, match="No space left"):
        load(folder, replace(CPU, device_map=json.dumps(SOME_ON_DISK), cache_dir=cache))
    assert len(written) == 3
    gc.collect()
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
     RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")],
)  # fmt: skip
def test_memory_that_runs_out_with_the_first_token_is_called_so(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Olmo2Config, Olmo2ForCausalLM

    def full(*_: object, **__: object) -> None:
        raise error

    folder = tmp_path / "olmo"
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    Olmo2ForCausalLM(Olmo2Config(vocab_size=512, **sizes)).save_pretrained(folder)
    make_tokenizer(folder)
    monkeypatch.setattr(Olmo2ForCausalLM, "forward", full)
    with pytest.raises(OutOfMemory):
        load(folder, replace(CPU, quantization="int4"))


def test_weights_that_the_disk_cannot_hold_are_refused_before_the_copy(
    tiny: Path, copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "data" / "model-cache"
    options = replace(CPU, device_map=json.dumps(SOME_ON_DISK), cache_dir=cache)
    folder = copy_of()
    as_bin(folder)
    engine = load(folder, options)
    (written,) = cache.iterdir()
    copied = sum(file.stat().st_size for file in written.glob("*.dat"))
    assert engine.memory["disk"] == sum(file.stat().st_size for file in written.iterdir()) >= copied
    engine.close()
    assert not list(cache.iterdir())
    free = copied - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**12, 10**12 - free, free))
    with pytest.raises(ModelError, match="keeps weights on disk") as caught:
        prepare(folder, options)
    assert "磁盘" in caught.value.render("zh")
    assert not list(cache.iterdir())
    prepare(folder, options, freed={"disk": 1})
    # What can be read where it lies needs no copy.
    load(tiny, options).close()
    mixture = tmp_path / "mixture"
    make_mixture(mixture, "mixtral")
    free = 1000
    with pytest.raises(ModelError, match="keeps weights on disk"):
        prepare(mixture, replace(options, device_map='{"": "cpu", "model.layers.1": "disk"}'))


EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Any: pass\n"


@pytest.mark.parametrize("model_type", ["llama", "chatglm"])
def test_code_in_the_folder_never_runs(copy_of: Copy, model_type: str) -> None:
    auto = {"AutoConfig": "evil.Any", "AutoModelForCausalLM": "evil.Any"}
    folder = copy_of(model_type=model_type, auto_map=auto, trust_remote_code=True)
    (folder / "evil.py").write_text(EVIL)
    file = folder / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Any", "evil.Any"]}}
    file.write_text(json.dumps(tokenizer))
    if model_type == "chatglm":
        refused(folder, "needs program code")
    else:
        load(folder, CPU).close()
    assert not (folder / "ran").exists()


def test_unknown_family(copy_of: Copy) -> None:
    refused(copy_of(model_type="clip"), "kind clip")


def test_foreign_quantization(copy_of: Copy) -> None:
    refused(copy_of(quantization_config={"quant_method": "gptq", "bits": 4}), "gptq")


def test_too_large_is_refused_before_loading(tiny: Path) -> None:
    options = LoadOptions(dtype="float32", max_memory={"cpu": "1MB"})
    seen: list[str] = []
    with pytest.raises(OutOfMemory, match=r"needs 0\.0\d+ GiB.*cpu 0\.000931 GiB"):
        load(tiny, options, lambda state: seen.append(state.stage))
    assert seen == ["checking"]


def test_bin_checkpoint_is_read_with_weights_only(tiny: Path, copy_of: Copy, never: Any) -> None:
    import torch
    from safetensors.torch import load_file

    folder = copy_of()
    weights = {name: tensor for shard in shards(folder) for name, tensor in load_file(shard).items()}
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    sampling = Sampling(0, 1, 12)
    same = answer_of(load(folder, CPU).stream(ask("fox"), sampling, never))[0]
    assert same == answer_of(load(tiny, CPU).stream(ask("fox"), sampling, never))[0]


def test_pickled_code_in_bin_is_refused(copy_of: Copy, tmp_path: Path) -> None:
    import torch

    folder = copy_of()
    for file in folder.glob("model*"):
        file.unlink()
    torch.save({"lm_head.weight": Touch(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refused(folder, "could run code")
    assert not (tmp_path / "ran").exists()


class Touch:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pack(folder: Path) -> None:
    """Rewrite a folder in the packed layout, rounding its matrices to 4 bits."""
    from safetensors.torch import load_file, save_file

    weights = {name: tensor for shard in folder.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    for file in folder.glob("model*"):
        file.unlink()
    packed: dict[str, Any] = {}
    for name, tensor in weights.items():
        if tensor.ndim == 2 and "embed" not in name:
            scale = (tensor.abs().amax(1) / 7).half()
            packed[name] = pack_int4((tensor / scale.float()[:, None]).round().clamp(-8, 7).int())
            packed[name + "_scale"] = scale
        else:
            packed[name] = tensor
    save_file(packed, folder / "model.safetensors")


@pytest.mark.parametrize("tied", [False, True])
def test_packed_checkpoint(tmp_path: Path, never: Any, tied: bool) -> None:
    folder = tmp_path / "packed"
    make_model(folder, tie_word_embeddings=tied)
    make_tokenizer(folder)
    pack(folder)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_bit": 4}
    (folder / "config.json").write_text(json.dumps(config))
    engine = load(folder, CPU)
    assert engine.info.quantization == "int4"
    model = engine._runner._model
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert answer_of(engine.stream(ask("fox"), Sampling(0, 1, 8), never))[1].completion_tokens

    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    gone = weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors")
    refused(folder, r"lack 1 tensors: model\.norm\.weight")
    save_file({**weights, "model.norm.weight": gone[:8].clone()}, folder / "model.safetensors")
    refused(folder, r"another shape.*model\.norm\.weight")
    save_file({**weights, "model.norm.weight": gone, "extra": gone.clone()}, folder / "model.safetensors")
    refused(folder, "does not describe: extra")


def test_task_facts_and_chat_format(tiny: Path, copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "dbgpt.json").write_text(
        json.dumps(
            {"languages": ["en"], "sql_prompt": "sql_starter", "sql_dialect": "sqlite", "chat_format": "guanaco"}
        )
    )
    engine = load(folder, CPU)
    assert (engine.info.languages, engine.info.sql_prompt, engine.info.sql_dialect) == (
        ("en",),
        "sql_starter",
        "sqlite",
    )
    assert engine._template.row is CHAT_FORMATS["guanaco"]

    make_tokenizer(folder, chat_template=None)
    for file in folder.glob("chat_template*"):
        file.unlink()
    engine = load(folder, CPU)
    assert engine._template.render(ask("hi").messages).endswith("### Human: hi\n### Assistant:")
    (folder / "dbgpt.json").unlink()
    engine = load(folder, LoadOptions(dtype="float32", device_map="cpu", chat_format="vicuna"))
    assert engine._template.render(ask("hi").messages).endswith("USER: hi ASSISTANT:")


def test_context_setting_narrows_the_window(tiny: Path) -> None:
    assert load(tiny, LoadOptions(dtype="float32", context=128)).info.context_length == 128
    assert load(tiny, LoadOptions(dtype="float32", context=100_000)).info.context_length == 512
