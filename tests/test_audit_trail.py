"""The audit trail in SQLite and MariaDB: written before the statement, changed once, bounded by age."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbgpt_lite.audit_trail import RUNNING, AuditTrail
from dbgpt_lite.errors import DatabaseError
from dbgpt_lite.store import ConversationStore
from tests.conftest import MariaDB

ANA, BEN = "user:ana", "user:ben"


@pytest.fixture(params=["sqlite", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    if request.param == "mariadb":
        maria: MariaDB = request.getfixturevalue("mariadb")
        name = f"store_{uuid.uuid4().hex}"
        with maria.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        url = maria.url("owner", name)
    store = ConversationStore(url)
    yield store.engine
    store.close()


def begin(trail: AuditTrail, asked: str, owner: str = ANA, connection: str = "shop", origin: str = "editor") -> int:
    statement = f"{asked} LIMIT 1001"
    return trail.begin(connection=connection, statement=statement, asked=asked, owner=owner, origin=origin)


def test_an_entry_is_there_before_its_end_and_is_ended_once(engine: sa.Engine) -> None:
    trail = AuditTrail(engine)
    before = datetime.now(UTC) - timedelta(seconds=1)
    number = begin(trail, "SELECT '客户😀' FROM t")
    (running,) = AuditTrail(engine).entries()
    assert (running.id, running.outcome, running.milliseconds, running.rows) == (number, RUNNING, None, None)
    assert (running.statement, running.asked) == ("SELECT '客户😀' FROM t LIMIT 1001", "SELECT '客户😀' FROM t")
    assert before < running.started < datetime.now(UTC) + timedelta(seconds=1)
    trail.end(number, outcome="ok", seconds=1.2345, rows=7)
    trail.end(number, outcome="cancelled", seconds=9, rows=0)
    (ended,) = trail.entries()
    assert (ended.outcome, ended.milliseconds, ended.rows) == ("ok", 1234, 7)


def test_entries_are_chosen_by_owner_connection_time_and_number(engine: sa.Engine) -> None:
    trail = AuditTrail(engine)
    for asked, owner, connection in (("a", ANA, "shop"), ("b", BEN, "shop"), ("c", ANA, "hr"), ("d", ANA, "shop")):
        begin(trail, asked, owner, connection)
    assert [one.asked for one in trail.entries()] == ["d", "c", "b", "a"]
    assert [one.asked for one in trail.entries(ANA, "shop")] == ["d", "a"]
    assert [one.asked for one in trail.entries(limit=2)] == ["d", "c"]
    assert trail.entries(ANA.upper()) == []
    zone = datetime.now().astimezone().tzinfo
    assert len(trail.entries(since=datetime.now(zone) - timedelta(minutes=5))) == 4
    assert trail.entries(since=datetime.now(zone) + timedelta(minutes=5)) == []


def test_entries_are_chosen_by_origin(engine: sa.Engine) -> None:
    trail = AuditTrail(engine)
    for asked, origin in (("a", "model"), ("b", "schema"), ("c", "schema"), ("d", "cli")):
        begin(trail, asked, origin=origin)
    assert [one.asked for one in trail.entries(origin="schema")] == ["c", "b"]
    assert [one.asked for one in trail.entries(without=("schema",), limit=2)] == ["d", "a"]
    assert trail.entries(origin="schema", without=("schema",)) == []


def test_history_is_ones_own_each_query_once_newest_first(engine: sa.Engine) -> None:
    trail = AuditTrail(engine)
    begin(trail, "SELECT 'a'")
    begin(trail, "SELECT 'A'", origin="model")
    begin(trail, "EXPLAIN SELECT 'a'", origin="explain")
    begin(trail, "SELECT 'b'", BEN)
    begin(trail, "SELECT 'a'", connection="hr")
    last = begin(trail, "SELECT 'a'")
    trail.end(last, outcome="ok", seconds=0.1, rows=3)
    history = trail.history(ANA)
    assert [(one.asked, one.connection) for one in history] == [
        ("SELECT 'a'", "shop"), ("SELECT 'a'", "hr"), ("SELECT 'A'", "shop"),
    ]  # fmt: skip
    assert (history[0].id, history[0].rows) == (last, 3)
    assert [one.asked for one in trail.history(ANA, "hr")] == ["SELECT 'a'"]
    assert len(trail.history(ANA, limit=1)) == 1


@pytest.mark.parametrize(("days", "kept"), [(30, ["new", "of today"]), (0, ["new", "of today", "old"])])
def test_entries_go_by_age_and_never_when_it_is_0(engine: sa.Engine, days: int, kept: list[str]) -> None:
    writer = AuditTrail(engine, days=0)
    numbers = {asked: begin(writer, asked) for asked in ("old", "of today")}
    with engine.begin() as db:
        long_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=31)
        query = sa.text("UPDATE query_audit SET started = :then WHERE id = :number")
        db.execute(query, {"then": long_ago, "number": numbers["old"]})
    trail = AuditTrail(engine, days=days)
    begin(trail, "new")
    assert [one.asked for one in trail.entries()] == kept


def test_a_full_disk_refuses_the_statement(tmp_path: Path) -> None:
    store = ConversationStore(f"sqlite:///{tmp_path / 'store.db'}")

    def fill(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # the pages there are, and none more

    store.engine.dispose()
    sa.event.listen(store.engine, "connect", fill)
    trail = AuditTrail(store.engine)
    with pytest.raises(DatabaseError, match="not sent"):
        begin(trail, "SELECT " + "1" * 20_000)
    assert trail.entries() == []
    store.close()


def test_an_end_that_cannot_be_written_leaves_the_entry_and_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ConversationStore(f"sqlite:///{tmp_path / 'store.db'}")
    trail = AuditTrail(store.engine)
    number = begin(trail, "SELECT secret_value")
    with store.engine.begin() as db:
        db.execute(sa.text("ALTER TABLE query_audit RENAME TO gone"))
    trail.end(number, outcome="ok", seconds=1, rows=1)
    assert "audit entry" in caplog.text
    assert "secret_value" not in caplog.text
    with store.engine.begin() as db:
        db.execute(sa.text("ALTER TABLE gone RENAME TO query_audit"))
    assert [one.outcome for one in trail.entries()] == [RUNNING]
    store.close()
