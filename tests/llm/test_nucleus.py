"""The shortcut through the likeliest tokens draws what sorting the whole vocabulary draws."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm import decoding
from dbgpt_lite.llm.decoding import invert


@given(
    size=st.sampled_from((1, 7, 512, 3000)),
    sharpness=st.floats(0.01, 6),
    top_p=st.floats(0.001, 1.0),
    seed=st.integers(0, 99),
)
def test_it_is_the_whole_vocabulary_sorted_and_cut(size: int, sharpness: float, top_p: float, seed: int) -> None:
    torch.manual_seed(seed)
    logits = (torch.randn(size) * sharpness)[None].repeat(20, 1)
    uniform, ones = torch.rand(20), torch.ones(20)
    usual, decoding._LIKELY = decoding._LIKELY, size
    try:
        whole = invert(logits, ones, ones * top_p, uniform)
    finally:
        decoding._LIKELY = usual
    # At the very edge a sum in another order may decide about one token more or less.
    assert int((invert(logits, ones, ones * top_p, uniform) != whole).sum()) <= 1
