"""Which tokens of one prompt may be taken from what another left. Pure; knows no model.

An answer tells how many of its prompt's tokens were kept. If those of another user's question counted among them,
anybody could spell it out, word by word. So only what comes before a prompt's first private word goes to others.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose a sequence of tokens is: `owner`'s, save the first `common` ones, which everybody may know of."""

    owner: str = ""
    common: int = 0

    def shared(self, other: "Whose", same: int) -> int:
        """How many of the `same` tokens that two sequences begin with may be taken from one for the other."""
        return same if self.owner == other.owner else min(same, self.common, other.common)


NOBODY = Whose()
"""Who asks where there are no users: an owner like any other."""


def as_tokens(ids: Sequence[int]) -> "array[int]":
    """Tokens to be compared with others, which are compared much faster than lists."""
    return ids if isinstance(ids, array) else array("q", ids)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    count = min(len(left), len(right))
    if not count:
        return 0
    one, other = (np.frombuffer(as_tokens(ids), np.int64, count) for ids in (left, right))
    differ = one != other
    first = int(differ.argmax())
    return first if differ[first] else count
