"""What is remembered of a database, as a prompt shows it: question/SQL examples and terms of the glossary.

They were written by users, so they are shown as data: each on lines of its own that cannot end their section.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dbgpt_lite.prompts import Prompts
from dbgpt_lite.texts import Language

EXAMPLES = 5
TERMS = 8
LONGEST = 1500
"""Characters of a remembered query in a prompt."""


class SimilarExample(Protocol):
    """A remembered question with its query; `score` is 1.0 for the same question."""

    @property
    def question(self) -> str: ...
    @property
    def sql(self) -> str: ...
    @property
    def score(self) -> float: ...


class Term(Protocol):
    """A word of the business and what it means; `sql` is how it is computed ("" where that is not said)."""

    @property
    def term(self) -> str: ...
    @property
    def meaning(self) -> str: ...
    @property
    def sql(self) -> str: ...


class Memory(Protocol):
    """Finds what is remembered of a connection that fits a question."""

    def similar(self, connection: str, question: str, count: int = ..., who: str = ...) -> Sequence[SimilarExample]:
        """At most `count` examples, best first; of those that are equally good, the ones of `who`."""
        ...

    def terms(self, connection: str, question: str) -> Sequence[Term]:
        """Terms that occur in the question."""
        ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """Examples, best first, and terms that fit one question."""

    examples: tuple[SimilarExample, ...] = ()
    terms: tuple[Term, ...] = ()

    def __len__(self) -> int:
        return len(self.examples) + len(self.terms)

    def best(self, count: int) -> "Recalled":
        """The `count` most useful pieces: terms go before examples, since nothing else says what they mean."""
        terms = self.terms[:count]
        return Recalled(self.examples[: count - len(terms)], terms)


NOTHING = Recalled()


def recall(memory: Memory | None, connection: str, question: str, who: str = "") -> Recalled:
    """What a memory holds for a question that `who` asks; nothing without a memory."""
    if memory is None:
        return NOTHING
    examples = memory.similar(connection, question, EXAMPLES, who)
    return Recalled(tuple(examples[:EXAMPLES]), tuple(memory.terms(connection, question)[:TERMS]))


def variables(prompts: Prompts, recalled: Recalled, language: Language) -> dict[str, str]:
    """The prompt's variables `examples` and `terms`: a section each, "" where there is nothing to show."""
    # The best example comes last: next to the question it weighs most.
    examples = "\n\n".join(_example(example) for example in reversed(recalled.examples))
    terms = "\n".join(_term(term) for term in recalled.terms)
    return {
        "examples": _section(prompts, "sql_examples", language, examples=examples),
        "terms": _section(prompts, "sql_terms", language, terms=terms),
    }


def _section(prompts: Prompts, name: str, language: Language, **values: str) -> str:
    """A section of the prompt file of that name, set off by an empty line; "" when there is nothing to show in it."""
    if not any(values.values()):
        return ""
    return "\n" + prompts.get(name, language).render(**values)[-1].content + "\n"


def _example(example: SimilarExample) -> str:
    return f"- {_line(example.question)}\n  {_line(example.sql)}"


def _term(term: Term) -> str:
    return f"- {_line(term.term)}: {_line(term.meaning)}" + (f" (SQL: {_line(term.sql)})" if term.sql else "")


def _line(text: str) -> str:
    """On one line, without the marks that end a code block or begin a section."""
    return " ".join(text.replace("`" * 3, "'").split())[:LONGEST]
