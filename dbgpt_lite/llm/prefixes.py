"""What was read of earlier prompts, kept so that a prompt that begins alike does not read it again.

The prompts of several users often begin with the same instructions and schema, and each goes on in its own way; of
another user's only that beginning is taken (sharing.py). One sequence computes; others are set aside, the least
recently used of them dropped beyond a limit of bytes. A sequence that begins alike but goes on differently stays, and
its beginning is copied, which takes a hundredth of the time of reading it; unless what it would lose is so short that
it is not worth the memory.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.cache_utils import LinearAttentionCacheLayerMixin

from dbgpt_lite.llm.cache import GrowingLayer, rooms
from dbgpt_lite.llm.sharing import NOBODY, Whose, as_tokens, common_prefix

# A sequence is cut, not copied, if it loses no more than these tokens, or than this share of what stays; and one that
# has no more than these is not set aside.
_SHORT, _SHARE = 64, 8


@dataclass(slots=True, eq=False)
class Kept:
    """A sequence of tokens and the cache that holds them; after a stop some of its layers may be ahead."""

    cache: Any
    tokens: "array[int]" = field(default_factory=lambda: as_tokens(()))
    whose: Whose = NOBODY

    @property
    def croppable(self) -> bool:
        """Whether its last tokens can be forgotten."""
        return all(isinstance(layer, GrowingLayer) for layer in self.cache.layers)

    def settle(self) -> bool:
        """Bring every layer to the known tokens; False when that cannot be: then the cache is of no use."""
        for layer in self.cache.layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                # It does not tell how many tokens its state has seen.
                return False
            ahead = layer.get_seq_length() - len(self.tokens)
            if not ahead:
                continue
            if not isinstance(layer, GrowingLayer):
                return False
            layer.crop(-ahead)
        return True


class Prefixes:
    """The sequence that computes, `current`, and the ones set aside, which have `limit` bytes together.

    `empty` makes a new cache. With a limit of 0 only the current one is kept.
    """

    def __init__(self, empty: Callable[[], Any], limit: int) -> None:
        self._empty = empty
        self._limit = limit
        self._aside: list[Kept] = []
        self.current = Kept(empty())

    @property
    def caches(self) -> list[Any]:
        """Every cache that is held."""
        return [self.current.cache, *(kept.cache for kept in list(self._aside))]

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self._aside.clear()
        self.start()

    def start(self) -> None:
        """Let an empty sequence be the current one, in its place."""
        self.current = Kept(self._empty())

    def resume(self, ids: Sequence[int], whole: int = 0, whose: Whose = NOBODY) -> int:
        """Make a sequence current that holds the first tokens of `ids` and no more; returns how many.

        At least one token is left to read. `whole`: fewer than so many are of no use. `whose`: who asks.
        """
        ids = as_tokens(ids)
        # The last of those that are equally long: the one that was used last.
        best = max(
            (*self._aside, self.current), key=lambda kept: (self._usable(kept, ids, whose), kept is self.current)
        )
        same = self._usable(best, ids, whose)
        if same == 0 or same < whole:
            self._put_aside(self.current)
            self.start()
            same = 0
        elif self._worth_a_copy(best, same):
            self._copy(best, same)
        else:
            self._continue(best, same)
        self.current.whose = whose
        return same

    def _usable(self, kept: Kept, ids: Sequence[int], whose: Whose) -> int:
        same = whose.shared(kept.whose, min(common_prefix(ids, kept.tokens), len(ids) - 1))
        return same if same == len(kept.tokens) or kept.croppable else 0

    def _worth_a_copy(self, kept: Kept, same: int) -> bool:
        return self._limit > 0 and len(kept.tokens) - same > max(_SHORT, same // _SHARE)

    def _copy(self, source: Kept, count: int) -> None:
        """Make a copy of the first tokens of `source` current."""
        copied = Kept(self._empty(), source.tokens[:count])
        copied.cache.layers = [layer.beginning(count) for layer in source.cache.layers]
        previous, self.current = self.current, copied
        self._put_aside(previous)
        if source is not previous and source in self._aside:
            self._put_aside(source)

    def _continue(self, kept: Kept, count: int) -> None:
        """Make `kept`, cut to its first tokens, current."""
        if kept is not self.current:
            self._aside.remove(kept)
            previous, self.current = self.current, kept
            self._put_aside(previous)
        if count < len(kept.tokens):
            kept.tokens = kept.tokens[:count]
            kept.settle()

    def _put_aside(self, kept: Kept) -> None:
        """Keep a sequence as the one that was used last, and drop the oldest ones beyond the limit."""
        if kept in self._aside:
            self._aside.remove(kept)
        if self._limit and len(kept.tokens) > _SHORT:
            self._aside.append(kept)
        while self._aside and sum(map(_bytes, self._aside)) > self._limit:
            del self._aside[0]


def _bytes(kept: Kept) -> int:
    return sum({start: size for start, _, size in rooms(kept.cache)}.values())
