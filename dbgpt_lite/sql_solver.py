"""The app's own way from a question to rows, as an exam asks it: the prompt, the fences, the repair, the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from dbgpt_lite.chat.answerable import Answerable
from dbgpt_lite.chat.examples import ExampleMemory
from dbgpt_lite.chat.support import Near
from dbgpt_lite.chat.text_to_sql import SqlOutcome, answer_with_sql
from dbgpt_lite.errors import UserError
from dbgpt_lite.evaluation.sql_dataset import SqlQuestion
from dbgpt_lite.evaluation.text_to_sql import WHO, Solution, Solver
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import SqlAttempt, SqlTried
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.query_store import QueryStore
from dbgpt_lite.sql.database import Database
from dbgpt_lite.store import ConversationStore


@dataclass(frozen=True, slots=True)
class _Only:
    """The one database of an exam, whatever it is called."""

    database: Database

    def get(self, name: str = "") -> Database:
        return self.database

    def names(self) -> list[str]:
        return [self.database.name]


def sql_solver(
    prompts: Prompts, engine: Engine, near: Near | None = None, examples: Sequence[SqlQuestion] = ()
) -> Solver:
    """A solver that asks `engine` as database mode does, each question by itself.

    `near` compares words by meaning; without it no question is told to be beyond a database before the model is asked.
    `examples` are remembered, as if users had accepted them.
    """
    answerable = Answerable(near) if near else None
    memories: dict[str, ExampleMemory] = {}

    def remembered(database: Database) -> ExampleMemory | None:
        if not (examples and near):
            return None
        if database.name not in memories:
            queries = QueryStore(ConversationStore("sqlite://").engine)
            memory = memories[database.name] = ExampleMemory(queries, _Only(database), near)
            for one in examples:
                memory.remember("exam", database.name, one.question, one.sql, "imported")
        return memories[database.name]

    def solve(database: Database, question: SqlQuestion) -> Solution:
        # Database mode says so and asks nothing; see DatabaseContext.
        if is_chinese(question.question) and "zh" not in engine.info.languages:
            return Solution(asked=False)
        tried: list[SqlAttempt] = []
        steps = answer_with_sql(
            prompts,
            engine,
            database,
            question.asked,
            question.language,
            Event(),
            memory=remembered(database),
            answerable=answerable,
            who=WHO,
            origin="exam",
        )
        try:
            while True:
                step = next(steps)
                if isinstance(step, SqlTried):
                    tried.append(step.attempt)
        except StopIteration as end:
            outcome: SqlOutcome = end.value
        except UserError as problem:
            # A query over the time limit, a prompt over the window, a server that is gone: no rows, and why.
            return Solution(tuple(tried), problem=str(problem))
        return Solution(outcome.attempts, outcome.sql, outcome.table, outcome.impossible)

    return solve
