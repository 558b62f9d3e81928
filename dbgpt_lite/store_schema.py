"""Tables of the conversation store and its numbered migrations."""

from collections.abc import Callable

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

_version = sa.Table("schema_version", sa.MetaData(), sa.Column("version", sa.Integer, nullable=False))


def _first_schema(db: sa.Connection) -> None:
    metadata.create_all(db)


MIGRATIONS: tuple[Callable[[sa.Connection], None], ...] = (_first_schema,)
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
