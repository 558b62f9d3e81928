"""The command line as a program: output, errors on one line, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbgpt_lite.auth import check_password
from dbgpt_lite.config import ROOT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli") / "data"


def run(data: Path, *arguments: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    return subprocess.run(
        [sys.executable, "-m", "dbgpt_lite", *arguments],
        cwd=ROOT,
        env={**kept, "DATA_DIR": str(data), "LOG_LEVEL": "warning", **settings},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_ask_prints_answer_and_source(data: Path) -> None:
    done = run(data, "ask", "How many days do customers have to return an article?", "--mode", "documents")
    assert done.returncode == 0, done.stderr
    assert "45 days" in done.stdout
    assert "[1] returns-and-warranty.md" in done.stdout
    assert "Searching 6 documents" in done.stderr


def test_sql_prints_query_and_rows_and_writes_csv(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done = run(data, "sql", "How many customers are there?", "--database", "shop", "--csv", str(out))
    assert done.returncode == 0, done.stderr
    assert "SELECT" in done.stdout
    header, row = out.read_text(encoding="utf-8-sig").splitlines()
    assert header
    assert int(row) > 0


def test_ingest_then_ask(data: Path, tmp_path: Path) -> None:
    (tmp_path / "藏书.txt").write_text("图书馆的藏书共有八千册。开放时间为每天九点到十八点。", encoding="gb18030")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    done = run(data, "ingest", str(tmp_path), "--space", "Library")
    assert done.returncode == 1
    assert "broken.pdf:" in done.stderr
    assert "1 of 2 files" in done.stdout
    answer = run(data, "ask", "图书馆有多少藏书？", "--mode", "documents", "--source", "Library")
    assert "八千册" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("ask", "hi", "--mode", "documents", "--source", "nope"), {}, 1, "space"),
        (("sql", "hi", "--database", "nope"), {}, 1, "nope"),
        (("ingest", "/no/such/file"), {}, 1, "no file or folder"),
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
    done = run(data, *arguments, **settings)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    if words != "usage":
        assert len(done.stderr.strip().splitlines()) == 1


def test_missing_model_is_said_by_commands_that_need_it(data: Path) -> None:
    done = run(data, "ask", "hi", LLM_MODEL="models/not-there")
    assert done.returncode == 1
    assert "not-there" in done.stderr


def test_hash_password_reads_stdin(data: Path) -> None:
    done = run(data, "hash-password", stdin="hunter2\n")
    assert check_password({"ana": done.stdout.strip()}, "ana", "hunter2")
    assert run(data, "hash-password", stdin="\n").returncode == 2
