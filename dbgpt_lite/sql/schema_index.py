"""One schema made ready for search: which words stand where, and the texts that stand for its tables and columns."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.sql.schema import ColumnInfo, Schema, TableInfo
from dbgpt_lite.sql.thesaurus import chinese_words, in_english, synonyms
from dbgpt_lite.sql.word_match import Vocabulary
from dbgpt_lite.sql.words import content_words, split

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
Postings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Word -> the places it stands in and how much each tells."""

# How much it tells of a table that a word stands in its name, its comment, or a column's name, comment or values.
_TABLE_NAME, _TABLE_COMMENT = 1.0, 0.85
_COLUMN_NAME, _COLUMN_COMMENT, _COLUMN_VALUE = 0.5, 0.45, 0.5
# Copies and by-products of other tables, by how they are called. They matter when they are asked for.
_SHADOW = frozenset(
    "archive archived bak backup hist history log audit tmp temp stg staging stage old copy test note attachment tag "
    "snapshot import export 归档 备份 历史 日志 临时 备注 附件 标签".split()
)
_ASCII = re.compile(r"[A-Za-z][A-Za-z0-9 ,.?'-]*")
_YEAR = re.compile(r"(?:19|20)\d\d")
# What a question says around its subject.
_TALK = re.compile(
    r"每一?[个位名条艘栋家间张种台辆项票款座套]?|多少|哪[些个位名家种条张里]?|什么|列出|统计|查询|显示|请|按照?|以及|各自?|所有|"
    r"没有|还有?|已经?|最[多少高低大小近早晚]?|今年|去年|本月|上个?月|分别|对应|对比|是谁|吗|的|了|和|与|在|是|有|中|被|其"
)
_TALK_WORDS = frozenset(
    "please tell want would could which whose whom each every per all any other so far still yet ever often most least "
    "highest lowest largest smallest biggest top best worst average total sum number amount list show display compare "
    "compared according judging their them they who what when where how many much long well did does do not no year "
    "this last next month week day since before after between past only also just than its it by of kind thing get got "
    "give take took taken make made go went come came put let say".split()
)
# What the words above tell is about a column at best: they count, but little.
_TALK_WEIGHT = 0.35
_REMEMBERED = 5000


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a question and its weight before rarity is looked at."""

    word: str
    weight: float = 1.0


def terms(question: str) -> tuple[Term, ...]:
    """What a question asks about: English words without question words, known Chinese words, other Chinese pairs."""
    plain = _TALK.sub(" ", question)
    found = {word: (_TALK_WEIGHT if word in _TALK_WORDS else 1.0) for word in split(plain) if word.isascii()}
    found = {word: weight for word, weight in found.items() if word in content_words(word)}
    english = [word for word in split(plain) if word.isascii()]
    found |= {both: 1.0 for both in map("_".join, pairwise(english)) if both in synonyms()}
    known = chinese_words(plain)
    found |= dict.fromkeys(known, 1.0)
    found |= {pair: 0.7 for pair in split(plain) if not pair.isascii() and not any(pair in word for word in known)}
    return tuple(Term(word, weight) for word, weight in found.items())


def text_words(text: str) -> frozenset[str]:
    """The words of a name or comment, Chinese both as pairs and as known words."""
    return content_words(text) | frozenset(chinese_words(text))


def readable(text: str, chinese: bool) -> str:
    """A question, name or comment as the sentence model can read it: words apart, and Chinese, unless it reads
    `chinese`, by what is known of it in English."""
    if text.isascii():
        return " ".join(dict.fromkeys(split(text))) if " " not in text else text
    return text if chinese else " ".join((*_ASCII.findall(text), in_english(text))).strip()


def table_card(table: TableInfo, chinese: bool = False) -> str:
    """The text that stands for a table."""
    columns = dict.fromkeys(readable(column.name, chinese) for column in table.columns[:12])
    return f"{_both(table.name, table.comment, chinese)}: {', '.join(filter(None, columns))}"


def column_card(column: ColumnInfo, chinese: bool = False) -> str:
    """The text that stands for a column: the same for all columns of one name and comment."""
    return _both(column.name, column.comment, chinese)


def _both(name: str, comment: str, chinese: bool) -> str:
    return " ".join(filter(None, (readable(name, chinese), readable(comment, chinese)))) or name


@dataclass(frozen=True, slots=True)
class CardVectors:
    """Unit vectors of a schema: one a table, one a different column card, and for each column the row of its card."""

    of_card: Mapping[str, Vectors]
    tables: Vectors
    columns: Vectors
    rows: NDArray[np.int64]


class SchemaIndex:
    """Where which word stands in one schema, ready at once; `vectors` come later or never (`embed_cards`).

    `chinese`: the sentence model reads Chinese.
    """

    def __init__(self, schema: Schema, chinese: bool = False) -> None:
        self.schema = schema
        self.vectors: CardVectors | None = None
        self.place_of = {table.name: place for place, table in enumerate(schema.tables)}
        self.first = np.cumsum([0, *(len(table.columns) for table in schema.tables)])
        self.owner = np.repeat(np.arange(len(schema.tables)), np.diff(self.first))
        self.name_words = tuple(text_words(table.name) for table in schema.tables)
        self.shadow_words = tuple(
            frozenset(word for word in words if word in _SHADOW or _YEAR.fullmatch(word)) for words in self.name_words
        )
        self.table_postings, self.column_postings = _table_postings(self), _column_postings(schema)
        self.vocabulary = Vocabulary((*self.table_postings, *self.column_postings))
        self._chinese = chinese
        self._matches: dict[str, Mapping[int, float]] = {}

    @property
    def columns(self) -> int:
        """How many columns the schema has."""
        return int(self.first[-1])

    def matches(self, word: str) -> Mapping[int, float]:
        """Vocabulary.matches, remembered: questions repeat their words."""
        if word not in self._matches:
            if len(self._matches) >= _REMEMBERED:
                self._matches.clear()
            self._matches[word] = self.vocabulary.matches(word)
        return self._matches.get(word, {})

    def embed_cards(self, embed: Embed, known: Mapping[str, Vectors]) -> None:
        """Set `vectors`; texts that are in `known` are not embedded again."""
        tables = [table_card(table, self._chinese) for table in self.schema.tables]
        columns = [column_card(column, self._chinese) for table in self.schema.tables for column in table.columns]
        distinct = {card: row for row, card in enumerate(dict.fromkeys(columns))}
        found = {card: known[card] for card in (*tables, *distinct) if card in known}
        new = [card for card in dict.fromkeys((*tables, *distinct)) if card not in found]
        if new:
            found |= dict(zip(new, embed(new), strict=True))
        self.vectors = CardVectors(
            found,
            np.stack([found[card] for card in tables]),
            np.stack([found[card] for card in distinct]),
            np.array([distinct[card] for card in columns], dtype=np.int64),
        )


def _table_postings(index: SchemaIndex) -> Postings:
    found: dict[str, dict[int, float]] = {}
    for place, table in enumerate(index.schema.tables):
        _put(found, place, text_words(table.comment), _TABLE_COMMENT)
        _put(found, place, index.name_words[place], _TABLE_NAME)
    return _as_arrays(found)


def _column_postings(schema: Schema) -> Postings:
    found: dict[str, dict[int, float]] = {}
    for number, column in enumerate(column for table in schema.tables for column in table.columns):
        _put(found, number, text_words(" ".join(column.values)), _COLUMN_VALUE)
        _put(found, number, text_words(column.comment), _COLUMN_COMMENT)
        _put(found, number, text_words(column.name), _COLUMN_NAME)
    return _as_arrays(found)


def _put(postings: dict[str, dict[int, float]], place: int, words: frozenset[str], weight: float) -> None:
    for word in words:
        held = postings.setdefault(word, {})
        held[place] = max(held.get(place, 0.0), weight)


def _as_arrays(postings: dict[str, dict[int, float]]) -> Postings:
    return {
        word: (np.array(list(held), dtype=np.int64), np.array(list(held.values()), dtype=np.float32))
        for word, held in postings.items()
    }
