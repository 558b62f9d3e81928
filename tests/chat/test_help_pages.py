"""The help pages: parallel in both languages, and found by the questions people ask."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.chat.help_pages import HELP_RULE, help_entries
from dbgpt_lite.config import Settings
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.texts import LANGUAGES, Language

pytestmark = pytest.mark.xdist_group("extractive")

QUESTIONS = json.loads((Path(__file__).parent / "help_questions.json").read_text(encoding="utf-8"))
SAMPLES = Path(__file__).parents[2] / "dbgpt_lite" / "samples" / "questions.json"
ENVIRONMENT_NAME = r"\b[A-Z]{2,}(?:_[A-Z]+)+\b"


@pytest.fixture(scope="module")
def engine() -> Iterator[ExtractiveEngine]:
    embedder = Embedder()
    yield ExtractiveEngine(embedder.embed)
    embedder.close()


def test_both_languages_have_the_same_entries() -> None:
    english, chinese = help_entries("en"), help_entries("zh")
    assert [entry.topic for entry in english] == [entry.topic for entry in chinese]
    assert len(english) > 30


@pytest.mark.parametrize("language", LANGUAGES)
def test_entries_are_complete(language: Language) -> None:
    for entry in help_entries(language):
        assert entry.text
        assert "<!--" not in entry.text
        assert "##" not in entry.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_settings_named_in_the_pages_exist(language: Language) -> None:
    named = {name for entry in help_entries(language) for name in re.findall(ENVIRONMENT_NAME, entry.text)}
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


CASES = [(language, question, title) for language in LANGUAGES for question, title in QUESTIONS[language]["help"]]


@pytest.mark.parametrize(("language", "question", "title"), CASES)
def test_a_help_question_finds_its_entry(
    engine: ExtractiveEngine, language: Language, question: str, title: str
) -> None:
    entry, score = engine.nearest_help(question)
    assert entry.title == title
    assert score >= HELP_RULE[language].needed


OTHER = [(language, question) for language in LANGUAGES for question in QUESTIONS[language]["other"]]


@pytest.mark.parametrize(("language", "question"), OTHER)
def test_other_talk_is_not_taken_for_a_help_question(
    engine: ExtractiveEngine, language: Language, question: str
) -> None:
    assert engine.nearest_help(question)[1] < HELP_RULE[language].needed


@pytest.mark.parametrize("language", LANGUAGES)
def test_offered_chat_questions_are_answered(engine: ExtractiveEngine, language: Language) -> None:
    for question in json.loads(SAMPLES.read_text(encoding="utf-8"))["chat"][language]:
        assert engine.nearest_help(question)[1] >= HELP_RULE[language].needed
