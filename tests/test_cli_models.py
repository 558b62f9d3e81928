"""`python -m dbgpt_lite plan`: what it prints, in both languages and as JSON, and what it leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbgpt_lite.cli import main
from dbgpt_lite.config import ROOT
from tests.llm.configs import CONFIGS

CHATGLM2 = {
    "model_type": "chatglm",
    "add_qkv_bias": True,
    "ffn_hidden_size": 13696,
    "hidden_size": 4096,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "padded_vocab_size": 65024,
    "seq_length": 32768,
    "torch_dtype": "float16",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models directory with one folder that holds a config.json and nothing else."""
    for name in ("LLM_QUANTIZATION", "LLM_CONTEXT", "LLM_USERS", "LLM_DEVICE_MAP", "LLM_MAX_MEMORY", "LANGUAGE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    made = tmp_path / "chatglm2-6b"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CHATGLM2))
    return made


def plan(*arguments: str) -> int:
    return main(["plan", "chatglm2-6b", *arguments], lambda: 99)


def test_a_card_that_holds_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--gpu", "RTX 3090", "--context", "2048") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("chatglm2-6b: 6,243,584,000 parameters, float16, a window of 2,048 tokens")
    assert lines[2].split() == ("Device Layers Weights GiB Cache GiB Working GiB CUDA GiB Total GiB Free GiB".split())
    assert lines[3].split()[:5] == ["cuda:0", "RTX", "3090", "28", "11.6"]
    assert lines[5].startswith("Fits: 12.7 of 23.5 GiB")
    assert "tokens/s" in lines[6]


def test_a_card_that_does_not_and_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--gpu", "4GiB", "--device-map", "cuda:0") == 1
    out = capsys.readouterr().out
    assert "Does not fit" in out
    assert "What would make it fit:" in out
    assert "bandwidth of this card is not in the table" in out


def test_chinese(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "zh")
    assert plan("--gpu", "8GiB", "--quantization", "nf4", "--context", "2048") == 0
    assert "放得下" in capsys.readouterr().out


def test_nothing_of_cuda_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    plan("--device-map", "cpu", "--context", "512", "--max-memory", "cpu=60GiB")
    assert "CUDA" not in capsys.readouterr().out
    plan("--gpu", "24GiB", "--context", "512")
    assert "CUDA GiB" in capsys.readouterr().out


def test_json_holds_every_device_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    code = plan(
        "--gpu", "12GiB,12GiB", "--max-memory", "0=5GiB,1=5GiB,cpu=60GiB", "--context", "1024", "--users", "4", "--json"
    )
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["verdict"] == "offload"
    assert found["parameters"] == 6_243_584_000
    assert [device["name"] for device in found["devices"]] == ["cuda:0", "cuda:1", "cpu"]
    assert all(device["total"] <= device["free"] <= 60 * 2**30 for device in found["devices"])
    assert sum(device["layers"] for device in found["devices"]) == 28
    assert found["need"]["users"] == 4
    assert found["need"]["cache"] == 4 * 1024 * 28 * 2 * 2 * 128 * 2
    assert {"cuda:0", "cuda:1", "cpu"} == set(found["device_map"].values())
    first = found["remedies"][0]
    assert (first["kind"], first["numbers"]) == ("quantize", "int8")
    assert "LLM_QUANTIZATION=int8" in first["text"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "Voodoo 2"), "Voodoo 2"),
        (("--max-memory", "20GiB"), "0=20GiB,cpu=60GiB"),
        (("--max-memory", "0=much"), "much"),
        (("--max-memory", "0=-5GiB"), "-5GiB is not a memory size"),
        (("--gpu", "24GiB", "--max-memory", "gpu0=6GiB,ram=4GiB"), "gpu0, ram. Known names: 0, cpu, disk"),
        (("--gpu", "24GiB", "--max-memory", "cuda:7=6GiB"), "cuda:7"),
        (("--device-map", "cuda:9"), "cuda:9"),
        (("--gpu", "24GiB", "--device-map", '{"model.layers": 0}'), "model.embed_tokens.weight"),
    ],
)
def test_wrong_wishes_are_usage_errors(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(*arguments) == 2
    assert message in capsys.readouterr().err


def test_caps_of_real_cards_are_not_for_supposed_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLM_MAX_MEMORY", "3:1GiB cpu:7GiB")
    assert plan("--gpu", "6GiB", "--context", "2048", "--json") == 0
    free = {device["name"]: device["free"] for device in json.loads(capsys.readouterr().out)["devices"]}
    assert free["cuda:0"] == 6 * 2**30
    assert free["cpu"] <= 7 * 2**30


@pytest.mark.parametrize("given", ["0", "-3", "many"])
def test_a_wrong_number_is_told_in_words(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["plan", "x", "--context", given], ["evaluate", "retrieval", "--limit", given]):
        with pytest.raises(SystemExit):
            main(command, lambda: 99)
        words = capsys.readouterr().err
        assert f"'{given}' is not a whole number from 1" in words
        assert "_positive" not in words


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    """As in `plan | head -1`: standard output is a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "dbgpt_lite", "plan", str(folder), "--gpu", "24GiB", "--json"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("language", "words"), [("en", "84 GiB of it are experts"), ("zh", "84 GiB 是专家层")])
def test_experts_stay_as_they_are_and_the_plan_says_so(
    language: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Granite as large as Mixtral 8x7B: 32 layers of 8 experts with 3 matrices of 4,096 x 14,336 in 16 bits."""
    monkeypatch.setenv("LANGUAGE", language)
    file = tmp_path / "some.json"
    file.write_text(json.dumps(CONFIGS["mixtral-8x7b"] | {"model_type": "granitemoe"}))
    asked = ["plan", str(file), "--gpu", "200GiB", "--context", "2048"]
    assert main([*asked, "--quantization", "nf4"], lambda: 99) == 0
    assert words in capsys.readouterr().out
    assert main([*asked, "--quantization", "nf4", "--json"], lambda: 99) == 0
    assert json.loads(capsys.readouterr().out)["unquantized_experts"] == 32 * 8 * 3 * 4096 * 14336 * 2
    assert main(asked, lambda: 99) == 0
    assert words not in capsys.readouterr().out
    file.write_text(json.dumps(CONFIGS["mixtral-8x7b"]))
    assert main([*asked, "--quantization", "nf4"], lambda: 99) == 0
    assert words not in capsys.readouterr().out


def test_a_path_and_a_config_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (str(folder), str(folder / "config.json")):
        assert main(["plan", given, "--gpu", "24GiB", "--context", "2048"], lambda: 99) == 0
    assert main(["plan", "no-such-model"], lambda: 99) == 1
    assert "no-such-model" in capsys.readouterr().err


@pytest.fixture
def packed(folder: Path) -> Path:
    """A folder with the GGUF file of a tiny Llama."""
    from tests.llm.tiny_gguf import write_gguf
    from tests.llm.tiny_models import make_model, make_tokenizer

    source, packed = folder / "source", folder.parent / "packed"
    packed.mkdir()
    make_model(source)
    make_tokenizer(source)
    from transformers import LlamaForCausalLM

    write_gguf(packed / "tiny.Q4_0.gguf", LlamaForCausalLM.from_pretrained(source), "llama", source, kind="Q4_0")
    return packed


def test_a_gguf_file_counts_unpacked(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("packed", str(packed), str(packed / "tiny.Q4_0.gguf")):
        assert main(["plan", given, "--gpu", "24GiB", "--json"], lambda: 99) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["model"], found["numbers"], found["dtype"]) == ("packed", "none", "bfloat16")
        assert found["need"]["weights"] == 2 * found["parameters"]
    assert main(["plan", "packed", "--quantization", "nf4"], lambda: 99) != 0
    assert "LLM_QUANTIZATION=none" in capsys.readouterr().err
    assert main(["quantize", "packed"], lambda: 99) != 0
    assert "packed is a GGUF file, of which no quantized copy can be made" in capsys.readouterr().err


def test_no_heavy_library_is_imported(folder: Path, packed: Path) -> None:
    code = (
        "import sys; from dbgpt_lite.cli import main;"
        f"main(['plan', {str(folder)!r}, '--gpu', '24GiB'], lambda: 99);"
        f"main(['plan', {str(packed)!r}, '--gpu', '24GiB'], lambda: 99);"
        "print(sorted({'torch', 'transformers', 'numpy', 'gradio', 'sqlalchemy', 'gguf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
