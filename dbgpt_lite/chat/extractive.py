"""The built-in assistant: an Engine that quotes. It generates nothing, so it needs no language model.

Documents: the best sentences of the passages, word for word, with [n]; or that the documents do not contain it.
Chat: the nearest entry of the help pages. Rows: a sentence with the figures of the result.
"""

import re
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import mul
from typing import Literal, Protocol

from dbgpt_lite.chat.help_pages import HELP_RULE, HelpEntry, help_entries, nearest_help
from dbgpt_lite.chat.quoting import CALIBRATION, Calibration, Quote, Selection, select
from dbgpt_lite.knowledge.words import is_chinese
from dbgpt_lite.llm.estimate import estimate_tokens
from dbgpt_lite.messages import EngineInfo, Message, Passage, Prompt, ResultTable, Sampling, Usage
from dbgpt_lite.sql.labels import column_label
from dbgpt_lite.texts import Language, text

__all__ = ["CALIBRATION", "Calibration", "Embed", "ExtractiveEngine", "Quote", "Selection", "select"]

CONTEXT_LENGTH = 32_768
LISTED_VALUES = 10
LISTED_PAIRS = 6
SHOWN_CELLS = 8
CELL_LENGTH = 80
CACHED_VECTORS = 4096  # 1.5 KB each: sentences of passages that are asked about again

_PIECE = re.compile(r"\s*(?:[\u3400-\u9fff]|[^\s\u3400-\u9fff]+)[，。！？；：、”]*\s*")
_HAN_BREAK = re.compile(r"(?<=[\u3001-\u9fff\uff00-\uffef])\s*\n\s*(?=[\u3001-\u9fff\uff00-\uffef])")
_MARKDOWN = re.compile(r"([\\`*_~<>\[\]$|#])")
_LIST_START = re.compile(r"^(\d+)(?=[.)])|^(?=[-+])")
_PLAIN_NAME = re.compile(r"[^\W\d]\w*")
_INSIDE_WORD = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")


class Embed(Protocol):
    """texts -> unit vectors, in order (`Embedder.embed`)."""

    def __call__(self, texts: Sequence[str], kind: Literal["query", "passage"] = ...) -> Iterable[Iterable[float]]:
        """Vectors of questions or of passages."""
        ...


class ExtractiveEngine:
    """The Engine that answers while no language model is loaded. Safe to use from several threads."""

    def __init__(self, embed: Embed, language: Language = "en") -> None:
        self._vectors = _VectorCache(embed)
        self._info = EngineInfo(text("assistant.name", language), "builtin", CONTEXT_LENGTH, device="CPU")

    @property
    def info(self) -> EngineInfo:
        """Facts about the assistant."""
        return self._info

    @property
    def waiting(self) -> int:
        """Nobody waits: answers take a fraction of a second."""
        return 0

    def count(self, messages: Sequence[Message]) -> int:
        """Roughly the tokens of the messages."""
        return sum(self.count_text(message.content) for message in messages)

    def count_text(self, text: str) -> int:
        """An estimate: nothing is tokenized here."""
        return estimate_tokens(text)

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """None: there is nothing to draw from."""
        return []

    def close(self) -> None:
        """Nothing is held."""

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Usage]:
        """The answer word by word, then its Usage."""
        started = time.monotonic()
        answer = self.answer(prompt)
        first = time.monotonic() - started
        pieces = _PIECE.findall(_before_stop(answer, sampling.stop))
        given = 0
        for piece in islice(pieces, sampling.max_tokens):
            if cancel.is_set():
                break
            given += 1
            yield piece
        finish: Literal["stop", "length", "cancelled"] = "stop" if given == len(pieces) else "length"
        yield Usage(
            self.count(prompt.messages),
            given,
            first_token_s=first,
            seconds=time.monotonic() - started,
            finish_reason="cancelled" if cancel.is_set() else finish,
        )

    def answer(self, prompt: Prompt) -> str:
        """The whole answer as Markdown; everything that comes from a document or a table is escaped."""
        if prompt.task == "documents":
            return _word_selection(prompt, self.select(prompt.question, prompt.passages))
        if prompt.task == "rows":
            said = word_table(prompt.table or ResultTable((), ()), prompt.language)
            return " ".join((said, *prompt.notes)) if prompt.language == "en" else "".join((said, *prompt.notes))
        if prompt.task == "chat":
            return self._chat(prompt)
        return text("assistant.no_task", prompt.language)

    def select(self, question: str, passages: Sequence[Passage]) -> Selection:
        """The sentences of `passages` that answer `question` (see quoting.select)."""
        return select(question, passages, lambda texts: self._vectors.similarities(question, texts))

    def near(self, sentence: str, others: Sequence[str]) -> list[float]:
        """Cosine of a sentence with each of `others`, all as passages."""
        said, *vectors = self._vectors.passages([sentence, *others])
        return [sum(map(mul, said, vector)) for vector in vectors]

    def nearest_help(self, question: str) -> tuple[HelpEntry, float]:
        """The nearest entry of the help pages and its score; HELP_RULE says which score means that it answers."""
        return nearest_help(question, self._vectors.passages)

    def warm(self) -> None:
        """Embed the help pages' titles ahead of the first question; takes seconds, so call it in the background."""
        self._vectors.passages([entry.title for entry in help_entries("en")])

    def _chat(self, prompt: Prompt) -> str:
        entry, score = self.nearest_help(prompt.question)
        if score >= HELP_RULE["zh" if is_chinese(prompt.question) else "en"].needed:
            return entry.text
        return text("assistant.no_conversation", prompt.language)


def word_table(table: ResultTable, language: Language) -> str:
    """A result in one sentence: the value, the list of values, or the number of rows and the first of them."""
    if not table.rows:
        return text("assistant.rows_none", language)
    count, first = len(table.rows), table.rows[0]
    if count == 1 and len(first) == 1 and not table.truncated:
        return _word_value(table.columns[0], first[0], language)
    if len(first) == 1 and count <= LISTED_VALUES and not table.truncated:
        values = [_cell(row[0], language) for row in table.rows]
        return text("assistant.rows_list", language, count=count, values=_join(values, language))
    if len(first) == 2 and 1 < count <= LISTED_PAIRS and not table.truncated:
        pairs = [" ".join(_cell(value, language) for value in row) for row in table.rows]
        columns = _join([escape(column_label(column, language)) for column in table.columns], language)
        return text(
            "assistant.rows_pairs",
            language,
            count=count,
            columns=columns,
            values=text("assistant.between_rows", language).join(pairs),
        )
    shown = zip(table.columns[:SHOWN_CELLS], first, strict=False)
    cells = [
        text("assistant.cell", language, column=escape(column_label(name, language)), value=_cell(value, language))
        for name, value in shown
    ]
    more = ["…"] if len(first) > SHOWN_CELLS else []
    name = "rows_truncated" if table.truncated else "rows_row" if count == 1 else "rows_many"
    return text(f"assistant.{name}", language, count=f"{count:,}", cells=_join([*cells, *more], language))


def escape(plain: str) -> str:
    """`plain` on one line, so that Markdown shows it as it is: no HTML, links, emphasis, tables, formulas or [n]."""
    line = " ".join(_HAN_BREAK.sub("", plain).split())
    escaped = _INSIDE_WORD.sub("_", _MARKDOWN.sub(r"\\\1", line))
    return _LIST_START.sub(r"\1\\", escaped)


def _word_selection(prompt: Prompt, selection: Selection) -> str:
    if not prompt.passages:
        return text("assistant.nothing_retrieved", prompt.language)
    if selection.quotes:
        return "\n\n".join(_word_quote(quote, prompt.language) for quote in selection.quotes)
    if not any(is_chinese(passage.text) == is_chinese(prompt.question) for passage in prompt.passages):
        return text("assistant.other_language", prompt.language)
    # Rounded down, so that a score just below the limit is not shown as equal to it.
    score = max(0, int(selection.score * 100)) / 100
    return text("assistant.not_found", prompt.language, score=f"{score:.2f}", needed=f"{selection.needed:.2f}")


def _word_quote(quote: Quote, language: Language) -> str:
    name = "assistant.quote_under" if quote.heading else "assistant.quote"
    return text(name, language, heading=escape(quote.heading), text=escape(quote.text), number=quote.number)


def _word_value(column: str, value: object, language: Language) -> str:
    if value is None:
        return text("assistant.rows_null", language)
    name = "rows_cell_named" if _PLAIN_NAME.fullmatch(column) else "rows_cell"
    return text(f"assistant.{name}", language, value=_cell(value, language), column=escape(column))


def _cell(value: object, language: Language) -> str:
    """A cell as text. Floats keep two decimals, or four figures below 1."""
    if value is None:
        return text("assistant.null", language)
    if isinstance(value, bool):
        return text(f"assistant.{str(value).lower()}", language)
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 1 else f"{value:.4g}"
    shown = str(value)
    return escape(shown if len(shown) <= CELL_LENGTH else shown[: CELL_LENGTH - 1] + "…")


def _join(parts: Sequence[str], language: Language) -> str:
    return text("assistant.separator", language).join(parts)


def _before_stop(answer: str, stops: Sequence[str]) -> str:
    places = [answer.find(stop) for stop in stops if stop]
    return answer[: min((place for place in places if place >= 0), default=len(answer))]


class _VectorCache:
    """Vectors of the texts embedded last, so that a second question about the same passages costs one embedding."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, array[float]] = OrderedDict()

    def passages(self, texts: Sequence[str]) -> "list[array[float]]":
        """Vectors of `texts` embedded as passages."""
        with self._lock:
            known = {one: self._kept[one] for one in texts if one in self._kept}
        missing = [one for one in dict.fromkeys(texts) if one not in known]
        if missing:
            known.update(zip(missing, (array("f", v) for v in self._embed(missing, "passage")), strict=True))
        with self._lock:
            for one in texts:
                self._kept[one] = known[one]
                self._kept.move_to_end(one)
            while len(self._kept) > CACHED_VECTORS:
                self._kept.popitem(last=False)
        return [known[one] for one in texts]

    def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """Cosine of `question` with each text."""
        asked = array("f", next(iter(self._embed([question], "query"))))
        return [sum(map(mul, asked, vector)) for vector in self.passages(texts)]
