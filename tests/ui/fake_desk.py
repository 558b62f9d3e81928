"""A QueryDesk and a store of queries with their real interfaces, in memory over real databases.

A query that holds "slow" waits until it is cancelled; all others run behind the real fences.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace

from dbgpt_lite.audit_trail import AuditTrail
from dbgpt_lite.errors import Cancelled, NotFound
from dbgpt_lite.messages import Answer, ChartSpec, ResultTable, SqlAttempt
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language


class FakeDesk:
    """Stores answers anew as the real one does."""

    def __init__(self, databases: Databases, store: ConversationStore, audit: AuditTrail) -> None:
        self._databases = databases
        self._store = store
        self._audit = audit
        self.stopped = threading.Event()

    def run(self, owner: str, connection: str, sql: str, cancel: threading.Event) -> ResultTable:
        if "slow" in sql:
            entry = self._audit.begin(connection=connection, statement=sql, asked=sql, owner=owner, origin="editor")
            cancel.wait(30)
            self._audit.end(entry, outcome="cancelled", seconds=0.003, rows=0)
            self.stopped.set()
            raise Cancelled
        return self._databases.get(connection).run(sql, cancel, who=owner)

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
