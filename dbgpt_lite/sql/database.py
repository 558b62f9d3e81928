"""Databases that may be asked. A query passes four fences, each of which holds without the others:
the guard (guard.py), a read-only session, a time limit and a cap on rows (sqlite.py, mysql.py).
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from dbgpt_lite.errors import ConfigError, NotFound, QueryRefused
from dbgpt_lite.messages import Origin, ResultTable
from dbgpt_lite.sql import guard
from dbgpt_lite.sql.audit import AuditLog, NoAudit, recorded
from dbgpt_lite.sql.cells import Limits
from dbgpt_lite.sql.grants import AccountWarning, read_grants
from dbgpt_lite.sql.known import KnownSchema
from dbgpt_lite.sql.mysql import MysqlBackend
from dbgpt_lite.sql.places import Places
from dbgpt_lite.sql.rules import EVERY_CONNECTION, Rules, rules_for
from dbgpt_lite.sql.schema import Schema
from dbgpt_lite.sql.sqlite import SqliteBackend
from dbgpt_lite.sql.values import with_values

log = logging.getLogger(__name__)

_MYSQL_DRIVERS = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
_MYSQL_OPTIONS = frozenset(("charset", "unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_verify_cert"))
_SYSTEM_DATABASES = frozenset(("mysql", "information_schema", "performance_schema", "sys"))
# A refusal for an unknown name may come from a schema that changed since it was read.
_SCHEMA_SECONDS = 10.0
# What a page shows may be older than what a query is checked with.
_PAGE_SECONDS = 60.0
# How long a server that failed is not asked again. A file is: it answers at once.
_FAILURE_SECONDS = 30.0
# More than one statement of values.py can give.
_VALUE_ROWS = 10_000
APP = "app"
"""Whose statements those are that the app needs for itself. No person's or key's owner is called so."""
# In the audit, for the many statements that read names and types.
_READ_SCHEMA = "-- names, types, keys and comments of all tables and views"

T = TypeVar("T")


class Backend(Protocol):
    """What differs between database systems."""

    @property
    def dialect(self) -> str: ...
    def schema(self) -> Schema: ...
    def query(self, sql: str, limits: Limits, cancel: threading.Event) -> ResultTable: ...
    def grants(self) -> tuple[str, ...]: ...
    def close(self) -> None: ...


class Database:
    """One connection, by name. Thread-safe; connects when first asked, so a server that is down stops nobody."""

    def __init__(
        self,
        name: str,
        url: str,
        row_limit: int = 1000,
        timeout_s: float = 10.0,
        rules: Rules | None = None,
        audit: AuditLog | None = None,
        sample_values: int = 0,
    ) -> None:
        """`audit` is told of every statement before it is sent; without one nothing is written down."""
        self.name = name
        self._rules = rules or Rules()
        self._audit = audit or NoAudit()
        self.row_limit = row_limit
        self._limits = Limits(rows=row_limit, seconds=timeout_s)
        self._url = _accepted(name, url)
        self._backend = self._make_backend()
        self._places = Places(name)
        remember_s = 0.0 if self.dialect == "sqlite" else _FAILURE_SECONDS
        self._sample_values = sample_values
        self._known = KnownSchema(name, self._read_schema, remember_s)

    @property
    def dialect(self) -> str:
        """ "sqlite" or "mysql"."""
        return self._backend.dialect

    def schema(self, refresh: bool = False) -> Schema:
        """Tables, views, columns, keys and, where set, sampled values, less what the rules hide; read once and kept.

        Raises DatabaseError; a server's failure is remembered for 30 s and raised at once meanwhile, save on `refresh`.
        """
        return self._known.get(refresh)

    def recent_schema(self) -> Schema:
        """The schema for a page to show: read anew when it is older than a minute, or when none could be read.

        Raises DatabaseError.
        """
        return self._known.get(refresh=self._known.is_older(_PAGE_SECONDS), retry=True)

    def known_schema(self) -> Schema | None:
        """The schema if it was read already; else None, and it is read in the background. Never waits, never raises."""
        return self._known.peek()

    def check(self, sql: str, written_in: str = "") -> str:
        """The query in this connection's dialect, written anew from its checked syntax tree.

        `written_in` is the dialect of `sql`, "" for the connection's own. The cap on rows is left to `run`, so that
        what is shown is what was asked. Raises QueryRefused.
        """
        return self._checked(sql, None, written_in)

    def objection(self, sql: str) -> QueryRefused | None:
        """Why the query would be refused, None when it would not, by the schema as it was last read.

        Raises DatabaseError when none could be read.
        """
        try:
            guard.check(sql, self._known.get(), self.dialect)
        except QueryRefused as refusal:
            return refusal
        return None

    def explain(self, sql: str, cancel: threading.Event | None = None, who: str = "") -> None:
        """Let the database itself plan the query without running it, within the time limit.

        `who` is for the audit and is limited as in `run`. Setting `cancel` stops it in the server. Raises
        QueryRefused, QueryFailed, QueryTimeout, DatabaseError, Busy or Cancelled.
        """
        checked = self._checked(sql, self.row_limit)
        prefix = "EXPLAIN QUERY PLAN " if self.dialect == "sqlite" else "EXPLAIN "
        limits = replace(self._limits, rows=10_000)
        self._send(prefix + checked, limits, cancel, asked=prefix + sql.strip(), who=who, origin="explain")

    def run(
        self, sql: str, cancel: threading.Event | None = None, who: str = "", origin: Origin = "editor"
    ) -> ResultTable:
        """Run one query in this connection's dialect behind all fences; at most `row_limit` rows come back.

        `who` and `origin` are for the audit: a statement that cannot be written down is not sent. Of one `who`, ""
        apart, a few run at once and more are refused. A server that failed before is asked again. Setting `cancel`
        stops the query in the server. Raises QueryRefused, QueryFailed, QueryTimeout, DatabaseError, Busy or Cancelled.
        """
        checked = self._checked(sql, self.row_limit, retry=True)
        return self._send(checked, self._limits, cancel, asked=sql.strip(), who=who, origin=origin)

    def account_warning(self) -> AccountWarning | None:
        """What the account may do beyond reading, and how to make one that may not; None when it only reads."""
        if self.dialect == "sqlite":
            return None
        grants = self._recorded(self._backend.grants, len, "SHOW GRANTS")
        return read_grants(grants, self._url.database or "")

    def close(self) -> None:
        """Close the connections."""
        self._backend.close()

    def _send(
        self, checked: str, limits: Limits, cancel: threading.Event | None, *, asked: str, who: str, origin: Origin
    ) -> ResultTable:
        """The only way to the backend's `query`: with a place for it, and through the audit."""
        with self._places.taken(who):
            return recorded(
                self._audit,
                lambda: self._backend.query(checked, limits, cancel or threading.Event()),
                lambda table: len(table.rows),
                connection=self.name,
                statement=checked,
                asked=asked,
                who=who,
                origin=origin,
            )

    def _recorded(self, read: Callable[[], T], count: Callable[[T], int], statement: str) -> T:
        """What the app reads of the database for itself, through the audit like any other statement."""
        about = {"connection": self.name, "statement": statement, "asked": statement}
        return recorded(self._audit, read, count, **about, who=APP, origin="schema")

    def _checked(self, sql: str, row_limit: int | None, written_in: str = "", retry: bool = False) -> str:
        try:
            return guard.check(sql, self._known.get(retry=retry), self.dialect, row_limit, written_in)
        except QueryRefused as refusal:
            if not (refusal.key.startswith("sql.no_") and self._known.is_older(_SCHEMA_SECONDS)):
                raise
        return guard.check(sql, self.schema(refresh=True), self.dialect, row_limit, written_in)

    def _read_schema(self) -> Schema:
        whole = self._recorded(self._backend.schema, lambda schema: len(schema.tables), _READ_SCHEMA)
        for rule in self._rules.unused(whole):
            log.warning("the rule %s of connection %r names nothing in it", rule, self.name)
        return with_values(self._rules.apply(whole), self.dialect, self._ask, self._sample_values)

    def _ask(self, sql: str, seconds: float) -> ResultTable:
        """A statement of our own, within the session's fences."""
        limits = Limits(rows=_VALUE_ROWS, seconds=seconds)
        return self._send(sql, limits, None, asked=sql, who=APP, origin="schema")

    def _make_backend(self) -> Backend:
        if self._url.get_backend_name() == "sqlite":
            return SqliteBackend(self.name, Path(self._url.database or ""), self._rules)
        return MysqlBackend(self.name, self._url, self._limits.seconds)


class Databases:
    """The configured connections; the first is the default."""

    def __init__(
        self,
        urls: Mapping[str, str],
        row_limit: int = 1000,
        timeout_s: float = 10.0,
        rules: Mapping[str, Rules] | None = None,
        audit: AuditLog | None = None,
        sample_values: int = 0,
    ) -> None:
        """Raises ConfigError, also for rules of a connection that there is not: they would protect nothing."""
        rules = rules or {}
        for name in rules.keys() - urls.keys() - {EVERY_CONNECTION}:
            raise ConfigError("sql.rule_connection", name=name)
        self._databases = {
            name: Database(name, url, row_limit, timeout_s, rules_for(name, rules), audit, sample_values)
            for name, url in urls.items()
        }

    def names(self) -> list[str]:
        """Names in the order of the settings."""
        return list(self._databases)

    def get(self, name: str = "") -> Database:
        """The connection of that name, "" for the default one. Raises NotFound."""
        if not name:
            return self.default
        try:
            return self._databases[name]
        except KeyError:
            raise NotFound("sql.no_connection", name=name) from None

    @property
    def default(self) -> Database:
        """The first connection. Raises NotFound when there is none."""
        if not self._databases:
            raise NotFound("sql.none_configured")
        return next(iter(self._databases.values()))

    def close(self) -> None:
        """Close every connection."""
        for database in self._databases.values():
            database.close()


def _accepted(name: str, url: str) -> URL:
    """The parsed URL. Raises ConfigError that names the connection, never the URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, TypeError):
        raise ConfigError("sql.bad_url", name=name) from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:" or parsed.query:
            raise ConfigError("sql.bad_sqlite_url", name=name)
        return parsed
    if parsed.drivername not in _MYSQL_DRIVERS:
        raise ConfigError("sql.other_driver", name=name, driver=parsed.drivername)
    if not parsed.database or parsed.database.lower() in _SYSTEM_DATABASES:
        raise ConfigError("sql.no_database", name=name)
    for option in parsed.query:
        if option not in _MYSQL_OPTIONS:
            raise ConfigError("sql.bad_option", name=name, option=option, options=", ".join(sorted(_MYSQL_OPTIONS)))
    return parsed.set(drivername="mysql+pymysql")
