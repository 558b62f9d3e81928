"""Packed 4-bit weights, and what is asked of bitsandbytes."""

import importlib.util
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.quantize import bitsandbytes_config, expand_int4
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


def test_expand_leaves_other_tensors() -> None:
    import torch

    stored = {
        "a.weight": torch.zeros(2, 2, dtype=torch.int8),
        "a.weight_scale": torch.ones(2, dtype=torch.float16),
        "norm.weight": torch.ones(3, dtype=torch.bfloat16),
    }
    weights = expand_int4(stored, torch.float32)
    assert {name: (tuple(t.shape), t.dtype) for name, t in weights.items()} == {
        "a.weight": ((2, 4), torch.float32),
        "norm.weight": ((3,), torch.float32),
    }


def test_scales_that_do_not_fit_are_named() -> None:
    import torch

    stored = {"a.weight": torch.zeros(2, 2, dtype=torch.int8), "a.weight_scale": torch.ones(3)}
    with pytest.raises(ModelError, match=r"a\.weight"):
        expand_int4(stored, torch.float32)


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
