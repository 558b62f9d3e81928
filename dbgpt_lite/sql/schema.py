"""What a database holds: tables, columns and keys, with look-up, suggestions and the text a model reads."""

import difflib
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dbgpt_lite.sql.words import content_words

Kind = Literal["INTEGER", "REAL", "TEXT"]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
# Words that SQLite or MySQL do not take as a bare name, or that a reader would take for syntax.
_KEYWORD_TEXT = """
    add all alter and as asc between by case check collate column commit constraint create cross current default
    deferrable delete desc distinct drop else end escape except exists filter foreign from full group groups having
    if in index inner insert intersect into is isnull join key left like limit match natural not notnull null offset
    on or order outer over partition primary range read references rename replace returning right rollback row rows
    select set table temp then to transaction trigger union unique update using values view when where window with
    within without
"""
KEYWORDS = frozenset(_KEYWORD_TEXT.split())
_INTEGER = re.compile(r"INT|BOOL|BIT\b|SERIAL|YEAR")
_REAL = re.compile(r"REAL|FLOA|DOUB|DEC|NUMERIC|NUMBER|MONEY|FIXED")


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column. `type` is the database's own spelling, e.g. "VARCHAR(50)"; "" when it declares none."""

    name: str
    type: str = ""
    primary_key: bool = False
    comment: str = ""

    @property
    def kind(self) -> Kind:
        """INTEGER for integers and booleans, REAL for decimals and floats, TEXT for everything else."""
        upper = self.type.upper()
        if _INTEGER.search(upper) and not upper.startswith(("POINT", "INTERVAL")):
            return "INTEGER"
        return "REAL" if _REAL.search(upper) else "TEXT"


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of the owning table refer to `target_columns` of the table `target`, in the same order."""

    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]


@dataclass(frozen=True)
class TableInfo:
    """A table or view."""

    name: str
    columns: tuple[ColumnInfo, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    comment: str = ""
    is_view: bool = False

    @cached_property
    def _columns(self) -> Mapping[str, ColumnInfo]:
        return {column.name.lower(): column for column in self.columns}

    def column(self, name: str) -> ColumnInfo | None:
        """The column of that name in any case, or None."""
        return self._columns.get(name.lower())

    @cached_property
    def name_words(self) -> frozenset[str]:
        """Words of the table's name and comment."""
        return content_words(f"{self.name} {self.comment}")

    @cached_property
    def words(self) -> frozenset[str]:
        """Words of the table and of its columns, comments included."""
        texts = [f"{column.name} {column.comment}" for column in self.columns]
        return self.name_words | content_words(" ".join(texts))


@dataclass(frozen=True)
class Schema:
    """All tables and views that may be asked."""

    tables: tuple[TableInfo, ...]

    @cached_property
    def _tables(self) -> Mapping[str, TableInfo]:
        lower = {table.name.lower(): table for table in self.tables}
        return lower | {table.name: table for table in self.tables}

    def table(self, name: str) -> TableInfo | None:
        """The table of that name: the same spelling first, then any case; None when there is none."""
        return self._tables.get(name) or self._tables.get(name.lower())

    @cached_property
    def words(self) -> frozenset[str]:
        """Content words of all names and comments, to tell whether a question is about this database."""
        return frozenset().union(*(table.words for table in self.tables)) if self.tables else frozenset()

    def similar_table(self, name: str) -> str:
        """The table that `name` is most likely meant to be, "" when none is close."""
        return similar(name, [table.name for table in self.tables])


def similar(name: str, names: Iterable[str]) -> str:
    """The closest of `names` by difflib's ratio over lower-cased letters, "" when none reaches 0.6."""
    spelling = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), list(spelling), n=1, cutoff=0.6)
    return spelling[close[0]] if close else ""


def quoted(name: str) -> str:
    """`name` as it must be written in SQL: in double quotes unless it is a plain word and no keyword."""
    if _PLAIN.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def ddl(schema: Schema, tables: Iterable[str] | None = None, *, comments: bool = False) -> str:
    """The schema as one CREATE TABLE line a table, in the rendering that the starter model was trained on.

    Types are INTEGER, REAL or TEXT; PRIMARY KEY only for a key of one column; foreign keys last, one clause a column,
    those to tables that are not shown left out. `tables` restricts and keeps the schema's order.
    With `comments`, the database's own types, composite keys and comments are shown: for larger models.
    """
    wanted = None if tables is None else {name.lower() for name in tables}
    shown = [table for table in schema.tables if wanted is None or table.name.lower() in wanted]
    names = {table.name.lower() for table in shown}
    return "\n".join(_create_with_comments(table, names) if comments else _create(table, names) for table in shown)


def _create(table: TableInfo, shown: set[str]) -> str:
    single = sum(column.primary_key for column in table.columns) == 1
    parts = [
        f"{quoted(column.name)} {column.kind}" + (" PRIMARY KEY" if single and column.primary_key else "")
        for column in table.columns
    ]
    parts += [
        f"FOREIGN KEY ({quoted(own)}) REFERENCES {quoted(key.target)}({quoted(other)})"
        for key in table.foreign_keys
        if key.target.lower() in shown
        for own, other in zip(key.columns, key.target_columns, strict=True)
    ]
    return f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)});"


def _create_with_comments(table: TableInfo, shown: set[str]) -> str:
    key_columns = [quoted(column.name) for column in table.columns if column.primary_key]
    parts = [
        f"{quoted(column.name)} {column.type or column.kind}"
        + (" PRIMARY KEY" if len(key_columns) == 1 and column.primary_key else "")
        + (f" /* {_one_line(column.comment)} */" if column.comment else "")
        for column in table.columns
    ]
    if len(key_columns) > 1:
        parts.append(f"PRIMARY KEY ({', '.join(key_columns)})")
    parts += [
        f"FOREIGN KEY ({', '.join(map(quoted, key.columns))}) "
        f"REFERENCES {quoted(key.target)}({', '.join(map(quoted, key.target_columns))})"
        for key in table.foreign_keys
        if key.target.lower() in shown
    ]
    remark = f" -- {_one_line(table.comment)}" if table.comment else ""
    return f"CREATE {'VIEW' if table.is_view else 'TABLE'} {quoted(table.name)} ({', '.join(parts)});{remark}"


def _one_line(comment: str) -> str:
    return " ".join(comment.replace("*/", "").split())[:200]


def pick(schema: Schema, question: str, limit: int) -> Schema:
    """At most `limit` tables for `question`, best first match, always with the tables that join them.

    A table scores by the words it shares with the question, rare words more (idf over tables), its own name most.
    Tables are taken best first, each together with the shortest foreign-key path to those taken; room left goes to
    tables the chosen ones refer to. When no word matches, the tables with most keys are kept.
    """
    if len(schema.tables) <= limit:
        return schema
    scores = _scores(schema, content_words(question))
    links = _links(schema)
    order = sorted(scores, key=lambda name: (-scores[name], -len(links[name]), name))
    chosen: set[str] = set()
    for name in (name for name in order if scores[name] > 0):
        path = _path(links, chosen, name)
        if len(chosen | path) <= limit:
            chosen |= path
    spare = sorted({near for name in chosen for near in links[name]} - chosen) if chosen else order
    chosen |= set(spare[: limit - len(chosen)])
    return Schema(tuple(table for table in schema.tables if table.name in chosen))


def fit(schema: Schema, question: str, fits: Callable[[Schema], bool]) -> Schema:
    """The most tables of `pick` that `fits` accepts (e.g. a token budget); one table at least."""
    if fits(schema):
        return schema
    low, high = 1, max(1, len(schema.tables) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(pick(schema, question, middle)) else (low, middle - 1)
    return pick(schema, question, low)


def _scores(schema: Schema, asked: frozenset[str]) -> dict[str, float]:
    holders = {word: sum(word in table.words for table in schema.tables) for word in asked}
    idf = {word: math.log(1 + len(schema.tables) / count) for word, count in holders.items() if count}
    return {table.name: _score(table, idf) for table in schema.tables}


def _score(table: TableInfo, idf: Mapping[str, float]) -> float:
    return sum(idf[word] * (3 if word in table.name_words else 1) for word in table.words & idf.keys())


def _links(schema: Schema) -> dict[str, set[str]]:
    links: dict[str, set[str]] = {table.name: set() for table in schema.tables}
    for table in schema.tables:
        for key in table.foreign_keys:
            target = schema.table(key.target)
            if target and target.name != table.name:
                links[table.name].add(target.name)
                links[target.name].add(table.name)
    return links


def _path(links: Mapping[str, set[str]], chosen: set[str], start: str) -> set[str]:
    """Tables on the shortest way from `start` to any chosen table, `start` included; alone when there is no way."""
    queue, came_from = deque([start]), {start: ""}
    while queue:
        name = queue.popleft()
        if name in chosen:
            way = {name}
            while name := came_from[name]:
                way.add(name)
            return way
        for near in sorted(links[name] - came_from.keys()):
            came_from[near] = name
            queue.append(near)
    return {start}
