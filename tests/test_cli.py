"""The command line: output, errors on one line, exit codes.

Most commands are called as the program calls them, in this process: starting one for each took longer than all that is
tested. What only a program shows (its own imports, signals, standard streams) is asked of programs.
"""

import io
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from dbgpt_lite.auth import check_password
from dbgpt_lite.cli import main
from dbgpt_lite.config import ROOT, Settings

# A thread that dies says so on stderr, which a program's reader would see.
pytestmark = [
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]
KEPT = ("PATH", "HOME")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "data"


def program(data: Path, *arguments: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    """What a program of its own says."""
    return subprocess.run(
        [sys.executable, "-m", "dbgpt_lite", *arguments],
        cwd=ROOT,
        env=environment(data, settings),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def run(data: Path, *arguments: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    """The same, but for starting it."""
    with pytest.MonkeyPatch.context() as patch:
        # Only the app's own: libraries that are imported meanwhile keep what they find in the environment.
        for name in [name for name in os.environ if name.lower() in Settings.model_fields]:
            patch.delenv(name)
        for name, value in environment(data, settings).items():
            patch.setenv(name, value)
        patch.chdir(ROOT)
        # What is logged goes to stderr when nobody set anything up; pytest has.
        patch.setattr(logging.getLogger(), "handlers", [])
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            code = main(arguments, lambda: pytest.fail("the app was started"))
        except SystemExit as wrong_usage:
            code = int(wrong_usage.code or 0)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, *said)


def environment(data: Path, settings: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "DATA_DIR": str(data), "LOG_LEVEL": "warning", **settings}


def test_ask_prints_answer_and_source(data: Path) -> None:
    done = program(data, "ask", "How many days do customers have to return an article?", "--mode", "documents")
    assert done.returncode == 0, done.stderr
    assert "45 days" in done.stdout
    assert "[1] returns-and-warranty.md" in done.stdout
    assert "Searching 6 documents" in done.stderr


def test_sql_prints_query_and_rows_and_writes_csv(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done = program(data, "sql", "How many customers are there?", "--database", "shop", "--csv", str(out))
    assert done.returncode == 0, done.stderr
    assert "SELECT" in done.stdout
    header, row = out.read_text(encoding="utf-8-sig").splitlines()
    assert header
    assert int(row) > 0


def test_ingest_then_ask(data: Path, tmp_path: Path) -> None:
    (tmp_path / "藏书.txt").write_text("图书馆的藏书共有八千册。开放时间为每天九点到十八点。", encoding="gb18030")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    done = program(data, "ingest", str(tmp_path), "--space", "Library")
    assert done.returncode == 1
    assert "broken.pdf:" in done.stderr
    assert "1 of 2 files" in done.stdout
    answer = program(data, "ask", "图书馆有多少藏书？", "--mode", "documents", "--source", "Library")
    assert "八千册" in answer.stdout
    again = run(data, "ingest", str(tmp_path / "藏书.txt"), "--space", "Library")
    assert "1 already there" in again.stdout


def test_folders_texts_and_a_chosen_encoding(data: Path, tmp_path: Path) -> None:
    for name in ("2025/note.md", "2026/note.md", "photo.raw", ".git/x.md"):
        file = tmp_path / "notes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"The ferry of {name} sails twice a day.")
    done = run(data, "ingest", str(tmp_path / "notes"), "--space", "Ferry")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 files are in “Ferry” (2 new" in done.stdout
    (tmp_path / "价目.txt").write_bytes("渡轮票价为三十二元。".encode("big5", "replace"))
    done = run(data, "ingest", str(tmp_path / "价目.txt"), "--space", "Ferry", "--encoding", "gb18030")
    assert done.returncode == 0, done.stderr
    done = run(data, "ingest", "--text", "-", "--title", "Fares", "--space", "Ferry", stdin="A bicycle costs 3 crowns.")
    assert done.returncode == 0, done.stderr
    answer = run(data, "ask", "What does a bicycle cost?", "--mode", "documents", "--source", "Ferry")
    assert "3 crowns" in answer.stdout
    assert "Fares.txt" in answer.stdout


def test_two_folders_of_one_name_in_a_space_named_in_small_letters(data: Path, tmp_path: Path) -> None:
    folders = [tmp_path / top / "docs" for top in ("A", "B")]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{number}.txt").write_text(f"Tide table {number} of {folder.parent.name}.")
    for space, told in (("Tides", "4 new, 0 replaced"), ("tides", "4 already there")):
        done = run(data, "ingest", *map(str, folders), str(folders[0]), "--space", space, UPLOAD_MAX_FILES="3")
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    listed = run(data, "space", "documents", "TIDES").stdout
    assert {line.split("  ")[1] for line in listed.splitlines()} == {
        "docs/0.txt", "docs/1.txt", "docs/0 (2).txt", "docs/1 (2).txt"
    }  # fmt: skip


def test_a_file_is_asked_and_thrown_away(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.md"
    file.write_text("The windmill was restored in 1987.")
    answer = run(data, "ask", "When was the windmill restored?", "--file", str(file))
    assert answer.returncode == 0, answer.stderr
    assert "1987" in answer.stdout
    assert "report.md" in answer.stdout
    assert "report" not in run(data, "space").stdout
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    refused = run(data, "ask", "What?", "--file", str(tmp_path / "broken.pdf"))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def test_spaces_are_made_renamed_emptied_and_deleted(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The lighthouse has 112 steps.")
    assert run(data, "space", "create", "Coast").returncode == 0
    assert run(data, "ingest", str(tmp_path / "a.md"), "--space", "Coast").returncode == 0
    assert run(data, "space", "rename", "Coast", "Shore").returncode == 0
    assert "Shore  (1 documents, 1 passages)" in run(data, "space", "list").stdout
    assert "nothing to do" in run(data, "space", "reembed", "Shore").stdout
    assert "a.md  (1 passages, utf-8)" in run(data, "space", "documents", "Shore").stdout
    assert "The lighthouse has 112 steps." in run(data, "space", "passages", "Shore", "a.md").stdout
    assert run(data, "space", "remove", "Shore", "b.md").returncode == 1
    assert "was removed from" in run(data, "space", "remove", "Shore", "a.md").stdout
    assert "a.md" not in run(data, "space", "documents", "Shore").stdout
    assert run(data, "ingest", str(tmp_path / "a.md"), "--space", "Shore").returncode == 0
    kept = run(data, "space", "empty", "Shore", stdin="n\n")
    assert kept.returncode == 1
    assert "1 documents" in kept.stdout
    assert "1 documents were removed" in run(data, "space", "empty", "Shore", stdin="y\n").stdout
    assert "was deleted" in run(data, "space", "delete", "Shore", "--yes").stdout
    assert "Shore" not in program(data, "space").stdout


def test_ctrl_c_keeps_what_is_done_and_resume_finishes_the_rest(data: Path, tmp_path: Path) -> None:
    for number in range(30):
        lines = (f"Entry {n} of log {number} counts {n * number} geese." for n in range(250))
        (tmp_path / f"log-{number:02}.txt").write_text("\n".join(lines))
    ingesting = subprocess.Popen(
        [sys.executable, "-m", "dbgpt_lite", "ingest", str(tmp_path), "--space", "Geese"],
        cwd=ROOT, env=environment(data, {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    catalog = data / "knowledge" / "catalog.sqlite3"
    for _ in range(600):
        if ready_documents(catalog, "Geese"):
            break
        time.sleep(0.1)
    ingesting.send_signal(signal.SIGINT)
    _, said = ingesting.communicate(timeout=60)
    assert ingesting.returncode == 130, said
    assert "ingest --resume" in said
    assert "Traceback" not in said
    assert 0 < ready_documents(catalog, "Geese") < 30
    assert "unfinished" in run(data, "space").stdout
    done = run(data, "ingest", "--resume")
    assert done.returncode == 0, done.stderr
    assert ready_documents(catalog, "Geese") == 30
    assert "Nothing was interrupted" in run(data, "ingest", "--resume").stdout


def ready_documents(catalog: Path, space: str) -> int:
    if not catalog.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as db:
        joined = "documents JOIN spaces ON spaces.number = documents.space"
        query = f"SELECT count(*) FROM {joined} WHERE spaces.name = ? AND status = 'ready'"
        return int(db.execute(query, (space,)).fetchone()[0])


def test_examples_are_taught_listed_exported_and_forgotten(data: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    two = [
        {"connection": "shop", "question": "How many orders?", "sql": "SELECT count(id) FROM orders"},
        {"question": "有多少客户？", "sql": "SELECT count(id) FROM customers"},
    ]
    good.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in two), encoding="utf-8")
    bad.write_text(good.read_text(encoding="utf-8") + '\n{"question": "x", "sql": "DROP TABLE orders"}\n', "utf-8")
    refused = run(data, "memory", "import", str(bad), "--database", "shop")
    assert refused.returncode == 1
    assert "Line 3: Only SELECT" in refused.stderr
    assert run(data, "memory").stdout == ""
    done = program(data, "memory", "import", str(good), "--database", "shop")
    assert "2 entries of good.jsonl" in done.stdout, done.stderr
    assert run(data, "memory", "add", "Which level?", "SELECT level FROM customers").returncode == 0
    listed = [json.loads(line) for line in run(data, "memory", "list", "--json").stdout.splitlines()]
    assert {one["question"] for one in listed} == {"How many orders?", "有多少客户？", "Which level?"}
    assert {(one["owner"], one["problem"]) for one in listed} == {("cli", "")}
    last = next(one for one in listed if one["question"] == "Which level?")
    assert "1 removed" in run(data, "memory", "remove", str(last["id"])).stdout
    exported = tmp_path / "out.jsonl"
    assert run(data, "memory", "export", str(exported)).returncode == 0
    written = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    assert {one["language"] for one in written} == {"en", "zh"}
    again = run(data, "memory", "import", "-", stdin=exported.read_text(encoding="utf-8"))
    assert again.returncode == 0, again.stderr
    assert len(run(data, "memory", "list", "--search", "orders").stdout.splitlines()) == 2


def test_terms_are_explained_and_forgotten(data: Path, tmp_path: Path) -> None:
    assert run(data, "glossary", "add", "revenue", "sum of order totals", "--sql", "SUM(total)").returncode == 0
    file = tmp_path / "terms.jsonl"
    file.write_text('{"term": "毛利", "meaning": "收入减去成本", "connection": "shop"}', encoding="utf-8")
    assert run(data, "glossary", "import", str(file)).returncode == 0
    lines = program(data, "glossary").stdout.splitlines()
    assert [line.partition("  ")[2] for line in lines] == [
        "*  revenue: sum of order totals  [SUM(total)]",
        "shop  毛利: 收入减去成本",
    ]
    assert len(run(data, "glossary", "export").stdout.splitlines()) == 2
    assert run(data, "glossary", "remove", lines[0].split()[0]).returncode == 0
    assert "revenue" not in run(data, "glossary", "list").stdout


def test_the_audit_tells_what_the_command_line_asked(data: Path) -> None:
    done = run(data, "sql", "How many customers are there?", "--database", "shop")
    assert done.returncode == 0, done.stderr
    facts = run(data, "audit", "--json", "--owner", "cli", "--since", "1h", "--limit", "2").stdout.splitlines()
    ran, planned = (json.loads(line) for line in facts)
    assert (ran["origin"], ran["connection"], ran["outcome"], ran["rows"]) == ("cli", "shop", "ok", 1)
    assert planned["statement"].startswith("EXPLAIN")
    assert ran["asked"] in done.stdout
    assert "1 rows" in program(data, "audit", "--limit", "1").stdout
    assert "  schema  " not in run(data, "audit").stdout
    for options in (("--all",), ("--origin", "schema"), ("--owner", "app")):
        assert "  app  shop  schema  ok" in run(data, "audit", *options).stdout
    assert "  cli  shop" not in run(data, "audit", "--origin", "schema").stdout
    assert run(data, "audit", "--owner", "nobody").stdout == ""
    assert run(data, "audit", "--since", "2099-01-01").stdout == ""
    assert program(data, "queries").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("ask", "hi", "--mode", "documents", "--source", "nope"), {}, 1, "space"),
        (("sql", "hi", "--database", "nope"), {}, 1, "nope"),
        (("ingest", "/no/such/file"), {}, 1, "no file or folder"),
        (("ingest",), {}, 2, "--resume"),
        (("ingest", "x.txt", "--encoding", "klingon"), {}, 2, "klingon"),
        (("ingest", "--text", "-", "--encoding", "hex"), {}, 2, "hex"),
        (("space", "delete", "nope", "--yes"), {}, 1, "space"),
        (("space", "create", "Lanternfish Goods 灯鱼商店"), {}, 1, "already"),
        (("ask", "hi", "--file", "/no/such/file"), {}, 1, "no file or folder"),
        (("memory", "add", "all", "DELETE FROM orders"), {}, 1, "DELETE"),
        (("memory", "add", "all", "SELECT 1", "--database", "nope"), {}, 1, "nope"),
        (("memory", "remove", "999999"), {}, 1, "example"),
        (("memory", "import", "/no/such/file"), {}, 1, "cannot be read"),
        (("glossary", "remove", "999999"), {}, 1, "term"),
        (("glossary", "add", "x", " "), {}, 1, "meaning"),
        (("audit", "--since", "yesterday"), {}, 2, "--since"),
        (("audit", "--limit", "many"), {}, 2, "usage"),
        (("ask",), {}, 2, "usage"),
        (("dance",), {}, 2, "usage"),
        (("ask", "hi"), {"PORT": "many"}, 2, "PORT"),
        ((), {"HOST": "0.0.0.0"}, 2, "AUTH_USERS"),
        (("ask", "hi"), {"STORE_URL": "mysql+pymysql://u:hunter2@127.0.0.1:1/x"}, 2, "STORE_URL"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    data: Path, arguments: tuple[str, ...], settings: dict[str, str], code: int, words: str
) -> None:
    # A setting that is refused may be found by what comes before the command, and by the app.
    done = (program if settings else run)(data, *arguments, **settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    if words != "usage":
        assert len(done.stderr.strip().splitlines()) == 1


def test_missing_model_is_said_by_commands_that_need_it(data: Path) -> None:
    done = program(data, "ask", "hi", LLM_MODEL="models/not-there")
    assert done.returncode == 1
    assert "not-there" in done.stderr


def test_hash_password_reads_stdin(data: Path) -> None:
    done = program(data, "hash-password", stdin="hunter2\n")
    assert check_password({"ana": done.stdout.strip()}, "ana", "hunter2")
    assert run(data, "hash-password", stdin="\n").returncode == 2
