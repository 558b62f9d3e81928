"""Queries that run for a reader stop when they are told to, and only for their own reader."""

import threading

import pytest

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.ui.runs import Runs


def until_cancelled(cancel: threading.Event) -> str:
    assert cancel.wait(20)
    raise Cancelled


def test_a_run_brings_its_value_or_its_error() -> None:
    runs = Runs()
    with runs.start("ana", "t", lambda cancel: 41 + (not cancel.is_set())) as run:
        assert run.result() == 42
    with runs.start("ana", "t", lambda cancel: 1 // 0) as failing, pytest.raises(ZeroDivisionError):
        failing.result()
    assert not runs.cancel("ana", "t")


def test_only_its_owner_cancels_a_run() -> None:
    runs = Runs()
    with runs.start("ana", "t", until_cancelled) as run:
        assert not runs.cancel("bob", "t")
        assert not runs.cancel("ana", "u")
        assert next(run.beats()) is None
        assert runs.cancel("ana", "t")
        with pytest.raises(Cancelled):
            run.result()


def test_leaving_stops_the_work() -> None:
    stopped = threading.Event()

    def work(cancel: threading.Event) -> None:
        assert cancel.wait(20)
        stopped.set()

    with Runs().start("ana", "t", work):
        pass
    assert stopped.wait(20)


def test_the_same_ticket_again_stops_the_run_before() -> None:
    runs = Runs()
    with runs.start("ana", "t", until_cancelled) as before, runs.start("ana", "t", until_cancelled) as after:
        with pytest.raises(Cancelled):
            before.result()
        assert runs.cancel("ana", "t")
        with pytest.raises(Cancelled):
            after.result()
