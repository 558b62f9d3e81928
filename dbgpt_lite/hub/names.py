"""Names that people give to a download: repository, revision, folder; and those that a hub gives to files."""

import re
from pathlib import PurePosixPath, PureWindowsPath

from dbgpt_lite.errors import ModelError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w][\w./-]{0,199}", re.ASCII)
_FOLDER = re.compile(r"\w[\w.-]{0,95}")
DEFAULT_REVISION = "main"


def repository_name(given: str, endpoint: str) -> str:
    """ "owner/name", also from the address of the model's page at the hub. Raises ModelError (hub.bad_name)."""
    name = given.strip().removeprefix(f"{endpoint.rstrip('/')}/").strip("/")
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise ModelError("hub.bad_name", name=given.strip()[:100])
    return name


def revision_name(given: str) -> str:
    """A branch, tag or commit; "" is the main branch. Raises ModelError (hub.bad_revision)."""
    revision = given.strip() or DEFAULT_REVISION
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise ModelError("hub.bad_revision", revision=given.strip()[:100])
    return revision


def folder_name(given: str, repository: str = "") -> str:
    """One folder right inside MODELS_DIR, never hidden; "" is called like the repository. Raises ModelError."""
    folder = given.strip() or repository.rpartition("/")[2]
    if not _FOLDER.fullmatch(folder) or folder.endswith("."):
        raise ModelError("hub.bad_folder", folder=given.strip()[:100])
    return folder


def is_safe_path(path: str) -> bool:
    """Whether a file name of a hub stays inside the folder it is joined to, on every system."""
    parts = path.split("/")
    windows = PureWindowsPath(path)
    return (
        all(part not in ("", ".", "..") for part in parts)
        and "\\" not in path
        and path.isprintable()
        and not PurePosixPath(path).is_absolute()
        and not windows.drive
        and not windows.root
        and not any(PureWindowsPath(part).drive for part in parts)
    )


def shown(name: str) -> str:
    """What a hub or a file calls something, for a terminal: what is not to be printed is spelled out, \\x1b."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name[:100])
