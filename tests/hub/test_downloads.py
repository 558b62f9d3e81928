"""Downloads in the background: one at a time, told with their speed, stopped, gone on with after a restart."""

import threading
from pathlib import Path

import pytest

from dbgpt_lite.errors import Busy, ModelError, NotFound
from dbgpt_lite.hub.client import Hub
from dbgpt_lite.hub.downloads import Downloads, Speed
from tests.hub.conftest import NAME
from tests.hub.fake_hub import FakeHub
from tests.hub.test_download import FIRST, TAKEN, files_in, wait_for


def downloads_from(hub: FakeHub, models: Path) -> Downloads:
    return Downloads(lambda: Hub(hub.url, first_wait_s=0.01), models, hub.url)


def test_one_download_from_begin_to_end(hub: FakeHub, tmp_path: Path) -> None:
    downloads = downloads_from(hub, tmp_path)
    assert downloads.status.state == "none"
    hub.waits_after = 1_000_000
    downloads.start(NAME)
    wait_for(lambda: downloads.status.done_bytes > 1_000_000)
    status = downloads.status
    assert status.state == "running"
    assert status.total_bytes > status.done_bytes
    assert status.seconds_left is None or status.seconds_left > 0
    assert downloads.interrupted() == []
    with pytest.raises(Busy):
        downloads.start("lantern/other")
    hub.go.set()
    assert downloads.wait(60).state == "done"
    assert set(files_in(tmp_path / "tiny-llama")) == TAKEN


def test_stopped_then_gone_on_with_after_a_restart(hub: FakeHub, tmp_path: Path) -> None:
    downloads = downloads_from(hub, tmp_path)
    hub.waits_after = 1_000_000
    downloads.start(NAME, folder="mine")
    wait_for(lambda: downloads.status.done_bytes > 1_000_000)
    downloads.stop()
    assert downloads.status.state == "stopping"
    hub.go.set()
    assert downloads.wait(60).state == "stopped"
    hub.waits_after = -1
    again = downloads_from(hub, tmp_path)
    (one,) = again.interrupted()
    assert one.wanted.folder == "mine"
    with pytest.raises(ModelError):
        again.resume("other")
    again.resume("mine")
    assert again.wait(60).state == "done"
    assert set(files_in(tmp_path / "mine")) == TAKEN
    assert again.interrupted() == []


def test_what_fails_is_told_and_can_be_discarded(hub: FakeHub, tmp_path: Path) -> None:
    downloads = downloads_from(hub, tmp_path)
    downloads.start("lantern/nothing")
    status = downloads.wait(60)
    assert status.state == "failed"
    assert status.error
    assert status.error.key == "hub.no_repository"
    hub.cuts = {FIRST: [1_000_000, *[0] * 20]}
    downloads.start(NAME)
    assert downloads.wait(60).state == "failed"
    downloads.discard("tiny-llama")
    assert downloads.status.state == "none"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound):
        downloads.discard("tiny-llama")
    for name in ("", "gpt2", "../../etc"):
        with pytest.raises(ModelError):
            downloads.start(name)


def test_a_hub_that_cannot_be_connected_is_a_failed_download(hub: FakeHub, tmp_path: Path) -> None:
    downloads = Downloads(lambda: Hub("ftp://x"), tmp_path, hub.url)
    downloads.start(NAME)
    status = downloads.wait(60)
    assert status.error
    assert status.error.key == "hub.bad_endpoint"


def test_how_the_last_one_ended_is_told_for_some_minutes(hub: FakeHub, tmp_path: Path) -> None:
    now = [100.0]
    downloads = Downloads(lambda: Hub(hub.url, first_wait_s=0.01), tmp_path, hub.url, lambda: now[0])
    for name, state in ((NAME, "done"), ("lantern/nothing", "failed")):
        downloads.start(name)
        assert downloads.wait(60).state == state
        now[0] += 299
        assert downloads.status.state == state
        now[0] += 1
        assert downloads.status.state == "none"


def test_closing_stops(hub: FakeHub, tmp_path: Path) -> None:
    downloads = downloads_from(hub, tmp_path)
    hub.waits_after = 1_000_000
    downloads.start(NAME)
    wait_for(lambda: downloads.status.done_bytes > 1_000_000)
    threading.Timer(0.1, hub.go.set).start()
    downloads.close()
    assert downloads.wait(60).state == "stopped"


def test_a_stop_that_comes_late_leaves_the_next_download_alone(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop whose caller is held up as soon as it lets go of the lock, until another download has begun."""
    downloads = downloads_from(hub, tmp_path)
    downloads.start(NAME)
    assert downloads.wait(60).state == "done"
    lock, starts = downloads._lock, []

    class Slow:
        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if not starts:
                starts.append(1)
                downloads.start(NAME, folder="next")

    hub.waits_after = 1_000_000
    monkeypatch.setattr(downloads, "_lock", Slow())
    downloads.stop()
    hub.go.set()
    assert downloads.wait(60).state == "done"
    assert set(files_in(tmp_path / "next")) == TAKEN


def test_speed_is_of_the_last_seconds() -> None:
    now = [100.0]
    speed = Speed(lambda: now[0])
    assert speed.now() == 0
    speed.seen(1000)
    assert speed.now() == 0
    for _ in range(20):
        now[0] += 1
        speed.seen(1000 + int(now[0] - 100) * 50)
    assert speed.now() == 50
    now[0] += 45
    assert speed.now() < 1.1
