"""Names that users choose. They are only ever shown: no path is made from one."""

import re
import unicodedata
from pathlib import PurePosixPath

from dbgpt_lite.errors import UserError

MAX_SPACE_NAME = 60
MAX_FILE_NAME = 150


def space_name(name: str) -> str:
    """The name of a space, tidied. Raises UserError when nothing or too much is left."""
    tidy = _printable(name)
    if not 1 <= len(tidy) <= MAX_SPACE_NAME:
        raise UserError("knowledge.bad_space_name", limit=MAX_SPACE_NAME)
    return tidy


def file_name(name: str) -> str:
    """The last part of a file's name for display, without control or direction characters, its suffix kept."""
    tidy = _printable(re.split(r"[/\\]", unicodedata.normalize("NFKC", name))[-1]).lstrip(".")
    if len(tidy) > MAX_FILE_NAME:
        ending = PurePosixPath(tidy).suffix[:16]
        tidy = tidy[: MAX_FILE_NAME - len(ending)] + ending
    return tidy or "document"


def _printable(text: str) -> str:
    """Control, format, surrogate and private characters go (Unicode category C); white space becomes single spaces."""
    spaced = " ".join(text.split())
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C").strip()
