"""The audit trail: every statement that was sent to a database, by whom, when, for how long, and how many rows came.

An entry is written and committed before its statement is sent: when it cannot be (a full disk, a store that is down)
the statement is refused, so nothing reaches a database unseen. Its end is added afterwards; an entry whose end could
not be written, or whose process was killed meanwhile, stays "running". Entries are never changed otherwise, and go
only by age.
"""

import hashlib
import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dbgpt_lite.errors import DatabaseError
from dbgpt_lite.store_schema import audit, utc_now

log = logging.getLogger(__name__)

RUNNING = "running"
_PRUNE_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One statement as it was sent; `asked` is what was given to be run. `started` is UTC.

    `origin` is one of messages.Origin. `outcome`: "ok", "cancelled", "timeout", the class of an error, or "running"
    while the end is not known; `milliseconds` and `rows` are None until then.
    """

    id: int
    started: datetime
    owner: str
    connection: str
    origin: str
    statement: str
    asked: str
    outcome: str
    milliseconds: int | None
    rows: int | None


class AuditTrail:
    """Writes entries (it is the AuditLog of sql/audit.py) and reads them. Thread-safe."""

    def __init__(self, engine: sa.Engine, days: int = 365) -> None:
        """`days`: entries older than that are removed, 0 keeps them for ever."""
        self._engine = engine
        self._days = days
        self._lock = threading.Lock()
        self._prune_at = datetime.min

    def begin(self, *, connection: str, statement: str, asked: str, owner: str, origin: str) -> int:
        """Write down a statement that is about to be sent. Raises DatabaseError when that is not possible."""
        now = utc_now()
        values = {
            "started": now,
            "owner": owner,
            "connection": connection,
            "origin": origin,
            "statement": statement,
            "asked": None if asked == statement else asked,
            "asked_key": _key(asked),
            "outcome": RUNNING,
        }
        try:
            with self._engine.begin() as db:
                made = db.execute(audit.insert().values(**values)).inserted_primary_key
        except SQLAlchemyError as error:
            log.error("the audit trail cannot be written, so a statement was refused: %s", type(error).__name__)
            raise DatabaseError("queries.no_audit") from None
        assert made is not None
        self._prune(now)
        return int(made[0])

    def end(self, entry: int, *, outcome: str, seconds: float, rows: int) -> None:
        """Add how a statement ended. A failure is logged: the entry itself is there."""
        values = {"outcome": outcome[:32], "milliseconds": round(seconds * 1000), "row_count": rows}
        try:
            with self._engine.begin() as db:
                db.execute(audit.update().where(audit.c.id == entry, audit.c.outcome == RUNNING).values(**values))
        except SQLAlchemyError as error:
            log.error("the end of audit entry %d cannot be written: %s", entry, type(error).__name__)

    def entries(
        self,
        owner: str = "",
        connection: str = "",
        since: datetime | None = None,
        limit: int = 100,
        origin: str = "",
        without: Collection[str] = (),
    ) -> list[AuditEntry]:
        """Everybody's statements, for the operator, newest first; "" and None leave nothing out, `without` origins."""
        query = sa.select(audit).order_by(audit.c.id.desc()).limit(limit)
        if owner:
            query = query.where(audit.c.owner == owner)
        if connection:
            query = query.where(audit.c.connection == connection)
        if origin:
            query = query.where(audit.c.origin == origin)
        if without:
            query = query.where(audit.c.origin.not_in(without))
        if since:
            query = query.where(audit.c.started >= since.astimezone(UTC).replace(tzinfo=None))
        return self._read(query)

    def history(self, owner: str, connection: str = "", limit: int = 100) -> list[AuditEntry]:
        """The owner's own queries, each text once as it was last run, newest first.

        Plans (EXPLAIN) and what the app looked up by itself are left out.
        """
        own = (audit.c.owner == owner) & audit.c.origin.not_in(("explain", "lookup", "schema"))
        if connection:
            own &= audit.c.connection == connection
        last = sa.select(sa.func.max(audit.c.id)).where(own).group_by(audit.c.connection, audit.c.asked_key)
        return self._read(sa.select(audit).where(audit.c.id.in_(last)).order_by(audit.c.id.desc()).limit(limit))

    def _read(self, query: sa.Select[Any]) -> list[AuditEntry]:
        with self._engine.connect() as db:
            return [_entry(row) for row in db.execute(query)]

    def _prune(self, now: datetime) -> None:
        """Remove what is too old, now and then; what fails is tried again."""
        with self._lock:
            if not self._days or now < self._prune_at:
                return
            self._prune_at = now + _PRUNE_EVERY
        try:
            with self._engine.begin() as db:
                db.execute(audit.delete().where(audit.c.started < now - timedelta(days=self._days)))
        except SQLAlchemyError as error:
            log.warning("old audit entries cannot be removed: %s", type(error).__name__)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _entry(row: sa.Row[Any]) -> AuditEntry:
    return AuditEntry(
        row.id,
        row.started.replace(tzinfo=UTC),
        row.owner,
        row.connection,
        row.origin,
        row.statement,
        row.statement if row.asked is None else row.asked,
        row.outcome,
        row.milliseconds,
        row.row_count,
    )
