"""Weights of 4 bits in the kernels' order mean what the layers mean. The kernels themselves need a GPU: their
comparison with float64 is benchmarks/gpu_check.py."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm.int4 import PackedLinear, unpack_int4
from dbgpt_lite.llm.kernels import nf4


def layer(rows: int, columns: int, seed: int, nested: bool = True) -> Any:
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn import Linear4bit, Params4bit

    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * 10.0 ** (seed % 5 - 3)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    made = Linear4bit(columns, rows, bias=False, quant_type="nf4")
    made.weight = Params4bit(packed, requires_grad=False, quant_state=state, bnb_quantized=True, module=made)
    return made


def numbers(made: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return torch.as_tensor(dequantize_4bit(made.weight.data, made.weight.quant_state)).double()


@settings(deadline=None, max_examples=25)
@given(
    tiles=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    blocks=st.integers(1, 11),
    seed=st.integers(0, 99),
    nested=st.booleans(),
)
def test_tiles_hold_the_same_weights(tiles: list[int], blocks: int, seed: int, nested: bool) -> None:
    layers = [layer(16 * count, 64 * blocks, seed + place, nested) for place, count in enumerate(tiles)]
    assert nf4.fits(layers)
    weight = nf4.tiled(layers)
    wanted = torch.cat([numbers(made) for made in layers])
    assert (weight.rows, weight.columns) == tuple(wanted.shape)
    # Scales are float16 relative to the largest of their matrix.
    assert torch.allclose(nf4.reference(weight), wanted, rtol=2e-3, atol=float(wanted.abs().max()) * 1e-6)
    # The kernel takes eight blocks at a time: those beyond the columns must count for nothing.
    assert weight.weights.shape[1] % 8 == 0
    assert not weight.scales[:, blocks:].any()


def packed(rows: int, columns: int, seed: int, bits: Any = 4) -> PackedLinear:
    generator = torch.Generator().manual_seed(seed)
    made = PackedLinear(columns, rows, False, bits)
    numbers = torch.randint(-128, 128, (rows, columns * bits // 8), dtype=torch.int8, generator=generator)
    scales = torch.rand(rows, generator=generator) * 10.0 ** (seed % 5 - 4)
    made.weight = torch.nn.Parameter(numbers, requires_grad=False)
    made.weight_scale = torch.nn.Parameter(scales.half(), requires_grad=False)
    return made


@settings(deadline=None, max_examples=25)
@given(tiles=st.lists(st.integers(1, 6), min_size=1, max_size=3), blocks=st.integers(1, 11), seed=st.integers(0, 99))
def test_packed_rows_are_the_very_same_numbers(tiles: list[int], blocks: int, seed: int) -> None:
    layers = [packed(16 * count, 64 * blocks, seed + place) for place, count in enumerate(tiles)]
    assert nf4.fits(layers)
    weight = nf4.tiled(layers)
    wanted = torch.cat([unpack_int4(made.weight, made.weight_scale, torch.float32).double() for made in layers])
    assert torch.equal(nf4.reference(weight), wanted)
    assert not weight.scales[:, blocks:].any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 60000, width=16), min_size=16, max_size=16), st.integers(0, 30))
def test_scales_of_any_magnitude_are_kept_or_the_layer_is_left(scales: list[float], smaller: int) -> None:
    made = packed(16, 64, 1)
    made.weight_scale.data = (torch.tensor(scales) / 2**smaller).half()
    wanted = unpack_int4(made.weight, made.weight_scale, torch.float32).double()
    kept = torch.equal(nf4.reference(nf4.tiled([made])), wanted)
    assert nf4.fits([made]) == kept
    assert kept or made.weight_scale.max() >= 1


def test_only_layers_of_one_kind_go_together() -> None:
    small, bits8 = packed(16, 64, 1), packed(16, 64, 1, bits=8)
    assert nf4.fits([small, packed(32, 64, 2)])
    assert not nf4.fits([small, layer(16, 64, 1)])
    assert not nf4.fits([bits8])
    assert not nf4.fits([packed(24, 64, 1)])
    assert not nf4.fits([packed(16, 96, 1)])


def test_a_row_of_zeros_has_no_scale() -> None:
    empty = packed(16, 64, 1)
    empty.weight_scale.data.zero_()
    assert not nf4.reference(nf4.tiled([empty])).any()


@pytest.mark.parametrize(("rows", "columns"), [(24, 64), (8, 128), (16, 96)])
def test_other_shapes_are_left_to_bitsandbytes(rows: int, columns: int) -> None:
    assert not nf4.fits([layer(rows, columns, 1)])
    assert not nf4.fits([torch.nn.Linear(64, 16)])
