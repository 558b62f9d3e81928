"""Conversations and their messages, in SQLite (default) or MySQL/MariaDB by URL.

A question is written before its answer is begun and an answer is written whole, each in one transaction: a process
killed at any moment leaves every finished answer, and a question without an answer that the page offers to retry.
"""

import json
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from dbgpt_lite.errors import NotFound
from dbgpt_lite.messages import Answer, Message, Mode
from dbgpt_lite.store_schema import conversations, escape_like, messages, migrate, utc_now

TITLE_LENGTH = 60
STORED_ROWS = 1000
STORED_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as listed. Times are UTC."""

    id: str
    title: str
    mode: Mode
    source: str
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One stored turn; `answer` holds the facts of an assistant turn."""

    id: int
    role: str
    content: str
    created: datetime
    answer: Answer | None = None


class ConversationStore:
    """All conversations of all owners; every call is limited to the owner it names."""

    def __init__(self, url: str) -> None:
        """`url`: a SQLAlchemy URL, sqlite:///... or mysql+pymysql://..."""
        self._engine = _connect(url)
        self._answers: TypeAdapter[Answer] = TypeAdapter(Answer)
        migrate(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """The opened and migrated database, for the other stores that live in it."""
        return self._engine

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def create(self, owner: str, mode: Mode = "auto", source: str = "") -> Conversation:
        """A new, empty conversation."""
        now = utc_now()
        made = Conversation(secrets.token_urlsafe(16), "", mode, source, now, now)
        with self._engine.begin() as db:
            db.execute(
                conversations.insert().values(
                    id=made.id, owner=owner, title="", mode=mode, source=source, created=now, updated=now
                )
            )
        return made

    def get(self, owner: str, conversation: str) -> Conversation:
        """Raises NotFound unless the conversation exists and is the owner's."""
        with self._engine.connect() as db:
            return _conversation(_own(db, owner, conversation))

    def conversations(self, owner: str, search: str = "", limit: int = 200) -> list[Conversation]:
        """The owner's conversations that hold a message, newest first; `search` looks in titles and messages."""
        query = sa.select(conversations).where(conversations.c.owner == owner, conversations.c.title != "")
        if search.strip():
            like = f"%{escape_like(search.strip())}%"
            said = sa.select(messages.c.conversation_id).where(messages.c.content.like(like, escape="!"))
            query = query.where(conversations.c.title.like(like, escape="!") | conversations.c.id.in_(said))
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(conversations.c.updated.desc()).limit(limit)).all()
        return [_conversation(row) for row in rows]

    def rename(self, owner: str, conversation: str, title: str) -> None:
        """Give a conversation another title (cut to a line); an empty one changes nothing."""
        if line := title_of(title):
            self._change(owner, conversation, title=line)

    def configure(self, owner: str, conversation: str, mode: Mode, source: str) -> None:
        """Keep the mode and the source chosen for a conversation."""
        self._change(owner, conversation, mode=mode, source=source)

    def _change(self, owner: str, conversation: str, **values: object) -> None:
        with self._engine.begin() as db:
            _own(db, owner, conversation)
            db.execute(conversations.update().where(conversations.c.id == conversation).values(**values))

    def delete(self, owner: str, conversation: str) -> None:
        """Remove a conversation and its messages for good."""
        with self._engine.begin() as db:
            _own(db, owner, conversation)
            db.execute(messages.delete().where(messages.c.conversation_id == conversation))
            db.execute(conversations.delete().where(conversations.c.id == conversation))

    def sources(self, owner: str, conversation: str) -> set[str]:
        """Every source a conversation has asked or is set to ask. Raises NotFound."""
        with self._engine.connect() as db:
            chosen = _own(db, owner, conversation).source
            return {chosen, *_answered_from(db, messages.c.conversation_id == conversation)} - {""}

    def sources_in_use(self) -> set[str]:
        """Every source that a conversation with a question in it has asked or is set to ask, whoever's it is."""
        query = sa.select(conversations.c.source).where(conversations.c.title != "").distinct()
        with self._engine.connect() as db:
            return {*db.scalars(query), *_answered_from(db, sa.true())} - {""}

    def messages(self, owner: str, conversation: str) -> list[StoredMessage]:
        """All turns, oldest first."""
        with self._engine.connect() as db:
            _own(db, owner, conversation)
            query = sa.select(messages).where(messages.c.conversation_id == conversation).order_by(messages.c.id)
            return [self._message(row) for row in db.execute(query)]

    def history(self, owner: str, conversation: str, before: int | None = None) -> tuple[Message, ...]:
        """Finished rounds as prompt messages, oldest first; `before`: only those before this message id."""
        # Only the words: the rows and passages of old answers would be read for nothing.
        facts = [_fact("sql"), _fact("asked")]
        query = sa.select(messages.c.role, messages.c.content, *facts).where(messages.c.conversation_id == conversation)
        if before is not None:
            query = query.where(messages.c.id < before)
        with self._engine.connect() as db:
            _own(db, owner, conversation)
            turns = db.execute(query.order_by(messages.c.id)).all()
        rounds: list[Message] = []
        question = ""
        for role, content, sql, asked in turns:
            if role == "user":
                question = content
            elif question and content:
                user = Message("user", question, asked=self._text(asked))
                rounds += [user, Message("assistant", content, sql=self._text(sql))]
                question = ""
        return tuple(rounds)

    def ask(self, owner: str, conversation: str, question: str) -> int:
        """Write a question; the first one names the conversation. Returns the message id."""
        now = utc_now()
        with self._engine.begin() as db:
            row = _own(db, owner, conversation)
            values: dict[str, object] = {"updated": now} if row.title else {"updated": now, "title": title_of(question)}
            db.execute(conversations.update().where(conversations.c.id == conversation).values(**values))
            return _insert(db, conversation, "user", question, now)

    def finish(self, owner: str, conversation: str, question: int, answer: Answer, replaces: int | None = None) -> int:
        """Write the answer to `question`; drops the turns it replaces in the same transaction. Returns its id."""
        now = utc_now()
        stored = self._answers.dump_json(_cut_table(answer)).decode()
        with self._engine.begin() as db:
            _own(db, owner, conversation)
            if replaces is not None:
                _drop(db, conversation, replaces, question)
            db.execute(conversations.update().where(conversations.c.id == conversation).values(updated=now))
            # A failed answer's words stay in its facts; as content they would count as said.
            said = "" if answer.error else answer.text
            return _insert(db, conversation, "assistant", said, now, stored)

    def replace_answer(self, owner: str, conversation: str, message: int, answer: Answer) -> None:
        """Write an answer in the place of the one with this message id. Raises NotFound."""
        stored = self._answers.dump_json(_cut_table(answer)).decode()
        said = "" if answer.error else answer.text
        own = (messages.c.id == message) & (messages.c.conversation_id == conversation)
        with self._engine.begin() as db:
            _own(db, owner, conversation)
            changed = messages.update().where(own & messages.c.answer.is_not(None))
            if not db.execute(changed.values(content=said, answer=stored)).rowcount:
                raise NotFound("app.no_conversation")

    def abandon(self, owner: str, conversation: str, question: int) -> None:
        """Remove a question whose answer failed while it was to replace an older one, which stays."""
        with self._engine.begin() as db:
            _own(db, owner, conversation)
            _drop(db, conversation, question, question + 1)

    def _text(self, value: object) -> str:
        """What JSON_EXTRACT gave as text: SQLite gives the text itself, MySQL the JSON of it."""
        if value is None:
            return ""
        return str(value) if self._engine.dialect.name == "sqlite" else str(json.loads(str(value)) or "")

    def _message(self, row: sa.Row[Any]) -> StoredMessage:
        answer = self._answers.validate_json(row.answer) if row.answer else None
        return StoredMessage(row.id, row.role, row.content, row.created.replace(tzinfo=UTC), answer)


def title_of(question: str) -> str:
    """A question as a title: one line, cut at a word where there is one."""
    line = " ".join(question.split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[: TITLE_LENGTH - 1]
    return (cut[: cut.rfind(" ")] if " " in cut[TITLE_LENGTH // 2 :] else cut) + "…"


def _connect(url: str) -> sa.Engine:
    engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            for pragma in ("journal_mode=WAL", "busy_timeout=10000", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def _own(db: sa.Connection, owner: str, conversation: str) -> sa.Row[Any]:
    query = sa.select(conversations).where(conversations.c.id == conversation, conversations.c.owner == owner)
    row = db.execute(query).one_or_none()
    if row is None:
        raise NotFound("app.no_conversation")
    return row


def _insert(
    db: sa.Connection, conversation: str, role: str, content: str, now: datetime, answer: str | None = None
) -> int:
    values = {"conversation_id": conversation, "role": role, "content": content, "created": now, "answer": answer}
    key = db.execute(messages.insert().values(**values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _fact(name: str) -> sa.Label[Any]:
    """A text among the facts of an answer, read by the database without the rest of them."""
    return sa.func.json_extract(messages.c.answer, f"$.{name}").label(name)


def _answered_from(db: sa.Connection, chosen: sa.ColumnElement[bool]) -> set[str]:
    """The sources of stored answers. JSON_EXTRACT of SQLite gives the text, that of MySQL the text in quotes."""
    source = sa.func.json_extract(messages.c.answer, "$.source")
    found = db.scalars(sa.select(source).where(messages.c.answer.is_not(None), chosen).distinct())
    return {str(value).strip('"') for value in found if value is not None}


def _drop(db: sa.Connection, conversation: str, first: int, end: int) -> None:
    chosen = (messages.c.conversation_id == conversation) & (messages.c.id >= first) & (messages.c.id < end)
    db.execute(messages.delete().where(chosen))


def _conversation(row: sa.Row[Any]) -> Conversation:
    created, updated = row.created.replace(tzinfo=UTC), row.updated.replace(tzinfo=UTC)
    return Conversation(row.id, row.title, row.mode, row.source, created, updated)


def _cut_table(answer: Answer) -> Answer:
    """Keep at most STORED_ROWS rows and STORED_CHARACTERS with an answer: a conversation is no archive of results."""
    table = answer.table
    if table is None:
        return answer
    sizes = accumulate(sum(len(str(cell)) for cell in row) for row in table.rows[:STORED_ROWS])
    kept = sum(size <= STORED_CHARACTERS for size in sizes)
    if kept == len(table.rows):
        return answer
    return replace(answer, table=replace(table, rows=table.rows[:kept], truncated=True))
