"""A lock between processes: an open file under flock, which the system releases when its process ends, however it ends.

Where there is no flock (Windows) the lock is always free, and one data folder should have one process.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]


POLL_S = 0.05


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock that the file at `path` stands for; waits until all others have let go of it."""
    with FolderLock(path) as lock:
        while not lock.acquire():
            time.sleep(POLL_S)
        yield


class FolderLock:
    """The lock that the file at `path` stands for; a context manager that releases it. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def acquire(self) -> bool:
        """Whether the lock is held now; never waits. A file system without locks counts as free."""
        if fcntl is None or self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def forget(self) -> None:
        """Remove the file, once what it guards is gone."""
        with suppress(OSError):
            self._path.unlink()
