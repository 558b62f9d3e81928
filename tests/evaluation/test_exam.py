"""Exams are what they say they are, and broken ones are told apart."""

import json
from pathlib import Path

import pytest

from dbgpt_lite.errors import UserError
from dbgpt_lite.evaluation.exam import SHIPPED, ExamQuestion, LanguageExam, problems, read_exam
from dbgpt_lite.messages import Passage

SMALL = Path(__file__).resolve().parent.parent / "fixtures" / "retrieval_exam"


def test_every_answer_is_in_its_section() -> None:
    exams = read_exam(SMALL)
    assert [exam.language for exam in exams] == ["en", "zh"]
    for exam in exams:
        assert problems(exam) == []
        assert any(not question.answerable for question in exam.questions)


def test_faults_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("## One\n\nBlue paint.\n\n## One\n\nRed paint.\n", encoding="utf-8")
    questions = (
        ExamQuestion("Which paint?", "a.md", "One", "green"),
        ExamQuestion("Which paint?", "a.md", "Two", "paint"),
        ExamQuestion("Which door?", "b.md", "One", "paint"),
        ExamQuestion("Which wall?", "a.md", "One", " "),
        ExamQuestion("Which moon?"),
    )
    found = problems(LanguageExam("en", tmp_path, questions))
    for part in (
        "two sections",
        "asked twice",
        "does not hold “green”",
        "no section “Two”",
        "b.md",
        "does not hold “ ”",
    ):
        assert any(part in line for line in found), part
    assert not any("moon" in line for line in found)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"question": "a"}', '{"question": 1, "document": "", "heading": "", "answer": ""}']
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"question": "a", "document": "", "heading": "", "answer": ""})
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "questions_en_1.jsonl").write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as told:
        read_exam(tmp_path)
    assert (told.value.key, told.value.facts["line"]) == ("app.bad_exam_line", 3)


def test_a_folder_without_an_exam_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        read_exam(tmp_path)
    assert told.value.key == "app.no_exam"


def test_a_passage_answers_only_from_the_right_section() -> None:
    question = ExamQuestion("q", "a.md", "One", "blue paint")
    right = Passage(1, "It is BLUE\npaint.", "d", "a.md", heading="Title › One")
    assert question.is_answered_by(right)
    for other in (
        Passage(1, right.text, "d", "b.md", heading="Title › One"),
        Passage(1, right.text, "d", "a.md", heading="Title › Two"),
        Passage(1, "It is red paint.", "d", "a.md", heading="Title › One"),
    ):
        assert not question.is_answered_by(other)


def test_the_shipped_exam_is_large_enough_and_sound() -> None:
    exams = read_exam(SHIPPED)
    assert [exam.language for exam in exams] == ["en", "zh"]
    for exam in exams:
        assert problems(exam) == []
        assert sum(question.answerable for question in exam.questions) >= 150
        assert sum(not question.answerable for question in exam.questions) >= 40
    assert sum(len(exam.questions) for exam in exams) >= 300
    assert sum(1 for exam in exams for _ in exam.sections()) >= 2000
