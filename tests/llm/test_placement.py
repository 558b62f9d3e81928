"""Strategies over blocks of random sizes, and beside accelerate's own."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.placement import STRATEGIES, Block, Placement, Rooms, even, fill, place

SIZES = st.integers(0, 40)
BLOCKS = st.lists(
    st.builds(lambda weights, cache, working: Block((), weights, cache, working), SIZES, SIZES, SIZES), max_size=14
)
ROOMS = st.builds(
    Rooms,
    st.lists(st.integers(0, 400), min_size=1, max_size=4).map(tuple),
    st.lists(st.integers(0, 400), max_size=2).map(tuple),
)


def held(blocks: list[Block], rooms: Rooms, found: Placement) -> list[int]:
    """Bytes on every device, with the largest block that is streamed in."""
    count = len(rooms.compute)
    loads = [0] * (count + len(rooms.keep))
    for block, device in zip(blocks, found.places, strict=True):
        loads[device] += block.size if device < count else block.weights
        if device >= count:
            loads[0] += block.beside
    away = [block.weights for block, device in zip(blocks, found.places, strict=True) if device >= count]
    loads[0] += max(away, default=0)
    return loads


@given(BLOCKS, ROOMS, st.sampled_from(STRATEGIES))
@settings(max_examples=400, deadline=None)
def test_every_block_has_one_device_and_none_is_too_full(blocks: list[Block], rooms: Rooms, strategy: str) -> None:
    found = place(blocks, rooms, strategy)
    if found is None:
        assert fill([block.size for block in blocks], rooms.compute) is None
        return
    assert len(found.places) == len(blocks)
    assert all(
        load <= room for load, room in zip(held(blocks, rooms, found), (*rooms.compute, *rooms.keep), strict=True)
    )
    assert list(found.places) == sorted(found.places)
    assert found.offloads == any(device >= len(rooms.compute) for device in found.places)
    # Nothing is offloaded that could have stayed.
    assert found.offloads == (fill([block.size for block in blocks], rooms.compute) is None)


def every_way(sizes: list[int], rooms: list[int]) -> list[list[int]]:
    """All loads that whole blocks in order can give."""
    if not rooms:
        return [] if sizes else [[]]
    found = []
    for count in range(len(sizes) + 1):
        if sum(sizes[:count]) <= rooms[0]:
            found += [[sum(sizes[:count]), *rest] for rest in every_way(sizes[count:], rooms[1:])]
    return found


def loads_of(sizes: list[int], places: list[int], count: int) -> list[int]:
    return [sum(size for size, place_ in zip(sizes, places, strict=True) if place_ == room) for room in range(count)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_even_loads_differ_by_one_block_at_most(sizes: list[int], count: int) -> None:
    found = even(sizes, [10**6] * count)
    assert found is not None
    loads = loads_of(sizes, found, count)
    assert max(loads) - min(loads) <= max(sizes)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.lists(st.integers(0, 90), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_even_fits_whenever_anything_does(sizes: list[int], rooms: list[int]) -> None:
    found, ways = even(sizes, rooms), every_way(sizes, rooms)
    assert (found is None) == (not ways)
    if found is not None:
        loads = loads_of(sizes, found, len(rooms))
        least = min(max(way) for way in ways)
        assert max(loads) - min(loads) <= max(sizes) or max(loads) == least


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.lists(st.integers(0, 90), min_size=2, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_first_gpu_takes_only_what_the_others_cannot(sizes: list[int], rooms: list[int]) -> None:
    blocks = [Block((), size) for size in sizes]
    found = place(blocks, Rooms(tuple(rooms)), "balanced_low_0")
    if found is None:
        return
    kept = found.places.count(0)
    if kept:
        assert fill(sizes[kept - 1 :], rooms[1:]) is None


def test_strategies_by_example() -> None:
    blocks = [Block((), 10)] * 8
    assert place(blocks, Rooms((60, 60)), "sequential") == Placement((0,) * 6 + (1,) * 2)
    assert place(blocks, Rooms((60, 60)), "balanced") == Placement((0,) * 4 + (1,) * 4)
    assert place(blocks, Rooms((60, 60)), "auto") == Placement((0,) * 4 + (1,) * 4)
    assert place(blocks, Rooms((60, 60)), "balanced_low_0") == Placement((0,) * 2 + (1,) * 6)


def test_auto_takes_one_gpu_where_everything_fits() -> None:
    blocks = [Block((f"layer.{n}",), 10) for n in range(4)]
    assert place(blocks, Rooms((39, 45, 40)), "auto") == Placement((1, 1, 1, 1))
    assert place(blocks, Rooms((39, 39)), "auto") == place(blocks, Rooms((39, 39)), "balanced")


def test_what_is_kept_elsewhere_is_streamed_through_the_first() -> None:
    """Two of five stay: 2 x 12 and 10 to stream in, 3 x 2 of cache for those kept elsewhere; then memory, then disk."""
    blocks = [Block((), 10, cache=2)] * 5
    assert place(blocks, Rooms((40,), (20, 1000)), "auto") == Placement((0, 0, 1, 1, 2), offloads=True)
    assert place(blocks, Rooms((39,), (20, 1000)), "auto") == Placement((0, 1, 1, 2, 2), offloads=True)
    assert place(blocks, Rooms((19,), (20, 1000)), "auto") is None


@pytest.mark.parametrize("limit", [200_000, 340_000, 450_000])
def test_sequential_is_what_accelerate_does(tiny: Any, limit: int) -> None:
    """accelerate always keeps its largest layer's room free on the first device, so it is given that much more."""
    from accelerate import infer_auto_device_map
    from transformers import AutoModelForCausalLM

    blocks = [
        Block(block.names, block.weights) for block in outline(read_checkpoint(tiny)).blocks("float32", "none", 1, 1)
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    memory = {0: limit + max(block.weights for block in blocks), 1: 10**9}
    wanted = infer_auto_device_map(model, memory, no_split_module_classes=["LlamaDecoderLayer"], clean_result=False)
    found = place(blocks, Rooms((limit, 10**9)), "sequential")
    assert found is not None
    ours = {name: device for block, device in zip(blocks, found.places, strict=True) for name in block.names}
    assert set(ours.values()) == {0, 1}
    assert ours == {name: wanted[name] for name in ours}


def test_balanced_is_no_less_even_than_accelerate(tiny: Any) -> None:
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory
    from transformers import AutoModelForCausalLM

    blocks = [
        Block(block.names, block.weights) for block in outline(read_checkpoint(tiny)).blocks("float32", "none", 1, 1)
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    whole = ["LlamaDecoderLayer"]
    memory = get_balanced_memory(model, {0: 10**9, 1: 10**9, 2: 10**9}, no_split_module_classes=whole)
    theirs = infer_auto_device_map(model, memory, no_split_module_classes=whole, clean_result=False)
    found = place(blocks, Rooms((10**9,) * 3), "balanced")
    assert found is not None
    sizes = [block.weights for block in blocks]
    ours = loads_of(sizes, list(found.places), 3)
    other = loads_of(sizes, [theirs[block.names[0]] for block in blocks], 3)
    assert max(ours) - min(ours) <= max(other) - min(other)
