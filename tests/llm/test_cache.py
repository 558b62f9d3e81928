"""The cache that grows in place: same numbers as transformers' own, and never more room than the window."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionLayer

from dbgpt_lite.llm.cache import ROOM, GrowingLayer, rooms

STEPS = st.lists(st.integers(1, 300), min_size=1, max_size=6)


@given(steps=STEPS, spare=st.integers(0, 900))
def test_it_holds_what_transformers_holds_within_the_window(steps: list[int], spare: int) -> None:
    window = sum(steps) + spare
    own, plain = GrowingLayer(window), DynamicLayer()
    for step in steps:
        keys, values = torch.randn(1, 2, step, 3), torch.randn(1, 2, step, 3)
        for mine, theirs in zip(own.update(keys, values), plain.update(keys, values), strict=True):
            assert torch.equal(mine, theirs)
        room = own.keys.untyped_storage().nbytes() // (2 * 3 * 4)
        assert room <= max(ROOM, window)
        assert room <= window


@given(steps=STEPS)
def test_without_a_window_it_grows_by_a_quarter(steps: list[int]) -> None:
    layer, rooms = GrowingLayer(), [0]
    for step in steps:
        layer.update(torch.randn(1, 1, step, 1), torch.randn(1, 1, step, 1))
        rooms.append(layer.keys.untyped_storage().nbytes() // 4)
        assert rooms[-1] <= layer.get_seq_length() + max(ROOM, layer.get_seq_length() // 4) or rooms[-1] == rooms[-2]
    assert all(before <= after for before, after in pairwise(rooms))


def test_on_a_gpu_the_window_is_taken_at_once_but_not_for_beams() -> None:
    layer = GrowingLayer(8192)
    assert layer._length(100, 1, on_gpu=True) == 8192
    assert layer._length(100, 1, on_gpu=False) == 100 + ROOM
    assert layer._length(100, 4, on_gpu=True) == 100 + ROOM
    assert layer._length(9000, 1, on_gpu=True) > 9000
    assert GrowingLayer()._length(100, 1, on_gpu=True) == 100 + ROOM


def test_every_kind_of_layer_counts_with_all_its_room() -> None:
    keys = torch.randn(1, 2, 3, 4)
    growing, plain, states, unused = GrowingLayer(), DynamicLayer(), LinearAttentionLayer(), GrowingLayer()
    growing.update(keys, keys)
    plain.update(keys, keys.clone())
    states.update_conv_state(torch.randn(1, 5, 3))
    cache = DynamicCache()
    cache.layers = [growing, plain, states, unused]
    kept = next(iter(states.conv_states.values()))
    expected = 2 * growing._key_room.nbytes + 2 * keys.nbytes + kept.nbytes
    found = {start: size for start, device, size in rooms(cache) if device == "cpu"}
    assert sum(found.values()) == expected
    assert growing._key_room.nbytes > keys.nbytes
