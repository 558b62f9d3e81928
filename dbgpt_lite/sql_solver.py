"""The app's own way from a question to rows, as an exam asks it: the prompt, the fences, the repair, the rows."""

from threading import Event

from dbgpt_lite.chat.text_to_sql import SqlOutcome, answer_with_sql
from dbgpt_lite.errors import UserError
from dbgpt_lite.evaluation.sql_dataset import SqlQuestion
from dbgpt_lite.evaluation.text_to_sql import Solution, Solver
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import SqlAttempt, SqlTried
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Database


def sql_solver(prompts: Prompts, engine: Engine) -> Solver:
    """A solver that asks `engine` as database mode does, each question by itself."""

    def solve(database: Database, question: SqlQuestion) -> Solution:
        # Database mode says so and asks nothing; see DatabaseContext.
        if is_chinese(question.question) and "zh" not in engine.info.languages:
            return Solution(asked=False)
        tried: list[SqlAttempt] = []
        steps = answer_with_sql(prompts, engine, database, question.asked, question.language, Event())
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
