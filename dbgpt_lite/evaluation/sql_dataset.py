"""Questions with their queries: Spider's and BIRD's files, and a plain JSONL. Told apart by their shape.

Spider   [{"db_id", "question", "query"}, ...]
BIRD     [{"db_id", "question", "evidence", "SQL", "difficulty"}, ...]
JSONL    {"question", "sql"} a line, and at will "id", "difficulty", "ordered", "language", "db_id", "evidence",
         "dialect" of the query; sql "" says that the database cannot answer the question
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.texts import LANGUAGES, Language

SHIPPED = Path(__file__).resolve().parent / "sql_exam"
EXAMPLES = SHIPPED / "examples.jsonl"
"""Question/SQL pairs over the sample database that no question of the exam repeats."""
DIFFICULTIES = ("easy", "medium", "hard", "extra", "simple", "moderate", "challenging")
"""Spider's words, then BIRD's, in the order of a report."""
_TEXTS = ("id", "question", "language", "difficulty", "db_id", "evidence", "dialect")


@dataclass(frozen=True, slots=True)
class SqlQuestion:
    """A question and its query; `sql` "" when the database cannot answer it.

    `difficulty` "" and `ordered` None are worked out from `sql`. `hint` is what BIRD calls evidence.
    `dialect` is that of `sql`, "" for the database's own.
    """

    id: str
    question: str
    sql: str
    language: Language = "en"
    difficulty: str = ""
    ordered: bool | None = None
    database: str = ""
    hint: str = ""
    dialect: str = ""

    @property
    def answerable(self) -> bool:
        """Whether the database holds the answer."""
        return bool(self.sql)

    @property
    def asked(self) -> str:
        """What the engine is asked."""
        return f"{self.question}\n{self.hint}" if self.hint else self.question


def read_questions(file: Path) -> list[SqlQuestion]:
    """The questions of one file. Raises UserError that names the file and the entry that is no question."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UserError("app.no_dataset", name=file.name) from None
    entries = _list(file, text) if text.lstrip().startswith("[") else _lines(file, text)
    questions = [_question(file, number, entry) for number, entry in entries]
    if not questions:
        raise UserError("app.no_dataset", name=file.name)
    return questions


def shipped_questions() -> list[SqlQuestion]:
    """The exam over the sample database, English then Chinese."""
    files = (SHIPPED / f"questions_{language}.jsonl" for language in LANGUAGES)
    return [replace(one, dialect="sqlite") for file in files for one in read_questions(file)]


def _list(file: Path, text: str) -> Iterable[tuple[int, object]]:
    try:
        return enumerate(json.loads(text), start=1)
    except ValueError:
        raise UserError("app.no_dataset", name=file.name) from None


def _lines(file: Path, text: str) -> Iterable[tuple[int, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError:
                raise UserError("app.bad_dataset_entry", name=file.name, number=number) from None


def _question(file: Path, number: int, entry: object) -> SqlQuestion:
    wrong = UserError("app.bad_dataset_entry", name=file.name, number=number)
    if not isinstance(entry, Mapping):
        raise wrong
    facts = {name: entry.get(name) or "" for name in _TEXTS}
    query, dialect = _query(entry)
    ordered = entry.get("ordered")
    good = all(isinstance(fact, str | int) for fact in facts.values()) and ordered in (None, True, False)
    if not good or not isinstance(query, str) or not str(facts["question"]).strip():
        raise wrong
    texts = {name: str(fact).strip() for name, fact in facts.items()}
    found: Language = "zh" if is_chinese(texts["question"]) else "en"
    return SqlQuestion(
        texts["id"] or f"{file.stem} {number}",
        texts["question"],
        query.strip(),
        next((language for language in LANGUAGES if language == texts["language"]), found),
        texts["difficulty"],
        ordered,
        texts["db_id"],
        texts["evidence"],
        texts["dialect"] or dialect,
    )


def _query(entry: Mapping[Any, Any]) -> tuple[object, str]:
    """The query and its dialect: "query" in Spider, "SQL" in BIRD, both of SQLite databases; else "sql"."""
    for name in ("query", "SQL") if entry.get("db_id") else ():
        if entry.get(name):
            return entry[name], "sqlite"
    return entry.get("sql"), ""
