"""Fences around Office files, which may be small on disk and huge, or hostile, when read."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.errors import DocumentError, TooLarge
from dbgpt_lite.knowledge.loaded import Check

MAX_EXPANDED_BYTES = 100_000_000
# Tags (each "<" of the unpacked parts): trees of docx and pptx take 100 to 150 bytes of memory for each.
MAX_TAGS = 5_000_000
MAX_PARAGRAPHS = 200_000
# Of a row, and of the whole file (rows count too, so that empty ones end).
MAX_COLUMNS = 1_000
MAX_CELLS = 2_000_000

_SCAN_BLOCK = 1 << 20
_OVERLAP = 32
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Office formats have no DTD (ECMA-376 part 2, 9.1.4); its entities could read files or grow without end.
_DTD = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
# A printer's settings (.bin) may be a property list with a DTD of Apple's, which declares no entity. Names of other
# parts say nothing: a sheet may be called anything.
_ENTITY = re.compile(rb"<!ENTITY", re.IGNORECASE)
_XML = (".xml", ".rels")
_MARKUP_BEGINS = (b"<", b"\xef\xbb\xbf<", b"\xfe\xff", b"\xff\xfe", b"\x00<")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".mp4")


@dataclass
class Fences:
    """Counts what a file brings. Raises DocumentError beyond the limits."""

    paragraphs: int = 0
    cells: int = 0

    def paragraph(self) -> None:
        self.paragraphs += 1
        if self.paragraphs > MAX_PARAGRAPHS:
            raise DocumentError("knowledge.too_many_paragraphs", limit=f"{MAX_PARAGRAPHS:,}")

    def row(self, cells: int) -> None:
        """A row of so many cells."""
        if cells > MAX_COLUMNS:
            raise DocumentError("knowledge.too_many_columns", limit=f"{MAX_COLUMNS:,}")
        self.cells += 1 + cells
        if self.cells > MAX_CELLS:
            raise DocumentError("knowledge.too_many_cells", limit=f"{MAX_CELLS:,}")


def check_zip(path: Path, check: Check) -> None:
    """Refuse what is not a whole zip file, holds a DTD, or unpacks to more than MAX_EXPANDED_BYTES or MAX_TAGS.

    zipfile never reads more of an entry than the size it declares, so the declared sizes can be trusted.
    """
    with path.open("rb") as stream:
        magic = stream.read(len(_OLE_MAGIC))
    if magic == _OLE_MAGIC:
        raise DocumentError("knowledge.encrypted_or_old_office")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_EXPANDED_BYTES:
            raise TooLarge("knowledge.expands_too_much", limit=MAX_EXPANDED_BYTES // 1_000_000)
        tags = 0
        for name, block, new in _blocks(archive):
            check()
            tags += block.count(b"<", len(block) - new)
            if tags > MAX_TAGS:
                raise DocumentError("knowledge.too_many_elements", limit=f"{MAX_TAGS:,}")
            forbidden = _DTD if name.endswith(_XML) else _ENTITY
            # UTF-16 writes each letter with a zero byte.
            if forbidden.search(block.replace(b"\x00", b"") if b"\x00" in block else block):
                raise zipfile.BadZipFile("a part has a DTD")


def _blocks(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes, int]]:
    """The unpacked parts in blocks, without the pictures: name of the part, the end of the block before with this one,
    and the length of this one. What is called a picture and begins like markup is none."""
    for entry in archive.infolist():
        picture = entry.filename.lower().endswith(_PICTURES)
        with archive.open(entry) as part:
            last = b""
            while block := part.read(_SCAN_BLOCK):
                if picture and not last and not block.lstrip().startswith(_MARKUP_BEGINS):
                    break
                yield entry.filename.lower(), last + block, len(block)
                last = block[-_OVERLAP:]
