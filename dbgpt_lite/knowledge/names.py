"""Names that users choose. They are only ever shown: no path is made from one."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
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


def same_name(one: str, other: str) -> bool:
    """Whether two spaces could not have these names side by side: they differ in case or in what is not seen."""
    return _printable(one).casefold() == _printable(other).casefold()


def file_name(name: str) -> str:
    """A file's name for display, without control or direction characters, its suffix kept.

    A file of a folder keeps its way there ("plans/2026.md"); of a way that climbs or begins at a root, the last part.
    """
    tidy = "/".join(part.lstrip(". ") for part in map(_printable, relative_parts(unicodedata.normalize("NFKC", name))))
    if len(tidy) > MAX_FILE_NAME:
        # A file replaces another of its name, so two long names must not be cut to the same one.
        head, digest = tidy[:40], hashlib.sha256(tidy.encode()).hexdigest()[:8]
        tidy = f"{head}…{digest}…{tidy[len(head) + len(digest) + 2 - MAX_FILE_NAME :]}"
    return tidy.strip("/") or "document"


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names to show. Of two files of one upload neither replaces the other: the second of a name gets a number."""
    shown: list[str] = []
    taken: set[str] = set()
    for given in names:
        wanted = name = file_name(given)
        number = 1
        while name in taken:
            number += 1
            path = PurePosixPath(wanted)
            name = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
        taken.add(name)
        shown.append(name)
    return shown


def relative_parts(name: str) -> list[str]:
    """The parts of a relative way in any system's notation; only the last one of any other."""
    parts = re.split(r"[/\\]", name)
    plain = all(part.strip(". ") and not part.startswith(".") for part in parts) and ":" not in parts[0]
    return parts if plain else parts[-1:]


def _printable(text: str) -> str:
    """Control, format, surrogate and private characters go (Unicode category C); white space becomes single spaces."""
    spaced = " ".join(text.split())
    return "".join(character for character in spaced if unicodedata.category(character)[0] != "C").strip()
