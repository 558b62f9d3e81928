"""Bytes of weights, cache and working room."""

from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.outline import outline, read_outline
from dbgpt_lite.llm.quantize import bitsandbytes_config
from dbgpt_lite.llm.sizes import (
    CPU_CHUNK,
    GPU_CHUNK,
    Numbers,
    cache_bytes,
    geometry,
    quantized_bytes,
    stored_numbers,
    tensor_bytes,
)
from dbgpt_lite.llm.units import GIB, gib, parse_size
from tests.llm.configs import CONFIGS
from tests.llm.tiny_models import make_model, make_tokenizer


def weights_of(folder: Path, dtype: str, numbers: Numbers) -> int:
    return sum(block.weights for block in outline(read_checkpoint(folder)).blocks(dtype, numbers, 16, 1))


def held(model: Any) -> int:
    """Bytes of every tensor a model keeps for its parameters, each memory once."""
    import torch

    tensors = []
    for parameter in model.parameters():
        tensors.append(parameter)
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        tensors += [value for value in [getattr(parameter, "SCB", None)] if isinstance(value, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 3 million parameters: large enough for the tables of a matrix to be small beside it."""
    folder = tmp_path_factory.mktemp("wide")
    make_model(folder, hidden_size=256, intermediate_size=768)
    make_tokenizer(folder)
    return folder


@pytest.mark.parametrize("numbers", ["none", "int8", "nf4"])
def test_equals_what_is_held_in_memory(wide: Path, numbers: Any) -> None:
    from transformers import AutoModelForCausalLM

    config = bitsandbytes_config(numbers)
    model = AutoModelForCausalLM.from_pretrained(wide, dtype="bfloat16", quantization_config=config, device_map="cpu")
    found = weights_of(wide, "bfloat16", numbers)
    # One table of 1,024 bytes is shared by all matrices of a device, and counted for each.
    assert found == pytest.approx(held(model), abs=1024 * 21 if numbers == "nf4" else 0)
    assert found >= held(model)


@pytest.mark.parametrize(
    ("numbers", "size"),
    [
        ("int8", 64 * 128 + 4 * 64),
        ("int4", 64 * 64 + 2 * 64),
        ("row8", 64 * 128 + 2 * 64),
        ("nf4", 64 * 64 + 128 + 4 + 4 * 257 + 64),
        ("nf4_single", 64 * 64 + 4 * 128 + 64),
    ],
)
def test_quantized_matrix(numbers: Any, size: int) -> None:
    assert quantized_bytes((64, 128), numbers) == size


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({}, "none"),
        ({"quantization_bit": 4}, "int4"),
        ({"quantization_bit": 8}, "row8"),
        ({"quantization_bit": 0}, "none"),
        ({"quantization_config": {"load_in_8bit": True}}, "int8"),
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}}, "nf4"),
        ({"quantization_config": {"_load_in_4bit": True}}, "nf4_single"),
    ],
)
def test_how_weights_are_stored(given: dict[str, Any], numbers: str) -> None:
    assert stored_numbers(given) == numbers


def test_packed_weights_stay_packed() -> None:
    """12 layers of 4 matrices 512 x 512 and 3 of 512 x 1408 in 4 bits, the embedding and the norms in 16."""
    root = Path(__file__).parents[2] / "models" / "starter-sql"
    drawn = outline(read_checkpoint(root))
    matrices = 12 * (4 * 512 * 512 + 3 * 512 * 1408)
    rows = 12 * (4 * 512 + 2 * 1408 + 512)
    rest = 12288 * 512 + 25 * 512
    assert drawn.stored == "int4"
    found = sum(block.weights for block in drawn.blocks("bfloat16", "int4", 16, 1))
    assert found == matrices // 2 + 2 * rows + 2 * rest


def test_cache_of_the_published_shapes() -> None:
    """ChatGLM2-6B: 2 groups of 128 in 28 layers; a window slides over Mistral's 4,096 tokens."""
    glm, mistral = geometry(CONFIGS["chatglm2-6b"]), geometry(CONFIGS["mistral-7b"])
    assert sum(cache_bytes(glm, layer, "float16", 32768, 1) for layer in range(28)) == 2 * 28 * 2 * 128 * 2 * 32768
    assert cache_bytes(mistral, 0, "float16", 32768, 3) == 3 * cache_bytes(mistral, 0, "float16", 4096, 1)


def test_chunks_are_those_of_the_engine() -> None:
    from dbgpt_lite.llm import generation

    assert (GPU_CHUNK, CPU_CHUNK) == (generation.GPU_CHUNK, generation.CPU_CHUNK)


def test_headers_agree_with_config(tiny: Path) -> None:
    checkpoint = read_checkpoint(tiny)
    assert outline(checkpoint).count == sum(tensor.count for tensor in checkpoint.tensors)


def test_experts_are_seen_in_an_empty_model_too(tmp_path: Path) -> None:
    from transformers import OlmoeConfig

    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["num_experts_per_tok"] = 2
    OlmoeConfig(vocab_size=64, num_experts=4, pad_token_id=0, eos_token_id=1, **sizes).save_pretrained(tmp_path)
    drawn = outline(read_outline(tmp_path))
    assert drawn.joined_experts("float16") == 0
    found = [one for one in drawn.parameters if one.kind == "experts"]
    assert [one.matrices for one in found] == 2 * [(2 * 4, (16, 32)), (4, (32, 16))]
    assert tensor_bytes(found[0], "float16", "int4") == 2 * 4 * (16 * 32 // 2 + 2 * 16)


def test_an_architecture_without_a_row_is_asked_of_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Olmo2Config

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = Olmo2Config(vocab_size=64, num_key_value_heads=2, pad_token_id=0, eos_token_id=1, **sizes)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    drawn = outline(read_outline(tmp_path))
    assert {one.name for one in drawn.parameters} == {name for name, _ in model.named_parameters()}
    assert drawn.count == sum(value.numel() for value in model.parameters())
    blocks = drawn.blocks("float32", "none", 10, 2)
    assert [block.cache for block in blocks if block.cache] == [2 * 2 * 10 * 2 * 8 * 4] * 3


@pytest.mark.parametrize(
    ("text", "size"), [("20GiB", 20 * GIB), ("800MB", 800_000_000), ("0.5gb", 500_000_000), ("1024 B", 1024)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "20", "GiB", "1e999GiB", "-5GiB", "nanGB"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="20GiB"):
        parse_size(text)


def test_gib() -> None:
    assert gib(GIB // 2) == "0.5"
    assert gib(64 * GIB) == "64"
