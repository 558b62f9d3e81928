"""The start takes up what an earlier run has left, as jobs that the page can show."""

import sqlite3
import threading
from pathlib import Path

from dbgpt_lite.bootstrap import Services, build_services
from dbgpt_lite.config import Settings
from dbgpt_lite.knowledge.indexing import Task
from dbgpt_lite.knowledge.records import Upload


def services(folder: Path) -> Services:
    return build_services(
        Settings(data_dir=folder, sample_data=False, sql_model="", _env_file=None)  # type: ignore[call-arg]
    )


def left_pending(made: Services, space: str, file: Path) -> None:
    """A file whose bytes are kept and that was never indexed, as a killed process leaves it."""
    tasks: list[Task] = []
    assert list(made.knowledge.receive(space, [Upload(file, file.name)], threading.Event(), tasks)) == []


def test_a_start_finishes_uploads_and_removes_forgotten_files(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The keeper is called Ada.")
    with services(tmp_path / "data") as made:
        space = made.knowledge.create("notes").id
        used, forgotten = (made.knowledge.create_temporary("ana", "note.txt").id for _ in range(2))
        conversation = made.store.create("ana", "documents", used)
        made.store.ask("ana", conversation.id, "Who is the keeper?")
        for one in (space, used, forgotten):
            left_pending(made, one, tmp_path / "note.txt")
    with sqlite3.connect(tmp_path / "data" / "knowledge" / "catalog.sqlite3") as db:
        db.execute("UPDATE spaces SET added = added - 100000")

    with services(tmp_path / "data") as made:
        made._take_up_jobs()
        jobs = made.knowledge.jobs.of_space(space) + made.knowledge.jobs.of_space(used)
        assert [made.knowledge.jobs.wait(job.id, 60).state for job in jobs] == ["done", "done"]
        assert {found.id for found in made.knowledge.spaces("ana")} == {space, used}
        assert made.knowledge.search(used, "Who is the keeper?", 1)[0].text == "The keeper is called Ada."
        assert made.knowledge.interrupted() == []


def test_closing_the_app_ends_its_jobs_without_losing_them(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {n} about topic {n}. " * 20 for n in range(400)))
    with services(tmp_path / "data") as made:
        space = made.knowledge.create("notes").id
        left_pending(made, space, tmp_path / "long.txt")
        made._take_up_jobs()
    with services(tmp_path / "data") as made:
        assert made.knowledge.interrupted() == [space]
        assert made.knowledge.space(space).pending == 1


def test_every_connection_writes_into_the_audit_of_the_store(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "own.db").execute("CREATE TABLE t (x)").connection.close()
    settings = Settings(
        data_dir=tmp_path / "data", sql_model="", databases=f"own=sqlite:///{tmp_path / 'own.db'}", _env_file=None
    )  # type: ignore[call-arg]
    with build_services(settings) as made:
        names = made.databases.names()
        for name in names:
            made.databases.get(name).run("SELECT 1", who="ana")
        assert names == ["own", "shop"]
        assert [entry.connection for entry in made.queries.audit.entries("ana")] == names[::-1]
        kept = made.memory.remember("ana", "own", "All of t?", "SELECT x FROM t", "thumbs")
        assert [one.sql for one in made.memory.similar("own", "all of t")] == [kept.sql]


def test_rules_of_the_settings_reach_the_connection_they_name(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data", sql_model="", database_rules="shop:-employees,-*.email", _env_file=None
    )  # type: ignore[call-arg]
    with build_services(settings) as made:
        schema = made.databases.get("shop").schema()
    assert schema.table("employees") is None
    assert schema.table("customers").column("email") is None
    assert schema.table("orders").column("total") is not None
