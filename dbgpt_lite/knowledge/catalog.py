"""The catalogue of a knowledge base: one SQLite file with spaces, documents, chunks, vectors and the BM25 index.

It is the only truth: FAISS files are caches made from it. A document's chunks are staged while it is being indexed and
become visible in the one transaction that publishes it, so a killed process leaves whole documents or resumable ones.
"""

from pathlib import Path

from dbgpt_lite.knowledge.catalog_chunks import ChunkTable
from dbgpt_lite.knowledge.catalog_spaces import SpaceTable, Version
from dbgpt_lite.knowledge.catalog_vectors import VectorTable
from dbgpt_lite.knowledge.migrations import migrate

__all__ = ["Catalog", "Version"]


class Catalog(SpaceTable, ChunkTable, VectorTable):
    """The catalogue file at `path`, made or brought to the newest schema when opened. Safe for many threads."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self.connection() as db:
            migrate(db)
