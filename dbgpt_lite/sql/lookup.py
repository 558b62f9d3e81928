"""Where a value stands in a database: bounded, read-only look-ups through whatever runs checked queries.

Each look-up reads at most SCANNED rows of one table and keeps what it found; all of them together may take SECONDS, the
last of them as long as any query may. The time between them does not count: a model writes as long as it likes. A query
that fails, finds no connection or takes too long counts as "not found": a look-up only ever suggests.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlglot import exp

from dbgpt_lite.errors import Busy, DatabaseError, QueryTimeout
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.dialects import write
from dbgpt_lite.sql.schema import ColumnInfo, Schema, TableInfo
from dbgpt_lite.sql.value_words import other_names
from dbgpt_lite.sql.words import split

SCANNED = 200_000
MOST_TABLES = 60
LONGEST = 80
"""Characters of a value that is looked up; longer ones are sentences."""
SECONDS = 4.0
_NO_WORDS = re.compile(r"BLOB|BINARY|BYTEA|DATE|TIME|JSON|GEOMETRY|POINT|UUID|\bBIT\b", re.IGNORECASE)
Run = Callable[[str], ResultTable]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Place:
    """A value as it is spelt in a column."""

    table: str
    column: str
    value: str


def holds_words(column: ColumnInfo) -> bool:
    """Whether a column may hold words, judged by its declared type."""
    return column.kind == "TEXT" and not _NO_WORDS.search(column.type)


class ValueFinder:
    """Looks values up in the text columns of one database. For one question: what was found is kept."""

    def __init__(
        self,
        schema: Schema,
        dialect: str,
        run: Run,
        seconds: float = SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        """`run` runs one query of `dialect` behind the fences. It may raise DatabaseError, Busy, or Cancelled."""
        self._schema = schema
        self._dialect = dialect
        self._run = run
        self._clock = clock
        self._left = seconds
        self._places: dict[str, tuple[Place, ...]] = {}
        self._longer: dict[str, bool] = {}
        self._gave_up = len(schema.tables) > MOST_TABLES

    @property
    def thorough(self) -> bool:
        """Whether every table was looked into so far, so that what was not found is not there."""
        return not self._gave_up

    def occurs(self, table: str, column: str, value: str) -> bool:
        """Whether a column holds exactly this value; True when it cannot be told."""
        name = exp.column(column, quoted=True)
        rows = self._ask(table, [column], exp.EQ(this=name, expression=exp.Literal.string(value)), 1)
        return rows is None or bool(rows)

    def places(self, value: str) -> tuple[Place, ...]:
        """Every text column that holds the value in any case, in the order of the schema.

        Where none does, the value's other names are looked up (USA: United States).
        """
        key = value.casefold()
        if key not in self._places:
            found = tuple(self._find(value))
            names = iter(other_names(value))
            while not found and (name := next(names, "")):
                found = tuple(self._find(name))
            self._places[key] = found
        return self._places[key]

    def containing(self, table: str, column: str, value: str, most: int = 20) -> tuple[str, ...]:
        """Different values of a column that contain `value`, in any case; at most `most` rows are looked at."""
        rows = self._ask(table, [column], _any_like([column], value), most) if value.strip() else None
        return tuple(dict.fromkeys(str(row[0]) for row in rows or ()))

    def parts(self, value: str) -> tuple[Place, ...]:
        """Values that contain `value` in any case, a few of each table, in the order of the schema."""
        found: list[Place] = []
        for table, columns in self.tables() if value.strip() and len(value) <= LONGEST else ():
            rows = self._ask(table.name, columns, _any_like(columns, value), 20) or ()
            cells = ((columns[n], str(cell)) for row in rows for n, cell in enumerate(row) if cell is not None)
            found += [Place(table.name, column, cell) for column, cell in cells if value.casefold() in cell.casefold()]
        return tuple(dict.fromkeys(found))

    def tables(self) -> Iterator[tuple[TableInfo, list[str]]]:
        """The tables that are looked into, each with its columns of text."""
        for table in self._schema.tables[:MOST_TABLES]:
            columns = [column.name for column in table.columns if holds_words(column)]
            if columns:
                yield table, columns

    def _find(self, value: str) -> Iterator[Place]:
        if not value.strip() or len(value) > LONGEST:
            return
        wanted = value.casefold()
        for table, columns in self.tables():
            for row in self._ask(table.name, columns, _any_equal(columns, value), 3) or ():
                same = [n for n, cell in enumerate(row) if str(cell).strip().casefold() == wanted]
                yield from (Place(table.name, columns[n], str(row[n])) for n in same)
                if same:
                    break

    def _ask(
        self, table: str, columns: Sequence[str], condition: exp.Expression, most: int
    ) -> tuple[tuple[object, ...], ...] | None:
        """Rows of the first SCANNED rows of a table that meet the condition; None when they cannot be told."""
        if self._left <= 0:
            self._gave_up = True
            return None
        names = [exp.column(column, quoted=True) for column in columns]
        part = exp.select(*names).from_(exp.table_(table, quoted=True)).limit(SCANNED)
        query = exp.select(*(name.copy() for name in names)).from_(part.subquery("part")).where(condition).limit(most)
        started = self._clock()
        try:
            rows = self._run(write(query, self._dialect)).rows
            if rows or not (self._is_longer(table) or self._is_blind(condition)):
                return rows
        except QueryTimeout:
            # A database this slow is not asked again for a mere suggestion.
            self._left = 0.0
        except (DatabaseError, Busy):
            pass
        finally:
            self._left -= self._clock() - started
        self._gave_up = True
        return None

    def _is_longer(self, table: str) -> bool:
        """Whether a table has rows behind the SCANNED ones, so that what was not found may still be there."""
        if table not in self._longer:
            rest = exp.select("1").from_(exp.table_(table, quoted=True)).limit(1).offset(SCANNED)
            self._longer[table] = bool(self._run(write(rest, self._dialect)).rows)
        return self._longer[table]

    def _is_blind(self, condition: exp.Expression) -> bool:
        """Whether a value's case keeps it from being found: SQLite's LOWER() knows English letters only."""
        values = [str(literal.this) for literal in condition.find_all(exp.Literal)]
        folded = next(condition.find_all(exp.Lower), None) is not None
        foreign = any(value.lower() != value.upper() for value in values if not value.isascii())
        return self._dialect == "sqlite" and folded and foreign


def _any_equal(columns: Sequence[str], value: str) -> exp.Expression:
    text = exp.Literal.string(value.lower())
    same = [exp.EQ(this=exp.Lower(this=exp.column(name, quoted=True)), expression=text.copy()) for name in columns]
    return exp.or_(*same)


def _any_like(columns: Sequence[str], value: str) -> exp.Expression:
    pattern = exp.Literal.string(f"%{value.replace('%', '').replace('_', '').lower()}%")
    names = (exp.Lower(this=exp.column(name, quoted=True)) for name in columns)
    return exp.or_(*(exp.Like(this=name, expression=pattern.copy()) for name in names))


def is_said(value: str, question: str) -> bool:
    """Whether every word of a value stands in the question, plurals folded ("Store managers": Store Manager)."""
    words = split(value)
    return bool(words) and set(words) <= set(split(question))
