"""The command line's `evaluate`: exams that say how well the app does its work."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dbgpt_lite.cli_knowledge import Add
from dbgpt_lite.errors import UserError

if TYPE_CHECKING:
    from dbgpt_lite.evaluation.exam import LanguageExam


def add_evaluate(add: Add) -> None:
    """Add `evaluate retrieval`."""
    evaluate = add("evaluate", None, "ask an exam and print how well passages are found")
    exams = evaluate.add_subparsers(metavar="exam", required=True)
    help = "passages found by vectors, by words and by both, and questions told to have no answer"
    retrieval = exams.add_parser("retrieval", help=help, description=help)
    retrieval.set_defaults(command=_retrieval)
    retrieval.add_argument("--exam", type=Path, help="folder with en/ and zh/ (default: the one the app comes with)")
    retrieval.add_argument("--limit", type=_positive, help="ask only so many questions of each language")
    retrieval.add_argument("--half", type=int, choices=(1, 2), help="ask only every second question: odd or even ones")
    retrieval.add_argument("--reranker", type=Path, help="folder of a CrossEncoder (default: RERANKER_MODEL)")
    retrieval.add_argument("--cache", type=Path, help="keep the documents taken in in this folder for the next time")
    retrieval.add_argument("--json", type=Path, help="write all figures to this file")


def _retrieval(options: argparse.Namespace) -> int:
    from dbgpt_lite.config import load_settings, prepare_process

    prepare_process()
    from dbgpt_lite.bootstrap import model_path
    from dbgpt_lite.evaluation.exam import SHIPPED, read_exam
    from dbgpt_lite.evaluation.report import as_json, table
    from dbgpt_lite.evaluation.retrieval import evaluate
    from dbgpt_lite.knowledge.embeddings import Embedder
    from dbgpt_lite.knowledge.rerank import CrossEncoderReranker

    settings = load_settings()
    device = settings.embedding_device
    exams = [_part_of(exam, options.half, options.limit) for exam in read_exam(options.exam or SHIPPED)]
    reranker = options.reranker or model_path(settings.reranker_model)
    parts = evaluate(
        exams,
        Embedder(model_path(settings.embedding_model), device),
        chunk_tokens=settings.knowledge_chunk_tokens,
        chunk_overlap=settings.knowledge_chunk_overlap,
        reranker=CrossEncoderReranker(reranker, device) if reranker else None,
        cache=options.cache,
        tell=lambda line: print(f"· {line}", file=sys.stderr),
    )
    print(table(parts))
    if options.json:
        try:
            options.json.write_text(as_json(parts), encoding="utf-8")
        except OSError:
            raise UserError("app.cannot_write", name=options.json.name) from None
    return 0


def _part_of(exam: "LanguageExam", half: int | None, limit: int | None) -> "LanguageExam":
    """The questions that are asked: a spread over the exam when there is a limit."""
    questions = exam.questions[half - 1 :: 2] if half else exam.questions
    if limit and limit < len(questions):
        questions = tuple(questions[number * len(questions) // limit] for number in range(limit))
    return replace(exam, questions=questions)


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number
