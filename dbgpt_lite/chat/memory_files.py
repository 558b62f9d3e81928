"""Examples and terms as JSON lines: one object a line, UTF-8.

An example: {"connection", "question", "sql", "language"}; the connection may be missing when the caller names one, the
language is then told from the question. A term: {"connection", "term", "meaning", "sql"}; connection and sql may be
missing. Reading is strict: an unknown field, a value that is no text, SQL that its connection refuses or a question
given twice is an error with the number of its line, and nothing of the file is taken.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dbgpt_lite.errors import TooLarge, UserError
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.query_store import (
    MAX_EXAMPLES,
    MAX_MEANING,
    MAX_QUESTION,
    MAX_SQL,
    MAX_TERM,
    Example,
    NewExample,
    NewTerm,
    Term,
    one_line,
    question_key,
)
from dbgpt_lite.texts import LANGUAGES, Language

MAX_BYTES = 20 * 2**20
MAX_LINES = MAX_EXAMPLES
_EXAMPLE = {"connection": 128, "question": MAX_QUESTION, "sql": MAX_SQL, "language": 8}
_TERM = {"connection": 128, "term": MAX_TERM, "meaning": MAX_MEANING, "sql": MAX_MEANING}

Check = Callable[[str, str], tuple[str, str]]
"""check(connection, sql) -> (name of the connection, the query as it is kept). Raises UserError."""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    fields: Mapping[str, str]


def read_examples(content: bytes, connection: str, check: Check) -> list[NewExample]:
    """Examples of a file; `connection` is that of lines without one. Raises UserError that names the line."""
    found: list[NewExample] = []
    seen: dict[tuple[str, str], int] = {}
    for line in _lines(content, _EXAMPLE, ("question", "sql")):
        with _numbered(line.number):
            example = _read_example(line.fields, connection, check)
        _once(seen, (example.connection, question_key(example.question)), line.number)
        found.append(example)
    return found


def read_terms(content: bytes, connection: str) -> list[NewTerm]:
    """Terms of a file; `connection` is that of lines without one. Raises UserError that names the line."""
    found: list[NewTerm] = []
    seen: dict[tuple[str, str], int] = {}
    for line in _lines(content, _TERM, ("term", "meaning")):
        fields = line.fields
        term = NewTerm(
            fields["term"], fields["meaning"], fields.get("sql", ""), fields.get("connection", "") or connection
        )
        _once(seen, (term.connection, question_key(term.term)), line.number)
        found.append(term)
    return found


def write_examples(examples: Iterable[Example]) -> str:
    """A file that `read_examples` reads back; `examples` hold a question of a connection once (`one_a_question`)."""
    return _written(
        {"connection": one.connection, "question": one.question, "sql": one.sql, "language": one.language}
        for one in examples
    )


def one_a_question(examples: Iterable[Example]) -> list[Example]:
    """The newest example of each question of a connection, where several people taught one, in the order given."""
    newest: dict[tuple[str, str], Example] = {}
    for one in examples:
        key = one.connection, question_key(one.question)
        if key not in newest or (one.created, one.id) > (newest[key].created, newest[key].id):
            newest[key] = one
    return list(newest.values())


def write_terms(terms: Iterable[Term]) -> str:
    """A file that `read_terms` reads back."""
    return _written(
        {"connection": one.connection, "term": one.term, "meaning": one.meaning, "sql": one.sql} for one in terms
    )


def _read_example(fields: Mapping[str, str], connection: str, check: Check) -> NewExample:
    name, sql = check(fields.get("connection", "") or connection, fields["sql"])
    question = fields["question"]
    language = fields.get("language", "") or ("zh" if is_chinese(question) else "en")
    return NewExample(name, question, sql, _language(language), "imported")


def _language(value: str) -> Language:
    for language in LANGUAGES:
        if value == language:
            return language
    raise UserError("queries.other_language", language=value[:20])


def _lines(content: bytes, allowed: Mapping[str, int], needed: Sequence[str]) -> Iterator[_Line]:
    """The objects of a file with the numbers of their lines; empty lines are passed over."""
    if len(content) > MAX_BYTES:
        raise TooLarge("queries.file_too_large", limit=MAX_BYTES // 2**20)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(content.count(b"\n", 0, error.start) + 1, UserError("queries.not_utf8")) from None
    count = 0
    # Only \n ends a line: inside of JSON text the other separators of Unicode may stand as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        count += 1
        if count > MAX_LINES:
            raise TooLarge("queries.too_many", count=count, limit=MAX_LINES)
        with _numbered(number):
            fields = _fields(line, allowed, needed)
        yield _Line(number, fields)


def _fields(line: str, allowed: Mapping[str, int], needed: Sequence[str]) -> dict[str, str]:
    try:
        found = json.loads(line, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        raise UserError("queries.not_json") from None
    if not isinstance(found, dict):
        raise UserError("queries.not_json")
    for name, value in found.items():
        if name not in allowed:
            raise UserError("queries.other_field", field=one_line(name)[:40], fields=", ".join(allowed))
        if not isinstance(value, str):
            raise UserError("queries.not_text", field=name)
        if len(value) > allowed[name]:
            raise TooLarge("queries.too_long", field=name, length=len(value), limit=allowed[name])
    for name in needed:
        if not one_line(found.get(name, "")):
            raise UserError("queries.missing", field=name)
    return found


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is given twice")
    return fields


def _once(seen: dict[tuple[str, str], int], key: tuple[str, str], number: int) -> None:
    if key in seen:
        raise _wrong(number, UserError("queries.given_twice", first=seen[key]))
    seen[key] = number


@contextmanager
def _numbered(number: int) -> Iterator[None]:
    """Give an error the number of the line it comes from."""
    try:
        yield
    except UserError as error:
        raise _wrong(number, error) from None


def _wrong(number: int, reason: UserError) -> UserError:
    return UserError("queries.line", number=number, reason=reason)


def _written(objects: Iterable[Mapping[str, str]]) -> str:
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in objects)
