"""One schema made ready for search: which words stand where in it, and the texts that stand for its tables and columns."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.sql.schema import ColumnInfo, Schema, TableInfo
from dbgpt_lite.sql.thesaurus import chinese_words, in_english, synonyms
from dbgpt_lite.sql.word_match import Vocabulary
from dbgpt_lite.sql.words import content_words, split

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

# How much it tells of a table that a word stands in its name, its comment, or a column's name, comment or values.
_TABLE_NAME, _TABLE_COMMENT = 1.0, 0.85
_COLUMN_NAME, _COLUMN_COMMENT, _COLUMN_VALUE = 0.5, 0.45, 0.5
# Copies and by-products of other tables, by how they are called. They matter when they are asked for.
_SHADOW = frozenset(
    "archive archived bak backup hist history log audit tmp temp stg staging stage old copy test note attachment tag "
    "snapshot import export 归档 备份 历史 日志 临时 备注 附件 标签".split()
)
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


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a question and its weight before rarity is looked at."""

    word: str
    weight: float = 1.0


def terms(question: str) -> tuple[Term, ...]:
    """What a question asks about: English words without question words, known Chinese words, and other Chinese pairs."""
    plain = _TALK.sub(" ", question)
    found = {word: (_TALK_WEIGHT if word in _TALK_WORDS else 1.0) for word in split(plain) if word.isascii()}
    found = {word: weight for word, weight in found.items() if word in content_words(word)}
    english = [word for word in split(plain) if word.isascii()]
    found |= {both: 1.0 for both in map("_".join, zip(english, english[1:], strict=False)) if both in synonyms()}
    known = chinese_words(plain)
    found |= dict.fromkeys(known, 1.0)
    found |= {pair: 0.7 for pair in split(plain) if not pair.isascii() and not any(pair in word for word in known)}
    return tuple(Term(word, weight) for word, weight in found.items())


def text_words(text: str) -> frozenset[str]:
    """The words of a name or comment, Chinese both as pairs and as known words."""
    return content_words(text) | frozenset(chinese_words(text))


def _readable(*texts: str) -> str:
    """Names and comments as a sentence model can read them: words apart, known Chinese words in English beside."""
    words = [" ".join(dict.fromkeys(split(text))) if text.isascii() else text for text in texts if text]
    return " ".join([*words, *(found for text in texts if (found := in_english(text)))])


def table_card(table: TableInfo) -> str:
    """The text that stands for a table."""
    columns = ", ".join(dict.fromkeys(_readable(column.name) for column in table.columns[:12]))
    return f"{_readable(table.name, table.comment)}: {columns}"


def column_card(column: ColumnInfo) -> str:
    """The text that stands for a column: the same for all columns of one name and comment."""
    return _readable(column.name, column.comment)


class SchemaIndex:
    """Words and vectors of one schema. Vectors come from `embed`, or from `known` texts of an earlier schema."""

    def __init__(self, schema: Schema, embed: Embed | None, known: Mapping[str, Vectors] | None = None) -> None:
        self.schema = schema
        self.place_of = {table.name: place for place, table in enumerate(schema.tables)}
        self.first = np.cumsum([0, *(len(table.columns) for table in schema.tables)])
        self.owner = np.repeat(np.arange(len(schema.tables)), np.diff(self.first))
        self._postings()
        self.vectors = _vectors(self._cards, embed, known or {}) if embed else {}
        self.matches_of: dict[str, Mapping[int, float]] = {}

    @property
    def columns(self) -> int:
        """How many columns the schema has."""
        return int(self.first[-1])

    def matches(self, word: str) -> Mapping[int, float]:
        """Vocabulary.matches, remembered: questions repeat their words."""
        if word not in self.matches_of:
            if len(self.matches_of) > 5000:
                self.matches_of.clear()
            self.matches_of[word] = self.vocabulary.matches(word)
        return self.matches_of[word]

    @cached_property
    def table_vectors(self) -> Vectors:
        """One unit vector a table."""
        return np.stack([self.vectors[card] for card in self.table_cards])

    @cached_property
    def column_vectors(self) -> tuple[Vectors, NDArray[np.int64]]:
        """Unit vectors of the different column cards, and for each column the row of its own."""
        distinct = {card: row for row, card in enumerate(dict.fromkeys(self.column_cards))}
        rows = np.array([distinct[card] for card in self.column_cards], dtype=np.int64)
        return np.stack([self.vectors[card] for card in distinct]), rows

    @cached_property
    def table_cards(self) -> tuple[str, ...]:
        """The text of every table."""
        return tuple(table_card(table) for table in self.schema.tables)

    @cached_property
    def column_cards(self) -> tuple[str, ...]:
        """The text of every column."""
        return tuple(column_card(column) for table in self.schema.tables for column in table.columns)

    @cached_property
    def shadow_words(self) -> tuple[frozenset[str], ...]:
        """For each table, the words of its name that say it is a copy or by-product of another."""
        return tuple(
            frozenset(word for word in words if word in _SHADOW or _YEAR.fullmatch(word)) for words in self.name_words
        )

    @property
    def _cards(self) -> list[str]:
        return list(dict.fromkeys((*self.table_cards, *self.column_cards)))

    def _postings(self) -> None:
        """For every word, the tables and the columns it stands in, with the weight of the place."""
        tables: dict[str, dict[int, float]] = {}
        columns: dict[str, dict[int, float]] = {}
        self.name_words: list[frozenset[str]] = []
        number = 0
        for place, table in enumerate(self.schema.tables):
            self.name_words.append(text_words(table.name))
            _put(tables, place, text_words(table.comment), _TABLE_COMMENT)
            _put(tables, place, self.name_words[-1], _TABLE_NAME)
            for column in table.columns:
                _put(columns, number, text_words(" ".join(column.values)), _COLUMN_VALUE)
                _put(columns, number, text_words(column.comment), _COLUMN_COMMENT)
                _put(columns, number, text_words(column.name), _COLUMN_NAME)
                number += 1
        self.vocabulary = Vocabulary((*tables, *columns))
        self.table_postings = _as_arrays(tables)
        self.column_postings = _as_arrays(columns)


Postings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


def _put(postings: dict[str, dict[int, float]], place: int, words: frozenset[str], weight: float) -> None:
    for word in words:
        held = postings.setdefault(word, {})
        held[place] = max(held.get(place, 0.0), weight)


def _as_arrays(postings: dict[str, dict[int, float]]) -> Postings:
    return {
        word: (np.array(list(held), dtype=np.int64), np.array(list(held.values()), dtype=np.float32))
        for word, held in postings.items()
    }


def _vectors(cards: Sequence[str], embed: Embed, known: Mapping[str, Vectors]) -> dict[str, Vectors]:
    found = {card: known[card] for card in cards if card in known}
    new = [card for card in cards if card not in found]
    if new:
        found |= dict(zip(new, embed(new), strict=True))
    return found
