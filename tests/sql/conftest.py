"""Fixtures of the database tests: the sample shop on SQLite and, with the same rows, on MariaDB."""

import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.sample_shop import build
from dbgpt_lite.sql.schema import Schema, TableInfo

_TYPES = {"INTEGER": "INT", "REAL": "DOUBLE", "TEXT": "VARCHAR(200)"}


def _create(table: TableInfo) -> str:
    parts = [f"`{c.name}` {_TYPES[c.kind]}{' PRIMARY KEY' if c.primary_key else ''}" for c in table.columns]
    parts += [f"FOREIGN KEY ({k.columns[0]}) REFERENCES {k.target}({k.target_columns[0]})" for k in table.foreign_keys]
    return f"CREATE TABLE `{table.name}` ({', '.join(parts)}) COLLATE utf8mb4_bin"


@pytest.fixture(scope="session")
def shop_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shop") / "shop.db")


@pytest.fixture(scope="session")
def shop(shop_path: Path) -> Database:
    return Database("shop", f"sqlite:///{shop_path}")


@pytest.fixture(scope="session")
def shop_schema(shop_path: Path) -> Schema:
    return Database("shop", f"sqlite:///{shop_path}").schema()


@pytest.fixture(scope="session")
def maria_shop(mariadb, shop_path: Path, shop_schema: Schema):
    """The server with the sample shop's rows in its database shop."""
    with mariadb.connect("shop") as target, target.cursor() as cursor, closing(sqlite3.connect(shop_path)) as source:
        cursor.execute("SET foreign_key_checks = 0")
        for table in shop_schema.tables:
            cursor.execute(_create(table))
            rows = source.execute(f"SELECT * FROM {table.name}").fetchall()
            marks = ", ".join(["%s"] * len(table.columns))
            cursor.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)
    return mariadb


@pytest.fixture(scope="session")
def reader(maria_shop) -> Iterator[Database]:
    """The shop on MariaDB through the account that may only SELECT."""
    database = Database("main", maria_shop.url("reader"))
    yield database
    database.close()


@pytest.fixture
def connect(maria_shop) -> Iterator[Callable[..., Database]]:
    """Make a Database on MariaDB: connect("owner" | "reader", row_limit=..., timeout_s=..., database=...)."""
    opened: list[Database] = []

    def make(user: str = "reader", database: str = "shop", **settings: float) -> Database:
        opened.append(Database("main", maria_shop.url(user, database), **settings))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for database in opened:
        database.close()


class SilentServer:
    """Accepts TCP connections and never answers, until `hang_up` closes those it has."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mysql+pymysql://reader:secret@127.0.0.1:{self._listener.getsockname()[1]}/shop"
        self.accepted: list[socket.socket] = []
        self._arrived = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                with self._arrived:
                    self.accepted.append(connection)
                    self._arrived.notify_all()

    def wait_for(self, connections: int) -> None:
        """Until that many have connected."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.accepted) >= connections, timeout=30)

    def hang_up(self) -> None:
        with self._arrived:
            for connection in self.accepted:
                connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()


@pytest.fixture
def silent_server() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()
