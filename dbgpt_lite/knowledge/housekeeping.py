"""What crashes leave in the folders of a knowledge base, and its removal."""

import time
from contextlib import suppress
from pathlib import Path

from dbgpt_lite.knowledge.catalog import Catalog

# A file that no document names is removed once it is this old: a younger one may belong to an upload under way.
ORPHAN_AGE_S = 24 * 3600
# A half-written file beside its target belongs to a process that was killed once it is this old.
PART_AGE_S = 3600
# A temporary space that no conversation uses may belong to one that is just being begun while it is younger.
TEMPORARY_AGE_S = 24 * 3600


def remove_orphans(catalog: Catalog, files: Path, indexes: Path) -> None:
    """Remove replaced documents, old files of uploads and spaces that are in no catalogue, and half-written indexes."""
    for pattern in ("*.new", "*.part"):
        for file in indexes.glob(pattern):
            _remove_older(file, PART_AGE_S)
    for space_id in catalog.unsettled():
        for removed in catalog.settle(space_id):
            (files / space_id / removed.document_id).unlink(missing_ok=True)
    known = {space.id: catalog.document_ids(space.id) for space in catalog.all_spaces()}
    for file in files.glob("*/*"):
        if file.name not in known.get(file.parent.name, ()):
            _remove_older(file, ORPHAN_AGE_S)


def _remove_older(file: Path, age_s: float) -> None:
    """Remove a file last written more than `age_s` seconds ago; another process may be first."""
    with suppress(OSError):
        if time.time() - file.stat().st_mtime > age_s:
            file.unlink()
