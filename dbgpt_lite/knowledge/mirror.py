"""Spaces that mirror a folder of bundled files: which space, and what is missing in it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.loaders import READERS, suffix
from dbgpt_lite.knowledge.records import Space, Upload


@dataclass(frozen=True, slots=True)
class Difference:
    """What a space lacks of its folder, and the ids of the documents whose file is gone from it."""

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
    """Compare a space with its folder by the hashes of the files. Files are named by their way in the folder."""
    files = {
        _sha256(file): file for file in sorted(folder.rglob("*")) if file.is_file() and suffix(file.name) in READERS
    }
    known = catalog.hashes(space_id)
    ready = {document.id for document in catalog.documents(space_id) if document.status == "ready"}
    missing = tuple(
        Upload(file, file.relative_to(folder).as_posix())
        for sha256, file in files.items()
        if known.get(sha256) not in ready
    )
    return Difference(missing, tuple(known[sha256] for sha256 in known.keys() - files.keys()))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
