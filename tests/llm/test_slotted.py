"""The slotted step model against transformers' modules: every architecture, ragged rows, used and dirty slots."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm.parts import take_apart
from dbgpt_lite.llm.slotted import PlainStepModel
from tests.llm.tiny_families import config_json

SLOTS, WINDOW, VOCABULARY = 4, 40, 512
# GLM turns half of a head, and pairs of neighbours; Qwen 3 normalizes heads; the last two stretch their positions.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {},
    "glm": {},
    "mixtral": {},
    "qwen2_moe": {"use_sliding_window": False},
    "qwen3_moe": {"mlp_only_layers": [1]},
    "llama with biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama with yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 96,
        }
    },
}


@cache
def model_of(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    config = {**config_json(kind.split()[0]), **KINDS[kind], "initializer_range": 0.3}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif parameter.dim() == 3:
                parameter.normal_(0, 0.3)
    return model


def truth(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


@st.composite
def plays(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, str]]]:
    """A seed, a chunk, and moves of slots: read anew, go on together with others, or take over another's beginning."""
    moves = st.tuples(st.integers(0, SLOTS - 1), st.sampled_from(("read", "step", "step", "copy")))
    return draw(st.integers(0, 999)), draw(st.integers(1, 16)), draw(st.lists(moves, min_size=1, max_size=8))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(plays())
def test_logits_equal_the_modules(kind: str, play: tuple[int, int, list[tuple[int, str]]]) -> None:
    seed, chunk, moves = play
    model = model_of(kind)
    parts = take_apart(model)
    assert parts is not None
    slotted = PlainStepModel(parts, SLOTS, WINDOW, chunk)
    slotted._keys.fill_(1e4)
    slotted._values.fill_(-1e4)
    draw = torch.Generator().manual_seed(seed)

    def some(count: int) -> list[int]:
        return torch.randint(VOCABULARY, (count,), generator=draw).tolist()

    held: dict[int, list[int]] = {}
    for slot, move in moves:
        if move == "read" or not held:
            fresh = some(int(torch.randint(1, 25, (1,), generator=draw)))
            for start in range(0, len(fresh), chunk):
                logits = slotted.read(slot, start, fresh[start : start + chunk])
            held[slot] = fresh
            torch.testing.assert_close(logits, truth(model, fresh), atol=2e-4, rtol=1e-4)
        elif move == "step":
            # In an order of their own, without one of them where there are several.
            rows = [row for row in sorted(held, reverse=bool(seed % 2)) if row != slot or len(held) == 1]
            tokens = some(len(rows))
            logits = slotted.step(rows, [len(held[row]) for row in rows], tokens)
            for row, token, got in zip(rows, tokens, logits, strict=True):
                held[row].append(token)
                torch.testing.assert_close(got, truth(model, held[row]), atol=2e-4, rtol=1e-4)
        else:
            source = next(iter(held))
            kept = held[source][: len(held[source]) // 2]
            slotted.copy(source, slot, 0, len(kept))
            held[slot] = [*kept, *some(3)]
            for place in range(len(kept), len(held[slot])):
                logits = slotted.read(slot, place, held[slot][place : place + 1])
            torch.testing.assert_close(logits, truth(model, held[slot]), atol=2e-4, rtol=1e-4)


def test_memory_is_counted_once_and_given_back() -> None:
    model = model_of("llama with biases")
    parts = take_apart(model)
    assert parts is not None
    slotted = PlainStepModel(parts, 2, 8)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    cache_bytes = 2 * 2 * 8 * parts.kv_heads * parts.head_dim * 4 * len(parts.layers)
    assert slotted.memory() == {"cpu": weights + cache_bytes}
