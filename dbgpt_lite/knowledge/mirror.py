"""Spaces that mirror a folder of bundled files: which space, and what is missing in it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.loaders import READERS, suffix
from dbgpt_lite.knowledge.names import distinct_names
from dbgpt_lite.knowledge.records import Space, Upload


@dataclass(frozen=True, slots=True)
class Difference:
    """The files that a space lacks under their names, and its names that are gone from the folder."""

    missing: tuple[Upload, ...]
    gone: tuple[str, ...]

    def parts(self, size: int) -> Iterator[tuple[Upload, ...]]:
        """The missing files in uploads of up to `size`."""
        for first in range(0, len(self.missing), size):
            yield self.missing[first : first + size]


def mirror_space(catalog: Catalog, name: str, readonly: bool, hidden: bool) -> Space:
    """The space of that name and kind, made when missing; a name that a user's own space has taken gets a number."""
    wanted, number = name, 1
    while (space := catalog.space_named(wanted, hidden)) is not None:
        if space.readonly == readonly and space.hidden == hidden:
            return space
        number += 1
        wanted = f"{name} ({number})"
    return catalog.space(catalog.add_space(wanted, readonly, hidden))


def difference(catalog: Catalog, space_id: str, folder: Path) -> Difference:
    """Compare a space with its folder: which bytes each name stands for. Files are named by their way in the folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and suffix(file.name) in READERS]
    names = distinct_names([file.relative_to(folder).as_posix() for file in files])
    held = catalog.held(space_id)
    missing = tuple(
        Upload(file, name) for file, name in zip(files, names, strict=True) if held.get(name) != _sha256(file)
    )
    return Difference(missing, tuple(held.keys() - set(names)))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
