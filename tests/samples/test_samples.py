"""The sample documents answer what they are offered for, through the real index and the real assistant."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbgpt_lite.chat.extractive import ExtractiveEngine, Selection
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import LANGUAGES

pytestmark = pytest.mark.xdist_group("samples")

SAMPLES = Path(__file__).parents[2] / "dbgpt_lite" / "samples"
DOCUMENTS = sorted((SAMPLES / "documents").iterdir())
FACTS = json.loads((Path(__file__).parent / "facts.json").read_text(encoding="utf-8"))
QUESTIONS = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
Ask = Callable[[str], tuple[Selection, list[Passage]]]


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask the sample documents: the selection and the passages it was made from."""
    embedder = Embedder()
    root = tmp_path_factory.mktemp("knowledge")
    knowledge = KnowledgeBase(
        root, embedder, chunk_tokens=180, chunk_overlap=30, max_file_bytes=10_000_000, max_files=20
    )
    space = knowledge.create("Samples").id
    uploads = [Upload(file, file.name) for file in DOCUMENTS]
    ended = [step for step in knowledge.ingest(space, uploads, threading.Event()) if step.state in ("done", "failed")]
    assert [step.state for step in ended] == ["done"] * len(DOCUMENTS)
    engine = ExtractiveEngine(embedder.embed)

    def ask(question: str) -> tuple[Selection, list[Passage]]:
        passages = knowledge.search(space, question, 5)
        return engine.select(question, passages), passages

    yield ask
    embedder.close()


@pytest.mark.parametrize(("question", "fact"), [row for language in LANGUAGES for row in FACTS["answerable"][language]])
def test_quotes_the_sentence_that_holds_the_fact(ask: Ask, question: str, fact: str) -> None:
    selection, passages = ask(question)
    assert selection.quotes, f"refused with {selection.score:.2f}"
    assert fact in " ".join(selection.quotes[0].text.split())
    for quote in selection.quotes:
        assert quote.text in passages[quote.number - 1].text


@pytest.mark.parametrize("question", [one for language in LANGUAGES for one in FACTS["unanswerable"][language]])
def test_refuses_what_the_documents_do_not_say(ask: Ask, question: str) -> None:
    selection, _ = ask(question)
    assert selection.quotes == ()
    assert selection.score < selection.needed


def test_every_offered_document_question_has_a_checked_answer() -> None:
    for language in LANGUAGES:
        checked = {question for question, _ in FACTS["answerable"][language]}
        assert set(QUESTIONS["documents"][language]) <= checked


def test_questions_are_offered_for_every_mode_in_both_languages() -> None:
    assert set(QUESTIONS) == {"chat", "documents", "database"}
    for offered in QUESTIONS.values():
        assert set(offered) == set(LANGUAGES)
        assert all(len(questions) >= 2 for questions in offered.values())


def test_documents_cover_formats_and_stay_small() -> None:
    assert {file.suffix for file in DOCUMENTS} == {".md", ".pdf", ".docx"}
    assert sum(file.stat().st_size for file in DOCUMENTS) < 1_000_000
