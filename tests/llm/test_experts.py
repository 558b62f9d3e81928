"""Experts that stay apart: the same numbers as joined ones, in every quantization, and counted as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm.loader import Prepared, load, prepare
from dbgpt_lite.llm.quantized_copy import quantize_copy
from tests.llm.mixtures import (
    FLOATS,
    MIXTURES,
    apart_but_whole,
    held_bytes,
    loaded,
    make_mixture,
    options,
)
from tests.llm.test_filler import logits


@pytest.mark.parametrize("model_type", MIXTURES)
def test_separate_experts_compute_what_joined_ones_do(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tmp_path / model_type
    make_mixture(folder, model_type)
    ids = torch.tensor([[5, 9, 301, 44, 7, 12, 90]])
    model = apart_but_whole(folder)
    assert any(".experts.3.down_proj." in name for name, _ in model.named_parameters())
    assert not any(value.dim() == 3 and "expert" in name for name, value in model.named_parameters())
    joined = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        got, wanted = model(input_ids=ids).logits, joined(input_ids=ids).logits
    assert wanted.std() > 1e-3
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"])
def test_experts_are_quantized_and_the_plan_knows(
    model_type: str, quantization: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the first token bitsandbytes rearranges, on a CPU, what it holds.
    monkeypatch.setattr(Prepared, "_try", lambda *_: None)
    folder = tmp_path / model_type
    make_mixture(folder, model_type)
    ready = prepare(folder, options(quantization))
    assert ready.place.unquantized == 0
    model = ready.load()._runner._model
    held = sum(held_bytes(value) for _, value in model.named_parameters())
    assert ready.place.need.weights == pytest.approx(held, rel=0.01)
    assert held < 0.75 * prepare(folder, options("none")).place.need.weights
    assert prepare(folder, options("none")).fit is None


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
def test_quantized_experts_stay_near_whole_ones(quantization: Any, tmp_path: Path) -> None:
    folder = tmp_path / "qwen"
    make_mixture(folder, "qwen3_moe")
    states, picked = torch.randn(5, 64), torch.tensor([[0, 1], [3, 2], [1, 3], [0, 2], [2, 1]])
    shares = torch.tensor([0.75, 0.25]).expand(5, 2)
    whole, quantized = (
        model.model.layers[1].mlp.experts(states.to(dtype), picked, shares.to(dtype)).float()
        for model, dtype in ((apart_but_whole(folder), torch.float32), (loaded(folder, quantization), torch.bfloat16))
    )
    error = float((whole - quantized).norm() / whole.norm())
    assert 1e-4 < error < {"int8": 0.03, "nf4": 0.2, "int4": 0.3}[quantization]


@pytest.mark.parametrize("model_type", MIXTURES)
def test_every_mixture_runs_quantized_and_keeps_wide_what_transformers_does(model_type: str, tmp_path: Path) -> None:
    """The biases by which experts are picked are no more the same in 16 bits."""
    from transformers import AutoModelForCausalLM

    folder, copy = tmp_path / "mixture", tmp_path / "copy"
    make_mixture(folder, model_type)
    others = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    types = {name: value.dtype for name, value in others.state_dict().items()}
    for quantization in ("int8", "nf4", "int4"):
        model = loaded(folder, quantization)
        found = {name: value.dtype for name, value in model.state_dict().items() if value.dtype in FLOATS}
        shared = set(found) & set(types)
        assert {name: found[name] for name in shared} == {name: types[name] for name in shared}
        assert logits(model).isfinite().all()
    quantize_copy(folder, copy, "int4")
    again = loaded(copy, "none")
    assert {name: value.dtype for name, value in again.state_dict().items()} == {
        name: value.dtype for name, value in model.state_dict().items()
    }
    assert torch.equal(logits(again), logits(model))


def test_a_mixture_answers(tmp_path: Path) -> None:
    """From the files to words, through the engine."""
    import threading

    from dbgpt_lite.messages import Message, Prompt, Sampling

    folder = tmp_path / "mixture"
    make_mixture(folder, "qwen3_moe")
    engine = load(folder, replace(options("nf4"), chat_format="chatml"))
    try:
        prompt = Prompt("chat", (Message("user", "hi"),), "hi")
        seen = list(engine.stream(prompt, Sampling(max_tokens=4, temperature=0.0), threading.Event()))
    finally:
        engine.close()
    assert seen


@given(data=st.data())
def test_every_token_gets_the_weighted_sum_of_its_experts(data: Any) -> None:
    """Against the sum written out token by token; a number beyond the last expert adds nothing."""
    from dbgpt_lite.llm.experts import Expert, SeparateExperts

    tokens, k, count = data.draw(st.integers(0, 6)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    numbers = st.lists(st.integers(0, count), min_size=tokens * k, max_size=tokens * k)
    picked = torch.tensor(data.draw(numbers), dtype=torch.long).reshape(tokens, k)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    experts = SeparateExperts(Expert(8, 12, torch.nn.SiLU()) for _ in range(count)).double()
    states, shares = torch.randn(tokens, 8, dtype=torch.double), torch.rand(tokens, k, dtype=torch.double)
    with torch.no_grad():
        wanted = torch.zeros_like(states)
        for token in range(tokens):
            for place in range(k):
                if (at := int(picked[token, place])) < count:
                    wanted[token] += shares[token, place] * experts[at](states[token : token + 1])[0]
        torch.testing.assert_close(experts(states, picked, shares), wanted)
