"""What the plan says of captured steps is what the step model has."""

from math import prod
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.llm import parts, step_size
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.kernels import decode, nf4
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.speed import hypothetical
from dbgpt_lite.llm.step_shape import covered, furthest, join_size, piece_sizes, room_shape, row_sizes, together
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS


def planned(name: str, gib: float, dtype: str = "bfloat16", quantization: str = "nf4", **facts: Any) -> Plan:
    devices = (Device("cuda:0", int(gib * GIB), "H200", **facts), Device("cpu", 64 * GIB))
    return planned_on(name, devices, dtype=dtype, quantization=quantization)


def planned_on(name: str, devices: tuple[Device, ...], strategy: str = "auto", **facts: Any) -> Plan:
    found = Checkpoint(Path(name), CONFIGS[name] | facts.pop("config", {}), TaskFacts(), "bin", (), (), 0)
    asked: dict[str, Any] = {"dtype": "bfloat16", "quantization": "nf4", "context": 2048, "users": 1} | facts
    return plan(found, devices=devices, strategy=strategy, **asked)


def test_the_same_numbers_twice() -> None:
    assert set(step_size._ROPES) == {None} | parts._FIXED_ROPE
    assert (step_size._OLDEST, step_size._WIDEST) == (decode._OLDEST, decode._WIDEST_NORM)
    assert (step_size._BLOCK, step_size._TILE) == (nf4.BLOCK, nf4.ROWS)
    assert parts._ARCHITECTURES | {"chatglm2"} == step_size._FAMILIES


@pytest.mark.parametrize(
    ("name", "dtype", "quantization", "fast"),
    [
        ("llama-33b", "bfloat16", "nf4", True),
        ("chatglm2-6b", "float16", "none", True),
        ("chatglm2-6b", "float16", "int4", True),
        ("llama-7b", "bfloat16", "int8", False),
        ("llama-7b", "float32", "none", False),
        ("chatglm-6b", "float16", "nf4", False),
    ],
)
def test_captured_steps_are_fast(name: str, dtype: str, quantization: str, fast: bool) -> None:
    speed = planned(name, 139, dtype, quantization).speed
    assert speed is not None
    assert (speed.first > 100) is fast


def test_an_old_card_is_promised_less() -> None:
    cards = (hypothetical(name, 0) for name in ("RTX 4090", "V100-SXM2-16GB"))
    new, old = (planned_on("llama-7b", (one,), dtype="float16").speed for one in cards)
    assert new is not None
    assert old is not None
    # Bandwidths are nearly alike, 1,008 and 900 GB/s.
    assert new.first > 1.5 * old.first


@pytest.mark.parametrize(("capability", "stepped"), [((7, 5), False), ((8, 9), True), ((0, 0), False), (None, True)])
def test_a_card_that_is_there_says_what_it_can(capability: tuple[int, int] | None, stepped: bool) -> None:
    assert planned("llama-7b", 15, capability=capability).stepped is stepped


FP4 = {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}}


@pytest.mark.parametrize(
    ("config", "quantization", "stepped"),
    [
        ({"mlp_bias": True}, "nf4", False),
        ({"mlp_bias": True}, "none", True),
        ({"attention_bias": True}, "nf4", True),
        (FP4, "none", False),
        (FP4 | {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, "none", True),
        ({"intermediate_size": 11016}, "nf4", False),
        ({"intermediate_size": 11016}, "none", True),
        ({"hidden_size": 4100, "head_dim": 128}, "none", False),
        ({"head_dim": 96}, "none", False),
    ],
)
def test_what_the_kernels_do_not_know_is_planned_without(
    config: dict[str, Any], quantization: str, stepped: bool
) -> None:
    device = Device("cuda:0", 80 * GIB, "H100")
    assert planned_on("llama-7b", (device,), quantization=quantization, config=config).stepped is stepped


@pytest.mark.parametrize(
    ("name", "gib", "config", "stepped", "window"),
    [
        ("llama-13b", 11.6, {"max_position_embeddings": 4096}, True, (2048, 4095)),
        ("chatglm2-6b", 6, {}, True, (12288, 24575)),
        ("chatglm2-6b", 5.6, {}, False, (8192, 32767)),
        ("llama-13b", 12.6, {"max_position_embeddings": 4096}, True, (4096, 4096)),
    ],
)
def test_some_of_a_window_is_given_up_for_speed(
    name: str, gib: float, config: dict[str, Any], stepped: bool, window: tuple[int, int]
) -> None:
    device = Device("cuda:0", int(gib * GIB), "RTX 4070")
    found = planned_on(name, (device,), dtype="float16", context=0, config=config)
    assert found.stepped is stepped
    assert window[0] <= found.need.context <= window[1]
    longer = planned_on(name, (device,), dtype="float16", context=found.need.context + 256, config=config)
    assert not longer.stepped or found.need.context == window[1]


def test_a_window_that_is_set_stays_and_the_fast_one_is_named() -> None:
    device, config = Device("cuda:0", int(11.6 * GIB), "RTX 4070"), {"max_position_embeddings": 4096}
    long = planned_on("llama-13b", (device,), context=4096, config=config)
    assert (long.verdict, long.stepped, long.need.context) == ("fits", False, 4096)
    fast = planned_on("llama-13b", (device,), context=long.fast_window, config=config)
    assert (fast.stepped, fast.fast_window, fast.notes) == (True, 0, ())
    assert [f"LLM_CONTEXT={long.fast_window}." in note.render("en") for note in long.notes] == [True]


def test_a_process_loads_libraries_once() -> None:
    """What they took is gone from what is free: the second plan is the first."""
    first = planned("llama-13b", 15, started=True)
    again = planned("llama-13b", 15 - step_size.LIBRARIES / GIB, started=True, warm=True)
    assert first.need.total - again.need.total == step_size.LIBRARIES
    least = first.need.total / GIB
    assert planned("llama-13b", least, started=True).stepped
    assert planned("llama-13b", least - step_size.LIBRARIES / GIB, started=True, warm=True).stepped
    assert not planned("llama-13b", least - step_size.LIBRARIES / GIB, started=True).stepped


def test_a_card_too_small_for_the_steps_offloads() -> None:
    """Where weights and cache alone would just fit."""
    large = planned("llama-13b", 139, quantization="none")
    row = large.rows[0]
    small = planned("llama-13b", (row.total - row.working // 2) / GIB, quantization="none")
    assert small.verdict != "fits"
    assert (large.stepped, small.stepped) == (True, False)


def card(place: int, gib: float, name: str = "RTX 4090") -> Device:
    return Device(f"cuda:{place}", int(gib * GIB), name)


@pytest.mark.parametrize(
    ("strategy", "sizes", "where"),
    [
        ("auto", (24, 24), {"cuda:0"}),
        ("auto", (8, 24), {"cuda:1"}),
        ("sequential", (24, 24), {"cuda:0"}),
        ("sequential", (4, 24), set()),
        ("balanced", (24, 24), set()),
        ("cuda:1", (24, 24), {"cuda:1"}),
        ('{"": 1}', (24, 24), {"cuda:1"}),
        # Each has room for half of it.
        ("auto", (5, 5), set()),
    ],
)
def test_one_of_two_cards_computes_it_all_where_it_has_room(
    strategy: str, sizes: tuple[float, float], where: set[str]
) -> None:
    cards = tuple(card(place, size) for place, size in enumerate(sizes))
    devices = (*cards, Device("cpu", 64 * GIB))
    found = planned_on("llama-7b", devices, strategy)
    assert found.verdict == "fits"
    assert found.stepped is bool(where)
    if where:
        assert set(found.device_map.values()) == where
        assert found.speed == planned_on("llama-7b", (devices[int(max(where)[-1])], devices[-1])).speed


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"), [(32, 2, 128), (52, 52, 128), (28, 4, 128), (32, 8, 64), (8, 1, 256)]
)
@pytest.mark.parametrize("window", [40, 1024, 2048, 32768, 131072])
@pytest.mark.parametrize("slots", [1, 3, 64])
def test_every_step_has_room_to_join_its_parts(heads: int, kv_heads: int, dim: int, window: int, slots: int) -> None:
    room, groups = join_size(heads, kv_heads, dim, window, slots, 64), heads // together(heads // kv_heads, dim)
    steps = [(rows, longest) for rows in row_sizes(slots) for longest in covered(window)]
    for rows in piece_sizes(64):
        far = min(window, furthest(rows, groups, dim))
        # As gpu_step chooses it.
        steps.append((rows, next(size for size in covered(window) if size >= far)))
    for rows, longest in steps:
        assert prod(room_shape(rows, heads, groups, dim, min(longest, window))[0]) <= room
    # A long window does not make room for what is never read so.
    assert slots > 1 or 4 * room <= 40 * 2**20 + 4 * prod(room_shape(1, heads, groups, dim, window)[0])
