"""Remembered questions and terms that fit a new question, for the prompt that asks for its SQL.

Score of an example = similarity weight x cosine(question, example's question)
                    + word weight x Dice coefficient of their words, weighted by idf over the connection's examples,
over the sum of the weights: 1.0 is the same question. Only the examples that share most words are compared by meaning,
so that the time of one question is bounded however many there are.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dbgpt_lite.chat.memory_files import read_examples
from dbgpt_lite.chat.support import Near
from dbgpt_lite.errors import DatabaseError, NotFound, UserError
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.query_store import Example, ExampleOrigin, NewExample, QueryStore, Term, pair_key, question_key
from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.words import content_words, singular
from dbgpt_lite.texts import Language


@dataclass(frozen=True, slots=True)
class Rule:
    """Weights of the score, and the score an example needs to be shown."""

    similarity: float
    words: float
    needed: float


# Set on tests/chat/example_questions.json. all-MiniLM-L6-v2 reads no Chinese, so there the words decide.
RULES: Mapping[Language, Rule] = {
    "en": Rule(similarity=1.0, words=0.6, needed=0.35),
    "zh": Rule(similarity=0.25, words=1.0, needed=0.22),
}
MAX_COMPARED = 300  # examples compared by meaning a question
MAX_ALIKE = 2  # examples of the same question, of several people, for one question
MAX_CHECKED = 30  # examples held against the schema a question

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LATIN_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class SimilarExample:
    """An example that fits the question; `score` is 1.0 for the same question."""

    question: str
    sql: str
    score: float


@dataclass(frozen=True, slots=True)
class ListedExample:
    """An example, and why it is not shown to a model (None: it is)."""

    example: Example
    problem: UserError | None = None


class WordIndex:
    """Which examples hold which words, and what each word weighs: idf, for what every question holds says little."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self._keys: dict[str, tuple[int, ...]] = {}
        for row, example in enumerate(examples):
            key = question_key(example.question)
            self._keys[key] = (*self._keys.get(key, ()), row)
        words = [_words(example.question) for example in examples]
        self._rows: dict[str, list[int]] = {}
        for row, found in enumerate(words):
            for word in found:
                self._rows.setdefault(word, []).append(row)
        self._weights = {word: math.log(1 + len(examples) / len(rows)) for word, rows in self._rows.items()}
        self._rarest = math.log(1 + len(examples))
        self._sizes = [sum(self._weights[word] for word in found) for found in words]

    def same(self, question: str) -> tuple[int, ...]:
        """The rows of the same question, one of each owner."""
        return self._keys.get(question_key(question), ())

    def shared(self, question: str) -> dict[int, float]:
        """Dice coefficient of the words of the question and of each example that shares some, weighted by idf.

        A word that no example holds weighs as much as the rarest. The rows of the same question are always there.
        """
        asked = _words(question)
        size = sum(self._weights.get(word, self._rarest) for word in asked)
        both: dict[int, float] = {}
        for word in asked:
            for row in self._rows.get(word, ()):
                both[row] = both.get(row, 0.0) + self._weights[word]
        found = {row: 2 * weight / (size + self._sizes[row]) for row, weight in both.items()}
        return found | dict.fromkeys(self.same(question), 1.0)


class Connections(Protocol):
    """Where the databases are found."""

    def get(self, name: str = "") -> Database:
        """The connection of that name, "" for the default one. Raises NotFound."""
        ...

    def names(self) -> list[str]:
        """Names of all connections."""
        ...


class ExampleMemory:
    """The examples and terms of the store, held against questions and against the schemas as they are now."""

    def __init__(self, queries: QueryStore, databases: Connections, near: Near) -> None:
        """`near(text, others)` gives the cosine of a text with each of the others (`ExtractiveEngine.near`)."""
        self._queries = queries
        self._databases = databases
        self._near = near
        self._indexes: dict[str, tuple[tuple[object, ...], WordIndex]] = {}

    def remember(self, owner: str, connection: str, question: str, sql: str, origin: ExampleOrigin) -> Example:
        """Keep a question with the query that answers it. Raises UserError, QueryRefused for one that cannot run."""
        name, checked = self._check(connection, sql)
        return self._queries.examples.add(owner, NewExample(name, question, checked, language_of(question), origin))

    def refuse(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Leave this very pair out of what fits the owner's questions, whoever taught it. Raises NotFound."""
        self._queries.examples.refuse(owner, self._databases.get(connection).name, question, sql)

    def forget(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Remove this very pair, if the owner keeps it, and the owner's refusal of it; another query for the question
        stays. Raises NotFound.
        """
        self._queries.examples.forget(owner, self._databases.get(connection).name, question, sql)

    def similar(self, connection: str, question: str, count: int = 3, who: str = "") -> tuple[SimilarExample, ...]:
        """At most `count` examples of the connection that fit the question, best first; the same question leads.

        Of several queries for the same question that of `who` is first, then the newest; two of them are enough. What
        `who` refused is left out: for its question, and as an answer to the one asked now.
        Those whose SQL the schema no longer bears are left out, as are others with the same SQL. Raises NotFound, and
        DatabaseError when the schema cannot be read.
        """
        database = self._databases.get(connection)
        refused = self._queries.examples.refused(who, database.name)
        found: dict[str, SimilarExample] = {}
        alike: Counter[str] = Counter()
        checked = 0
        for example, score in self._scored(question, self._index(database.name), who):
            if len(found) >= count or checked >= MAX_CHECKED:
                break
            key = question_key(example.question)
            if example.sql in found or alike[key] >= MAX_ALIKE:
                continue
            if refused & {pair_key(example.question, example.sql), pair_key(question, example.sql)}:
                continue
            checked += 1
            if database.objection(example.sql) is None:
                found[example.sql] = SimilarExample(example.question, example.sql, score)
                alike[key] += 1
        return tuple(found.values())

    def terms(self, connection: str, question: str) -> tuple[Term, ...]:
        """Terms of the glossary that occur in the question; the connection's own meaning goes before that for all."""
        name = self._databases.get(connection).name
        found: dict[str, Term] = {}
        for term in self._queries.glossary.all(name):
            key = question_key(term.term)
            if occurs(term.term, question) and (key not in found or term.connection):
                found[key] = term
        return tuple(found.values())

    def read(self, content: bytes, connection: str = "") -> list[NewExample]:
        """Examples of a JSONL file (memory_files.py), every one checked by its connection. Raises UserError."""
        return read_examples(content, connection, self._check)

    def listed(self, connection: str = "", search: str = "") -> list[ListedExample]:
        """Examples of a connection ("" = of all), newest first, with what keeps one from being shown to a model."""
        examples = self._queries.examples.all(connection, search)
        return [ListedExample(example, self._problem(example)) for example in examples]

    def warm(self) -> None:
        """Embed the newest questions ahead of the first one that is asked; call it in the background."""
        for name in self._databases.names():
            questions = [example.question for example in self._index(name).examples[:MAX_COMPARED]]
            if questions:
                self._near(questions[0], questions)

    def _check(self, connection: str, sql: str) -> tuple[str, str]:
        database = self._databases.get(connection)
        return database.name, database.check(sql)

    def _problem(self, example: Example) -> UserError | None:
        try:
            return self._databases.get(example.connection).objection(example.sql)
        except (NotFound, DatabaseError) as error:
            return error

    def _index(self, connection: str) -> WordIndex:
        """The words of the connection's examples, counted anew when those have changed."""
        version = self._queries.examples.version(connection)
        known = self._indexes.get(connection)
        if known is None or known[0] != version:
            known = version, WordIndex(self._queries.examples.all(connection))
            self._indexes[connection] = known
        return known[1]

    def _scored(self, question: str, index: WordIndex, who: str) -> list[tuple[Example, float]]:
        """Examples that reach the needed score, best first; the same question before any other of that score."""
        rule = RULES[language_of(question)]
        examples, shared, same = index.examples, index.shared(question), index.same(question)
        # Behind those that share words come the newest of the rest.
        rows = sorted(shared, key=lambda row: (row not in same, -shared[row], row))[:MAX_COMPARED]
        rows = list(dict.fromkeys([*rows, *range(min(len(examples), MAX_COMPARED))]))[:MAX_COMPARED]
        near = self._near(question, [examples[row].question for row in rows]) if rows else []
        scores: dict[int, float] = {}
        for row, cosine in zip(rows, near, strict=True):
            both = rule.similarity * max(cosine, 0.0) + rule.words * shared.get(row, 0.0)
            scores[row] = 1.0 if row in same else min(both / (rule.similarity + rule.words), 1.0)
        good = [row for row in rows if scores[row] >= rule.needed]
        good.sort(key=lambda row: (row not in same, -scores[row], examples[row].owner != who, row))
        return [(examples[row], scores[row]) for row in good]


def language_of(question: str) -> Language:
    """Chinese or English: the language whose rule a question falls under."""
    return "zh" if is_chinese(question) else "en"


def occurs(term: str, question: str) -> bool:
    """Whether the question speaks of the term: as whole words, whatever the case and the plural; Chinese anywhere."""
    wanted = _plain(term)
    if not wanted:
        return False
    start = "" if re.match(rf"[{_HAN}]", wanted) else rf"(?<![^\W{_HAN}])"
    end = "" if re.search(rf"[{_HAN}]\Z", wanted) else rf"(?![^\W{_HAN}])"
    return re.search(start + re.escape(wanted) + end, _plain(question)) is not None


def _plain(text: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _LATIN_WORD.sub(lambda word: singular(word.group()), folded)


def _words(text: str) -> frozenset[str]:
    return content_words(unicodedata.normalize("NFKC", text))
