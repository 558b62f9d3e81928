"""One file of a hub -> the disk: taken up where it was cut off, and known by its hash before it gets its name."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.hub.client import Hub, Repository
from dbgpt_lite.hub.faults import Passing
from dbgpt_lite.hub.selection import RemoteFile

if TYPE_CHECKING:
    import httpx

PART = ".part"
_BLOCK = 1 << 20
# How many bytes more are on the disk than before; negative when some had to be thrown away.
Gained = Callable[[int], None]


def fetch_file(
    hub: Hub, repository: Repository, file: RemoteFile, target: Path, gained: Gained, cancel: threading.Event
) -> None:
    """Bring `file` to `target`. Its first bytes may lie in `target`.part already, and do after a fault or a stop.

    Raises UserError, Cancelled, and OSError of the disk. A file of the wrong size or hash is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    with _Part(part, file, gained, cancel) as growing:
        while growing.size < file.size:
            before = growing.size
            try:
                hub.patiently(lambda: _go_on(hub, repository, file, growing, cancel), cancel)
            except ModelError as error:
                growing.damaged = growing.damaged or error.key == "hub.too_short"
                # Patience begins anew as long as something comes.
                if growing.size <= before or growing.damaged:
                    raise
        growing.check()
    part.replace(target)


def _go_on(hub: Hub, repository: Repository, file: RemoteFile, part: "_Part", cancel: threading.Event) -> None:
    with hub.content(repository, file.path, part.size) as response:
        if part.size and not _continues(response, part.size):
            part.restart()
        for block in response.iter_bytes():
            if cancel.is_set():
                raise Cancelled
            part.write(block)
        if part.size < file.size:
            raise Passing(ModelError("hub.broken_off", host=response.url.host))


def _continues(response: "httpx.Response", start: int) -> bool:
    """Whether the body begins at `start`, by its Content-Range header (RFC 9110, 14.4)."""
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(f"bytes {start}-")


class _Part:
    """The file as far as it has come, with the hash of what is there."""

    def __init__(self, path: Path, file: RemoteFile, gained: Gained, cancel: threading.Event) -> None:
        self._path, self._file, self._gained, self._cancel = path, file, gained, cancel
        self._hash = _hash_for(file)
        self.size = 0
        self.damaged = False

    def __enter__(self) -> Self:
        self._out = self._path.open("a+b")
        try:
            self._take_up()
        except BaseException:
            self._out.close()
            raise
        return self

    def __exit__(self, _t: type[BaseException] | None, _e: BaseException | None, _b: TracebackType | None) -> None:
        self._out.close()
        if self.damaged:
            self._path.unlink(missing_ok=True)

    def write(self, block: bytes) -> None:
        if self.size + len(block) > self._file.size:
            raise self._damage()
        self._out.write(block)
        self._hash.update(block)
        self.size += len(block)
        self._gained(len(block))

    def restart(self) -> None:
        """Nothing is there."""
        self._gained(-self.size)
        self._out.truncate(0)
        self.size = 0
        self._hash = _hash_for(self._file)

    def check(self) -> None:
        """Raises ModelError unless this is the file; on the disk, not in the system's memory, when it is."""
        expected = self._file.sha256 or self._file.git_sha1
        if expected and self._hash.hexdigest() != expected:
            raise self._damage()
        self._out.flush()
        os.fsync(self._out.fileno())

    def _take_up(self) -> None:
        if os.fstat(self._out.fileno()).st_size > self._file.size:
            self._out.truncate(0)
        self._out.seek(0)
        while block := self._out.read(_BLOCK):
            if self._cancel.is_set():
                raise Cancelled
            self._hash.update(block)
            self.size += len(block)
            self._gained(len(block))

    def _damage(self) -> ModelError:
        self.damaged = True
        self._gained(-self.size)
        return ModelError("hub.damaged", file=self._file.path)


def _hash_for(file: RemoteFile) -> "hashlib._Hash":
    """SHA-256 of the bytes, else SHA-1 as git takes it of a blob: with a header that tells the size."""
    if file.sha256 or not file.git_sha1:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
