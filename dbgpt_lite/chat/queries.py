"""Queries by hand: one's own in the editor, an answer's query edited and run again, the thumb for an answer.

All of them pass the fences that a model's query passes. A query that a reader edited or found right is remembered with
its question, for the questions that come after it.
"""

from dataclasses import replace
from threading import Event
from typing import Literal, Protocol

from dbgpt_lite.chat.explain import explain
from dbgpt_lite.chat.extractive import word_table
from dbgpt_lite.chat.service import language_of
from dbgpt_lite.chat.statements import Statements
from dbgpt_lite.errors import NotFound
from dbgpt_lite.messages import Answer, ChartSpec, ResultTable, SqlAttempt
from dbgpt_lite.sql.database import Databases
from dbgpt_lite.store import ConversationStore
from dbgpt_lite.texts import Language

Kept = Literal["thumbs", "edited"]


class Examples(Protocol):
    """Keeps questions with the queries that answer them."""

    def remember(self, owner: str, connection: str, question: str, sql: str, origin: Kept) -> object:
        """Keep a pair; the owner's own of the same question is replaced. Raises UserError."""
        ...

    def refuse(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Remove this very pair, if the owner keeps it, and do not show it to the owner's questions again."""
        ...

    def forget(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Take back what the owner said of this very pair; another query for the question stays, as does another's."""
        ...


class QueryDesk:
    """Runs, keeps, rates and explains queries. `owner` is set by the front end, never by the client.

    All methods raise UserError; those that run a query raise Cancelled once `cancel` is set.
    """

    def __init__(self, databases: Databases, store: ConversationStore, examples: Examples) -> None:
        self._databases = databases
        self._store = store
        self._examples = examples

    def run(self, owner: str, connection: str, sql: str, cancel: Event) -> ResultTable:
        """The rows of one's own query."""
        return Statements(self._databases.get(connection), cancel, owner, "editor").run(sql)

    def rerun(self, owner: str, conversation: str, answer: int, sql: str, cancel: Event) -> Answer:
        """Run an edited query and store it with its rows in the answer with this message id.

        The query that stood there stays among the attempts. Nothing changes when the edited one fails.
        """
        question, before = self._own(owner, conversation, answer)
        database = self._databases.get(before.source)
        ready = database.check(sql)
        table = Statements(database, cancel, owner, "editor").run(ready)
        if ready == before.sql:
            # Run once more and not edited: fresh rows, the same query.
            after = replace(before, table=table, text=_said(question, table))
        else:
            kept = tuple(attempt for attempt in before.attempts if attempt.sql not in (before.sql, ready))
            original = (SqlAttempt(before.sql, method="edited"),) if before.sql else ()
            said = _said(question, table)
            after = replace(
                before, sql=ready, table=table, attempts=(*kept, *original), text=said, rated=None, chart=None
            )
        self._store.replace_answer(owner, conversation, answer, after)
        if ready != before.sql:
            self._examples.remember(owner, database.name, question, ready, "edited")
        return after

    def accept(self, owner: str, conversation: str, answer: int, yes: bool | None) -> Answer:
        """Note whether the query was right; None takes it back. A right one is remembered, a wrong one is shown to this
        owner's questions no more, whoever taught it. Others still see what they found right.
        """
        question, before = self._own(owner, conversation, answer)
        database = self._databases.get(before.source)
        if yes:
            self._examples.remember(owner, database.name, question, before.sql, "thumbs")
        elif yes is False:
            self._examples.refuse(owner, database.name, question, before.sql)
        else:
            self._examples.forget(owner, database.name, question, before.sql)
        after = replace(before, rated=yes)
        self._store.replace_answer(owner, conversation, answer, after)
        return after

    def redraw(self, owner: str, conversation: str, answer: int, chart: ChartSpec) -> Answer:
        """Keep the reader's choice of chart with the answer."""
        _, before = self._own(owner, conversation, answer)
        after = replace(before, chart=chart)
        self._store.replace_answer(owner, conversation, answer, after)
        return after

    def explain(self, connection: str, sql: str, language: Language) -> tuple[str, ...]:
        """What a query does, in steps. Raises QueryRefused."""
        return explain(sql, self._databases.get(connection), language)

    def _own(self, owner: str, conversation: str, answer: int) -> tuple[str, Answer]:
        """The whole question and the owner's answer to it. Raises NotFound, also for an answer without a query."""
        question = ""
        for message in self._store.messages(owner, conversation):
            if message.role == "user":
                question = message.content
            elif message.id == answer and message.answer is not None:
                if message.answer.mode != "database" or not message.answer.sql:
                    raise NotFound("chat.not_rated")
                return message.answer.asked or question, message.answer
        raise NotFound("chat.not_rated")


def _said(question: str, table: ResultTable) -> str:
    """The rows in a sentence of the question's language."""
    return word_table(table, language_of(question, "en"))
