"""Tables of the store, its numbered migrations, and what every user of the store needs of them."""

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from dbgpt_lite.errors import ConfigError

_long_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_time = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _exact(length: int) -> sa.types.TypeEngine[str]:
    """Text compared byte by byte: MySQL's default would take the logins Ana and ana for one owner."""
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


metadata = sa.MetaData()

conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("id", _exact(32), primary_key=True),
    sa.Column("owner", _exact(128), nullable=False),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("source", sa.String(128), nullable=False),
    sa.Column("created", _time, nullable=False),
    sa.Column("updated", _time, nullable=False),
    sa.Index("conversations_by_owner", "owner", "updated"),
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("conversation_id", _exact(32), sa.ForeignKey("conversations.id"), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", _long_text, nullable=False),
    sa.Column("created", _time, nullable=False),
    sa.Column("answer", _long_text, nullable=True),
    sa.Index("messages_by_conversation", "conversation_id", "id"),
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

# What migration 2 adds stands apart: the first migration makes the tables of `metadata`, then as now.
query_metadata = sa.MetaData()


def _examples(name: str, metadata: sa.MetaData, *one: str) -> sa.Table:
    """A table of examples that holds one for each set of the columns `one`."""
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("connection", _exact(128), nullable=False),
        # SHA-256 of the question as it is compared: MySQL indexes no text of any length.
        sa.Column("question_key", _exact(64), nullable=False),
        sa.Column("question", _long_text, nullable=False),
        sa.Column("statement", _long_text, nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("owner", _exact(128), nullable=False),
        sa.Column("created", _time, nullable=False),
        sa.UniqueConstraint(*one, name="one_example_a_question"),
        sqlite_autoincrement=True,
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )


# Of migration 2: one for all owners, so that the last to write took the place of everybody else's.
_shared_examples = _examples("query_examples", query_metadata, "connection", "question_key")
_owned_metadata = sa.MetaData()
examples = _examples("owned_examples", _owned_metadata, "connection", "question_key", "owner")

# Pairs that their owner found wrong, whoever taught them.
_refused_metadata = sa.MetaData()
refusals = sa.Table(
    "refused_examples",
    _refused_metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("owner", _exact(128), nullable=False),
    sa.Column("connection", _exact(128), nullable=False),
    sa.Column("question_key", _exact(64), nullable=False),
    # SHA-256 of the query.
    sa.Column("statement_key", _exact(64), nullable=False),
    sa.Column("created", _time, nullable=False),
    sa.UniqueConstraint("owner", "connection", "question_key", "statement_key", name="one_refusal_a_pair"),
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

glossary = sa.Table(
    "glossary",
    query_metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("connection", _exact(128), nullable=False),
    sa.Column("term_key", _exact(64), nullable=False),
    sa.Column("term", _long_text, nullable=False),
    sa.Column("meaning", _long_text, nullable=False),
    sa.Column("statement", _long_text, nullable=False),
    sa.Column("owner", _exact(128), nullable=False),
    sa.Column("created", _time, nullable=False),
    sa.UniqueConstraint("connection", "term_key", name="one_meaning_a_term"),
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

saved_queries = sa.Table(
    "saved_queries",
    query_metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("owner", _exact(128), nullable=False),
    sa.Column("connection", _exact(128), nullable=False),
    sa.Column("name", _exact(100), nullable=False),
    sa.Column("statement", _long_text, nullable=False),
    sa.Column("created", _time, nullable=False),
    sa.UniqueConstraint("owner", "connection", "name", name="one_query_a_name"),
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

audit = sa.Table(
    "query_audit",
    query_metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("started", _time, nullable=False),
    sa.Column("owner", _exact(128), nullable=False),
    sa.Column("connection", _exact(128), nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("statement", _long_text, nullable=False),
    # What was given to be run, where it differs from what was sent.
    sa.Column("asked", _long_text, nullable=True),
    sa.Column("asked_key", _exact(64), nullable=False),
    sa.Column("outcome", sa.String(32), nullable=False),
    sa.Column("milliseconds", sa.Integer, nullable=True),
    sa.Column("row_count", sa.Integer, nullable=True),
    sa.Index("audit_by_time", "started"),
    sa.Index("audit_by_owner", "owner", "id"),
    sqlite_autoincrement=True,
    mysql_charset="utf8mb4",
    mariadb_charset="utf8mb4",
)

_version = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))


def _first_schema(db: sa.Connection) -> None:
    metadata.create_all(db)


def _what_was_asked_of_databases(db: sa.Connection) -> None:
    query_metadata.create_all(db)


def _examples_of_each_owner(db: sa.Connection) -> None:
    """MySQL commits between these steps: begun again after a crash, they end the same."""
    _owned_metadata.create_all(db)
    if sa.inspect(db).has_table(_shared_examples.name):
        db.execute(examples.delete())
        names = [column.name for column in examples.columns]
        db.execute(examples.insert().from_select(names, sa.select(*(_shared_examples.c[name] for name in names))))
        _shared_examples.drop(db)


def _refusals(db: sa.Connection) -> None:
    _refused_metadata.create_all(db)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (
    _first_schema,
    _what_was_asked_of_databases,
    _examples_of_each_owner,
    _refusals,
)
"""Step n brings a store from version n to n + 1. Steps are only ever added; a released one never changes."""


def migrate(engine: sa.Engine) -> None:
    """Bring the store to the newest schema. Raises ConfigError for one written by a newer version of the app."""
    with engine.begin() as db:
        _version.create(db, checkfirst=True)
        found = db.execute(sa.select(_version.c.version)).scalar()
        if found is None:
            db.execute(_version.insert().values(version=0))
        have = found or 0
        if have > len(MIGRATIONS):
            raise ConfigError("app.store_too_new", found=have, known=len(MIGRATIONS))
        for step in MIGRATIONS[have:]:
            step(db)
        db.execute(_version.update().values(version=len(MIGRATIONS)))


def utc_now() -> datetime:
    """The time as the store keeps it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def escape_like(text: str) -> str:
    """Text for the inside of a LIKE pattern, to be used with ESCAPE '!'."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
