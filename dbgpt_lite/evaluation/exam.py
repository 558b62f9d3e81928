"""A retrieval exam: a folder of documents and labelled questions for each language.

<exam>/<en|zh>/*.md            documents; each ``## heading`` begins a passage
<exam>/<en|zh>/questions_*.jsonl   a JSON object a line: question, document, heading, answer (word for word in that
section); document "" marks a question that no document answers
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import LANGUAGES, Language

SHIPPED = Path(__file__).resolve().parent / "retrieval_exam"
_HEADING = re.compile(r"^##\s+(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    """A question and the words that answer it; `document` "" when no document does."""

    question: str
    document: str = ""
    heading: str = ""
    answer: str = ""

    @property
    def answerable(self) -> bool:
        """Whether one of the documents answers it."""
        return bool(self.document)

    def is_answered_by(self, passage: Passage) -> bool:
        """Whether the passage is of the right section and holds the words of the answer."""
        right = passage.document == self.document and passage.heading.rpartition(" › ")[2] == self.heading
        return right and _plain(self.answer) in _plain(passage.text)


@dataclass(frozen=True, slots=True)
class LanguageExam:
    """One language's part of an exam."""

    language: Language
    folder: Path
    questions: tuple[ExamQuestion, ...]

    def sections(self) -> Iterator[tuple[str, str, str]]:
        """(file name, heading, text) of each section."""
        for file in sorted(self.folder.glob("*.md")):
            pieces = _HEADING.split(file.read_text(encoding="utf-8"))
            for heading, text in zip(pieces[1::2], pieces[2::2], strict=True):
                yield file.name, heading, text.strip()


def read_exam(folder: Path) -> list[LanguageExam]:
    """The languages an exam has. Raises UserError for a folder that holds none or a line that is no question."""
    found = []
    for language in LANGUAGES:
        part = folder / language
        questions = tuple(one for file in sorted(part.glob("questions_*.jsonl")) for one in _questions(file))
        if questions:
            found.append(LanguageExam(language, part, questions))
    if not found:
        raise UserError("app.no_exam", name=folder.name)
    return found


def problems(exam: LanguageExam) -> list[str]:
    """What is wrong with an exam, a line each: headings twice in a file, answers that are not in their section."""
    found: list[str] = []
    texts: dict[tuple[str, str], str] = {}
    for name, heading, text in exam.sections():
        if (name, heading) in texts:
            found.append(f"{name}: two sections “{heading}”")
        texts[name, heading] = text
    asked: set[str] = set()
    for one in exam.questions:
        if one.question in asked:
            found.append(f"asked twice: {one.question}")
        asked.add(one.question)
        if not one.answerable:
            continue
        section = texts.get((one.document, one.heading))
        if section is None:
            found.append(f"{one.document} has no section “{one.heading}”: {one.question}")
        elif not one.answer.strip() or one.answer not in section:
            found.append(f"{one.document} “{one.heading}” does not hold “{one.answer}”: {one.question}")
    return found


def _questions(file: Path) -> Iterator[ExamQuestion]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            values = [content[name] for name in ("question", "document", "heading", "answer")]
        except (ValueError, KeyError, TypeError):
            raise UserError("app.bad_exam_line", name=file.name, line=number) from None
        if not all(isinstance(value, str) for value in values) or not values[0].strip():
            raise UserError("app.bad_exam_line", name=file.name, line=number)
        yield ExamQuestion(*values)


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
