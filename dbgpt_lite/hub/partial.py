"""The hidden folder in which a download grows, and the note in it that says what it is to become.

``.NAME.partial`` beside the model folders; hidden folders are no models. It survives a stop, a crash and a restart, and
is renamed to NAME when it is complete. The note stays in the model folder and tells where the files came from.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import Busy, ModelError, NotFound, UserError
from dbgpt_lite.hub.client import Repository
from dbgpt_lite.hub.names import folder_name, is_safe_path, repository_name, revision_name, shown
from dbgpt_lite.hub.selection import RemoteFile
from dbgpt_lite.hub.transfer import PART

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

NOTE = ".download.json"
_LOCK = ".lock"
_SUFFIX = ".partial"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A download as it was asked for. Make one with `wanted`, which checks."""

    name: str
    revision: str
    folder: str
    gguf: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A download that was begun and is not at work here: what it was to be, and how far it came."""

    wanted: Wanted
    done_bytes: int
    total_bytes: int


def wanted(endpoint: str, name: str, revision: str = "", folder: str = "", gguf: str = "") -> Wanted:
    """Check what somebody typed. Raises ModelError that says which part is wrong."""
    repository = repository_name(name, endpoint)
    return Wanted(repository, revision_name(revision), folder_name(folder, repository), gguf.strip()[:200])


def partial_folder(models_dir: Path, folder: str) -> Path:
    """Where a download of MODELS_DIR/folder grows."""
    return models_dir / f".{folder}{_SUFFIX}"


class PartialFolder:
    """The folder of one download, held by one process at a time; a context manager that lets go of it."""

    def __init__(self, models_dir: Path, folder: str) -> None:
        self.path = partial_folder(models_dir, folder)
        self.target = models_dir / folder
        self._lock: int | None = None

    def __enter__(self) -> "PartialFolder":
        """Raises ModelError when the model is there already, and Busy when somebody else downloads it."""
        if os.path.lexists(self.target):
            raise ModelError("hub.exists", folder=self.target.name)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(self._lock):
            os.close(self._lock)
            self._lock = None
            raise Busy("hub.at_work", folder=self.target.name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is None:
            return
        with suppress(OSError):
            if self.path.is_dir() and not self._has_bytes():
                # Nothing came: no trace is left.
                shutil.rmtree(self.path)
        os.close(self._lock)
        self._lock = None

    def refuse_other(self, wish: Wanted) -> None:
        """Raises ModelError when what lies here was begun for another repository: it is not for us to remove."""
        other = str(_read_note(self.path).get("name", ""))
        if other and other != wish.name and self._has_bytes():
            raise ModelError("hub.other_partial", folder=wish.folder, other=shown(other))

    def begin(self, wish: Wanted, repository: Repository, files: Sequence[RemoteFile]) -> None:
        """Write the note; what an earlier run left of files that are others now is removed.

        A file counts as the same by its hash; one without is, if its size is, only at the same commit.
        """
        before = _read_note(self.path)
        same_commit = repository.is_fixed and before.get("commit") == repository.commit
        known = {entry["path"]: entry for entry in _entries(before)}
        kept = {
            file.path
            for file in files
            if known.get(file.path) == asdict(file) and (file.sha256 or file.git_sha1 or same_commit)
        }
        self._remove_all_but(kept)
        note = {**asdict(wish), "commit": repository.commit, "files": [asdict(file) for file in files]}
        fresh = self.path / f"{NOTE}{PART}"
        fresh.write_text(json.dumps(note, indent=1), encoding="utf-8")
        fresh.replace(self.path / NOTE)

    def holds(self, file: RemoteFile) -> int:
        """How many bytes of a file are there."""
        return _there(self.path, asdict(file))

    def is_whole(self, file: RemoteFile) -> bool:
        """Whether a file is there under its own name: its hash was right when it got it."""
        whole = self.path / file.path
        return whole.is_file() and whole.stat().st_size == file.size

    def finish(self) -> Path:
        """Give the folder its name."""
        (self.path / _LOCK).unlink(missing_ok=True)
        if os.path.lexists(self.target):
            raise ModelError("hub.exists", folder=self.target.name)
        self.path.rename(self.target)
        return self.target

    def _remove_all_but(self, kept: Set[str]) -> None:
        for path in _files(self.path):
            name = path.relative_to(self.path).as_posix()
            if name not in kept and name.removesuffix(PART) not in kept:
                path.unlink()

    def _has_bytes(self) -> bool:
        return any(path.stat().st_size for path in _files(self.path))


def interrupted(models_dir: Path, endpoint: str) -> list[Interrupted]:
    """The unfinished downloads of MODELS_DIR, by folder; a folder whose note cannot be read is none."""
    found = []
    for path in sorted(models_dir.glob(f".*{_SUFFIX}")):
        note = _read_note(path)
        try:
            wish = wanted(endpoint, *(str(note.get(key, "")) for key in ("name", "revision", "folder", "gguf")))
        except UserError:
            continue
        if path != partial_folder(models_dir, wish.folder):
            continue
        files = _entries(note)
        done = sum(_there(path, file) for file in files)
        found.append(Interrupted(wish, done, sum(file["size"] for file in files)))
    return found


def discard(models_dir: Path, folder: str) -> None:
    """Remove what was downloaded of an unfinished model. Raises NotFound, and Busy while it is at work."""
    partial = PartialFolder(models_dir, folder_name(folder))
    if not partial.path.is_dir() or partial.path.is_symlink():
        raise NotFound("hub.no_partial", folder=folder[:100])
    descriptor = os.open(partial.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _locked(descriptor):
            raise Busy("hub.at_work", folder=folder)
        shutil.rmtree(partial.path)
    finally:
        os.close(descriptor)


def _there(folder: Path, file: Mapping[str, Any]) -> int:
    for name in (file["path"], file["path"] + PART):
        if (folder / name).is_file():
            return int(min((folder / name).stat().st_size, file["size"]))
    return 0


def _files(folder: Path) -> list[Path]:
    """What is there of the model: every file but the note and the lock."""
    found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return [path for path in found if path not in (folder / NOTE, folder / f"{NOTE}{PART}", folder / _LOCK)]


def _read_note(folder: Path) -> Mapping[str, Any]:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _entries(note: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files that a note lists, without those that no download could have written."""
    files = note.get("files")
    return [file for file in files if _is_entry(file)] if isinstance(files, list) else []


def _is_entry(file: object) -> bool:
    if not isinstance(file, dict):
        return False
    path, size = file.get("path"), file.get("size")
    return isinstance(path, str) and is_safe_path(path) and type(size) is int and size >= 0


def _locked(descriptor: int) -> bool:
    """Whether the lock is held now. Where there are none (Windows, some network disks) it counts as held."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
