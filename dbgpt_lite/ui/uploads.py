"""Files on their way in: own copies of what a browser sent, pasted or named, removed once they are indexed."""

import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.names import relative_parts, same_name, space_name
from dbgpt_lite.knowledge.records import Space, Upload

if TYPE_CHECKING:
    from dbgpt_lite.knowledge.base import KnowledgeBase

MAX_NAME = 60
# Copies that a killed process left behind are removed at the next start once they are this old.
LEFT_BEHIND_S = 24 * 3600


def received(files: list[dict[str, Any]] | None) -> tuple[Upload, ...]:
    """What an upload button has received, under the names their owner gave them.

    For events with ``preprocess=False``: Gradio would hand over shortened names and leave an empty file for each.
    """
    named = [(Path(file["path"]), own_name(file.get("orig_name") or file["path"])) for file in files or []]
    return tuple(Upload(_own_copy(path), name) for path, name in named)


def pasted(title: str, text: str) -> Upload:
    """A pasted text as a file named after its title, else after its first line. Raises UserError for no text."""
    if not text.strip():
        raise UserError("ui.text_empty")
    line = " ".join((title.strip() or text.strip().splitlines()[0]).replace("/", " ").split())[:MAX_NAME].strip()
    path = fresh_folder() / "file"
    path.write_text(text, encoding="utf-8")
    return Upload(path, f"{line}.txt", encoding="utf-8")


def fresh_folder() -> Path:
    """A new folder of our own in the upload folder, under a name that nobody can guess."""
    folder = _received() / secrets.token_hex(16)
    folder.mkdir(parents=True)
    return folder


def discarding(uploads: Sequence[Upload]) -> Callable[[], None]:
    """What removes our copies; Gradio's own go within the hour, and no route hands them out."""

    def discard() -> None:
        for upload in uploads:
            with suppress(OSError):
                upload.path.unlink(missing_ok=True)
                upload.path.parent.rmdir()

    return discard


def remove_left_behind() -> None:
    """Remove copies that an earlier process was killed with."""
    for folder in _received().glob("*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > LEFT_BEHIND_S:
                shutil.rmtree(folder)


def own_name(path: str) -> str:
    """A name as a browser sends it, with the folders it was chosen with, whatever the system's separators."""
    return "/".join(part for part in relative_parts(path) if part) or "file"


def space_for(knowledge: "KnowledgeBase", chosen: Space | None, uploads: Sequence[Upload]) -> Space:
    """The chosen space, unless none is or it is read-only: then a new one, named from the first file."""
    if chosen is not None and not chosen.readonly:
        return chosen
    first = uploads[0].name if uploads else ""
    stem = _stem(first.split("/")[0] if "/" in first else Path(first).stem)
    taken = [space.name for space in knowledge.spaces()]
    names = (stem if number == 1 else f"{stem} {number}" for number in range(1, len(taken) + 2))
    return knowledge.create(next(name for name in names if not any(same_name(name, other) for other in taken)))


def _stem(name: str) -> str:
    """What is left of a name as that of a space, with room for a number; a name of nothing visible gets another."""
    try:
        return space_name(name[: MAX_NAME - 6])
    except UserError:
        return "documents"


def _received() -> Path:
    from gradio.utils import get_upload_folder

    return Path(get_upload_folder()) / "received"


def _own_copy(path: Path) -> Path:
    """A second name for a received file. Gradio keeps one file for all who upload the same bytes at a time."""
    copy = fresh_folder() / "file"
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, copy)
    return copy
