"""The vectors of a space made anew by another embedder, while the old ones stay in use."""

import threading
from collections.abc import Iterator

import numpy as np

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder, Vectors
from dbgpt_lite.knowledge.indexing import WINDOW_BATCHES, check, embedded_text
from dbgpt_lite.knowledge.pace import Pace
from dbgpt_lite.knowledge.records import IngestProgress, Space

_Rows = list[tuple[int, str, str]]


def reembed(catalog: Catalog, embedder: Embedder, space: Space, cancel: threading.Event) -> Iterator[IngestProgress]:
    """Embed what `embedder` has not embedded yet, then search by its vectors; the caller holds the writer lock.

    Raises Cancelled; what is embedded until then is kept for the next time, as when the generator is closed.
    """
    left = catalog.unembedded_count(space.id, embedder.identity)
    progress = _Progress(space, space.chunks - left, left)
    yield progress.report()
    while rows := catalog.unembedded(space.id, embedder.identity, WINDOW_BATCHES * embedder.batch):
        yield from _window(catalog, embedder, rows, progress, cancel)
    catalog.switch_embedder(space.id, embedder.identity)


def _window(
    catalog: Catalog, embedder: Embedder, rows: _Rows, progress: "_Progress", cancel: threading.Event
) -> Iterator[IngestProgress]:
    ids: list[int] = []
    vectors: list[Vectors] = []
    rows = sorted(rows, key=lambda row: -embedder.count(row[2]))
    try:
        for first in range(0, len(rows), embedder.batch):
            check(cancel)
            batch = rows[first : first + embedder.batch]
            vectors.append(embedder.embed([embedded_text(heading, text) for _, heading, text in batch]))
            ids.extend(id_ for id_, _, _ in batch)
            yield progress.add(len(batch))
    except (Cancelled, GeneratorExit):
        if vectors:
            catalog.add_vectors(ids, np.concatenate(vectors), embedder.identity)
        raise
    catalog.add_vectors(ids, np.concatenate(vectors), embedder.identity)


class _Progress:
    """Reports on a space as on one file."""

    def __init__(self, space: Space, done: int, left: int) -> None:
        self._space, self._done = space, done
        self._pace = Pace()
        self._pace.begin(0, left)

    def add(self, chunks: int) -> IngestProgress:
        self._done += chunks
        self._pace.embedded(chunks)
        return self.report()

    def report(self) -> IngestProgress:
        space, left = self._space, self._pace.seconds_left()
        return IngestProgress(space.name, 1, 1, self._done, space.chunks, "embedding", seconds_left=left)
