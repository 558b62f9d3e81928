"""Downloads of the page: one at a time in the background, stopped, taken up again, told with size and speed."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import Busy, Cancelled, ModelError, UserError
from dbgpt_lite.hub.client import Hub
from dbgpt_lite.hub.download import download
from dbgpt_lite.hub.partial import Interrupted, Wanted, discard, interrupted, wanted

log = logging.getLogger(__name__)

_SPEED_S = 5.0
_CLOSE_S = 2.0
# How long the page tells everybody how the last one ended.
_TOLD_S = 300.0


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """The download at work, or the last one. `total_bytes` 0: the hub has not been heard yet."""

    state: Literal["none", "running", "stopping", "done", "stopped", "failed"]
    wanted: Wanted | None = None
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float = 0.0
    error: UserError | None = None

    @property
    def seconds_left(self) -> float | None:
        """None while nobody knows."""
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s if self.bytes_per_s > 0 else None


class Speed:
    """Bytes a second over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def seen(self, done: int) -> None:
        """`done` bytes are there now."""
        self._seen.append((self._clock(), done))
        self._forget()

    def now(self) -> float:
        """The speed at this moment: it falls while nothing comes."""
        self._forget()
        if not self._seen:
            return 0.0
        then, before = self._seen[0]
        seconds = self._clock() - then
        return max(self._seen[-1][1] - before, 0) / seconds if seconds > 0 else 0.0

    def _forget(self) -> None:
        """One sight from before the window is kept, to measure from."""
        while len(self._seen) > 1 and self._clock() - self._seen[1][0] >= _SPEED_S:
            self._seen.popleft()


class Downloads:
    """Thread-safe. `connect` makes the Hub when one is needed, so that nothing is opened before."""

    def __init__(
        self,
        connect: Callable[[], Hub],
        models_dir: Path,
        endpoint: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._models_dir = models_dir
        self._endpoint = endpoint
        self._status = DownloadStatus("none")
        self._clock, self._ended = clock, 0.0
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._speed = Speed()
        self._worker: threading.Thread | None = None

    @property
    def status(self) -> DownloadStatus:
        """The download at work, or how the last one ended some minutes ago."""
        with self._lock:
            over = self._status.state not in ("none", "running", "stopping")
            if over and self._clock() - self._ended >= _TOLD_S:
                self._status = DownloadStatus("none")
            speed = self._speed.now() if self._status.state == "running" else 0.0
            return replace(self._status, bytes_per_s=speed)

    def start(self, name: str, revision: str = "", folder: str = "", gguf: str = "") -> None:
        """Begin, or go on with, a download. Raises Busy and ModelError for what cannot be meant."""
        wish = wanted(self._endpoint, name, revision, folder, gguf)
        with self._lock:
            if self._status.state in ("running", "stopping"):
                raise Busy("hub.one_at_a_time")
            self._cancel, self._speed = threading.Event(), Speed()
            self._status = DownloadStatus("running", wish)
            self._worker = threading.Thread(
                target=self._run, args=(wish, self._cancel), daemon=True, name="model-download"
            )
            self._worker.start()

    def resume(self, folder: str) -> None:
        """Go on with an interrupted download. Raises ModelError when there is none in that folder."""
        for one in self.interrupted():
            if one.wanted.folder == folder:
                return self.start(one.wanted.name, one.wanted.revision, folder, one.wanted.gguf)
        raise ModelError("hub.no_partial", folder=folder[:100])

    def stop(self) -> None:
        """End the download at work; what is there stays."""
        with self._lock:
            if self._status.state == "running":
                self._status = replace(self._status, state="stopping")
                # Within the lock: a moment later it may be the next download's.
                self._cancel.set()

    def discard(self, folder: str) -> None:
        """Remove an interrupted download. Raises NotFound and Busy."""
        discard(self._models_dir, folder)
        with self._lock:
            told = self._status.wanted
            if told and told.folder == folder and self._status.state in ("stopped", "failed"):
                self._status = DownloadStatus("none")

    def interrupted(self) -> list[Interrupted]:
        """Downloads that can be taken up, without the one at work."""
        status = self._status
        at_work = status.wanted.folder if status.wanted and status.state in ("running", "stopping") else ""
        found = interrupted(self._models_dir, self._endpoint)
        return [one for one in found if one.wanted.folder != at_work]

    def wait(self, timeout_s: float | None = None) -> DownloadStatus:
        """Wait for the end of the download at work."""
        if self._worker is not None:
            self._worker.join(timeout_s)
        return self.status

    def close(self) -> None:
        """Stop, for the end of the app."""
        self.stop()
        self.wait(_CLOSE_S)

    def _run(self, wish: Wanted, cancel: threading.Event) -> None:
        def told(done: int, total: int) -> None:
            with self._lock:
                self._speed.seen(done)
                self._status = replace(self._status, done_bytes=done, total_bytes=total)

        try:
            with self._connect() as hub:
                download(hub, self._models_dir, wish, told, cancel)
        except Cancelled:
            self._end("stopped")
        except UserError as error:
            self._end("failed", error)
        except Exception:
            log.exception("a download failed")
            self._end("failed", ModelError("hub.failed", name=wish.name))
        else:
            self._end("done")

    def _end(self, state: Literal["done", "stopped", "failed"], error: UserError | None = None) -> None:
        with self._lock:
            self._status, self._ended = replace(self._status, state=state, error=error), self._clock()
