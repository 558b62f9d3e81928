"""How many slots a model gets: never more than fit; as many as were asked for, or some where room is left."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm.batch_room import slot_count, spare_bytes, wide_room
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.engine import LocalEngine
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.stepping import step_model
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS


def planned(name: str, size: float, users: int, context: int = 2048) -> Plan:
    found = Checkpoint(Path(name), CONFIGS[name], TaskFacts(), "bin", (), (), 0)
    device = Device("cuda:0", int(size * GIB), "NVIDIA GeForce RTX 3090")
    return plan(found, dtype="float16", quantization="nf4", context=context, devices=(device,), users=users)


@given(
    st.sampled_from(["llama-7b", "llama-33b", "chatglm2-6b"]), st.floats(24, 140), st.integers(1, 12), st.floats(0, 1)
)
def test_slots_fit_beside_all_else(name: str, size: float, users: int, share: float) -> None:
    place = planned(name, size, users)
    row = place.rows[0]
    free = int((row.device.free - row.weights - row.overhead) * share)
    one = row.cache // users
    for wanted in (0, users):
        count = slot_count(place, "cuda:0", free, wanted)
        assert 1 <= count <= (wanted or 8)
        assert count == 1 or count * one + row.working + spare_bytes(place, "cuda:0", free, count) <= free
        if place.fits and share == 1 and wanted:
            assert count == wanted
        spare = spare_bytes(place, "cuda:0", free, count)
        usual = wide_room(place, "cuda:0", free, count, None)
        assert usual == max(0, spare - max(row.device.free // 8, 3 * GIB))
        assert wide_room(place, "cuda:0", free, count, 0) == 0
        assert wide_room(place, "cuda:0", free, count, spare + 1) == spare
        assert wide_room(place, "cuda:1", free, count, spare) == 0


@pytest.mark.parametrize(
    ("name", "size", "users", "count"),
    # A 33B model's window takes 3 GiB: all eight on a large GPU, what is half left over on a smaller one.
    [("llama-33b", 139, 0, 8), ("llama-33b", 139, 16, 16), ("llama-33b", 32, 0, 2), ("chatglm2-6b", 24, 0, 8)],
)
def test_known_cases(name: str, size: float, users: int, count: int) -> None:
    assert slot_count(planned(name, size, max(1, users)), "cuda:0", int(size * GIB), users) == count


def test_a_large_gpu_keeps_all_of_a_33b_model_wider() -> None:
    place = planned("llama-33b", 139, 1)
    drawn = outline(Checkpoint(Path("llama-33b"), CONFIGS["llama-33b"], TaskFacts(), "bin", (), (), 0))
    numbers = sum(one.count for one in drawn.parameters if one.kind == "linear")
    free = int(139 * GIB) - place.rows[0].weights
    assert wide_room(place, "cuda:0", free, 8, None) > 2 * numbers
    # A card that it only just fits on spares nothing, a small one leaves room for an embedder.
    assert wide_room(planned("llama-33b", 24, 1), "cuda:0", 4 * GIB, 1, None) == 0
    small = planned("llama-7b", 8, 1)
    assert wide_room(small, "cuda:0", 8 * GIB - small.rows[0].weights, 1, None) == 0


def test_a_model_elsewhere_has_one(tiny: Path) -> None:
    assert slot_count(planned("llama-7b", 24, 4), "cuda:1", GIB) == 1
    engine = load(tiny, LoadOptions(device_map="cpu"))
    assert isinstance(engine, LocalEngine)
    assert step_model(engine._runner._model, planned("llama-7b", 24, 4), 0, 0) is None
