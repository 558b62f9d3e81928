"""Question files of every shape, told apart and read; entries that are no question are named."""

import json
from pathlib import Path

import pytest

from dbgpt_lite.errors import UserError
from dbgpt_lite.evaluation.sql_dataset import SqlQuestion, read_questions


def written(folder: Path, content: str, name: str = "dev.json") -> Path:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    return file


def test_spider(tmp_path: Path) -> None:
    entry = {"db_id": "zoo", "question": "How many? ", "query": "SELECT 1", "sql": {"select": []}, "query_toks": ["a"]}
    [question] = read_questions(written(tmp_path, json.dumps([entry])))
    assert question == SqlQuestion("dev 1", "How many?", "SELECT 1", database="zoo", dialect="sqlite")
    assert question.asked == "How many?"


def test_bird(tmp_path: Path) -> None:
    entry = {"question_id": 7, "db_id": "zoo", "question": "How many?", "evidence": "all = 1", "SQL": "SELECT 1",
             "difficulty": "moderate"}  # fmt: skip
    [question] = read_questions(written(tmp_path, json.dumps([entry])))
    assert (question.difficulty, question.hint, question.database) == ("moderate", "all = 1", "zoo")
    assert question.asked == "How many?\nall = 1"
    assert question.dialect == "sqlite"


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        {"question": "多少只动物？", "sql": "SELECT 1", "difficulty": "easy", "ordered": False, "id": "z1"},
        {"question": "What is missing?", "sql": "", "language": "zh", "dialect": "mysql"},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines)
    first, second = read_questions(written(tmp_path, text, "own.jsonl"))
    assert first == SqlQuestion("z1", "多少只动物？", "SELECT 1", "zh", "easy", ordered=False)
    assert second == SqlQuestion("own 3", "What is missing?", "", "zh", dialect="mysql")
    assert not second.answerable


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ('[{"db_id": "a", "question": "q"}]', 1),
        ('[{"db_id": "a", "question": "q", "query": "SELECT 1"}, 5]', 2),
        ('[{"question": "q", "query": "SELECT 1"}]', 1),
        ('{"question": "q", "sql": "SELECT 1"}\n{"question": " ", "sql": "SELECT 1"}', 2),
        ('{"question": "q", "sql": null}', 1),
        ('{"question": ["q"], "sql": ""}', 1),
        ('{"question": "q", "sql": "", "ordered": "yes"}', 1),
        ('{"question": "q", "sql": ""}\n\n{"question"', 3),
        ("plain words", 1),
    ],
)
def test_an_entry_that_is_no_question_is_named(tmp_path: Path, content: str, number: int) -> None:
    with pytest.raises(UserError) as told:
        read_questions(written(tmp_path, content))
    assert (told.value.key, told.value.facts["number"]) == ("app.bad_dataset_entry", number)


@pytest.mark.parametrize("content", ["", "\n", "[]", "[{"])
def test_a_file_without_questions_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError) as told:
        read_questions(written(tmp_path, content))
    assert told.value.key == "app.no_dataset"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes("[{'é'}]".encode("latin-1"))
    for file in (tmp_path / "latin.json", tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError) as told:
            read_questions(file)
        assert told.value.key == "app.no_dataset"
