"""The way of every statement to its database: first into the audit log, then to the server, then how it ended.

Reading a schema is one entry, whatever statements it takes: they are SQLAlchemy's and ask for names and types only.
KILL QUERY passes the log by: it ends a statement that is in it.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from dbgpt_lite.errors import Cancelled, QueryTimeout
from dbgpt_lite.messages import Origin

T = TypeVar("T")


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
    send: Callable[[], T],
    count: Callable[[T], int],
    *,
    connection: str,
    statement: str,
    asked: str,
    who: str,
    origin: Origin,
) -> T:
    """What `send` returns, written down before and after; `count` tells its rows.

    Raises what the log or `send` raises.
    """
    entry = audit.begin(connection=connection, statement=statement, asked=asked, owner=who, origin=origin)
    started = time.monotonic()
    outcome, rows = "ok", 0
    try:
        result = send()
        rows = count(result)
        return result
    except BaseException as error:
        outcome = _outcome(error)
        raise
    finally:
        audit.end(entry, outcome=outcome, seconds=time.monotonic() - started, rows=rows)


def _outcome(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return "cancelled"
    return "timeout" if isinstance(error, QueryTimeout) else type(error).__name__
