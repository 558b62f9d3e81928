"""The shortcut through the likeliest tokens keeps what sorting the whole vocabulary keeps."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm.decoding import nucleus


@given(
    size=st.sampled_from((1, 7, 512, 3000)),
    sharpness=st.floats(0.01, 6),
    top_p=st.floats(0.001, 1.0),
    seed=st.integers(0, 99),
)
def test_it_is_the_whole_vocabulary_sorted_and_cut(size: int, sharpness: float, top_p: float, seed: int) -> None:
    torch.manual_seed(seed)
    probabilities = (torch.randn(size) * sharpness).softmax(-1)
    ordered, order = probabilities.sort(descending=True)
    kept = ordered.cumsum(-1) - ordered < top_p
    kept[0] = True
    expected = torch.zeros(size)
    expected[order[kept]] = ordered[kept]
    weights, tokens = nucleus(probabilities, top_p)
    found = torch.zeros(size)
    found[tokens] = weights
    # At the very edge a sum in another order may decide about one token more or less.
    assert int((found != expected).sum()) <= 1
    assert float(weights.sum()) >= min(top_p, 1.0) - 1e-5 or size == 1
