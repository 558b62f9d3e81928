"""Who is next: owners take turns, and each owner's own requests go in the order of arrival.

Plain round robin (Nagle, "On packet switches with infinite storage", RFC 970, 1985): someone with ten requests delays
everybody else by one at a time. An owner who comes new, or again after the last request was served, joins at the end.
"""

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """Waiting items, each pushed once. Not thread-safe: callers hold their own lock."""

    def __init__(self) -> None:
        # In the order of their turns; nobody is in it without an item.
        self._waiting: dict[str, deque[Item]] = {}
        self._owners: dict[Item, str] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, item: object) -> bool:
        return item in self._owners

    def __iter__(self) -> Iterator[Item]:
        """Every item, in the order in which `pop` would give them out if nobody came any more."""
        return iter(sorted(self._owners, key=self.position))

    def push(self, owner: str, item: Item) -> None:
        """`item` waits. Raises ValueError when it does already."""
        if item in self._owners:
            raise ValueError("this item waits already")
        self._owners[item] = owner
        self._waiting.setdefault(owner, deque()).append(item)

    def peek(self) -> Item:
        """The item whose turn it is; it stays. Raises IndexError when nothing waits."""
        if not self._waiting:
            raise IndexError("nothing waits")
        return next(iter(self._waiting.values()))[0]

    def pop(self) -> Item:
        """Take the item whose turn it is; its owner goes to the end. Raises IndexError when nothing waits."""
        item = self.peek()
        owner = self._owners[item]
        self.remove(item)
        self.turn_of(owner)
        return item

    def turn_of(self, owner: str) -> None:
        """`owner` had a turn elsewhere: to the end."""
        if owner in self._waiting:
            self._waiting[owner] = self._waiting.pop(owner)

    def copy(self) -> "FairQueue[Item]":
        """The same items in the same order."""
        same: FairQueue[Item] = FairQueue()
        same._waiting = {owner: deque(items) for owner, items in self._waiting.items()}
        same._owners = dict(self._owners)
        return same

    def remove(self, item: Item) -> None:
        """`item` does not wait any more; nobody else's turn changes. Raises KeyError when it does not wait."""
        owner = self._owners.pop(item)
        own = self._waiting[owner]
        own.remove(item)
        if not own:
            del self._waiting[owner]

    def position(self, item: Item) -> int:
        """How many items come before this one: 0 for the next. Raises KeyError when it does not wait."""
        owner = self._owners[item]
        own = self._waiting[owner].index(item)
        ahead, turn = own, 1
        for other, theirs in self._waiting.items():
            if other == owner:
                # Who comes later in the round has had one turn less by then.
                turn = 0
            else:
                ahead += min(len(theirs), own + turn)
        return ahead
