"""What is kept of earlier prompts: the longest beginning is found, nothing of it changes, and the limit holds."""

import threading
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from dbgpt_lite.llm.cache import ROOM, GrowingLayer, rooms
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.prefixes import Prefixes, common_prefix
from dbgpt_lite.messages import Message, Sampling
from tests.llm.tiny_models import answer_of, ask

TOKENS = st.lists(st.integers(0, 2), max_size=60)
GREEDY = Sampling(temperature=0, max_tokens=12)


@given(left=TOKENS, right=TOKENS, shared=TOKENS)
def test_common_prefix(left: list[int], right: list[int], shared: list[int]) -> None:
    one, other = shared + left, tuple(shared + right)
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    assert common_prefix(one, other) == common_prefix(other, one) == count


def empty() -> Any:
    cache = DynamicCache()
    cache.layers = [GrowingLayer(), GrowingLayer()]
    return cache


def held_bytes(cache: Any) -> int:
    return sum({start: size for start, _, size in rooms(cache)}.values())


def read(kept: Prefixes, ids: list[int]) -> int:
    """Resume, and let the states of a token be its own number times its place."""
    same = kept.resume(ids)
    new = torch.tensor([token * (place + 1.0) for place, token in enumerate(ids)][same:])
    for layer in kept.current.cache.layers:
        layer.update(new[None, None, :, None], -new[None, None, :, None])
    kept.current.tokens += ids[same:]
    return same


PARTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 150)), min_size=1, max_size=4)


@settings(deadline=None)
@given(prompts=st.lists(PARTS, min_size=1, max_size=12), limit=st.sampled_from((0, 9000, 40_000, 10**9)))
def test_any_order_of_prompts(prompts: list[list[tuple[int, int]]], limit: int) -> None:
    kept, seen = Prefixes(empty, limit), []
    for parts in prompts:
        ids = [token for token, count in parts for _ in range(count)]
        same = read(kept, ids)
        assert kept.current.tokens == ids
        expected = torch.tensor([token * (place + 1.0) for place, token in enumerate(ids)])
        for layer in kept.current.cache.layers:
            assert torch.equal(layer.keys[0, 0, :, 0], expected)
            assert torch.equal(layer.values[0, 0, :, 0], -expected)
        aside = [cache for cache in kept.caches if cache is not kept.current.cache]
        assert sum(held_bytes(cache) for cache in aside) <= limit
        # No less than the last prompt offers, which is held whole, and no more than any did.
        offered = [min(common_prefix(ids, other), len(ids) - 1) for other in seen] or [0]
        assert offered[-1] <= same <= max(offered)
        seen.append(ids)


def test_the_oldest_goes_first() -> None:
    one = 2 * 2 * 4 * (200 + ROOM)  # layers, keys and values, float32
    kept = Prefixes(empty, 2 * one)
    for token in (1, 2, 3):
        read(kept, [token] * 200)
    read(kept, [1] * 201)
    read(kept, [4] * 200)
    assert read(kept, [2] * 200) == 0
    assert read(kept, [1] * 201) == 200


def test_a_schema_is_read_once_for_all_users(tiny: Path, never: threading.Event) -> None:
    used, fresh = (load(tiny, LoadOptions(dtype="float32", device_map="cpu")) for _ in range(2))
    schema = Message("system", "CREATE TABLE readers (name TEXT, town TEXT); " * 5)
    for turn in range(2):
        for user in range(4):
            prompt = ask(
                f"{user} asks", schema, *([Message("user", f"{user} asks"), Message("assistant", "x" * 80)] * turn)
            )
            fresh._runner.forget()
            text, usage = answer_of(used.stream(prompt, GREEDY, never))
            assert text == answer_of(fresh.stream(prompt, GREEDY, never))[0]
            known = used.count([schema]) - 10
            assert usage.cached_tokens > known or turn == user == 0


def test_a_stop_leaves_nothing_half_read(tiny: Path, never: threading.Event) -> None:
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu"))
    questions = ["fox " * 70, "dog " * 70, "fox " * 40 + "sun " * 30]
    expected = [answer_of(engine.stream(ask(question), GREEDY, never))[0] for question in questions]
    for question in questions:
        cancel = threading.Event()
        stream = engine.stream(ask(question), Sampling(0, 1, 200), cancel)
        next(stream)
        cancel.set()
        list(stream)
    assert [answer_of(engine.stream(ask(question), GREEDY, never))[0] for question in questions] == expected
