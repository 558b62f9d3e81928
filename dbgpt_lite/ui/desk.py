"""What the page needs of those who run, keep and remember queries, as protocols: any that offer it will do."""

from collections.abc import Sequence
from datetime import datetime
from threading import Event
from typing import Protocol

from dbgpt_lite.messages import Answer, ChartSpec, ResultTable
from dbgpt_lite.texts import Language


class QueryDesk(Protocol):
    """Queries by hand, behind the same fences as a model's. `owner` is set by the page, never by the client.

    All raise UserError; those that run a query raise Cancelled once `cancel` is set.
    """

    def run(self, owner: str, connection: str, sql: str, cancel: Event) -> ResultTable:
        """The rows of one's own query."""
        ...

    def rerun(self, owner: str, conversation: str, answer: int, sql: str, cancel: Event) -> Answer:
        """Run an edited query and store it with its rows in the answer with this message id."""
        ...

    def accept(self, owner: str, conversation: str, answer: int, yes: bool | None) -> Answer:
        """Note whether the query was right; None takes it back."""
        ...

    def redraw(self, owner: str, conversation: str, answer: int, chart: ChartSpec) -> Answer:
        """Keep the reader's choice of chart with the answer."""
        ...

    def explain(self, connection: str, sql: str, language: Language) -> Sequence[str]:
        """What a query does, in steps."""
        ...


class SavedQuery(Protocol):
    """A query kept under a name."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def sql(self) -> str: ...


class PastQuery(Protocol):
    """A query that was run. `started` is UTC; `milliseconds` and `rows` are None while its end is not known."""

    @property
    def started(self) -> datetime: ...
    @property
    def asked(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def milliseconds(self) -> int | None: ...
    @property
    def rows(self) -> int | None: ...


class SavedQueries(Protocol):
    """One's own queries by name."""

    def save(self, owner: str, connection: str, name: str, sql: str) -> SavedQuery: ...
    def of(self, owner: str, connection: str = "") -> Sequence[SavedQuery]: ...
    def remove(self, owner: str, query: int) -> None: ...


class History(Protocol):
    """One's own queries by time, newest first."""

    def history(self, owner: str, connection: str = "", limit: int = 100) -> Sequence[PastQuery]: ...


class Queries(Protocol):
    """The store of both."""

    @property
    def saved(self) -> SavedQueries: ...
    @property
    def audit(self) -> History: ...
