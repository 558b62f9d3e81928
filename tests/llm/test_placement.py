"""Sizes and fits, by arithmetic, on checkpoints of a few hundred bytes."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, get_args

import pytest

from dbgpt_lite.errors import ConfigError, OutOfMemory
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.devices import usable_devices
from dbgpt_lite.llm.families import shape
from dbgpt_lite.llm.placement import GIB, Device, gib, kv_bytes_per_token, parse_size, plan, weight_bytes
from dbgpt_lite.llm.quantize import Quantization, bitsandbytes_config

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "max_position_embeddings": 4096,
}
TENSORS = {
    "model.embed_tokens.weight": (16, 8),
    "model.layers.0.mlp.up_proj.weight": (64, 8),
    "model.norm.weight": (8,),
}


def write_safetensors(file: Path, tensors: Mapping[str, tuple[int, ...]], bytes_each: int = 2) -> None:
    """A safetensors file of zeros in BF16, written by hand."""
    header: dict[str, Any] = {}
    end = 0
    for name, sizes in tensors.items():
        start, end = end, end + bytes_each * prod(sizes)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    write_safetensors(tmp_path / "model.safetensors", TENSORS)
    return tmp_path


def test_weight_bytes(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    assert checkpoint.file_bytes < 2000
    assert weight_bytes(checkpoint, "bfloat16", "none") == (16 * 8 + 64 * 8 + 8) * 2
    assert weight_bytes(checkpoint, "float32", "none") == (16 * 8 + 64 * 8 + 8) * 4
    assert weight_bytes(checkpoint, "bfloat16", "int8") == 16 * 8 * 2 + 64 * 8 + 64 * 4 + 8 * 2
    nf4 = 64 * 8 * (0.5 + 1 / 64 + 4 / 16384)
    assert weight_bytes(checkpoint, "bfloat16", "nf4") == int(16 * 8 * 2 + nf4 + 8 * 2)


def test_estimate_equals_what_transformers_allocates(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    checkpoint = read_checkpoint(tiny)
    for quantization in get_args(Quantization):
        config = bitsandbytes_config(quantization)
        model = AutoModelForCausalLM.from_pretrained(tiny, dtype="bfloat16", quantization_config=config)
        measured = model.get_memory_footprint()
        assert weight_bytes(checkpoint, "bfloat16", quantization) == pytest.approx(measured, rel=0.06)


def test_kv_bytes() -> None:
    assert kv_bytes_per_token(shape(CONFIG), "bfloat16") == 2 * 3 * 1 * 4 * 2


def test_fits_or_says_what_to_change(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    cpu = Device("cpu", GIB)
    assert plan(checkpoint, dtype="bfloat16", quantization="none", context=0, devices=(cpu,)).fits
    small = plan(checkpoint, dtype="bfloat16", quantization="none", context=0, devices=(Device("cpu", 1000),))
    assert not small.fits
    assert small.remedies == ("quantize", "memory")
    with pytest.raises(OutOfMemory, match=r"needs 0\.06\d+ GiB.*LLM_QUANTIZATION=int8 or nf4"):
        small.check()
    with pytest.raises(OutOfMemory, match="smaller model"):
        plan(checkpoint, dtype="bfloat16", quantization="nf4", context=0, devices=(Device("cpu", 1000),)).check()


def test_window_shrinks_to_what_fits_unless_it_was_asked_for(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    whole = plan(checkpoint, dtype="bfloat16", quantization="none", context=0, devices=(Device("cpu", GIB),))
    tight = (Device("cpu", whole.need.total - 1000 * whole.need.kv_per_token),)
    shrunk = plan(checkpoint, dtype="bfloat16", quantization="none", context=0, devices=tight)
    assert shrunk.fits
    assert shrunk.need.context == 3072
    with pytest.raises(OutOfMemory, match="set LLM_CONTEXT=3096"):
        plan(checkpoint, dtype="bfloat16", quantization="none", context=4096, devices=tight).check()


def test_quantized_weights_stay_on_gpus(folder: Path) -> None:
    devices = (Device("cuda:0", 1000), Device("cpu", GIB))
    checkpoint = read_checkpoint(folder)
    assert plan(checkpoint, dtype="bfloat16", quantization="none", context=0, devices=devices).fits
    assert not plan(checkpoint, dtype="bfloat16", quantization="nf4", context=0, devices=devices).fits


def test_packed_weights_count_expanded() -> None:
    root = Path(__file__).parents[2] / "models" / "starter-sql"
    assert weight_bytes(read_checkpoint(root), "bfloat16", "none") == pytest.approx(2 * 44.8e6, rel=0.01)


@pytest.mark.parametrize(
    ("text", "size"), [("20GiB", 20 * GIB), ("800MB", 800_000_000), ("0.5gb", 500_000_000), ("1024 B", 1024)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "20", "GiB", "1e999GiB"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="20GiB"):
        parse_size(text)


def test_gib() -> None:
    assert gib(GIB // 2) == "0.5"
    assert gib(64 * GIB) == "64"


def test_max_memory_caps_a_device() -> None:
    assert usable_devices("cpu", {"cpu": "100MB"}) == (Device("cpu", 100_000_000),)


def test_unknown_device_is_named() -> None:
    with pytest.raises(ConfigError, match="cuda:77"):
        usable_devices("cuda:77", {})
