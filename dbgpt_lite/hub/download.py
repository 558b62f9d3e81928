"""A whole model: what a hub has -> which files -> room on the disk -> the bytes, some files at a time -> a folder."""

import errno
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dbgpt_lite.errors import Cancelled, ModelError, UserError
from dbgpt_lite.hub.client import Hub, Repository
from dbgpt_lite.hub.partial import PartialFolder, Wanted
from dbgpt_lite.hub.selection import RemoteFile, chosen_files
from dbgpt_lite.hub.transfer import fetch_file
from dbgpt_lite.texts import memory_size

AT_ONCE = 4
# Left free: a full disk takes the conversations down with it.
_SPARE_BYTES = 1 << 28
_LOOK_S = 0.2
# Bytes on the disk, bytes altogether.
Told = Callable[[int, int], None]


def download(hub: Hub, models_dir: Path, wish: Wanted, told: Told, cancel: threading.Event) -> Path:
    """Download a model, or go on with it, into MODELS_DIR/folder; gives the folder.

    Raises UserError, and Cancelled once `cancel` is set; either way a later call takes up what is there.
    """
    with ExitStack() as stack:
        try:
            partial = stack.enter_context(PartialFolder(models_dir, wish.folder))
            partial.refuse_other(wish)
            repository = hub.repository(wish.name, wish.revision, cancel)
            files = hub.measured(repository, chosen_files(wish.name, repository.files, wish.gguf), cancel)
            partial.begin(wish, repository, files)
            _check_room(partial, files)
            _Transfer(hub, repository, partial, files, told, cancel).run()
            return partial.finish()
        except OSError as error:
            raise _disk_fault(error, wish.folder) from None


def _check_room(partial: PartialFolder, files: Sequence[RemoteFile]) -> None:
    needed = sum(file.size - partial.holds(file) for file in files)
    free = shutil.disk_usage(partial.path).free
    if needed and needed + _SPARE_BYTES > free:
        raise ModelError("hub.no_room", needed=memory_size(needed), free=memory_size(free))


def _disk_fault(error: OSError, folder: str) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError("hub.disk_full", folder=folder)
    return ModelError("hub.cannot_write", folder=folder, reason=error.strerror or type(error).__name__)


class _Transfer:
    """Some threads that take one file after the other until all are there or one fails."""

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        partial: PartialFolder,
        files: Sequence[RemoteFile],
        told: Told,
        cancel: threading.Event,
    ) -> None:
        self._hub, self._repository, self._partial, self._told, self._cancel = hub, repository, partial, told, cancel
        self._waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
        self._total = sum(file.size for file in files)
        self._done = sum(file.size for file in files if partial.is_whole(file))
        # The large ones first, so that none is left alone at the end.
        for file in sorted(files, key=lambda file: -file.size):
            if not partial.is_whole(file):
                self._waiting.put(file)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Returns when everything is there. Raises the first error of a file; an interruption ends all of them."""
        self._gained(0)
        # Daemons: a process that is told to end does not wait for a server that says nothing.
        workers = [threading.Thread(target=self._work, daemon=True, name="download") for _ in range(AT_ONCE)]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                if self._cancel.wait(_LOOK_S):
                    self._stop.set()
                    for worker in workers:
                        worker.join()
        finally:
            self._stop.set()
        if self._cancel.is_set() and self._error is None and not self._waiting.empty():
            raise Cancelled
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                file = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                fetch_file(
                    self._hub, self._repository, file, self._partial.path / file.path, self._gained, self._stop
                )  # fmt: skip
            except BaseException as error:
                with self._lock:
                    # What the others say once they are stopped is no reason.
                    self._error = self._error or error
                self._stop.set()

    def _gained(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._told(self._done, self._total)
