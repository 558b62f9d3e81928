"""Queries of the fixture files, and tables to check them against."""

import re
from pathlib import Path

from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo

_FOLDER = Path(__file__).parent.parent / "fixtures" / "sql"


def _lines(name: str) -> list[str]:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


def _unescaped(text: str) -> str:
    return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda found: chr(int(found[1], 16)), text).replace("\\n", "\n")


def allowed() -> list[str]:
    """Queries in SQLite's dialect that must pass and run."""
    return _lines("allowed.txt")


def refused() -> list[tuple[str, str]]:
    """(dialect, query) pairs that must never reach a driver."""
    pairs = (line.split(" | ", 1) for line in _lines("refused.txt"))
    return [(dialect, _unescaped(query)) for dialect, query in pairs]


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
