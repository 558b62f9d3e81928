"""The prompts of the SQL task: what a model reads before it writes a query, cut to its window."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Event

from dbgpt_lite.chat import budget
from dbgpt_lite.chat.asked import Asked, asked
from dbgpt_lite.chat.recall import NOTHING, Recalled, variables
from dbgpt_lite.errors import TooLarge
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.messages import LedgerLine, Prompt, Sampling, no_limit
from dbgpt_lite.prompts import Prompts
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.grammar import select_grammar
from dbgpt_lite.sql.schema import Schema, ddl
from dbgpt_lite.sql.schema_search import Picked, SchemaSearch
from dbgpt_lite.texts import Language

MAX_SQL_TOKENS = 256
CANNOT_ANSWER = "-- cannot answer"
"""What prompts/sql.*.txt tell a model to write when the schema holds no answer; what is missing follows a colon."""
PROMPT_TOKENS = 2900
"""Of a prompt whose schema is cut: what else is shown of a large schema is noise to the model."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The question before this one in the conversation, as it was understood, and the query that answered it."""

    question: str
    sql: str


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes queries for one question with one model.

    `recalled` and `previous` are shown where the prompt has room; `search` picks what is shown of a large schema.
    `owner` is who asks; `left` tells the Sampling.seconds of the next query.
    """

    prompts: Prompts
    engine: Engine
    database: Database
    question: str
    language: Language
    cancel: Event
    recalled: Recalled = NOTHING
    previous: Previous | None = None
    search: SchemaSearch = field(default_factory=SchemaSearch)
    owner: str = ""
    left: Callable[[], float] = no_limit

    @property
    def repairs(self) -> bool:
        """Whether the model is able to correct a query by being told what is wrong with it."""
        return self.prompts.has(self._repair)

    def fit(self) -> budget.Fitted:
        """The prompt for the first query. Raises TooLarge."""
        return self._fit(self.engine.info.sql_prompt, {})

    def fit_repair(self, sql: str, problem: str) -> budget.Fitted:
        """The prompt that tells what was wrong with a query. Raises TooLarge."""
        return self._fit(self._repair, {"sql": sql, "problem": problem})

    def write(self, fitted: budget.Fitted) -> Asked:
        """The model's reply, greedily. Raises ModelError."""
        sampling = Sampling(0.0, max_tokens=min(MAX_SQL_TOKENS, fitted.max_tokens), seconds=self.left())
        return asked(self.engine.stream(self.prompt(fitted), sampling, self.cancel))

    def alternatives(self, fitted: budget.Fitted, count: int) -> list[str]:
        """Up to `count` other replies, best first. Raises Cancelled."""
        return self.engine.candidates(self.prompt(fitted), count, MAX_SQL_TOKENS, self.cancel)

    def prompt(self, fitted: budget.Fitted) -> Prompt:
        """The fitted prompt as engines take it."""
        return Prompt(
            "sql",
            fitted.messages,
            self.question,
            self.language,
            grammar=fitted.grammar,
            owner=self.owner,
            common=fitted.common,
        )

    @property
    def _repair(self) -> str:
        return f"{self.engine.info.sql_prompt}_repair"

    def _fit(self, name: str, extra: dict[str, str]) -> budget.Fitted:
        """The prompt with as much of what is remembered as fits beside the schema, which is never cut for it."""
        window = self.engine.info.context_length
        template = self.prompts.get(name, self.language)
        fixed = {"dialect": self.database.dialect, "schema": "", "previous": self._previous(), **extra}
        nothing = variables(self.prompts, NOTHING, self.language)
        bare_tokens = self.engine.count(template.render(**fixed, **nothing, question=self.question))
        picked = self._picked(window, PROMPT_TOKENS - bare_tokens)
        fixed["schema"] = self._ddl(picked.schema)
        tables = (picked.tables, picked.of_tables - picked.tables)
        # Which part of a large schema is shown says what the question is about.
        common = {"dialect"} | ({"schema"} if picked.columns == picked.of_columns else set())

        def fitted(recalled: Recalled) -> budget.Fitted:
            values = {**fixed, **variables(self.prompts, recalled, self.language)}
            material = budget.Material(template, self.question, fixed=values, tables=tables, common=frozenset(common))
            return budget.fit(material, self.engine.count, window, MAX_SQL_TOKENS)

        bare = replace(fitted(NOTHING), grammar=self._grammar(picked.schema))
        if not len(self.recalled) or not {"examples", "terms"} & template.variables:
            return bare
        for kept in range(len(self.recalled), 0, -1):
            try:
                more = fitted(self.recalled.best(kept))
            except TooLarge:
                continue
            # What is remembered takes nothing from the room for the query either.
            if more.max_tokens == bare.max_tokens:
                more = replace(more, grammar=bare.grammar)
                return _noted(more, bare, kept, len(self.recalled))
        return _noted(bare, bare, 0, len(self.recalled))

    def _previous(self) -> str:
        if self.previous is None:
            return ""
        lines = {"question": _line(self.previous.question), "sql": _line(self.previous.sql)}
        return "\n" + self.prompts.get("sql_previous", self.language).render(**lines)[-1].content + "\n"

    def _picked(self, window: int, cut: int) -> Picked:
        """The schema as it is shown: whole if the window allows, else what the question needs, in `cut` tokens."""
        whole = self.database.schema()
        room = window - MAX_SQL_TOKENS - window // 4

        def fits(schema: Schema) -> bool:
            return self.engine.count_text(self._ddl(schema)) <= (room if schema is whole else min(room, cut))

        return self.search.pick(self.database.name, whole, self.question, fits)

    def _grammar(self, shown: Schema) -> str:
        """What the answer must follow: a query over what the prompt shows, or what the prompt asks for instead."""
        if not self.engine.info.constrained:
            return ""
        dialect = self.engine.info.sql_dialect or self.database.dialect
        return select_grammar(shown, dialect, CANNOT_ANSWER if self.repairs else "")

    def _ddl(self, schema: Schema) -> str:
        """The starter model reads the plain form that it was trained on; others get types, comments and values."""
        return ddl(schema, comments=not self.engine.info.sql_dialect)


def _noted(fitted: budget.Fitted, bare: budget.Fitted, kept: int, found: int) -> budget.Fitted:
    """The ledger with a line for what is remembered, whose tokens were counted as instructions."""
    tokens = fitted.ledger.used - bare.ledger.used
    lines = [
        replace(line, tokens=line.tokens - tokens) if line.section == "system" else line for line in fitted.ledger.lines
    ]
    lines.append(LedgerLine("examples", tokens, kept, found - kept))
    return replace(fitted, ledger=replace(fitted.ledger, lines=tuple(lines)))


def _line(text: str) -> str:
    return " ".join(text.replace("`" * 3, "'").split())
