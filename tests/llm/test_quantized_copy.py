"""Quantized copies: the same answers as quantizing while loading, whole or not there at all, and without any code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import Busy, Cancelled, ModelError
from dbgpt_lite.llm import quantized_copy
from dbgpt_lite.llm.architecture import chat_format
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.engine import LocalEngine
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.manager import ModelManager
from dbgpt_lite.llm.quantize import stored_quantization
from dbgpt_lite.llm.quantized_copy import quantize_copy
from tests.llm.mixtures import make_joined
from tests.llm.test_filler import logits
from tests.llm.test_manager import Canned

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent.parent / "fixtures" / "golden"


def options(quantization: Any = "none") -> LoadOptions:
    return LoadOptions(quantization=quantization, dtype="bfloat16", device_map="cpu")


def model_of(folder: Path, how: LoadOptions | None = None) -> Any:
    """The model as it was loaded."""
    return load(folder, how or options())._runner._model


def tokens_of(engine: LocalEngine) -> list[int]:
    """What the copied tokenizer makes of a text in two languages."""
    return list(engine._tokenizer("hi there 你好")["input_ids"])


def moved_alone(copy: Path, tmp_path: Path) -> Path:
    """The copy where nothing of its source is near."""
    target = tmp_path / "elsewhere" / copy.name
    target.parent.mkdir()
    return copy.rename(target)


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
def test_a_copy_equals_quantizing_while_loading(tiny: Path, tmp_path: Path, quantization: Any) -> None:
    import torch

    note = quantize_copy(tiny, tmp_path / "copy", quantization, shard_bytes=50_000)
    files = read_checkpoint(tmp_path / "copy").files
    assert len(files) > 1
    assert all(file.stat().st_size < 150_000 for file in files)
    assert note.bytes < note.source_bytes / 2
    copy = moved_alone(tmp_path / "copy", tmp_path)
    engine = load(copy, options())
    assert engine.info.quantization == quantization
    fresh = load(tiny, options(quantization))
    assert torch.equal(logits(engine._runner._model), logits(fresh._runner._model))
    assert tokens_of(engine) == tokens_of(fresh)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_transformers_reads_a_copy(tiny: Path, tmp_path: Path, quantization: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    quantize_copy(tiny, tmp_path / "copy", quantization)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "copy", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(logits(model.eval()), logits(model_of(tmp_path / "copy")))
    assert type(model.lm_head) is torch.nn.Linear


def test_the_note_says_how_it_was_made(tiny: Path, tmp_path: Path) -> None:
    quantize_copy(tiny, tmp_path / "copy", "nf4")
    note = json.loads((tmp_path / "copy" / "quantized.json").read_text())
    assert (note["source"], note["dtype"], note["quantized_layers"]) == ("tiny-llama", "bfloat16", 21)
    assert note["method"].startswith("nf4")
    assert {"torch", "bitsandbytes", "transformers"} <= note["versions"].keys()
    assert note["bytes"] < note["source_bytes"]


def test_no_code_comes_along(copy_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy_of("original", auto_map={"AutoModelForCausalLM": "modeling.X"})
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "tokenizer_code.py").write_text("raise SystemExit")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["tokenizer_code.T", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "LICENSE.txt").write_text("Free.")
    (folder / "dbgpt.json").write_text('{"tasks": ["sql"]}')
    quantize_copy(folder, tmp_path / "copy", "int4")
    names = {file.name for file in (tmp_path / "copy").iterdir()}
    assert not any(name.endswith(".py") for name in names)
    assert {"LICENSE.txt", "dbgpt.json", "tokenizer.json", "generation_config.json", "quantized.json"} <= names
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((tmp_path / "copy" / name).read_text())


def golden(tmp_path: Path, name: str, tokenizer: str, file: str) -> Path:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    shutil.copy(GOLDEN / tokenizer / file, folder / file)
    return folder


@pytest.mark.parametrize("quantization", ["nf4", "int4"])
@pytest.mark.parametrize(
    ("name", "tokenizer", "file"),
    [
        ("chatglm2-tiny", "chatglm2-tokenizer", "tokenizer.model"),
        ("chatglm-tiny", "chatglm-tokenizer", "ice_text.model"),
    ],
)
def test_models_that_transformers_does_not_know(
    tmp_path: Path, quantization: Any, name: str, tokenizer: str, file: str
) -> None:
    """Fused matrices are split before they are quantized; the copy still knows its tokenizer and chat format."""
    import torch

    folder = golden(tmp_path, name, tokenizer, file)
    quantize_copy(folder, tmp_path / "copy", quantization)
    copy, fresh = load(tmp_path / "copy", options()), load(folder, options(quantization))
    ids = torch.tensor([json.loads((folder / "golden.json").read_text())["input_ids"][:8]])
    with torch.inference_mode():
        assert torch.equal(copy._runner._model(ids).logits, fresh._runner._model(ids).logits)
    assert tokens_of(copy) == tokens_of(fresh)
    assert chat_format(read_checkpoint(tmp_path / "copy")) == chat_format(read_checkpoint(folder))


def test_an_adapter_is_merged_first(tiny: Path, tmp_path: Path) -> None:
    """A folder in PEFT's format, as guanaco-7b is beside llama-7b."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(tiny, tmp_path / "base")
    (tmp_path / "tuned").mkdir()
    facts = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "someone/base"}
    (tmp_path / "tuned" / "adapter_config.json").write_text(json.dumps(facts))
    torch.manual_seed(2)
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file(
        {f"{name}.lora_A.weight": torch.randn(4, 64), f"{name}.lora_B.weight": torch.randn(64, 4)},
        tmp_path / "tuned" / "adapter_model.safetensors",
    )
    note = quantize_copy(tmp_path / "tuned", tmp_path / "copy", "nf4")
    assert (note.source, note.base) == ("tuned", "base")
    tuned = logits(model_of(tmp_path / "tuned", options("nf4")))
    assert torch.equal(logits(model_of(tmp_path / "copy")), tuned)
    assert not torch.equal(tuned, logits(model_of(tmp_path / "base", options("nf4"))))


def test_what_exists_is_not_touched(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="already a folder named copy"):
        quantize_copy(tiny, tmp_path / "copy", "int4")
    assert [file.name for file in (tmp_path / "copy").iterdir()] == ["mine.txt"]


def test_a_quantized_model_is_not_quantized_again(tiny: Path, tmp_path: Path) -> None:
    for quantization, again in (("int4", "nf4"), ("int8", "int4")):
        quantize_copy(tiny, tmp_path / quantization, quantization)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match=rf"already quantized \({quantization}\)"):
            quantize_copy(tmp_path / quantization, tmp_path / "again", again)  # type: ignore[arg-type]


def test_a_full_disk_is_said_before(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**16)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match=r"needs 0\.000\d+ GiB on disk, and only 6\.1e-05 GiB"):
        quantize_copy(tiny, tmp_path / "models" / "copy", "int4")
    assert list((tmp_path / "models").iterdir()) == []


def test_the_space_asked_for_is_the_space_taken(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for quantization in ("nf4", "int8", "int4"):
        quantize_copy(tiny, tmp_path / quantization, quantization)  # type: ignore[arg-type]
        taken = sum(file.stat().st_size for file in (tmp_path / quantization).iterdir())
        monkeypatch.setattr(shutil, "disk_usage", lambda _, taken=taken: usage._replace(free=taken // 2))
        with pytest.raises(ModelError, match="on disk"):
            quantize_copy(tiny, tmp_path / "more", quantization)  # type: ignore[arg-type]
        monkeypatch.setattr(shutil, "disk_usage", lambda _, taken=taken: usage._replace(free=taken + 200_000))
        quantize_copy(tiny, tmp_path / f"{quantization}-more", quantization)  # type: ignore[arg-type]


class Late(threading.Event):
    """Set once it was looked at some times."""

    looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks > 30


def test_stopping_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        quantize_copy(tiny, tmp_path / "models" / "copy", "nf4", cancel=Late(), shard_bytes=2_000)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_write_that_fails_is_said_in_words(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr(quantized_copy, "_write_json", full)
    with pytest.raises(ModelError, match=r"folder copy could not be written: No space left on device\. ") as caught:
        quantize_copy(tiny, tmp_path / "models" / "copy", "int4")
    assert "/secret" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_killed_copy_is_in_no_list(tiny: Path, tmp_path: Path) -> None:
    """kill -9 half way, with a shard already written."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from dbgpt_lite.llm.quantized_copy import quantize_copy\n"
        "kill = lambda state: os.kill(os.getpid(), signal.SIGKILL) if state.share > 0.5 else None\n"
        "quantize_copy(Path(sys.argv[1]), Path(sys.argv[2]), 'int4', kill, shard_bytes=20_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny, tmp_path / "models" / "copy"], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "models" / ".copy.unfinished").iterdir())
    assert ModelManager(tmp_path / "models", Canned()).folders() == []
    quantize_copy(tiny, tmp_path / "models" / "copy", "int4")
    assert [folder.name for folder in ModelManager(tmp_path / "models", Canned()).folders()] == ["copy"]


def test_the_command(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dbgpt_lite", "quantize", *arguments]
        env = os.environ | {"MODELS_DIR": str(tmp_path)}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    done = run("tiny", "--quantization", "int4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny-int4: " in done.stdout
    assert stored_quantization(read_checkpoint(tmp_path / "tiny-int4").config) == "int4"
    again = run("tiny", "--quantization", "int4")
    assert (again.returncode, again.stdout) == (1, "")
    assert "already a folder named tiny-int4" in again.stderr
    assert run("nothing").returncode == 1
    assert run("tiny", "--output", "../out").returncode == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny", "tiny-int4"}


def test_two_at_a_time_and_what_a_killed_one_left(tiny: Path, tmp_path: Path) -> None:
    """A folder is another process's while that process lives; what it left behind is taken over."""
    import fcntl

    left = tmp_path / ".copy.unfinished"
    left.mkdir()
    (left / "part-0").write_text("half")
    descriptor = os.open(left, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Busy):
        quantize_copy(tiny, tmp_path / "copy", "int4")
    assert (left / "part-0").is_file()
    os.close(descriptor)
    quantize_copy(tiny, tmp_path / "copy", "int4")
    assert [file.name for file in tmp_path.iterdir()] == ["copy"]
    assert not list((tmp_path / "copy").glob("part-*"))


def test_odd_leftovers_are_emptied_and_what_a_link_leads_to_is_not(tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("kept")
    (tmp_path / ".linked.unfinished").symlink_to(other)
    quantize_copy(tiny, tmp_path / "linked", "int4")
    assert (other / "mine").read_text() == "kept"
    assert not (tmp_path / "linked").is_symlink()
    (tmp_path / ".deep.unfinished" / "folder").mkdir(parents=True)
    quantize_copy(tiny, tmp_path / "deep", "int4")
    assert not (tmp_path / "deep" / "folder").exists()


@pytest.mark.parametrize("name", [".hidden", "..", "a\\b"])
def test_names_that_no_folder_may_have(tiny: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name"):
        quantize_copy(tiny, tmp_path / "models" / name, "int4")


@pytest.mark.parametrize("quantization", ["nf4", "int4"])
def test_a_mixture_of_experts_is_told_what_loading_quantizes(tmp_path: Path, quantization: Any) -> None:
    folder = tmp_path / "granite"
    make_joined(folder)
    with pytest.raises(ModelError, match="quantizes its other layers only; the experts stay") as caught:
        quantize_copy(folder, tmp_path / "copy", quantization)
    assert "混合专家" in caught.value.render("zh")
    assert not (tmp_path / "copy").exists()
