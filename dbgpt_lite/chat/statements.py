"""The one place from which a question's statements go to a database, so that each says for whom and why it is sent."""

from dataclasses import dataclass
from threading import Event

from dbgpt_lite.messages import Origin, ResultTable
from dbgpt_lite.sql.database import Database


@dataclass(frozen=True, slots=True)
class Statements:
    """A database as one request uses it: `who` asks, `origin` says in the audit where the statements come from."""

    database: Database
    cancel: Event
    who: str = ""
    origin: Origin = "model"

    def run(self, sql: str) -> ResultTable:
        """The rows of one query. Raises QueryRefused, QueryFailed, QueryTimeout, DatabaseError or Cancelled."""
        return self.database.run(sql, self.cancel, who=self.who, origin=self.origin)

    def look_up(self, sql: str) -> ResultTable:
        """The same for a query of the app's own that looks for a value; it is no query of the reader's."""
        return self.database.run(sql, self.cancel, who=self.who, origin="lookup")

    def explain(self, sql: str) -> None:
        """Let the database plan the query. Raises as `run` does."""
        self.database.explain(sql, self.cancel, who=self.who)
