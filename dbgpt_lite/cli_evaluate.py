"""The command line's `evaluate`: exams that say how well the app does its work."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dbgpt_lite.cli_arguments import positive
from dbgpt_lite.cli_knowledge import Add
from dbgpt_lite.cli_progress import LoadingLine
from dbgpt_lite.errors import NotFound, UserError

if TYPE_CHECKING:
    from dbgpt_lite.audit_trail import AuditTrail
    from dbgpt_lite.config import Settings
    from dbgpt_lite.evaluation.exam import LanguageExam
    from dbgpt_lite.evaluation.sql_dataset import SqlQuestion
    from dbgpt_lite.evaluation.text_to_sql import DatabaseFolder, OneDatabase

Item = TypeVar("Item")


def add_evaluate(add: Add) -> None:
    """Add `evaluate retrieval` and `evaluate text-to-sql`."""
    evaluate = add("evaluate", None, "ask an exam and print how well passages are found or queries written")
    exams = evaluate.add_subparsers(metavar="exam", required=True)
    help = "passages found by vectors, by words and by both, and questions told to have no answer"
    retrieval = exams.add_parser("retrieval", help=help, description=help)
    retrieval.set_defaults(command=_retrieval)
    retrieval.add_argument("--exam", type=Path, help="folder with en/ and zh/ (default: the one the app comes with)")
    retrieval.add_argument("--limit", type=positive, help="ask only so many questions of each language")
    retrieval.add_argument("--half", type=int, choices=(1, 2), help="ask only every second question: odd or even ones")
    retrieval.add_argument("--reranker", type=Path, help="folder of a CrossEncoder (default: RERANKER_MODEL)")
    retrieval.add_argument("--cache", type=Path, help="keep the documents taken in in this folder for the next time")
    retrieval.add_argument("--json", type=Path, help="write all figures to this file")
    help = "queries written for questions in plain words, judged by the rows they bring"
    sql = exams.add_parser("text-to-sql", help=help, description=help)
    sql.set_defaults(command=_text_to_sql)
    sql.add_argument("--dataset", type=Path, help="Spider's or BIRD's JSON, or JSONL (default: the app's own exam)")
    sql.add_argument("--database", help="name of a connection, or a URL, that all questions are asked of")
    sql.add_argument("--databases", type=Path, help="folder of <db_id>/<db_id>.sqlite (default: the one beside FILE)")
    sql.add_argument("--model", help="model folder (default: the model that the settings name)")
    sql.add_argument("--language", choices=("en", "zh"), help="ask only the questions of this language")
    sql.add_argument("--free", action="store_true", help="without constrained decoding")
    sql.add_argument(
        "--examples", type=int, default=0, metavar="N", help="remember N of the example pairs (at most 20)"
    )
    sql.add_argument("--limit", type=positive, help="ask only so many questions, spread over the file")
    sql.add_argument("--json", type=Path, help="write all figures and every query to this file")
    sql.add_argument("--diffs", type=Path, help="write what went wrong to this file")


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
        _write(options.json, as_json(parts))
    return 0


def _text_to_sql(options: argparse.Namespace) -> int:
    from dbgpt_lite.config import ROOT, load_settings, prepare_process

    prepare_process()
    from dbgpt_lite.bootstrap import sql_writer
    from dbgpt_lite.evaluation.sql_dataset import EXAMPLES, read_questions, shipped_questions
    from dbgpt_lite.evaluation.sql_report import as_json, diffs, table
    from dbgpt_lite.evaluation.text_to_sql import evaluate
    from dbgpt_lite.llm.unconstrained import Unconstrained
    from dbgpt_lite.prompts import Prompts
    from dbgpt_lite.sql_solver import sql_solver

    settings = load_settings()
    questions = read_questions(options.dataset) if options.dataset else shipped_questions()
    if options.language:
        questions = [one for one in questions if one.language == options.language]
    questions = list(_spread(questions, options.limit))
    # They are pairs over the sample database, and would be nonsense to any other.
    if options.examples and options.dataset:
        raise UserError("app.examples_of_the_sample")
    examples = read_questions(EXAMPLES)[: options.examples] if options.examples > 0 else []
    with (
        _databases(options, settings, questions) as databases,
        sql_writer(_with_model(settings, options.model), LoadingLine()) as (engine, near),
    ):
        engine = Unconstrained(engine) if options.free else engine
        how = "constrained" if engine.info.constrained else "free"
        print(
            f"· {engine.info.name}, {how} decoding, {len(examples)} examples, {len(questions)} questions",
            file=sys.stderr,
        )
        solve = sql_solver(Prompts(ROOT / "prompts"), engine, near, examples)
        judged = evaluate(questions, databases, solve, lambda line: print(f"· {line}", file=sys.stderr))
        name, constrained = engine.info.name, engine.info.constrained
    print(table(judged))
    if options.json:
        _write(options.json, as_json(judged, name, constrained))
    if options.diffs:
        _write(options.diffs, diffs(judged))
    return 0


@contextmanager
def _databases(
    options: argparse.Namespace, settings: "Settings", questions: "Sequence[SqlQuestion]"
) -> "Iterator[DatabaseFolder | OneDatabase]":
    """The databases of the questions: one for all, a folder of them, or the sample. Raises UserError.

    Statements to a connection are in the audit. Files of a dataset are nobody's database, and the sample is made anew.
    """
    from dbgpt_lite.bootstrap import audit_log
    from dbgpt_lite.evaluation.text_to_sql import DatabaseFolder, OneDatabase, sample_database

    names = {one.database for one in questions}
    if options.database:
        if len(names) > 1:
            raise UserError("app.many_exam_databases", count=len(names))
        with audit_log(settings) as audit, closing(_connection(settings, options.database, audit)) as one:
            yield one
    elif options.dataset and names != {""}:
        beside = [options.dataset.parent / name for name in ("database", "dev_databases")]
        folder = options.databases or next((found for found in beside if found.is_dir()), beside[0])
        with closing(DatabaseFolder(folder, settings.sql_timeout_s)) as many:
            yield many
    elif options.dataset:
        raise UserError("app.which_exam_database")
    else:
        with sample_database(settings.sql_timeout_s) as database:
            yield OneDatabase(database)


def _connection(settings: "Settings", name: str, audit: "AuditTrail") -> "OneDatabase":
    """The connection of that name, or at that URL. Raises NotFound and ConfigError."""
    from dbgpt_lite.bootstrap import MAIN_DATABASE
    from dbgpt_lite.evaluation.text_to_sql import ROW_LIMIT, OneDatabase
    from dbgpt_lite.sql.database import Database
    from dbgpt_lite.sql.rules import parse_rules, rules_for

    urls = {MAIN_DATABASE: settings.database_url, **settings.databases}
    url = urls[name].get_secret_value() if name in urls else name if "://" in name else ""
    if not url:
        raise NotFound("sql.no_connection", name=name)
    # What a connection hides is hidden from an exam too, which shows it to a model and writes it to files.
    rules = rules_for(name, parse_rules(settings.database_rules)) if name in urls else None
    known = name if name in urls else "exam"
    return OneDatabase(Database(known, url, ROW_LIMIT, settings.sql_timeout_s, rules, audit))


def _with_model(settings: "Settings", model: str | None) -> "Settings":
    """The settings with another model to load: a folder, or the name of one in MODELS_DIR."""
    if not model:
        return settings
    folder = str(Path(model).resolve()) if Path(model).is_dir() else model
    return settings.model_copy(update={"llm_model": folder, "llm_endpoint": ""})


def _part_of(exam: "LanguageExam", half: int | None, limit: int | None) -> "LanguageExam":
    """The questions that are asked: a spread over the exam when there is a limit."""
    questions = exam.questions[half - 1 :: 2] if half else exam.questions
    return replace(exam, questions=tuple(_spread(questions, limit)))


def _spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """At most `limit` items, from everywhere in the list."""
    if not limit or limit >= len(items):
        return items
    return [items[number * len(items) // limit] for number in range(limit)]


def _write(file: Path, content: str) -> None:
    try:
        file.write_text(content, encoding="utf-8")
    except OSError:
        raise UserError("app.cannot_write", name=file.name) from None
