"""Queries of the fixture files, and tables to check them against."""

import re
from collections.abc import Iterable
from pathlib import Path

from dbgpt_lite.sql.cells import cell
from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo

_FOLDER = Path(__file__).parent.parent / "fixtures" / "sql"


def _lines(name: str) -> list[str]:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


def _unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\n", "\n")


def allowed(dialect: str = "") -> list[str]:
    """Queries that must pass and run: in SQLite's dialect on both databases, or in and on that `dialect` alone."""
    return _lines(f"allowed_{dialect}.txt" if dialect else "allowed.txt")


def refused() -> list[tuple[str, str]]:
    """(dialect, query) pairs that must never reach a driver."""
    pairs = (line.split(" | ", 1) for line in _lines("refused.txt"))
    return [(dialect, _unescaped(query)) for dialect, query in pairs]


def comparable(rows: Iterable[Iterable[object]]) -> list[str]:
    """Rows in any order; numbers by value, since one system's integer is another's decimal."""
    return sorted(repr([_plain(cell(value)) for value in row]) for row in rows)


def _plain(value: object) -> object:
    try:
        return round(float(value), 4)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value


def table(name: str, *columns: str, refers: tuple[str, str] | None = None, comment: str = "") -> TableInfo:
    """table("orders", "id INTEGER*", "name TEXT", refers=("customer_id", "customers")); * marks the key."""
    infos = []
    for column in columns:
        column_name, _, kind = column.partition(" ")
        infos.append(ColumnInfo(column_name, kind.rstrip("*"), kind.endswith("*")))
    keys = (ForeignKey((refers[0],), refers[1], ("id",)),) if refers else ()
    return TableInfo(name, tuple(infos), keys, comment)


SMALL = Schema(
    (
        table("customers", "id INTEGER*", "name VARCHAR(50)", "city TEXT"),
        table("orders", "id INTEGER*", "amount DECIMAL(10,2)", "customer_id INT", refers=("customer_id", "customers")),
    )
)
