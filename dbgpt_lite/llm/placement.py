"""Which device holds what: strategies over whole blocks. Pure; knows no model, only sizes.

A block is what stays together: a decoder layer with its residual, an embedding, the output head with what it is tied
to. Blocks keep the order in which the model computes them, so a token crosses from device to device once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
DISK_FREE = 2**62


@dataclass(frozen=True, slots=True)
class Device:
    """A place for weights: "cuda:0", "cpu", "disk". `free` is what this app may use of it.

    `model`: a GPU's name as its driver says it. `bandwidth`: bytes a second, 0 when not known. `started`: this
    process has used the GPU before, so its context is no longer part of what is free; `warm`: so are the libraries that
    captured steps load. `capability`: CUDA's number for what a GPU can do, (0, 0) for one without CUDA; None: unknown.
    """

    name: str
    free: int
    model: str = ""
    bandwidth: float = field(default=0.0, compare=False)
    started: bool = False
    warm: bool = False
    capability: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def kind(self) -> Literal["cpu", "gpu", "disk"]:
        """What sort of place it is."""
        return self.name if self.name in ("cpu", "disk") else "gpu"  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that stay together: `weights`, `cache` of the keys and values, and `working` room of its own.

    `names`: the prefixes of a device map that cover it. `parameters`: full names; those in `tied` share their memory.
    `read`: bytes of its weights that one token reads.
    """

    names: tuple[str, ...]
    weights: int
    cache: int = 0
    working: int = 0
    read: int = 0
    parameters: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """All of it, where the block computes."""
        return self.weights + self.cache + self.working

    @property
    def beside(self) -> int:
        """What stays where the block computes when its weights are kept elsewhere."""
        return self.cache + self.working


@dataclass(frozen=True, slots=True)
class Rooms:
    """Free bytes for blocks: on the devices that compute, and on those that only keep weights (their order counts).

    The first device that computes streams in what is kept elsewhere, one block at a time.
    """

    compute: tuple[int, ...]
    keep: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """For each block the place of its device in ``compute + keep``."""

    places: tuple[int, ...]
    offloads: bool = False


def place(blocks: Sequence[Block], rooms: Rooms, strategy: str) -> Placement | None:
    """Put every block somewhere by a strategy, None when there is no room.

    balanced: as even a load on the GPUs as whole blocks allow. auto: the roomiest GPU alone when it holds everything,
    since layers on several GPUs wait for each other, else balanced. balanced_low_0: the first GPU takes only what the
    others cannot. sequential: one full GPU after the other. Whatever the GPUs cannot hold goes to the devices that
    keep, in their order.
    """
    found = _resident([block.size for block in blocks], rooms.compute, strategy)
    if found is not None:
        return Placement(tuple(found))
    return _offloaded(blocks, rooms)


def fill(sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """One room after the other, each as full as whole blocks make it; None when they do not hold all.

    No other placement in order takes fewer rooms, so None means that none exists.
    """
    places: list[int] = []
    room, left = 0, rooms[0] if rooms else 0
    for size in sizes:
        while size > left:
            room += 1
            if room >= len(rooms):
                return None
            left = rooms[room]
        left -= size
        places.append(room)
    return places


def even(sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """Loads that differ by one block at most, if the rooms allow; else the smallest largest load; None when too small.

    A sequence of numbers can always be cut into k runs whose sums differ by at most the largest number (Barany and
    Grinberg, "Block partitions of sequences", 2015); such cuts are searched over the possible smallest sums.
    """
    if not sizes:
        return []
    if fill(sizes, rooms) is None:
        return None
    sums = [0, *accumulate(sizes)]
    most, mean = max(sizes), sums[-1] / len(rooms)
    lows = {end - start for end in sums for start in sums if mean - most <= end - start <= mean} | {0}
    for low in sorted(lows, reverse=True):
        if cuts := _cuts(sums, rooms, low, low + most):
            return [room for room, (start, end) in enumerate(cuts) for _ in range(start, end)]
    return _smallest_largest(sizes, rooms)


def _cuts(sums: Sequence[int], rooms: Sequence[int], low: int, high: int) -> list[tuple[int, int]]:
    """Runs of blocks (start, end), one a room, each with a sum from `low` to `high` and within its room; or none."""
    last = len(sums) - 1
    reached: list[dict[int, int]] = [{0: 0}]
    for room in rooms:
        ends: dict[int, int] = {}
        for start in reached[-1]:
            for end in range(start, last + 1):
                if sums[end] - sums[start] > min(high, room):
                    break
                if sums[end] - sums[start] >= low:
                    ends.setdefault(end, start)
        reached.append(ends)
    if last not in reached[-1]:
        return []
    cuts: list[tuple[int, int]] = []
    end = last
    for ends in reversed(reached[1:]):
        cuts.append((ends[end], end))
        end = ends[end]
    return cuts[::-1]


def _smallest_largest(sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """The placement whose fullest room is as empty as possible, by halving the load that is allowed."""
    low, high = 0, sum(sizes)
    while low < high:
        middle = (low + high) // 2
        if fill(sizes, [min(room, middle) for room in rooms]) is None:
            low = middle + 1
        else:
            high = middle
    return fill(sizes, [min(room, high) for room in rooms])


def _resident(sizes: Sequence[int], rooms: Sequence[int], strategy: str) -> list[int] | None:
    roomiest = max(range(len(rooms)), key=rooms.__getitem__)
    if strategy == "auto" and sum(sizes) <= rooms[roomiest]:
        return [roomiest] * len(sizes)
    if strategy == "sequential" or len(rooms) == 1:
        return fill(sizes, rooms)
    if strategy == "balanced_low_0":
        return _low_first(sizes, rooms)
    return even(sizes, rooms)


def _low_first(sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """As few leading blocks in the first room as leave a rest that fits the others, evenly."""
    for count in range(len(sizes) + 1):
        if sum(sizes[:count]) > rooms[0]:
            return None
        if (rest := even(sizes[count:], rooms[1:])) is not None:
            return [0] * count + [room + 1 for room in rest]
    return None


def _offloaded(blocks: Sequence[Block], rooms: Rooms) -> Placement | None:
    """As many leading blocks as fit where they compute; the others are kept elsewhere and streamed in one by one.

    The first device needs room for the largest of those, and for the cache and working room of all of them.
    """
    if not rooms.keep or not rooms.compute:
        return None
    for count in range(len(blocks) - 1, -1, -1):
        away = blocks[count:]
        beside = sum(block.beside for block in away) + max(block.weights for block in away)
        first = rooms.compute[0] - beside
        if first < 0:
            continue
        near = fill([block.size for block in blocks[:count]], (first, *rooms.compute[1:]))
        far = fill([block.weights for block in away], rooms.keep)
        if near is not None and far is not None:
            return Placement((*near, *(place + len(rooms.compute) for place in far)), offloads=True)
    return None
