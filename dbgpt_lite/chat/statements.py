"""The one place from which a question's statements go to a database, so that each says for whom and why it is sent."""

from dataclasses import dataclass
from threading import Event

from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.database import Database


@dataclass(frozen=True, slots=True)
class Statements:
    """A database as one request uses it: `who` asks, `origin` says in the audit where the statements come from."""

    database: Database
    cancel: Event
    who: str = ""
    origin: str = "model"

    def run(self, sql: str) -> ResultTable:
        """The rows of one query. Raises QueryRefused, QueryFailed, QueryTimeout, DatabaseError or Cancelled."""
        return self.database.run(sql, self.cancel)

    def explain(self, sql: str) -> None:
        """Let the database plan the query. Raises as `run` does."""
        self.database.explain(sql, self.cancel)
