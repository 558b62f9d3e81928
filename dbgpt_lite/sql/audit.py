"""The way of every statement to its database: first into the audit log, then to the server, then how it ended.

What the app reads for itself (the schema, SHOW GRANTS) and KILL QUERY are nobody's statements and pass it by.
"""

import time
from collections.abc import Callable
from typing import Protocol

from dbgpt_lite.errors import Cancelled, QueryTimeout
from dbgpt_lite.messages import Origin, ResultTable


class AuditLog(Protocol):
    """Where statements are written down."""

    def begin(self, *, connection: str, statement: str, asked: str, owner: str, origin: str) -> int:
        """Write down a statement before it is sent and return the entry's number. Raises: then it is not sent."""
        ...

    def end(self, entry: int, *, outcome: str, seconds: float, rows: int) -> None:
        """Add how it ended. Must not raise: the statement has run."""
        ...


class NoAudit:
    """For a Database that is used by itself, outside of the app."""

    def begin(self, *, connection: str, statement: str, asked: str, owner: str, origin: str) -> int:
        """Write nothing."""
        return 0

    def end(self, entry: int, *, outcome: str, seconds: float, rows: int) -> None:
        """Write nothing."""


def recorded(
    audit: AuditLog,
    send: Callable[[], ResultTable],
    *,
    connection: str,
    statement: str,
    asked: str,
    who: str,
    origin: Origin,
) -> ResultTable:
    """What `send` returns, written down before and after. Raises what the log or `send` raises."""
    entry = audit.begin(connection=connection, statement=statement, asked=asked, owner=who, origin=origin)
    started = time.monotonic()
    outcome, rows = "ok", 0
    try:
        table = send()
        rows = len(table.rows)
        return table
    except BaseException as error:
        outcome = _outcome(error)
        raise
    finally:
        audit.end(entry, outcome=outcome, seconds=time.monotonic() - started, rows=rows)


def _outcome(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return "cancelled"
    return "timeout" if isinstance(error, QueryTimeout) else type(error).__name__
