from pathlib import Path

import pytest

from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import ConfigError
from dbgpt_lite.messages import Message
from dbgpt_lite.prompts import Prompts


def write(folder: Path, name: str, body: str) -> Prompts:
    (folder / name).write_text(body, encoding="utf-8")
    return Prompts(folder)


def test_sections_become_messages(tmp_path: Path) -> None:
    prompts = write(tmp_path, "t.en.txt", "[system]\nBe {tone}.\n\n[user]\n{question}\n")
    assert prompts.get("t", "en").render(tone="brief", question="Why {x}?") == (
        Message("system", "Be brief."),
        Message("user", "Why {x}?"),
    )


def test_language_falls_back_to_english(tmp_path: Path) -> None:
    assert write(tmp_path, "t.en.txt", "[user]\nhi").get("t", "zh").render() == (Message("user", "hi"),)


def test_missing_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.en\.txt.*schema"):
        write(tmp_path, "t.en.txt", "[user]\n{schema} {question}").get("t", "en").render(question="x")


def test_file_without_user_section_or_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.en\.txt has no \[user\]"):
        write(tmp_path, "t.en.txt", "hello").get("t", "en")
    with pytest.raises(ConfigError, match=r"absent\.en\.txt cannot be read"):
        Prompts(tmp_path).get("absent", "en")


SHIPPED = {
    "chat": {"question"},
    "documents": {"passages", "question"},
    "sql": {"dialect", "schema", "terms", "examples", "previous", "question"},
    "sql_repair": {"dialect", "schema", "terms", "examples", "previous", "question", "sql", "problem"},
    "sql_examples": {"examples"},
    "sql_terms": {"terms"},
    "sql_previous": {"question", "sql"},
    "rows": {"question", "sql", "rows"},
    "rewrite": {"history", "question"},
    "sql_starter": {"schema", "question"},
}


@pytest.mark.parametrize("task", sorted(SHIPPED))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_shipped_prompts_name_the_variables_their_task_fills(task: str, language: str) -> None:
    assert Prompts(ROOT / "prompts").get(task, language).variables == SHIPPED[task]  # type: ignore[arg-type]


def test_every_shipped_file_is_known() -> None:
    tasks = {file.name.split(".")[0] for file in (ROOT / "prompts").glob("*.txt")}
    assert tasks == set(SHIPPED)
