"""Chunks drawn evenly from a space: what is common in it is judged by them, so that nothing has to be counted."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate

from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.evidence import Comparable, comparable
from dbgpt_lite.messages import Passage

# Enough to tell a word in every tenth chunk from one in every hundredth; reading them takes some 40 ms, once a change.
SAMPLE_SIZE = 400
KEPT_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class SpaceSample:
    """Up to SAMPLE_SIZE chunks of a space as it was at `generation`, and the same ready to be compared."""

    generation: int
    passages: tuple[Passage, ...]
    texts: tuple[Comparable, ...]


class SpaceSamples:
    """The samples of the spaces asked last. Safe for many threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._guard = threading.Lock()
        self._kept: OrderedDict[str, SpaceSample] = OrderedDict()

    def of(self, space_id: str) -> SpaceSample:
        """The sample of a space, drawn again after a change. Raises NotFound."""
        generation = self._catalog.version(space_id).generation
        with self._guard:
            known = self._kept.get(space_id)
        if known is None or known.generation != generation:
            passages = tuple(self._catalog.passages(space_id, _even_ids(self._catalog, space_id)).values())
            texts = tuple(comparable(f"{passage.heading}\n{passage.text}") for passage in passages)
            known = SpaceSample(generation, passages, texts)
        with self._guard:
            self._kept[space_id] = known
            self._kept.move_to_end(space_id)
            while len(self._kept) > KEPT_SAMPLES:
                self._kept.popitem(last=False)
        return known


def _even_ids(catalog: Catalog, space_id: str) -> list[int]:
    """Ids of chunks at even distances through the documents, every one of a small space."""
    with catalog.reading() as db:
        documents = db.execute(
            """SELECT d.id, d.chunks FROM documents d JOIN spaces s ON s.number = d.space
               WHERE s.id = ? AND d.status = 'ready' AND d.chunks > 0 ORDER BY d.id""",
            (space_id,),
        ).fetchall()
        ends = list(accumulate(chunks for _, chunks in documents))
        total = ends[-1] if ends else 0
        wanted = min(SAMPLE_SIZE, total)
        ids: dict[int, None] = {}
        for number in range(wanted):
            position = number * total // wanted
            row = bisect_right(ends, position)
            document, chunks = documents[row]
            within = (position - (ends[row] - chunks)) / chunks
            # A document's chunks were stored one after the other; counting up to one would walk through all before.
            found = db.execute(
                """SELECT min(id) FROM chunks WHERE document = ?1 AND id >=
                     (SELECT min(id) + CAST((max(id) - min(id) + 1) * ?2 AS INTEGER)
                      FROM chunks WHERE document = ?1)""",
                (document, within),
            ).fetchone()
            if found[0] is not None:
                ids[int(found[0])] = None
    return list(ids)
