"""Frozen values that cross layers. No behaviour beyond small derivations, no third-party imports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dbgpt_lite.texts import Language

Role = Literal["system", "user", "assistant"]
Mode = Literal["auto", "chat", "documents", "database"]
MODES: tuple[Mode, ...] = ("auto", "chat", "documents", "database")
Origin = Literal["model", "editor", "explain", "lookup", "api", "cli", "exam", "schema"]
"""Where a statement comes from, for the audit: written by a model for a question on the page, typed by a person on the
page, the plan asked for before a model's query runs, made for a question by the API or the command line, asked by an
exam, or read by the app to know the schema and sampled values."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or one part of a prompt.

    `sql` is the query behind an assistant's turn, `asked` the whole question behind a user's ("" as typed).
    """

    role: Role
    content: str
    sql: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document as retrieved. `start`/`end` are character offsets in the document's extracted text."""

    id: int
    text: str
    document_id: str
    document: str
    page: int | None = None
    heading: str = ""
    start: int = 0
    end: int = 0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Citation:
    """Marker [number] in an answer, the passage it points to and the words quoted from it ("" for none)."""

    number: int
    passage: Passage
    quote: str = ""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Rows of a query. Cells are str, int, float, None or bool; other database types arrive as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    truncated: bool = False
    seconds: float = 0.0


ChartKind = Literal["none", "bar", "line", "scatter", "pie"]
ChartSort = Literal["rows", "x", "y"]


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """What a chart shows of a ResultTable; never code. Columns are named by place, for names may repeat.

    `x`: the column of categories, dates or numbers. `y`: the columns of values. `sort`: as the rows came, by `x`
    ascending, or by the first `y` descending. kind "none": the reader wants the table alone.
    """

    kind: ChartKind
    x: int = 0
    y: tuple[int, ...] = ()
    sort: ChartSort = "rows"
    title: str = ""


@dataclass(frozen=True, slots=True)
class SqlAttempt:
    """One query a model wrote. `problem` says why it was not used ("" for the one that ran).

    `doubted`: the fences let it pass, and its problem is what it asks or gives.
    """

    sql: str
    problem: str = ""
    method: str = "greedy"
    doubted: bool = False

    @property
    def valid(self) -> bool:
        """Whether the database could run it."""
        return self.doubted or not self.problem


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn, and how many. temperature 0 is greedy.

    `seconds`: how long the model may compute for the answer, waiting not counted; 0 for no limit.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine is asked, structured.

    `messages` is the complete rendered conversation for a language model. The other fields are the same
    material unrendered: the built-in assistant quotes `passages` and words `table` without reading prose.
    `grammar`: a Lark grammar that the answer must follow, where EngineInfo.constrained says so; "" for free text.
    `notes` are sentences that the answer must not leave out, ready for the reader.
    `owner`: who asks; users who wait for the same model take turns. `common`: how many leading characters of the first
    message are no owner's own (rules, schema): only what was read of these is kept for other owners too.
    """

    task: str
    messages: tuple[Message, ...]
    question: str
    language: Language = "en"
    passages: tuple[Passage, ...] = ()
    schema: str = ""
    sql: str = ""
    table: ResultTable | None = None
    grammar: str = ""
    notes: tuple[str, ...] = ()
    owner: str = ""
    common: int = 0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Facts about an engine that the page, the budget and the SQL task need.

    context_length: tokens the engine can read and write together. kind: "builtin", "local" or "remote".
    device: where it computes, in words. languages: the languages it is able to read.
    sql_prompt: name of the prompt file for the SQL task; sql_dialect: the dialect it writes ("" = the connection's).
    constrained: whether it obeys Prompt.grammar. widened: bytes in which weights are kept wider too.
    """

    name: str
    kind: Literal["builtin", "local", "remote"]
    context_length: int
    device: str = ""
    quantization: str = ""
    languages: tuple[Language, ...] = ("en", "zh")
    sql_prompt: str = "sql"
    sql_dialect: str = ""
    constrained: bool = False
    widened: int = 0


FinishReason = Literal["stop", "length", "time", "cancelled"]
"""Why an answer ended: by itself, at Sampling.max_tokens or the window's end, at Sampling.seconds, or by its reader."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and seconds of one answer. `first_token_s` counts from the request's start, waiting included.

    `queue_s` is all the waiting, `paused_s` that of it which came after the first token.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queue_s: float = 0.0
    first_token_s: float = 0.0
    seconds: float = 0.0
    finish_reason: FinishReason = "stop"
    paused_s: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together, one after the other: tokens and seconds add up."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.queue_s + other.queue_s,
            self.first_token_s + other.first_token_s,
            self.seconds + other.seconds,
            other.finish_reason,
            self.paused_s + other.paused_s,
        )

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token, waiting not counted (0.0 when it cannot be told)."""
        spent = self.seconds - self.first_token_s - self.paused_s
        return (self.completion_tokens - 1) / spent if spent > 0 and self.completion_tokens > 1 else 0.0


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """Tokens one section of the prompt uses, and what was left out of it (counts in the section's own unit)."""

    section: str
    tokens: int
    kept: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """The prompt's budget: window = prompt sections + room reserved for the answer + spare."""

    window: int
    reserved: int
    lines: tuple[LedgerLine, ...] = ()

    @property
    def used(self) -> int:
        """Tokens of all sections together."""
        return sum(line.tokens for line in self.lines)


def no_limit() -> float:
    """Sampling.seconds without a limit."""
    return 0.0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question. `owner` is set by the front end from its session, never by the client.

    `source` names a knowledge space id (documents) or a connection (database); "" means the default one.
    `replaces` is the id of the question message that this one regenerates or edits: it and all after it go
    once the new answer is there. `history` given: the caller keeps the conversation and nothing is stored.
    `asked` is set on the way: the question as it is searched for, once that is known ("" before).
    `origin` is what the audit says of the statements that are made for it. `left` tells the Sampling.seconds of what a
    model is asked on the way to the answer.
    """

    conversation: str
    question: str
    owner: str
    mode: Mode = "auto"
    source: str = ""
    language: Language = "en"
    sampling: Sampling = field(default_factory=Sampling)
    replaces: int | None = None
    history: tuple[Message, ...] | None = None
    asked: str = ""
    origin: Origin = "model"
    left: Callable[[], float] = no_limit


@dataclass(frozen=True, slots=True)
class Step:
    """What runs now: text key "chat.step_<name>" with `facts`."""

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The model computes for others: `position` requests come before this one; 0 says that its turn has come.

    `seconds` until then, by the pace of the last turns; None while it is unknown.
    """

    position: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """A model was used on the way to the answer: for its query, or to make a question whole."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Routed:
    """Auto mode chose this mode."""

    mode: Mode


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The question leans on the conversation; this is the whole question that is searched for."""

    question: str


@dataclass(frozen=True, slots=True)
class Found:
    """Passages that were retrieved for the question, best first, numbered from 1 as cited."""

    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class SqlTried:
    """A query was written; the last one without a problem is the one that ran."""

    attempt: SqlAttempt


@dataclass(frozen=True, slots=True)
class Rows:
    """The query's result."""

    sql: str
    table: ResultTable


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of answer text."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything known about a finished (or stopped) answer; also what the store keeps beside its text.

    `asked` is the question as it was searched for ("" when as typed). `unsupported` holds the sentences of `text`,
    word for word, that no passage bears out. `near_misses` are the passages nearest to a question the documents do
    not answer; `best` and `needed` are the scores when it is retrieval that says so, else 0.0. `chart` is the reader's
    choice (None: chosen from the rows), `rated` their thumb (None: not given). `usage` is that of the text, `spent`
    that of the model on the way to it.
    """

    text: str
    mode: Mode
    engine: str
    source: str = ""
    citations: tuple[Citation, ...] = ()
    passages: tuple[Passage, ...] = ()
    attempts: tuple[SqlAttempt, ...] = ()
    sql: str = ""
    table: ResultTable | None = None
    usage: Usage = field(default_factory=Usage)
    ledger: Ledger | None = None
    stopped: bool = False
    error: str = ""
    asked: str = ""
    unsupported: tuple[str, ...] = ()
    near_misses: tuple[Passage, ...] = ()
    best: float = 0.0
    needed: float = 0.0
    chart: ChartSpec | None = None
    rated: bool | None = None
    spent: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Done:
    """The last event: the stored answer and the ids of the two messages it made."""

    answer: Answer
    question_id: int
    answer_id: int


ChatEvent = Step | Waiting | Spent | Routed | Rewritten | Found | SqlTried | Rows | Token | Done
