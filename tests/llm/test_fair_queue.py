"""Turns between owners, compared with giving the items out one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.llm.fair_queue import FairQueue

# Owners of arriving items; None: one is taken; a number: that one gives up.
_EVENTS = st.lists(st.one_of(st.sampled_from("abcd"), st.none(), st.integers(0, 9)), max_size=40)


def after(events: list[str | int | None]) -> FairQueue[tuple[str, int]]:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, event in enumerate(events):
        if isinstance(event, str):
            queue.push(event, (event, number))
        elif queue and event is None:
            queue.pop()
        elif queue and event is not None:
            queue.remove(list(queue)[event % len(queue)])
    return queue


@given(_EVENTS)
def test_position_is_the_number_of_items_given_out_before(events: list[str | int | None]) -> None:
    queue = after(events)
    told = {item: queue.position(item) for item in queue}
    order = list(queue)
    assert [queue.pop() for _ in range(len(queue))] == order
    assert told == {item: place for place, item in enumerate(order)}


@given(_EVENTS)
def test_nobody_is_served_twice_while_another_waits_who_was_there(events: list[str | int | None]) -> None:
    queue = after(events)
    while queue:
        waiting = {owner for owner, _ in queue}
        round_ = [queue.pop()[0] for _ in waiting]
        assert sorted(round_) == sorted(waiting)


def test_own_items_keep_their_order_and_a_newcomer_overtakes_the_second_of_another() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1"):
        queue.push(item[0], item)
    assert queue.pop() == "a1"
    queue.push("c", "c1")
    assert list(queue) == ["b1", "a2", "c1", "a3"]
    queue.remove("a2")
    assert (queue.peek(), queue.position("c1"), "a2" in queue, len(queue)) == ("b1", 2, False, 3)


def test_misuse_is_an_error() -> None:
    queue: FairQueue[str] = FairQueue()
    with pytest.raises(IndexError):
        queue.pop()
    queue.push("a", "x")
    with pytest.raises(ValueError, match="already"):
        queue.push("b", "x")
    with pytest.raises(KeyError):
        queue.position("y")
