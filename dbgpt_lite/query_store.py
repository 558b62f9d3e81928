"""What people taught the app about their databases: example questions with their SQL, a glossary, saved queries; and
the audit trail (audit_trail.py). All in the database of the conversations.

Examples and terms are shared by everybody who may use the app, like the connections they belong to; who added one is
kept with it. An example is replaced and forgotten by its owner and the operator only; anybody may refuse it for
themselves. Saved queries are their owner's
alone.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from dbgpt_lite.audit_trail import AuditTrail
from dbgpt_lite.errors import NotFound, TooLarge, UserError
from dbgpt_lite.store_schema import escape_like, examples, glossary, refusals, saved_queries, utc_now
from dbgpt_lite.texts import Language

ExampleOrigin = Literal["thumbs", "edited", "imported"]
MAX_QUESTION = 1_000
MAX_SQL = 20_000
MAX_TERM = 100
MAX_MEANING = 2_000
MAX_NAME = 100
MAX_EXAMPLES = 5_000  # of one connection: every question looks through them
MAX_REFUSALS = 1_000  # of one owner on a connection, the newest
MAX_TERMS = 2_000
MAX_SAVED = 1_000  # of one owner
_OF_ONE = ("connection", "question_key", "owner")
_OF_REFUSAL = ("owner", "connection", "question_key", "statement_key")


@dataclass(frozen=True, slots=True)
class NewExample:
    """A question and the query that answers it, in the dialect of its connection."""

    connection: str
    question: str
    sql: str
    language: Language = "en"
    origin: ExampleOrigin = "imported"


@dataclass(frozen=True, slots=True)
class Example(NewExample):
    """A remembered example. `created` is UTC."""

    id: int = 0
    owner: str = ""
    created: datetime = datetime.min


@dataclass(frozen=True, slots=True)
class NewTerm:
    """A business term, what it means, and how it is written in SQL ("" when nobody said). Connection "": all."""

    term: str
    meaning: str
    sql: str = ""
    connection: str = ""


@dataclass(frozen=True, slots=True)
class Term(NewTerm):
    """A term of the glossary. `created` is UTC."""

    id: int = 0
    owner: str = ""
    created: datetime = datetime.min


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query somebody keeps under a name. `created` is UTC."""

    id: int
    owner: str
    connection: str
    name: str
    sql: str
    created: datetime


class ExampleStore:
    """Questions and the SQL that answers them; of one owner one for a question (as `question_key` compares) on a
    connection."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, owner: str, new: NewExample) -> Example:
        """Remember an example in the place of the owner's older one of the question; it is no longer refused.

        Raises UserError, TooLarge.
        """
        return self.add_all(owner, [new])[0]

    def add_all(self, owner: str, new: Sequence[NewExample]) -> list[Example]:
        """Remember all of them, or none when one cannot be. Raises UserError, TooLarge."""
        rows = [_example_values(owner, one) for one in new]
        with self._engine.begin() as db:
            for values in sorted(rows, key=_example_place):
                _put(db, examples, _OF_ONE, values)
                _drop_refusal(db, owner, str(values["connection"]), _pair(values["question_key"], values["statement"]))
            for connection in {values["connection"] for values in rows}:
                _check_count(db, examples, examples.c.connection == connection, MAX_EXAMPLES)
            kept = [_one(db, examples, _OF_ONE, values) for values in rows]
        return [_example(row) for row in kept]

    def all(self, connection: str = "", search: str = "") -> list[Example]:
        """Examples of a connection ("" = of all), newest first; `search` looks in questions and SQL."""
        query = sa.select(examples).order_by(examples.c.created.desc(), examples.c.id.desc())
        if connection:
            query = query.where(examples.c.connection == connection)
        if search.strip():
            like = f"%{escape_like(search.strip())}%"
            found = examples.c.question.like(like, escape="!") | examples.c.statement.like(like, escape="!")
            query = query.where(found)
        with self._engine.connect() as db:
            return [_example(row) for row in db.execute(query)]

    def version(self, connection: str) -> tuple[object, ...]:
        """Differs whenever the examples of a connection have changed: what was made of them is then made anew."""
        facts = (sa.func.count(), sa.func.max(examples.c.created), sa.func.sum(examples.c.id))
        with self._engine.connect() as db:
            return tuple(db.execute(sa.select(*facts).where(examples.c.connection == connection)).one())

    def remove(self, example: int) -> None:
        """Forget anybody's example, for the operator. Raises NotFound."""
        _remove(self._engine, examples, examples.c.id == example, "queries.no_example")

    def refuse(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Forget the owner's example of this very pair, and note that the owner finds it wrong, whoever taught it."""
        self.forget(owner, connection, question, sql)
        key, statement = pair_key(question, sql)
        values: dict[str, object] = {
            "owner": owner,
            "connection": connection,
            "question_key": key,
            "statement_key": statement,
            "created": utc_now(),
        }
        own = (refusals.c.owner == owner) & (refusals.c.connection == connection)
        with self._engine.begin() as db:
            _put(db, refusals, _OF_REFUSAL, values)
            oldest_first = sa.select(refusals.c.id).where(own).order_by(refusals.c.id)
            ids = list(db.scalars(oldest_first))
            if len(ids) > MAX_REFUSALS:
                db.execute(refusals.delete().where(own, refusals.c.id <= ids[-MAX_REFUSALS - 1]))

    def refused(self, owner: str, connection: str) -> frozenset[tuple[str, str]]:
        """The `pair_key` of each pair that the owner found wrong."""
        own = (refusals.c.owner == owner) & (refusals.c.connection == connection)
        with self._engine.connect() as db:
            rows = db.execute(sa.select(refusals.c.question_key, refusals.c.statement_key).where(own))
            return frozenset((row.question_key, row.statement_key) for row in rows)

    def forget(self, owner: str, connection: str, question: str, sql: str) -> None:
        """Forget the owner's example of this very pair, if there is one, and that the owner found it wrong."""
        chosen = (examples.c.owner == owner) & (examples.c.connection == connection)
        chosen &= examples.c.question_key == question_key(question)
        with self._engine.begin() as db:
            kept = db.execute(sa.select(examples.c.id, examples.c.statement).where(chosen)).one_or_none()
            # Compared here: MySQL would take 'a' and 'A' for the same.
            if kept and kept.statement == sql.strip():
                db.execute(examples.delete().where(examples.c.id == kept.id))
            _drop_refusal(db, owner, connection, pair_key(question, sql))


class GlossaryStore:
    """Business terms; one meaning for a term on a connection, and one for all connections ("")."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, owner: str, new: NewTerm) -> Term:
        """Keep a term in the place of an older meaning of it. Raises UserError, TooLarge."""
        return self.add_all(owner, [new])[0]

    def add_all(self, owner: str, new: Sequence[NewTerm]) -> list[Term]:
        """Keep all of them, or none when one cannot be. Raises UserError, TooLarge."""
        rows = [_term_values(owner, one) for one in new]
        with self._engine.begin() as db:
            for values in sorted(rows, key=lambda one: (str(one["connection"]), str(one["term_key"]))):
                _put(db, glossary, ("connection", "term_key"), values)
            _check_count(db, glossary, sa.true(), MAX_TERMS)
            kept = [_one(db, glossary, ("connection", "term_key"), values) for values in rows]
        return [_term(row) for row in kept]

    def all(self, connection: str | None = None) -> list[Term]:
        """Terms for a connection, those for all included; None: every term. In the order of the alphabet."""
        query = sa.select(glossary)
        if connection is not None:
            query = query.where(glossary.c.connection.in_(("", connection)))
        with self._engine.connect() as db:
            found = [_term(row) for row in db.execute(query)]
        return sorted(found, key=lambda term: (term.term.casefold(), term.connection, term.id))

    def remove(self, term: int) -> None:
        """Forget a term. Raises NotFound."""
        _remove(self._engine, glossary, glossary.c.id == term, "queries.no_term")


class SavedQueries:
    """Queries kept under a name; every call is limited to the owner it names, save `all`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def save(self, owner: str, connection: str, name: str, sql: str) -> SavedQuery:
        """Keep a query; one of the same name on the same connection is replaced. Raises UserError, TooLarge."""
        named = one_line(name)[:MAX_NAME]
        if not named or not sql.strip():
            raise UserError("queries.nameless_query")
        values: dict[str, object] = {
            "owner": owner,
            "connection": connection,
            "name": named,
            "statement": _bounded(sql.strip(), MAX_SQL, "sql"),
            "created": utc_now(),
        }
        key = ("owner", "connection", "name")
        with self._engine.begin() as db:
            _put(db, saved_queries, key, values)
            _check_count(db, saved_queries, saved_queries.c.owner == owner, MAX_SAVED)
            return _saved(_one(db, saved_queries, key, values))

    def of(self, owner: str, connection: str = "") -> list[SavedQuery]:
        """The owner's queries on a connection ("" = on all), by name."""
        return self._list(saved_queries.c.owner == owner, connection)

    def all(self, connection: str = "") -> list[SavedQuery]:
        """Everybody's, for the operator."""
        return self._list(sa.true(), connection)

    def remove(self, owner: str, query: int) -> None:
        """Remove a query. Raises NotFound unless it exists and is the owner's."""
        own = (saved_queries.c.id == query) & (saved_queries.c.owner == owner)
        _remove(self._engine, saved_queries, own, "queries.no_query")

    def _list(self, chosen: sa.ColumnElement[bool], connection: str) -> list[SavedQuery]:
        query = sa.select(saved_queries).where(chosen).order_by(saved_queries.c.name, saved_queries.c.id)
        if connection:
            query = query.where(saved_queries.c.connection == connection)
        with self._engine.connect() as db:
            return [_saved(row) for row in db.execute(query)]


class QueryStore:
    """The four parts, over one opened and migrated database (`ConversationStore.engine`), whose owner closes it."""

    def __init__(self, engine: sa.Engine, audit_days: int = 365) -> None:
        """`audit_days`: how long audit entries are kept, 0 for ever."""
        self.examples = ExampleStore(engine)
        self.glossary = GlossaryStore(engine)
        self.saved = SavedQueries(engine)
        self.audit = AuditTrail(engine, audit_days)


def question_key(question: str) -> str:
    """Equal for questions that differ in case, width of letters, spaces or the mark at the end only."""
    plain = one_line(unicodedata.normalize("NFKC", question)).casefold().rstrip(" ?.!。")
    return hashlib.sha256(plain.encode("utf-8", "replace")).hexdigest()


def pair_key(question: str, sql: str) -> tuple[str, str]:
    """Equal for equal queries to questions that `question_key` takes for one."""
    return _pair(question_key(question), sql.strip())


def _pair(key: object, sql: object) -> tuple[str, str]:
    return str(key), hashlib.sha256(str(sql).encode("utf-8", "replace")).hexdigest()


def one_line(text: str) -> str:
    """Text on one line, without characters that print nothing (a terminal or a prompt might obey them)."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable()).strip()


def _bounded(text: str, limit: int, field: str) -> str:
    if len(text) > limit:
        raise TooLarge("queries.too_long", field=field, length=len(text), limit=limit)
    return text


def _needed(text: str, limit: int, field: str) -> str:
    line = one_line(text)
    if not line:
        raise UserError("queries.missing", field=field)
    return _bounded(line, limit, field)


def _example_values(owner: str, new: NewExample) -> dict[str, object]:
    sql = new.sql.strip()
    if not sql:
        raise UserError("queries.missing", field="sql")
    return {
        "connection": _needed(new.connection, 128, "connection"),
        "question": _needed(new.question, MAX_QUESTION, "question"),
        "question_key": question_key(new.question),
        "statement": _bounded(sql, MAX_SQL, "sql"),
        "language": new.language,
        "origin": new.origin,
        "owner": owner,
        "created": utc_now(),
    }


def _example_place(values: Mapping[str, object]) -> tuple[str, str]:
    """Two imports at once lock the same rows in the same order, so neither waits for the other in a circle."""
    return str(values["connection"]), str(values["question_key"])


def _term_values(owner: str, new: NewTerm) -> dict[str, object]:
    return {
        "connection": _bounded(one_line(new.connection), 128, "connection"),
        "term": _needed(new.term, MAX_TERM, "term"),
        "term_key": question_key(new.term),
        "meaning": _needed(new.meaning, MAX_MEANING, "meaning"),
        "statement": _bounded(one_line(new.sql), MAX_MEANING, "sql"),
        "owner": owner,
        "created": utc_now(),
    }


def _put(db: sa.Connection, table: sa.Table, key: Iterable[str], values: Mapping[str, object]) -> None:
    """Insert a row, or change the one of the same key, in one statement: two writers at once make no second row."""
    changed = {name: value for name, value in values.items() if name not in set(key)}
    if db.dialect.name == "sqlite":
        made = sqlite.insert(table).values(**values)
        db.execute(made.on_conflict_do_update(index_elements=list(key), set_=changed))
    else:
        db.execute(mysql.insert(table).values(**values).on_duplicate_key_update(**changed))


def _drop_refusal(db: sa.Connection, owner: str, connection: str, pair: tuple[str, str]) -> None:
    this = (refusals.c.question_key == pair[0]) & (refusals.c.statement_key == pair[1])
    db.execute(refusals.delete().where(this, refusals.c.owner == owner, refusals.c.connection == connection))


def _one(db: sa.Connection, table: sa.Table, key: Iterable[str], values: Mapping[str, object]) -> sa.Row[Any]:
    return db.execute(sa.select(table).where(*(table.c[name] == values[name] for name in key))).one()


def _check_count(db: sa.Connection, table: sa.Table, chosen: sa.ColumnElement[bool], limit: int) -> None:
    """Raises TooLarge, so that the transaction is rolled back."""
    if (count := db.scalar(sa.select(sa.func.count()).select_from(table).where(chosen)) or 0) > limit:
        raise TooLarge("queries.too_many", count=count, limit=limit)


def _remove(engine: sa.Engine, table: sa.Table, chosen: sa.ColumnElement[bool], missing: str) -> None:
    with engine.begin() as db:
        if not db.execute(table.delete().where(chosen)).rowcount:
            raise NotFound(missing)


def _example(row: sa.Row[Any]) -> Example:
    created = row.created.replace(tzinfo=UTC)
    return Example(row.connection, row.question, row.statement, row.language, row.origin, row.id, row.owner, created)


def _term(row: sa.Row[Any]) -> Term:
    created = row.created.replace(tzinfo=UTC)
    return Term(row.term, row.meaning, row.statement, row.connection, row.id, row.owner, created)


def _saved(row: sa.Row[Any]) -> SavedQuery:
    created = row.created.replace(tzinfo=UTC)
    return SavedQuery(row.id, row.owner, row.connection, row.name, row.statement, created)
