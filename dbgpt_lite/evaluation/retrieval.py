"""`evaluate retrieval`: the exam's documents go through the real pipeline, every question is asked of the result."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.evaluation.exam import ExamQuestion, LanguageExam
from dbgpt_lite.evaluation.metrics import DEPTH, Figures, Ranking, figures
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.retriever import Candidate, Reranker
from dbgpt_lite.messages import Passage

TOP_K = 5
# A ranking method and how it orders the candidates of a question.
Order = Callable[[str, Sequence[Candidate]], Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Shares of the questions: answerable ones that were let through, unanswerable ones that were refused."""

    kept: float
    refused: float
    answerable: int
    unanswerable: int


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of one language (or "all"), by method; seconds are those of asking, and a median question's."""

    name: str
    passages: int
    questions: int
    methods: dict[str, Figures]
    refusal: Refusal
    needed: float
    ingest_s: float
    median_ms: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of one question."""

    question: ExamQuestion
    rankings: dict[str, Ranking]
    covered: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class _Room:
    """A language's exam, taken in."""

    exam: LanguageExam
    space_id: str
    passages: tuple[Passage, ...]
    ingest_s: float
    needed: float


def evaluate(
    exams: Sequence[LanguageExam],
    embedder: Embedder,
    *,
    chunk_tokens: int = 180,
    chunk_overlap: int = 30,
    reranker: Reranker | None = None,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Part]:
    """A Part a language and one for all together. cache: a folder in which the documents stay taken in."""
    parts: list[Part] = []
    everything: list[_Asked] = []
    rooms: list[_Room] = []
    with _folder(cache) as folder:
        base = KnowledgeBase(
            folder, embedder, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap, reranker=reranker
        )
        try:
            for exam in exams:
                tell(f"{exam.language}: taking in the documents")
                room = _take_in(base, exam)
                tell(f"{exam.language}: asking {len(exam.questions)} questions of {len(room.passages)} passages")
                asked = [_ask(base, room, question, reranker is not None) for question in exam.questions]
                parts.append(_part(exam.language, [room], asked))
                everything += asked
                rooms.append(room)
        finally:
            base.close()
    return [*parts, _part("all", rooms, everything)] if len(parts) > 1 else parts


@contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    if cache is not None:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="retrieval-exam-") as folder:
        yield Path(folder)


def _take_in(base: KnowledgeBase, exam: LanguageExam) -> _Room:
    started = time.perf_counter()
    space = base.ensure_folder(f"exam-{exam.language}", exam.folder, readonly=False, cancel=threading.Event())
    passages = [chunk for document in base.documents(space.id) for chunk in base.chunks(space.id, document.id)]
    base.calibrate(space.id)
    seconds = time.perf_counter() - started
    needed = base.retrieve([space.id], exam.questions[0].question, TOP_K).needed
    return _Room(exam, space.id, tuple(passages), seconds, needed)


def _ask(base: KnowledgeBase, room: _Room, question: ExamQuestion, reranked: bool) -> _Asked:
    started = time.perf_counter()
    covered = base.retrieve([room.space_id], question.question, TOP_K).covered
    seconds = time.perf_counter() - started
    rankings: dict[str, Ranking] = {}
    if question.answerable:
        total = sum(question.is_answered_by(passage) for passage in room.passages)
        found = base.retriever.candidates([room.space_id], question.question)
        for name, order in _orders(base, reranked).items():
            hits = order(question.question, found)[:DEPTH]
            rankings[name] = Ranking(tuple(question.is_answered_by(one.passage) for one in hits), total)
    return _Asked(question, rankings, covered, seconds)


def _orders(base: KnowledgeBase, reranked: bool) -> dict[str, Order]:
    orders: dict[str, Order] = {
        "vectors only": lambda _, found: sorted(found, key=lambda one: -one.cosine),
        "BM25 only": lambda _, found: sorted((one for one in found if one.bm25 > 0), key=lambda one: -one.bm25),
        "fused": base.retriever.fused,
    }
    return {**orders, "fused, reranked": base.retriever.rank} if reranked else orders


def _part(name: str, rooms: Sequence[_Room], asked: Sequence[_Asked]) -> Part:
    answerable = [one for one in asked if one.question.answerable]
    others = [one for one in asked if not one.question.answerable]
    names = answerable[0].rankings if answerable else {}
    seconds = sorted(one.seconds for one in asked)
    return Part(
        name,
        sum(len(room.passages) for room in rooms),
        len(asked),
        {method: figures([one.rankings[method] for one in answerable]) for method in names},
        Refusal(
            _share([one.covered for one in answerable]),
            _share([not one.covered for one in others]),
            len(answerable),
            len(others),
        ),
        rooms[0].needed if len(rooms) == 1 else 0.0,
        sum(room.ingest_s for room in rooms),
        1000 * seconds[len(seconds) // 2] if seconds else 0.0,
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
