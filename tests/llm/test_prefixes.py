"""What is kept of earlier prompts: the longest beginning is found, nothing of it changes, and the limit holds."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM
from transformers.cache_utils import DynamicCache, LinearAttentionLayer

from dbgpt_lite.llm.cache import ROOM, GrowingLayer, rooms
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.prefixes import Kept, Prefixes
from dbgpt_lite.llm.sharing import common_prefix
from dbgpt_lite.messages import Message, Prompt, Sampling
from tests.llm.tiny_models import answer_of, ask, make_model, make_tokenizer

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
    kept.current.tokens.extend(ids[same:])
    return same


PARTS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 150)), min_size=1, max_size=4)


@settings(deadline=None)
@given(prompts=st.lists(PARTS, min_size=1, max_size=12), limit=st.sampled_from((0, 9000, 40_000, 10**9)))
def test_any_order_of_prompts(prompts: list[list[tuple[int, int]]], limit: int) -> None:
    kept, seen = Prefixes(empty, limit), []
    for parts in prompts:
        ids = [token for token, count in parts for _ in range(count)]
        same = read(kept, ids)
        assert [*kept.current.tokens] == ids
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
            before = [Message("user", f"{user} asks"), Message("assistant", "x" * 80)] * turn
            prompt = replace(ask(f"{user} asks", schema, *before), owner=str(user), common=len(schema.content))
            fresh._runner.forget()
            text, usage = answer_of(used.stream(prompt, GREEDY, never))
            assert text == answer_of(fresh.stream(prompt, GREEDY, never))[0]
            known = used.count_text(schema.content)
            assert usage.cached_tokens >= known or turn == user == 0


RULES = "You are a helpful assistant in a private chat app. "
SECRET = "My salary is 48731 euro, and that is all. "


def whose(owner: str, question: str, private: str = "") -> Prompt:
    return replace(ask(question, Message("system", RULES + private)), owner=owner, common=len(RULES))


@pytest.mark.parametrize("chat", ["", "vicuna", "llama2", "chatglm"])
def test_nobody_learns_what_another_asked(tiny: Path, never: threading.Event, chat: str) -> None:
    """Neither from a question, nor from a conversation, nor from what a system message says beside the rules."""
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu", chat_format=chat))

    def cached(prompt: Prompt) -> int:
        kept: int = answer_of(engine.stream(prompt, Sampling(0, 1, 2), never))[1].cached_tokens
        return kept

    cached(whose("alice", SECRET * 3))
    cached(whose("alice", "And now?", private=SECRET * 3))
    cached(replace(ask(SECRET * 3, *whose("alice", SECRET * 3).messages), owner="alice", common=len(RULES)))
    found = [
        [cached(whose("bob", f"{begun}{SECRET[len(begun) :]}")) for begun in ("", "My sal", "My salary is 1")],
        [cached(whose("carol", "Hi", private=f"{begun}{SECRET[len(begun) :]}")) for begun in ("", "Nothing", "My sal")],
    ]
    # The first of each: what another owner gets. It is the same for a right guess and for a wrong one.
    right, wrong = cached(whose("dave", SECRET * 3)), cached(whose("erin", "Nobody knows " * 5))
    assert right == wrong == found[0][0] == found[1][0] == cached(whose("", SECRET * 3)) > 5
    assert cached(whose("alice", SECRET * 3)) > right + 15


class CountsDown(threading.Event):
    """Is set once it has been asked for so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self.set()
        return super().is_set()


@pytest.mark.parametrize("window", [0, 48])
def test_a_stop_within_a_pass_leaves_nothing_half_read(tmp_path: Path, never: threading.Event, window: int) -> None:
    engine, fresh = make_engine(tmp_path, window), load(tmp_path, LoadOptions(dtype="float32", device_map="cpu"))
    ahead: list[list[int]] = []
    settle = engine._runner._settle

    def watched() -> None:
        kept = engine._runner._kept.current
        ahead.append([layer.get_seq_length() - len(kept.tokens) for layer in kept.cache.layers])
        settle()

    engine._runner._settle = watched
    for times in range(4, 40, 5):
        question = f"{times} foxes " * 12
        usage = answer_of(engine.stream(ask(question), GREEDY, CountsDown(times)))[1]
        assert usage.finish_reason == "cancelled"
        fresh._runner.forget()
        assert (
            answer_of(engine.stream(ask(question), GREEDY, never))[0]
            == answer_of(fresh.stream(ask(question), GREEDY, never))[0]
        )
    # Some of its layers were ahead of others.
    assert any(len(set(layers)) > 1 for layers in ahead)


def make_engine(folder: Path, window: int) -> Any:
    """A tiny Mistral whose layers see `window` tokens, or a Llama that the app's own decoder computes."""
    if window:
        torch.manual_seed(7)
        sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
        tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
        config = MistralConfig(**sizes, **heads, **tokens, initializer_range=0.4, sliding_window=window)
        MistralForCausalLM(config).save_pretrained(folder)
    else:
        make_model(folder)
    make_tokenizer(folder)
    return load(folder, LoadOptions(dtype="float32", device_map="cpu"))


def test_a_model_with_sliding_windows_answers_again_and_again(tmp_path: Path, never: threading.Event) -> None:
    engine, fresh = make_engine(tmp_path, 48), load(tmp_path, LoadOptions(dtype="float32", device_map="cpu"))
    for word in ("fox", "dog", "sun", "fox", "fox"):
        question = ask(f"{word} " * 70)
        fresh._runner.forget()
        text, usage = answer_of(engine.stream(question, GREEDY, never))
        assert text == answer_of(fresh.stream(question, GREEDY, never))[0]
        assert usage.prompt_tokens > 64


def test_states_that_cannot_go_back_are_dropped_after_a_stop() -> None:
    """A layer of linear attention does not tell how far it is."""
    kept = Kept(DynamicCache(), [1, 2, 3])
    kept.cache.layers = [LinearAttentionLayer()]
    assert not kept.settle()
    prefixes = Prefixes(lambda: Kept(DynamicCache()).cache, 10**6)
    prefixes.current = Kept(kept.cache, [1] * 100)
    assert prefixes.resume([2] * 100) == 0
    assert kept.cache in prefixes.caches
    assert prefixes.resume([1] * 100 + [3]) == 100
