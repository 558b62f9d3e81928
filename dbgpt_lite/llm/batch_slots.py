"""Which slot a request takes, and what it need not read because a slot has read it before. Pure; knows no model."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from dbgpt_lite.llm.sharing import NOBODY, Whose, as_tokens, common_prefix

# So few tokens are read again sooner than they are worth a slot of their own.
_SMALL_LOSS = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A slot for a request. Its first `shared` tokens are cached in `source`, which may be the slot itself."""

    slot: int
    source: int
    shared: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that is being read into a slot."""

    slot: int
    ids: Sequence[int]
    whose: Whose


@dataclass(slots=True)
class _Slot:
    known: "array[int]" = field(default_factory=lambda: as_tokens(()))
    whose: Whose = NOBODY
    taken: bool = False
    used: int = 0


class SlotTable:
    """The slots of a step model: who is in use, and the tokens whose keys and values each of them holds."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._turn = 0

    @property
    def free(self) -> int:
        """How many nobody uses."""
        return sum(not slot.taken for slot in self._slots)

    def known(self, slot: int) -> Sequence[int]:
        """The tokens that a slot holds."""
        return self._slots[slot].known

    def shared(self, ids: Sequence[int], whose: Whose = NOBODY) -> int:
        """How many tokens of a prompt need not be read, as things stand."""
        return max(self._shares(ids, whose))

    def together(self, ids: Sequence[int], whose: Whose, under_way: Sequence[Prompt], most: int) -> bool:
        """Whether a prompt is read in the same turn as those `under_way`, of `most` tokens in all.

        Not where it would soon share with one of them what is still to be read.
        """
        ids = as_tokens(ids)
        left = sum(len(prompt.ids) - len(self.known(prompt.slot)) for prompt in under_way)
        held = self.shared(ids, whose)
        coming = [whose.shared(prompt.whose, self._alike(prompt.ids, ids)) for prompt in under_way]
        return left + len(ids) - held <= most and max(coming, default=0) <= held + _SMALL_LOSS

    def take(self, ids: Sequence[int], whose: Whose = NOBODY) -> Place:
        """A free slot for a prompt, of which at least the last token is left to read.

        The longest beginning of `ids` that any slot holds is shared, as far as it is not another owner's. It is used
        where it is when that slot is free and hardly anything else would be lost with it, else copied to the free slot
        whose last use is longest ago.
        Raises ValueError when no slot is free.
        """
        ids = as_tokens(ids)
        shares = self._shares(ids, whose)
        # Of several that share as much a free one, and of those the one that loses least.
        source = max(range(len(shares)), key=lambda at: (shares[at], not self._slots[at].taken, -self._held(at)))
        lost = self._held(source) - shares[source]
        stays = shares[source] > 0 and lost <= _SMALL_LOSS and not self._slots[source].taken
        slot = source if stays else self._oldest()
        self.hold(slot, ids[: shares[source]], whose)
        self._slots[slot].taken = True
        return Place(slot, source, shares[source])

    def take_any(self) -> int:
        """The free slot whose last use is longest ago. Raises ValueError when no slot is free."""
        slot = self._oldest()
        self._slots[slot].taken = True
        return slot

    def wrote(self, slot: int, ids: Sequence[int]) -> None:
        """A slot holds these tokens besides."""
        self._slots[slot].known.extend(ids)

    def hold(self, slot: int, ids: Sequence[int], whose: Whose = NOBODY) -> None:
        """A slot holds these tokens, and nothing else of use."""
        self._slots[slot].known = as_tokens(ids)[:]
        self._slots[slot].whose = whose

    def give_back(self, slot: int, of_use: bool = True) -> None:
        """Nobody uses a slot any more. Its tokens stay known; one that is of no use is the next to be overwritten."""
        self._turn += 1
        self._slots[slot].taken = False
        self._slots[slot].used = self._turn if of_use else 0

    def _shares(self, ids: Sequence[int], whose: Whose) -> list[int]:
        """By slot, how many of its tokens a prompt may use."""
        return [whose.shared(slot.whose, self._alike(slot.known, ids)) for slot in self._slots]

    @staticmethod
    def _alike(known: Sequence[int], ids: Sequence[int]) -> int:
        """How many tokens of a prompt begin as others do; its last one is read in any case."""
        return min(common_prefix(known, ids), len(ids) - 1)

    def _held(self, slot: int) -> int:
        return len(self._slots[slot].known)

    def _oldest(self) -> int:
        free = (number for number, slot in enumerate(self._slots) if not slot.taken)
        return min(free, key=lambda number: self._slots[number].used)
