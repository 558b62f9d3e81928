"""Packed 4-bit weights, and what is asked of bitsandbytes."""

import importlib.util
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.quantize import bitsandbytes_config, stored_quantization
from dbgpt_lite.llm.sizes import quantized_bytes
from tests.llm.tiny_models import pack_int4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_unpacking_undoes_packing(rows: int, halves: int, data: Any) -> None:
    import torch

    from dbgpt_lite.llm.int4 import unpack_int4

    count = rows * halves * 2
    numbers = torch.tensor(data.draw(st.lists(st.integers(-8, 7), min_size=count, max_size=count)))
    scale = torch.tensor(data.draw(st.lists(st.floats(0.001, 2), min_size=rows, max_size=rows)), dtype=torch.float16)
    numbers = numbers.reshape(rows, halves * 2)
    restored = unpack_int4(pack_int4(numbers), scale, torch.float32)
    assert torch.equal(restored, numbers.float() * scale.float()[:, None])


def test_layout_high_bits_hold_the_even_column() -> None:
    import torch

    from dbgpt_lite.llm.int4 import unpack_int4

    packed = torch.tensor([[0x1F, -0x80]], dtype=torch.int8)
    assert unpack_int4(packed, torch.tensor([2.0]), torch.float32).tolist() == [[2.0, -2.0, -16.0, 0.0]]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([1e-3, 0.02, 1.0, 300.0]), st.integers(0, 2**32))
def test_int4_is_off_by_half_a_step_at_most(rows: int, halves: int, size: float, seed: int) -> None:
    """The step is the row's largest magnitude / 7, rounded to float16: one part in 2,048, more below 6e-5."""
    import torch

    from dbgpt_lite.llm.int4 import quantize_rows, unpack_int4

    weight = torch.randn(rows, 2 * halves, generator=torch.Generator().manual_seed(seed)) * size
    weight[0] = 0
    packed, scale = quantize_rows(weight)
    off = (unpack_int4(packed, scale, torch.float32) - weight).abs()
    step = weight.abs().amax(dim=1) / 7
    assert packed.shape == (rows, halves)
    assert (off <= 0.5 * step[:, None] * (1 + 8 / 2048) + 1e-6).all()
    assert not off[0].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([4, 8]), st.data())
def test_rows_may_be_split_before_or_after(rows: int, halves: int, bits: Any, data: Any) -> None:
    """ChatGLM keeps queries, keys and values in one matrix; cut into rows, each part means the same."""
    import torch

    from dbgpt_lite.llm.int4 import unpack

    columns = halves * 2 * bits // 8
    packed = torch.randint(-128, 128, (rows, columns), generator=torch.Generator().manual_seed(rows)).to(torch.int8)
    scale = torch.rand(rows, generator=torch.Generator().manual_seed(columns)).half()
    cut = data.draw(st.integers(0, rows))
    whole = unpack(packed, scale, bits, torch.float16)
    parts = [unpack(packed[part], scale[part], bits, torch.float16) for part in (slice(0, cut), slice(cut, rows))]
    assert torch.equal(torch.cat(parts), whole)
    exact = unpack(packed, scale, bits, torch.float32)
    assert torch.equal(whole, exact.half())
    assert torch.equal(unpack(packed, scale, bits, torch.bfloat16), exact.bfloat16())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_packed_layer_multiplies_in_pieces(bits: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dbgpt_lite.llm import int4

    monkeypatch.setattr(int4, "_CPU_VALUES", 3 * 16)
    kind = getattr(torch, dtype)
    layer = int4.PackedLinear(16, 10, True, bits)
    generator = torch.Generator().manual_seed(1)
    packed = torch.randint(-128, 128, (10, 16 * bits // 8), generator=generator).to(torch.int8)
    scale, bias = torch.rand(10, generator=generator).half(), torch.rand(10, generator=generator)
    layer.weight, layer.weight_scale = (torch.nn.Parameter(t, requires_grad=False) for t in (packed, scale))
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    x = torch.rand(2, 5, 16, generator=generator).to(kind)
    whole = torch.nn.functional.linear(x, int4.unpack(packed, scale, bits, kind), bias.to(kind))
    torch.testing.assert_close(layer(x), whole, rtol=1e-5 if dtype == "float32" else 0.02, atol=1e-4)
    assert layer(x).dtype == kind


@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 6, 64), (1, 1, 1, 64), (2, 1, 6, 64), (1, 2, 1, 64)])
@pytest.mark.parametrize("kind", ["nf4", "int8", "int4"])
def test_inputs_of_any_number_of_sizes(kind: str, shape: tuple[int, ...]) -> None:
    import torch

    from dbgpt_lite.llm.quantized_layers import fill, quantized, replace

    model = torch.nn.Sequential(torch.nn.Linear(64, 128, bias=False)).bfloat16().eval()
    weight = model[0].weight.detach()
    fill(replace(model, "0", kind), kind, (128, 64), quantized(kind, weight))
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        found, wanted = model(x).float(), (x.float() @ weight.float().T)
    assert found.shape == wanted.shape
    assert float((found - wanted).norm() / wanted.norm()) < 0.2


@pytest.mark.parametrize("kind", ["nf4", "int8", "int4"])
@pytest.mark.parametrize("shape", [(64, 128), (33, 192), (700, 64)])
def test_bytes_of_a_matrix_are_counted_as_they_are(kind: Any, shape: tuple[int, int]) -> None:
    import torch

    from dbgpt_lite.llm.quantized_layers import quantized

    tensors = quantized(kind, torch.randn(shape))
    held = [tensor for name, tensor in tensors.items() if "quant_state" not in name and name != "weight_format"]
    offset = 4 if kind == "nf4" else 0
    assert quantized_bytes(shape, kind) == sum(t.numel() * t.element_size() for t in held) + offset


def four_bits(kind: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": kind, **more}}


@pytest.mark.parametrize(
    ("config", "stored"),
    [
        ({}, ""),
        ({"quantization_bit": 0}, ""),
        ({"quantization_bit": 4}, "int4"),
        ({"quantization_bit": 8}, "row8"),
        (four_bits("nf4", load_in_4bit=True), "nf4"),
        (four_bits("fp4", _load_in_4bit=True), "fp4"),
        ({"quantization_config": {"load_in_8bit": True}}, "int8"),
    ],
)
def test_what_a_config_says_of_its_weights(config: dict[str, Any], stored: str) -> None:
    assert stored_quantization(config) == stored


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_bit": 3}, "quantization_bit 3"),
        ({"quantization_bit": "four"}, "quantization_bit four"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        (four_bits("nf5", load_in_4bit=True), "bitsandbytes"),
    ],
)
def test_other_ways_are_refused_by_name(config: dict[str, Any], method: str) -> None:
    with pytest.raises(ModelError, match=rf"of mine are quantized with {method}"):
        stored_quantization(config, "mine")


def test_settings_asked_of_bitsandbytes() -> None:
    import torch

    assert bitsandbytes_config("none") is None
    assert bitsandbytes_config("int8").load_in_8bit
    nf4 = bitsandbytes_config("nf4")
    assert (nf4.bnb_4bit_quant_type, nf4.bnb_4bit_use_double_quant) == ("nf4", True)
    assert nf4.bnb_4bit_compute_dtype == torch.bfloat16


def test_without_bitsandbytes_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    with pytest.raises(ModelError, match=r"pip install -e \.\[gpu\]"):
        bitsandbytes_config("nf4")
