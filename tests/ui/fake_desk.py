"""A QueryDesk and a store of queries with their real interfaces, in memory over real databases.

A query that holds "slow" waits until it is cancelled; all others run behind the real fences.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dbgpt_lite.errors import Cancelled, NotFound, UserError
from dbgpt_lite.messages import Answer, ChartSpec, ResultTable, SqlAttempt
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language


@dataclass(frozen=True)
class Saved:
    id: int
    owner: str
    connection: str
    name: str
    sql: str


@dataclass(frozen=True)
class Past:
    owner: str
    connection: str
    started: datetime
    asked: str
    outcome: str
    milliseconds: int | None
    rows: int | None


class FakeSaved:
    def __init__(self) -> None:
        self.queries: list[Saved] = []
        self._count = 0

    def save(self, owner: str, connection: str, name: str, sql: str) -> Saved:
        self._count += 1
        query = Saved(self._count, owner, connection, name, sql)
        self.queries = [q for q in self.queries if (q.owner, q.connection, q.name) != (owner, connection, name)]
        self.queries.append(query)
        return query

    def of(self, owner: str, connection: str = "") -> list[Saved]:
        return sorted(
            (q for q in self.queries if q.owner == owner and q.connection == connection), key=lambda q: q.name
        )

    def remove(self, owner: str, query: int) -> None:
        kept = [q for q in self.queries if (q.owner, q.id) != (owner, query)]
        if len(kept) == len(self.queries):
            raise NotFound("ui.no_saved_query")
        self.queries = kept


class FakeAudit:
    def __init__(self) -> None:
        self.entries: list[Past] = []

    def history(self, owner: str, connection: str = "", limit: int = 100) -> list[Past]:
        own = [past for past in self.entries if past.owner == owner and past.connection == connection]
        return list({past.asked: past for past in own}.values())[::-1][:limit]


@dataclass
class FakeQueries:
    saved: FakeSaved = field(default_factory=FakeSaved)
    audit: FakeAudit = field(default_factory=FakeAudit)


class FakeDesk:
    """Stores answers anew as the real one does."""

    def __init__(self, databases: Databases, store: ConversationStore, queries: FakeQueries) -> None:
        self._databases = databases
        self._store = store
        self._queries = queries
        self.stopped = threading.Event()

    def run(self, owner: str, connection: str, sql: str, cancel: threading.Event) -> ResultTable:
        outcome, rows = "ok", None
        try:
            if "slow" in sql:
                cancel.wait(30)
                self.stopped.set()
                raise Cancelled
            table = self._databases.get(connection).run(sql, cancel)
            rows = len(table.rows)
            return table
        except Cancelled:
            outcome = "cancelled"
            raise
        except UserError as error:
            outcome = type(error).__name__
            raise
        finally:
            past = Past(owner, connection, datetime.now(UTC), sql, outcome, 3, rows)
            self._queries.audit.entries.append(past)

    def rerun(self, owner: str, conversation: str, answer: int, sql: str, cancel: threading.Event) -> Answer:
        before = self._answer(owner, conversation, answer)
        table = self.run(owner, before.source, sql, cancel)
        attempts = (*before.attempts, SqlAttempt(before.sql, method="edited"))
        after = replace(before, sql=sql, table=table, attempts=attempts, text=f"There are {len(table.rows)} rows now.")
        self._store.replace_answer(owner, conversation, answer, after)
        return after

    def accept(self, owner: str, conversation: str, answer: int, yes: bool | None) -> Answer:
        return self._change(owner, conversation, answer, rated=yes)

    def redraw(self, owner: str, conversation: str, answer: int, chart: ChartSpec) -> Answer:
        return self._change(owner, conversation, answer, chart=chart)

    def explain(self, connection: str, sql: str, language: Language) -> Sequence[str]:
        checked = self._databases.get(connection).check(sql)
        return ("Reads the table items.", f"Runs <b>{checked}</b>")

    def _change(self, owner: str, conversation: str, answer: int, **facts: object) -> Answer:
        after = replace(self._answer(owner, conversation, answer), **facts)  # type: ignore[arg-type]
        self._store.replace_answer(owner, conversation, answer, after)
        return after

    def _answer(self, owner: str, conversation: str, answer: int) -> Answer:
        for message in self._store.messages(owner, conversation):
            if message.id == answer and message.answer is not None:
                return message.answer
        raise NotFound("ui.no_rows_kept")
