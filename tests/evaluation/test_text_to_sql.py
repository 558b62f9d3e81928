"""An exam from its file to the report, with the app's own path and a scripted model."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dbgpt_lite.audit_trail import AuditEntry, AuditTrail
from dbgpt_lite.cli import main
from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import NotFound
from dbgpt_lite.evaluation.sql_dataset import SqlQuestion, read_questions
from dbgpt_lite.evaluation.sql_report import as_json, diffs, figures, percentile, table
from dbgpt_lite.evaluation.text_to_sql import DatabaseFolder, Judged, OneDatabase, Solution, evaluate
from dbgpt_lite.llm.unconstrained import Unconstrained
from dbgpt_lite.messages import Message, Prompt, Sampling
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql_solver import sql_solver
from dbgpt_lite.store import ConversationStore
from tests.fakes import ScriptedEngine
from tests.llm.fake_server import FakeServer

COUNT = SqlQuestion("count", "How many animals are there?", "SELECT count(*) FROM animal")
NAMES = SqlQuestion("names", "Name them by weight.", "SELECT name FROM animal ORDER BY kg", difficulty="medium")
CHINESE = SqlQuestion("zh", "一共有多少只动物？", "SELECT count(*) FROM animal", "zh")
NOTHING = SqlQuestion("nothing", "What do they eat?", "")


class Server(FakeServer):
    """A server that is closed like a file."""

    close = FakeServer.stop


def make_zoo(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, kg REAL)")
        db.executemany("INSERT INTO animal(name, kg) VALUES (?, ?)", [("Otter", 9.5), ("熊猫", 110.0), ("Lynx", 22.0)])
    return file


@pytest.fixture
def zoo(tmp_path: Path) -> Iterator[OneDatabase]:
    database = OneDatabase(Database("zoo", f"sqlite:///{make_zoo(tmp_path / 'zoo.db')}"))
    yield database
    database.close()


def judged(zoo: OneDatabase, question: SqlQuestion, *replies: str, **info: object) -> Judged:
    solve = sql_solver(Prompts(ROOT / "prompts"), ScriptedEngine(*replies, **info))
    [one] = evaluate([question], zoo, solve)
    return one


@pytest.mark.parametrize(
    ("question", "replies", "verdict"),
    [
        (COUNT, ["SELECT 3"], "match"),
        (COUNT, ["SELECT sum(1) FROM animal"], "match"),
        (COUNT, ["SELECT count(*) FROM animals", "SELECT count(id) FROM animal"], "match"),
        (COUNT, ["SELECT 4"], "wrong"),
        (COUNT, ["-- cannot answer"], "refused"),
        (COUNT, ["no idea", "none", "none"], "no_query"),
        (COUNT, ["DELETE FROM animal"] * 3, "no_query"),
        (NAMES, ["SELECT name FROM animal ORDER BY kg ASC"], "match"),
        (NAMES, ["SELECT name FROM animal ORDER BY kg DESC"], "wrong"),
        (replace(NAMES, ordered=False), ["SELECT name FROM animal ORDER BY kg DESC"], "match"),
        (replace(COUNT, ordered=True), ["SELECT 3"], "match"),
        (NOTHING, ["-- cannot answer"], "refused"),
        (NOTHING, ["SELECT name FROM animal"], "wrong"),
        (NOTHING, ["SELECT food FROM animal"] * 3, "no_query"),
        (replace(COUNT, sql="SELECT count(*) FROM animals"), ["SELECT 3"], "bad_gold"),
        (replace(COUNT, sql="DELETE FROM animal"), ["SELECT 3"], "bad_gold"),
        (replace(COUNT, sql="SELECT CONCAT('a', 'b')", dialect="mysql"), ["SELECT 'ab'"], "match"),
    ],
)
def test_verdicts(zoo: OneDatabase, question: SqlQuestion, replies: list[str], verdict: str) -> None:
    assert judged(zoo, question, *replies).verdict == verdict


def test_a_model_is_not_asked_in_a_language_it_does_not_read(zoo: OneDatabase) -> None:
    assert judged(zoo, CHINESE, "SELECT 3", languages=("en",)).verdict == "not_asked"
    assert judged(zoo, CHINESE, "SELECT 3").verdict == "match"


def test_a_query_over_the_time_limit_is_an_attempt_and_no_answer(tmp_path: Path) -> None:
    slow = "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    zoo = OneDatabase(Database("zoo", f"sqlite:///{make_zoo(tmp_path / 'zoo.db')}", timeout_s=0.2))
    one = judged(zoo, COUNT, slow)
    assert (one.verdict, len(one.solution.attempts)) == ("no_query", 1)
    assert one.solution.problem
    assert f"Problem: {one.solution.problem}" in diffs([one])


def test_a_known_query_with_too_many_rows_is_told(tmp_path: Path) -> None:
    zoo = OneDatabase(Database("zoo", f"sqlite:///{make_zoo(tmp_path / 'zoo.db')}", row_limit=2))
    one = judged(zoo, NAMES, "SELECT 1")
    assert one.verdict == "bad_gold"
    assert "2 rows" in one.gold_problem


def test_figures_and_report(zoo: OneDatabase) -> None:
    questions = [COUNT, NAMES, CHINESE, NOTHING, replace(COUNT, id="gone", sql="SELECT x FROM gone")]
    replies = ["SELECT cnt FROM animal", "SELECT 3", "SELECT name FROM animal", "SELECT 3", "-- cannot answer"]
    results = evaluate(questions, zoo, sql_solver(Prompts(ROOT / "prompts"), ScriptedEngine(*replies)))
    parts = {(part.name, part.difficulty): part for part in figures(results)}
    english, together = parts["en", ""], parts["all", ""]
    assert (english.answerable, english.matches, english.written) == (2, 1, 2)
    assert (english.first_valid, english.valid, english.refused) == (1, 2, 0)
    assert (english.unanswerable, english.rightly_refused, english.stray_rows) == (1, 1, 0)
    assert (together.answerable, together.matches, together.unanswerable) == (3, 2, 1)
    assert list(parts) == [("en", "easy"), ("en", "medium"), ("en", ""), ("zh", "easy"), ("zh", ""), ("all", "")]
    shown = table(results)
    for line in ("| English (2) | 50.0 % (1) | 50.0 % | 100.0 % | 0 |", "| English (1) | 1 | 0 | 0 |", "- gone: "):
        assert line in shown
    wrong = diffs(results)
    assert "## names, medium: wrong" in wrong
    assert "the same rows in another order" in wrong
    assert '("Lynx")' in wrong
    assert "## gone: bad gold" in wrong
    assert "## count" not in wrong
    content = json.loads(as_json(results, "scripted", constrained=False))
    assert [one["verdict"] for one in content["questions"]] == ["match", "wrong", "match", "refused", "bad_gold"]
    assert content["questions"][0]["attempts"][0]["problem"]
    assert content["questions"][1]["difference"] == "order"


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([4, 1, 3, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7], 0.95) == 7


def test_spider_and_bird_find_their_databases(tmp_path: Path) -> None:
    for name in ("zoo", "farm"):
        make_zoo(tmp_path / "database" / name / f"{name}.sqlite")
    entries = [{"db_id": name, "question": f"How many in the {name}?", "query": COUNT.sql} for name in ("zoo", "farm")]
    (tmp_path / "dev.json").write_text(json.dumps(entries))
    databases = DatabaseFolder(tmp_path / "database", 10)
    asked: list[tuple[str, str]] = []

    def solve(database: Database, question: SqlQuestion) -> Solution:
        asked.append((database.name, question.question))
        return Solution(sql=COUNT.sql, table=database.run(COUNT.sql))

    results = evaluate(read_questions(tmp_path / "dev.json"), databases, solve)
    assert [one.verdict for one in results] == ["match", "match"]
    assert asked == [("zoo", "How many in the zoo?"), ("farm", "How many in the farm?")]
    for name in ("gone", "../database/zoo", ""):
        with pytest.raises(NotFound):
            databases.get(name)
    databases.close()


def test_no_grammar_reaches_an_engine_that_writes_freely() -> None:
    engine = ScriptedEngine("SELECT 1", beams=["a", "b"], constrained=True)
    free = Unconstrained(engine)
    prompt = Prompt("sql", (Message("user", "q"),), "q", grammar="start: /x/")
    assert (engine.info.constrained, free.info.constrained) == (True, False)
    assert "".join(str(piece) for piece in free.stream(prompt, Sampling(), threading.Event())).startswith("SELECT 1")
    assert free.candidates(prompt, 1, 8, threading.Event()) == ["a"]
    assert [asked.grammar for asked in engine.prompts] == ["", ""]
    assert (free.count(prompt.messages), free.count_text("a b"), free.waiting) == (1, 2, 0)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the audit is."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def audited(data: Path) -> list[AuditEntry]:
    """What was sent to connections, oldest first."""
    with closing(ConversationStore(f"sqlite:///{data / 'store.db'}")) as store:
        return AuditTrail(store.engine).entries(limit=1000)[::-1]


def run(*arguments: str) -> int:
    return main(["evaluate", "text-to-sql", *arguments], lambda: 99)


def test_the_command_asks_the_built_in_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_zoo(tmp_path / "dev_databases" / "zoo" / "zoo.sqlite")
    entry = {"db_id": "zoo", "question": "How many animals are there?", "evidence": "", "SQL": COUNT.sql,
             "difficulty": "simple"}  # fmt: skip
    dataset = tmp_path / "dev.json"
    dataset.write_text(json.dumps([entry, {**entry, "SQL": "SELECT count(*) FROM plant"}]))
    figures_file, diffs_file = tmp_path / "out.json", tmp_path / "out.md"
    wanted = ["--dataset", str(dataset), "--json", str(figures_file), "--diffs", str(diffs_file), "--free"]
    assert run(*wanted, "--model", str(ROOT / "models" / "starter-sql")) == 0
    told = capsys.readouterr()
    assert "| English, simple (1) | 100.0 % (1) | 100.0 % | 100.0 % | 0 |" in told.out
    assert "- dev 2: " in told.out
    assert "starter-sql, free decoding, 0 examples, 2 questions" in told.err
    content = json.loads(figures_file.read_text(encoding="utf-8"))
    assert (content["engine"], content["constrained"]) == ("starter-sql", False)
    assert "## dev 2" in diffs_file.read_text(encoding="utf-8")


def test_the_command_asks_a_server(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.jsonl"
    lines = [{"question": one.question, "sql": one.sql, "evidence": "all of them"} for one in (COUNT, CHINESE)]
    own.write_text("\n".join(json.dumps(line) for line in lines))
    zoo = f"sqlite:///{make_zoo(tmp_path / 'zoo.db')}"
    with closing(Server()) as server:
        monkeypatch.setenv("LLM_ENDPOINT", server.url)
        monkeypatch.setenv("DATABASES", f"zoo={zoo}")
        server.pieces = ["```sql\nSELECT ", "count(*) FROM animal\n```"]
        assert run("--dataset", str(own), "--database", "zoo") == 0
        assert "| both (2) | 100.0 % (2) | 100.0 % | 100.0 % | 0 |" in capsys.readouterr().out
        assert server.asked[0]["messages"][-1]["content"] == f"{COUNT.question}\nall of them"
        sent = audited(data)
        assert {(one.connection, one.outcome) for one in sent} == {("zoo", "ok")}
        assert (sent[0].owner, sent[0].origin) == ("app", "schema")
        assert [(one.owner, one.origin) for one in sent[1:]] == [
            ("cli", how) for how in ("exam", "explain", "exam")
        ] * 2
        assert sent[1].asked == "SELECT COUNT(*) FROM animal"
        server.status, server.text = 500, "broken"
        assert run("--dataset", str(own), "--database", "zoo", "--diffs", str(tmp_path / "diffs.md")) == 0
        assert "| both (2) | 0.0 % (0) | - | - | 0 |" in capsys.readouterr().out
        assert (tmp_path / "diffs.md").read_text(encoding="utf-8").count("Problem: ") == 2


def test_without_any_model_that_writes_queries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SQL_MODEL", "models/not-there")
    assert run("--limit", "1") == 2
    assert "--model" in capsys.readouterr().err


def test_a_part_of_the_exam_that_the_app_comes_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--limit", "2", "--language", "zh") == 0
    told = capsys.readouterr()
    assert "2 questions in Chinese were not asked: the model does not read it" in told.out
    assert "0.0 %" not in told.out
    assert "2 of 2 asked" in told.err


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "How many?", "sql": "SELECT 1"}\n')
    many = tmp_path / "many.json"
    many.write_text(json.dumps([{"db_id": name, "question": "q", "query": "SELECT 1"} for name in ("a", "b")]))
    zoo = f"sqlite:///{make_zoo(tmp_path / 'zoo.db')}"
    for arguments, code, words in (
        (["--dataset", str(own)], 1, "--database"),
        (["--dataset", str(many)], 1, "a/a.sqlite"),
        (["--dataset", str(many), "--database", zoo], 1, "2 databases"),
        (["--dataset", str(own), "--database", "nobody"], 1, "nobody"),
        (["--dataset", str(own), "--database", "sqlite://"], 2, "exam"),
        (["--dataset", str(tmp_path / "gone.json")], 1, "gone.json"),
        (["--dataset", str(own), "--database", zoo, "--model", "not-there"], 1, "not-there"),
        (["--dataset", str(own), "--database", zoo, "--diffs", str(tmp_path / "no" / "x.md")], 1, "x.md"),
    ):
        assert run(*arguments) == code
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("·")]
        assert len(said) == 1
        assert words in said[0]
