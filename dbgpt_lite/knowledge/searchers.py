"""Which retriever answers for a space: the present one, or while the space is being embedded anew, one of its past."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from dbgpt_lite.errors import KnowledgeIndexError, ModelError
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import Retrieval
from dbgpt_lite.knowledge.retriever import NEAR_MISSES, Retriever
from dbgpt_lite.messages import Passage

# How often a search begins anew because a document was published or replaced in the middle of it.
ATTEMPTS = 3

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Searchers:
    """Searches spaces made with different embedders, each with its own. make: embedder -> retriever."""

    def __init__(self, catalog: Catalog, embedder: Embedder, make: Callable[[Embedder], Retriever]) -> None:
        self._catalog = catalog
        self._embedder = embedder
        self._make = make
        self.current = make(embedder)
        self._past: dict[str, tuple[Embedder, Retriever]] = {}
        self._guard = threading.Lock()

    def search(self, space_id: str, question: str, limit: int) -> list[Passage]:
        """As Retriever.search."""
        return self._steady([space_id], lambda: self._of(space_id).search(space_id, question, limit))

    def retrieve(self, space_ids: Sequence[str], question: str, limit: int) -> Retrieval:
        """As Retriever.retrieve; among several spaces, one whose embedder is nowhere to be found is left out."""
        return self._steady(space_ids, lambda: self._retrieve(space_ids, question, limit))

    def tidy(self) -> None:
        """Free the models of embedders that no space is made with any more."""
        with self._guard:
            gone = [identity for identity in self._past if not self._catalog.uses_embedder(identity)]
            freed = [self._past.pop(identity) for identity in gone]
        for embedder, retriever in freed:
            retriever.calibrator.close()
            embedder.close()

    def close(self) -> None:
        """Stop what the retrievers do in the background."""
        self.current.calibrator.close()
        for _, retriever in self._past.values():
            retriever.calibrator.close()

    def _retrieve(self, space_ids: Sequence[str], question: str, limit: int) -> Retrieval:
        groups: dict[int, tuple[Retriever, list[str]]] = {}
        for space_id in space_ids:
            try:
                retriever = self._of(space_id)
            except KnowledgeIndexError:
                if len(space_ids) == 1:
                    raise
                continue
            groups.setdefault(id(retriever), (retriever, []))[1].append(space_id)
        if not groups:
            return self.current.retrieve(space_ids, question, limit)
        found = [retriever.retrieve(ids, question, limit) for retriever, ids in groups.values()]
        return found[0] if len(found) == 1 else _together(found, limit)

    def _of(self, space_id: str) -> Retriever:
        """Raises NotFound, KnowledgeIndexError when the embedder of the space is nowhere to be found."""
        identity = self._catalog.version(space_id).embedder
        if identity in ("", self._embedder.identity):
            return self.current
        with self._guard:
            if identity not in self._past:
                embedder = self._find(identity)
                self._past[identity] = (embedder, self._make(embedder))
            return self._past[identity][1]

    def _find(self, identity: str) -> Embedder:
        """The embedder that a space was made with: where it was last used, or the embedded one."""
        for folder in dict.fromkeys((self._catalog.embedder_folder(identity), "")):
            candidate = None if folder is None else self._embedder.another(folder)
            try:
                if candidate is not None and candidate.identity == identity:
                    logger.info("a past embedding model answers until its spaces are embedded anew")
                    return candidate
            except ModelError:
                continue
        raise KnowledgeIndexError("knowledge.other_embedder", made_with=identity.split("@")[0])

    def _steady(self, space_ids: Sequence[str], search: Callable[[], T]) -> T:
        """What a search gives when no space changes meanwhile: else it might see a file neither before nor after."""
        for _ in range(ATTEMPTS - 1):
            before = [self._catalog.version(space_id) for space_id in space_ids]
            found = search()
            if before == [self._catalog.version(space_id) for space_id in space_ids]:
                return found
        return search()


def _together(found: Sequence[Retrieval], limit: int) -> Retrieval:
    """The best of several retrievals; their scores are evidence from 0 to 1, whatever the embedder."""
    nearest = max(found, key=lambda one: one.best - one.needed)
    covering = [passage for one in found for passage in one.passages]
    missing = [passage for one in found for passage in one.near_misses]
    passages = tuple(sorted(covering, key=lambda passage: -passage.score)[:limit])
    near_misses = tuple(sorted(missing, key=lambda passage: -passage.score)[:NEAR_MISSES])
    return Retrieval(passages, () if passages else near_misses, nearest.best, nearest.needed, bool(passages))
