"""What an answer rests on: one ContextSource a chat mode. A new mode is one class and one row in the table of sources.

A source yields what it is doing (Step, Rewritten, Found, SqlTried, Rows) and returns a Context. It writes no answer.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Protocol

from dbgpt_lite.chat.answerable import Answerable
from dbgpt_lite.chat.recall import Memory
from dbgpt_lite.chat.rewriting import FollowUps
from dbgpt_lite.chat.rows import no_query, notes_of, reads_only, rows_as_text
from dbgpt_lite.chat.sql_follow_up import leans, previous_query
from dbgpt_lite.chat.text_to_sql import answer_with_sql
from dbgpt_lite.chat.wish import asks_to_write
from dbgpt_lite.errors import Cancelled, KnowledgeIndexError, NotFound
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.records import Retrieval, Space
from dbgpt_lite.knowledge.words import holds_chinese, is_chinese
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import (
    ChatEvent,
    ChatRequest,
    Found,
    Ledger,
    Message,
    Mode,
    Passage,
    ResultTable,
    Rewritten,
    Routed,
    Rows,
    SqlAttempt,
    Step,
)
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Database, Databases
from dbgpt_lite.sql.schema_search import SchemaSearch
from dbgpt_lite.texts import text


@dataclass(frozen=True, slots=True)
class Context:
    """What the answer is made from. `reply` not empty: nothing is left to generate, this is the answer.

    `task` names the prompt; `variables` fill it beside question, passages and history. `near_misses`, `best` and
    `needed` belong to a reply that says that the documents do not cover the question. `notes` are sentences for the
    reader that the answer must not leave out.
    """

    task: str
    mode: Mode
    source: str = ""
    passages: tuple[Passage, ...] = ()
    near_misses: tuple[Passage, ...] = ()
    best: float = 0.0
    needed: float = 0.0
    variables: Mapping[str, str] = field(default_factory=dict)
    attempts: tuple[SqlAttempt, ...] = ()
    sql: str = ""
    table: ResultTable | None = None
    reply: str = ""
    ledger: Ledger | None = None
    notes: tuple[str, ...] = ()


Gather = Generator[ChatEvent, None, Context]


class ContextSource(Protocol):
    """Gathers the context of one chat mode."""

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: Event) -> Gather:
        """Yield events while working; return the Context."""
        ...


class PlainChat:
    """Conversation with the model alone."""

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: Event) -> Gather:
        """Nothing to look up."""
        yield from ()
        return Context("chat", "chat")


class DocumentContext:
    """Passages of one knowledge space, or of all of them when none is chosen."""

    def __init__(self, knowledge: KnowledgeBase, top_k: int, prepared: Event, follow_ups: FollowUps) -> None:
        """`prepared` is set once the sample documents are indexed."""
        self._knowledge = knowledge
        self._top_k = top_k
        self._prepared = prepared
        self._follow_ups = follow_ups

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: Event) -> Gather:
        """Search for the whole question, then hand over the passages, best first, or say that none covers it."""
        spaces, documents = self._spaces(request)
        if not documents and not self._prepared.is_set():
            yield from _until(self._prepared, cancel)
            spaces, documents = self._spaces(request)
        if request.source and spaces[0].temporary:
            yield from self._arrived(spaces[0], cancel)
            spaces, documents = self._spaces(request)
        asked = request.asked
        if not asked and documents:
            asked = yield from self._follow_ups.whole(
                request.question, history, request.language, cancel, request.owner, request.left()
            )
        yield from _tell(asked, request)
        yield Step("search", {"count": documents})
        if not documents:
            return Context("documents", "documents", request.source, reply=text("chat.no_documents", request.language))
        found = self._knowledge.retrieve([space.id for space in spaces], asked, self._top_k)
        if not found.covered:
            return _not_covered(request, found)
        yield Found(found.passages)
        return Context("documents", "documents", request.source, passages=found.passages)

    def _arrived(self, space: Space, cancel: Event) -> Iterator[ChatEvent]:
        """Wait for files that were thrown into the conversation a moment ago. Raises Cancelled."""
        for job in self._knowledge.jobs.of_space(space.id):
            if not job.over:
                yield Step("read_file", {"file": space.name})
            while not self._knowledge.jobs.wait(job.id, 0.1).over:
                if cancel.is_set():
                    raise Cancelled

    def _spaces(self, request: ChatRequest) -> tuple[list[Space], int]:
        """The chosen space or all shared ones, and how many documents they hold.

        Raises NotFound for a space that is not there, or that holds the throw-away files of somebody else.
        """
        if not request.source:
            spaces = self._knowledge.spaces()
        else:
            spaces = [self._knowledge.space(request.source)]
            if spaces[0].temporary and spaces[0].owner != request.owner:
                raise NotFound("knowledge.no_space")
        return spaces, sum(space.documents for space in spaces)


class DatabaseContext:
    """Rows of a database: the question becomes SQL, the SQL is checked and run."""

    def __init__(
        self,
        databases: Databases,
        prompts: Prompts,
        sql_engine: Callable[[], Engine],
        follow_ups: FollowUps | None = None,
        memory: Memory | None = None,
        answerable: Answerable | None = None,
        search: SchemaSearch | None = None,
    ) -> None:
        """`memory` holds accepted queries and terms; `answerable` turns questions away before a model that cannot;
        `search` picks the part of a large schema that a question needs."""
        self._databases = databases
        self._prompts = prompts
        self._sql_engine = sql_engine
        self._follow_ups = follow_ups
        self._memory = memory
        self._answerable = answerable
        self._search = search or SchemaSearch()

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: Event) -> Gather:
        """Write a query, run it, hand over the rows; an honest reply when no query could be written."""
        database = self._databases.get(request.source)
        engine = self._sql_engine()
        previous = previous_query(history)
        change = request.question if previous and leans(request.question) else ""
        if not previous and asks_to_write(request.question):
            return Context("rows", "database", database.name, reply=reads_only(database, request.language))
        question = request.asked or request.question
        if change and previous and not request.asked and self._follow_ups:
            question = yield from self._follow_ups.of_query(
                change, previous.question, history, request.language, cancel, request.owner, request.left()
            )
        yield from _tell(question, request)
        chinese = is_chinese(question) or (is_chinese(change) and holds_chinese(question))
        reads = "zh" in engine.info.languages or not chinese
        if not reads and not change:
            return _not_read(database, engine, request)
        outcome = yield from answer_with_sql(
            self._prompts,
            engine,
            database,
            question,
            request.language,
            cancel,
            memory=self._memory,
            answerable=self._answerable,
            previous=previous if change else None,
            change=change,
            reads=reads,
            search=self._search,
            who=request.owner,
            origin=request.origin,
            left=request.left,
        )
        ledger = outcome.fitted.ledger if outcome.fitted else None
        if outcome.unread:
            return _not_read(database, engine, request)
        if outcome.table is None:
            reply = no_query(outcome, database, request.language)
            return Context("rows", "database", database.name, attempts=outcome.attempts, reply=reply, ledger=ledger)
        yield Rows(outcome.sql, outcome.table)
        notes = notes_of(outcome, request.language)
        rows = "\n".join((rows_as_text(outcome.table), *notes))
        return Context(
            "rows",
            "database",
            database.name,
            variables={"sql": outcome.sql, "rows": rows},
            attempts=outcome.attempts,
            sql=outcome.sql,
            table=outcome.table,
            ledger=ledger,
            notes=notes,
        )


@dataclass(frozen=True, slots=True)
class Route:
    """Where a question belongs: the mode, and the connection for a database ("" = the default, or all documents)."""

    mode: Mode
    source: str = ""


class AutoContext:
    """Lets the router choose among the other sources, then is that source."""

    def __init__(
        self,
        sources: Mapping[Mode, ContextSource],
        route: Callable[[ChatRequest], "Route"],
        follow_ups: FollowUps | None = None,
        prepared: Event | None = None,
    ) -> None:
        """`prepared` is set once the sample documents are indexed, which the route weighs."""
        self._sources = sources
        self._route = route
        self._follow_ups = follow_ups
        self._prepared = prepared

    def gather(self, request: ChatRequest, history: Sequence[Message], cancel: Event) -> Gather:
        """Choose by the whole question, say so, and gather as the chosen mode does."""
        asked = request.question
        if self._follow_ups:
            last = previous_query(history)
            if last and leans(asked):
                asked = yield from self._follow_ups.of_query(
                    asked, last.question, history, request.language, cancel, request.owner, request.left()
                )
            else:
                asked = yield from self._follow_ups.whole(
                    asked, history, request.language, cancel, request.owner, request.left()
                )
        if self._prepared and not self._prepared.is_set():
            yield from _until(self._prepared, cancel)
        yield Step("route")
        route = self._route(replace(request, question=asked))
        yield Routed(route.mode)
        routed = replace(request, mode=route.mode, source=route.source, asked=asked)
        return (yield from self._sources[route.mode].gather(routed, history, cancel))


def _until(prepared: Event, cancel: Event) -> Iterator[ChatEvent]:
    """The very first seconds of the app: its sample documents are on their way. Raises Cancelled."""
    yield Step("prepare")
    while not prepared.wait(0.1):
        if cancel.is_set():
            raise Cancelled


def search_spaces(knowledge: KnowledgeBase, spaces: Sequence[str], question: str, top_k: int) -> tuple[Passage, ...]:
    """The best passages of several spaces; a single space keeps its own order.

    Among several, a space made with another embedder is left out; asked alone, it raises KnowledgeIndexError.
    """
    if len(spaces) == 1:
        return tuple(knowledge.search(spaces[0], question, top_k))
    found = [hits for space in spaces if (hits := _search(knowledge, space, question, top_k))]
    # Ranks of different spaces do not compare, similarities do; taking turns keeps each space's lexical finds.
    merged = [passage for rank in range(top_k) for hits in found for passage in hits[rank : rank + 1]]
    return tuple(sorted(merged, key=lambda passage: -passage.score)[:top_k])


def _search(knowledge: KnowledgeBase, space: str, question: str, top_k: int) -> list[Passage]:
    try:
        return knowledge.search(space, question, top_k)
    except KnowledgeIndexError:
        return []


def _tell(asked: str, request: ChatRequest) -> Iterator[ChatEvent]:
    """Say so when another question than the typed one is looked up."""
    if asked and asked != request.question:
        yield Rewritten(asked)


def _not_read(database: Database, engine: Engine, request: ChatRequest) -> Context:
    reply = text("chat.sql_only_english", request.language, model=engine.info.name)
    return Context("rows", "database", database.name, reply=reply)


def _not_covered(request: ChatRequest, found: Retrieval) -> Context:
    # Rounded down, so that a score just below the limit is not shown as equal to it.
    best = max(0, int(found.best * 100)) / 100
    facts = {"best": f"{best:.2f}", "needed": f"{found.needed:.2f}"}
    return Context(
        "documents",
        "documents",
        request.source,
        near_misses=found.near_misses,
        best=found.best,
        needed=found.needed,
        reply=text("chat.not_covered", request.language, **facts),
    )
