"""What the plan says of captured steps is what the step model has."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm import gpu_step, parts, step_size
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS


def planned(name: str, gib: float, dtype: str = "bfloat16", quantization: str = "nf4", cards: int = 1) -> Plan:
    found = Checkpoint(Path(name), CONFIGS[name], TaskFacts(), "bin", (), (), 0)
    devices = tuple(Device(f"cuda:{place}", int(gib * GIB), "H200") for place in range(cards))
    return plan(found, dtype=dtype, quantization=quantization, context=2048, devices=devices, users=1)


def test_the_same_numbers_twice() -> None:
    assert step_size._CHUNK == gpu_step.CHUNK
    assert parts._ARCHITECTURES | {"chatglm2"} == step_size._FAMILIES


@pytest.mark.parametrize(
    ("name", "dtype", "quantization", "fast"),
    [
        ("llama-33b", "bfloat16", "nf4", True),
        ("chatglm2-6b", "float16", "none", True),
        ("llama-7b", "bfloat16", "int8", False),
        ("llama-7b", "float32", "none", False),
        ("chatglm-6b", "float16", "nf4", False),
    ],
)
def test_captured_steps_are_fast(name: str, dtype: str, quantization: str, fast: bool) -> None:
    speed = planned(name, 139, dtype, quantization).speed
    assert speed is not None
    assert (speed.first > 100) is fast


@given(st.floats(17, 30))
def test_a_small_card_is_not_promised_what_it_has_no_room_for(gib: float) -> None:
    found = planned("llama-33b", gib)
    assert found.verdict == "too_large" or found.rows[0].total <= gib * GIB
