"""How long the rest of a job will take, from what it has done so far."""

import time
from collections.abc import Callable, Sequence


class Pace:
    """Counts chunks. Files that have not been read yet count by their bytes, at the chunks per byte of the others.

    sizes: bytes of all files of the job. `clock` gives seconds. Not for several threads at once.
    """

    def __init__(self, sizes: Sequence[int] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_left = sum(sizes)
        self._bytes_read = 0
        self._found = 0
        self._left = 0
        self._done = 0
        self._clock = clock
        self._started = 0.0

    def begin(self, size: int, chunks: int) -> None:
        """A file of `size` bytes has been read and has `chunks` chunks to embed."""
        if not self._started:
            self._started = self._clock()
        self._bytes_left -= size
        self._bytes_read += size
        self._found += chunks
        self._left += chunks

    def embedded(self, chunks: int) -> None:
        """So many chunks more have been embedded."""
        self._done += chunks
        self._left -= chunks

    def drop(self, chunks: int) -> None:
        """So many chunks will not be embedded: their file failed."""
        self._left -= chunks

    def seconds_left(self) -> float | None:
        """Seconds until the job ends at its mean rate so far; None until a batch has been embedded."""
        elapsed = self._clock() - self._started
        if not self._done or elapsed <= 0:
            return None
        unread = self._bytes_left * self._found / self._bytes_read if self._bytes_read else 0
        return max(0.0, self._left + unread) * elapsed / self._done
