"""Which slot is taken, and what is shared: compared with what every slot was told."""

from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm.batch_slots import SlotTable
from dbgpt_lite.llm.sharing import Whose, common_prefix

_TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(st.lists(st.tuples(_TOKENS, st.booleans()), max_size=30))
def test_what_is_shared_is_there_and_the_longest(requests: list[tuple[list[int], bool]]) -> None:
    table = SlotTable(3)
    contents: dict[int, list[int]] = {0: [], 1: [], 2: []}
    taken: list[int] = []
    for ids, ends in requests:
        if table.free == 0:
            table.give_back(taken.pop(0))
        longest = max(common_prefix(tokens, ids) for tokens in contents.values())
        place = table.take(ids)
        assert place.slot not in taken
        assert place.shared == min(longest, len(ids) - 1)
        assert contents[place.source][: place.shared] == ids[: place.shared]
        assert place.source not in taken or place.source != place.slot
        table.wrote(place.slot, ids[place.shared :])
        contents[place.slot] = ids
        assert list(table.known(place.slot)) == ids
        if ends:
            table.give_back(place.slot)
        else:
            taken.append(place.slot)
        assert table.free == 3 - len(taken)


def test_a_conversation_stays_and_another_is_copied() -> None:
    table = SlotTable(3)
    schema, talk = list(range(500)), list(range(1000, 1200))
    first = table.take([*schema, *talk])
    table.wrote(first.slot, [*schema, *talk])
    table.give_back(first.slot)
    again = table.take([*schema, *talk, 1, 2])
    assert (again.slot, again.source, again.shared) == (first.slot, first.slot, 700)
    table.wrote(again.slot, [1, 2])
    # The slot is in use; then it is free, and its talk would be lost.
    beside = table.take([*schema, 7])
    assert (beside.slot != first.slot, beside.source, beside.shared) == (True, first.slot, 500)
    table.give_back(beside.slot)
    table.give_back(again.slot)
    other = table.take([*schema, *talk[:20], 9])
    assert (other.source, other.shared) == (first.slot, 520)
    assert other.slot not in (first.slot, beside.slot)


def test_the_oldest_is_overwritten_and_what_is_of_no_use_before_it() -> None:
    table = SlotTable(3)
    slots = []
    for token in (10, 20, 30):
        place = table.take([token, token])
        table.wrote(place.slot, [token, token])
        slots.append(place.slot)
    for slot in (slots[1], slots[0]):
        table.give_back(slot)
    table.give_back(slots[2], of_use=False)
    assert [table.take_any() for _ in range(3)] == [slots[2], slots[1], slots[0]]


def test_owners_share_what_is_everybodys() -> None:
    table = SlotTable(4)
    schema, secret = list(range(100)), list(range(1000, 1050))

    def shared(ids: list[int], owner: str, common: int = 100) -> int:
        place = table.take(ids, Whose(owner, common))
        table.wrote(place.slot, ids[place.shared :])
        table.give_back(place.slot)
        return place.shared

    assert shared([*schema, *secret], "alice") == 0
    guesses = [[*schema, *secret[:right], 7, 7] for right in (0, 1, 25, 48)]
    assert [shared(guess, f"user {number}") for number, guess in enumerate(guesses)] == [100] * 4
    assert shared([*schema, *secret, 7], "alice") in (100, 150)
    # What either of them keeps to itself is nobody else's.
    assert shared([*schema, *secret, 7], "bob", common=60) == 60
    assert shared([*schema, *secret, 8], "carol", common=0) == 0
    # Without users everybody is the same one.
    shared([5, *schema], "", common=0)
    assert shared([5, *schema, 6], "", common=0) == 101
