"""The schema as last read: one reader at a time, failures remembered, nobody held up by a server that is silent."""

import sqlite3
import threading
from contextlib import closing

import pytest

from dbgpt_lite.errors import DatabaseError
from dbgpt_lite.sql import mysql
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.known import KnownSchema
from dbgpt_lite.sql.schema import Schema

OLD, NEW = Schema(()), Schema(())


class Source:
    """A server: each read waits for `go`, then gives the next outcome, the last one for ever."""

    def __init__(self, *outcomes: Schema | Exception) -> None:
        self.outcomes = list(outcomes)
        self.reads = 0
        self.now = 1000.0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.known = KnownSchema("main", self.read, 30.0, lambda: self.now)

    def read(self) -> Schema:
        self.reads += 1
        self.begun.set()
        assert self.go.wait(30)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _down() -> DatabaseError:
    return DatabaseError("sql.unreachable", name="main")


def _call_all(count, call):
    """Call in that many threads; returns them started, and the list their results or errors go to."""
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(call())
        except DatabaseError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def _readers(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"schema-{name}"]


def test_failure_is_remembered_for_a_while():
    source = Source(_down(), OLD)
    errors = []
    for _ in range(3):
        with pytest.raises(DatabaseError, match="does not answer") as caught:
            source.known.get()
        errors.append(caught.value)
    assert source.reads == 1
    assert len({id(error) for error in errors}) == 3
    assert errors[2].facts == {"name": "main"}
    source.now += 31
    assert source.known.get() is OLD
    assert source.known.get() is OLD
    assert source.reads == 2


@pytest.mark.parametrize("how", ["refresh", "retry"])
def test_explicit_wish_asks_again_at_once(how):
    source = Source(_down(), OLD)
    with pytest.raises(DatabaseError):
        source.known.get()
    assert source.known.get(**{how: True}) is OLD


def test_failed_refresh_keeps_what_was_known():
    source = Source(OLD, _down(), NEW)
    source.known.get()
    source.now += 3600
    assert source.known.is_older(10)
    with pytest.raises(DatabaseError):
        source.known.get(refresh=True)
    assert source.known.get() is OLD
    assert source.known.get(retry=True) is OLD
    assert not source.known.is_older(10)
    assert source.known.get(refresh=True) is NEW
    assert source.reads == 3


def test_while_one_reads_others_get_the_last_schema_or_that_read():
    source = Source(OLD, NEW)
    source.known.get()
    source.begun.clear()
    source.go.clear()
    threads, outcomes = _call_all(8, lambda: source.known.get(refresh=True))
    assert source.begun.wait(30)
    assert source.known.get() is OLD
    assert source.known.peek() is OLD
    source.go.set()
    for thread in threads:
        thread.join()
    assert source.known.get() is NEW
    assert len(outcomes) == 8
    assert all(outcome is NEW for outcome in outcomes)


def test_unexpected_error_of_a_read_reaches_the_caller_and_blocks_nothing():
    source = Source(KeyError("x"), OLD)
    with pytest.raises(KeyError):
        source.known.get()
    assert source.known.get(retry=True) is OLD


def test_silent_server_is_asked_once_for_all(silent_server):
    database = Database("silent", silent_server.url)
    threads, outcomes = _call_all(20, database.schema)
    silent_server.wait_for(1)
    assert len(_readers("silent")) == 1
    silent_server.hang_up()
    for thread in threads:
        thread.join()
    assert [outcome.key for outcome in outcomes] == ["sql.unreachable"] * 20
    with pytest.raises(DatabaseError, match="does not answer"):
        database.schema()
    with pytest.raises(DatabaseError, match="does not answer"):
        database.check("SELECT 1")
    assert len(silent_server.accepted) == 1


def test_known_schema_waits_for_nobody(silent_server):
    database = Database("silent", silent_server.url)
    assert database.known_schema() is None
    silent_server.wait_for(1)
    # The read has not ended, yet the calls have.
    (reader,) = _readers("silent")
    assert reader.daemon
    assert database.known_schema() is None
    assert _readers("silent") == [reader]
    silent_server.hang_up()
    reader.join()
    assert database.known_schema() is None
    with pytest.raises(DatabaseError, match="does not answer"):
        database.schema()
    assert _readers("silent") == []
    assert len(silent_server.accepted) == 1


@pytest.mark.parametrize("ask", [lambda d: d.schema(refresh=True), lambda d: d.run("SELECT 1")])
def test_user_may_ask_a_silent_server_again(silent_server, monkeypatch, ask):
    monkeypatch.setattr(mysql, "SCHEMA_READ_SECONDS", 0.2)
    database = Database("silent", silent_server.url)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="does not answer"):
            database.schema()
    assert len(silent_server.accepted) == 1
    with pytest.raises(DatabaseError, match="does not answer"):
        ask(database)
    silent_server.wait_for(2)
    assert len(silent_server.accepted) == 2


def test_schema_reads_have_short_time_limits():
    assert mysql.CONNECT_SECONDS <= 5
    assert mysql.SCHEMA_READ_SECONDS <= 10


def test_known_schema_is_there_the_next_time(tmp_path):
    path = tmp_path / "a.db"
    database = Database("file", f"sqlite:///{path}")
    assert database.known_schema() is None
    with pytest.raises(DatabaseError, match="is not there"):
        database.schema()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE a (x)")
    # A file that came later is seen at once: only a server's failure is remembered.
    assert database.schema().table("a")
    assert database.known_schema() is database.schema()
