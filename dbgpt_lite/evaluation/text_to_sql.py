"""`evaluate text-to-sql`: every question goes to a solver, its rows are compared with those of the known query.

What a solver is made of (the engine, constrained or not, with remembered examples or without) is not known here.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.evaluation.matching import Difference, compare
from dbgpt_lite.evaluation.sql_dataset import SqlQuestion
from dbgpt_lite.messages import ResultTable, SqlAttempt
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.hardness import shape_of
from dbgpt_lite.sql.sample_shop import build as build_sample_shop

ROW_LIMIT = 100_000
"""Rows of a result that are compared; a known query that returns more is reported as one that cannot be asked."""

WHO = "cli"
"""Whose the statements of an exam are in the audit: it is asked from the command line."""

Verdict = Literal["match", "wrong", "no_query", "refused", "not_asked", "bad_gold"]
"""What came of a question. Of one that the database cannot answer, "refused" is right and "wrong" means that rows came.

no_query: nothing that was written could be run. refused: the model said that the database holds no answer.
not_asked: the engine does not read the question's language. bad_gold: the known query itself cannot be run.
"""


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solver made of a question. `table` None: no query ran; `problem` says why where no attempt does."""

    attempts: tuple[SqlAttempt, ...] = ()
    sql: str = ""
    table: ResultTable | None = None
    refused: bool = False
    asked: bool = True
    problem: str = ""


Solver = Callable[[Database, SqlQuestion], Solution]


class ExamDatabases(Protocol):
    """Where the questions' databases are found."""

    def get(self, name: str) -> Database:
        """The database a question names. Raises UserError."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """One question and what came of it. `gold_problem` says why the known query could not be run."""

    question: SqlQuestion
    difficulty: str
    verdict: Verdict
    solution: Solution = field(default_factory=Solution)
    seconds: float = 0.0
    difference: Difference | None = None
    gold_problem: str = ""


class DatabaseFolder:
    """Spider's and BIRD's layout: <folder>/<name>/<name>.sqlite, each opened when it is first asked."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._open: dict[str, Database] = {}

    def get(self, name: str) -> Database:
        """The database of that name. Raises NotFound."""
        if name not in self._open:
            file = self._folder / name / f"{name}.sqlite"
            # A name is a folder's name, never a way out of the folder.
            if name != Path(name).name or not file.is_file():
                raise NotFound("app.no_exam_database", name=name)
            self._open[name] = Database(name, f"sqlite:///{file}", ROW_LIMIT, self._timeout_s)
        return self._open[name]

    def close(self) -> None:
        """Close what was opened."""
        for database in self._open.values():
            database.close()


@dataclass(frozen=True, slots=True)
class OneDatabase:
    """One database for every question."""

    database: Database

    def get(self, name: str) -> Database:
        """That database, whatever the question names."""
        return self.database

    def close(self) -> None:
        """Close it."""
        self.database.close()


@contextmanager
def sample_database(timeout_s: float) -> Iterator[Database]:
    """The sample shop in a file of its own, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="text-to-sql-exam-") as folder:
        file = build_sample_shop(Path(folder) / "shop.db")
        with closing(Database("shop", f"sqlite:///{file}", ROW_LIMIT, timeout_s)) as database:
            yield database


def evaluate(
    questions: Sequence[SqlQuestion],
    databases: ExamDatabases,
    solve: Solver,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Judged]:
    """Ask every question in turn; `tell` hears how far it is. Raises NotFound for a database that is not there."""
    judged: list[Judged] = []
    for question in questions:
        judged.append(_judge(question, databases.get(question.database), solve))
        if len(judged) % 20 == 0 or len(judged) == len(questions):
            right = sum(one.verdict == "match" for one in judged)
            tell(f"{len(judged)} of {len(questions)} asked, {right} match")
    return judged


def bad_golds(judged: Iterable[Judged]) -> list[Judged]:
    """The questions whose known query could not be run."""
    return [one for one in judged if one.verdict == "bad_gold"]


def _judge(question: SqlQuestion, database: Database, solve: Solver) -> Judged:
    if not question.answerable:
        solution, seconds = _solve(question, database, solve)
        verdict: Verdict = _without_rows(solution) if solution.table is None else "wrong"
        return Judged(question, question.difficulty, verdict, solution, seconds)
    difficulty = question.difficulty
    try:
        gold, ordered, hardness = _gold(question, database)
    except UserError as problem:
        return Judged(question, difficulty, "bad_gold", gold_problem=str(problem))
    solution, seconds = _solve(question, database, solve)
    if solution.table is None:
        return Judged(question, difficulty or hardness, _without_rows(solution), solution, seconds)
    difference = compare(gold, solution.table, ordered)
    verdict = "wrong" if difference else "match"
    return Judged(question, difficulty or hardness, verdict, solution, seconds, difference)


def _gold(question: SqlQuestion, database: Database) -> tuple[ResultTable, bool, str]:
    """Rows of the known query, behind the fences like any other; whether their order counts; its hardness."""
    shape = shape_of(question.sql, question.dialect or database.dialect)
    gold = database.run(database.check(question.sql, question.dialect), who=WHO, origin="exam")
    if gold.truncated:
        raise UserError("app.gold_too_large", limit=len(gold.rows))
    ordered = shape.ordered if question.ordered is None else question.ordered
    return gold, ordered, shape.hardness


def _solve(question: SqlQuestion, database: Database, solve: Solver) -> tuple[Solution, float]:
    started = time.perf_counter()
    solution = solve(database, question)
    return solution, time.perf_counter() - started


def _without_rows(solution: Solution) -> Verdict:
    if not solution.asked:
        return "not_asked"
    return "refused" if solution.refused else "no_query"
