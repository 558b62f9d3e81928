"""What a database holds: tables, columns and keys, with look-up, suggestions and the text a model reads."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dbgpt_lite.sql.words import content_words

VALUE_LENGTH = 40
"""Characters of a value that a prompt shows."""
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
    """A column. `type` is the database's own spelling, e.g. "VARCHAR(50)"; "" when it declares none.

    `values` are the texts it holds, where they are few and were read (values.py): data, whoever wrote them.
    """

    name: str
    type: str = ""
    primary_key: bool = False
    comment: str = ""
    values: tuple[str, ...] = ()

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
    partial: bool = False
    """Whether it has more columns than those listed, hidden by the connection's rules."""

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
    hidden: frozenset[str] = frozenset()
    """Lower-cased names of tables that the connection's rules hide. For the guard, never for a prompt or a page."""

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
    With `comments`, the database's own types, composite keys, comments and sampled values are shown: for larger models.
    Comments and values cannot end the SQL comment they stand in, nor the line.
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
        + _remarks(column)
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


def _remarks(column: ColumnInfo) -> str:
    """What is known of a column beyond its type, in one SQL comment."""
    parts = [_one_line(column.comment)] if column.comment else []
    if column.values:
        parts.append("values: " + ", ".join(f"'{as_data(value)}'" for value in column.values))
    return f" /* {'; '.join(parts)} */" if parts else ""


def as_data(value: str) -> str:
    """A value for the inside of quotes in an SQL comment in a fenced block: one short line that ends none of the three.

    Quotes are doubled as in SQL; what could end the comment or the fence, and what no reader sees, is left out.
    """
    line = " ".join("".join(letter if _visible(letter) else " " for letter in value).split())
    for ending in ("*/", "/*", "--", "`"):
        while ending in line:
            line = line.replace(ending, "")
    shown = line if len(line) <= VALUE_LENGTH else line[: VALUE_LENGTH - 1] + "…"
    return shown.replace("'", "''")


def _visible(letter: str) -> bool:
    return unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _one_line(comment: str) -> str:
    # Again and again, since "**//" would leave a "*/" behind.
    while "*/" in comment:
        comment = comment.replace("*/", "")
    return " ".join(comment.split())[:200]
