"""What the columns of a result hold, judged by their cells alone: numbers, moments in time, text or blobs."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from dbgpt_lite.messages import ResultTable

ColumnKind = Literal["number", "time", "text", "blob"]
# Decimals that a float cannot hold arrive as text (cells.py): always with a fraction, and more than 15 digits.
_LONG_DECIMAL = re.compile(r"-?\d+\.\d+")
# How cells.py shows binary values.
_BLOB = re.compile(r"<\d+ bytes>")
_MONTH = re.compile(r"(\d{4})-(\d{2})")
_QUARTER = re.compile(r"(\d{4})-?Q([1-4])", re.IGNORECASE)
_YEAR_NAMES = frozenset(("year", "yr", "年", "年份", "年度"))
# Beyond it the arithmetic of a drawing would overflow.
_LARGEST = 1e300


def number(value: object) -> float | None:
    """A cell as a number to draw; None for everything else, and for what is too large to draw."""
    if isinstance(value, bool) or not (isinstance(value, int | float) or is_long_decimal(value)):
        return None
    try:
        converted = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return converted if math.isfinite(converted) and abs(converted) < _LARGEST else None


def is_long_decimal(value: object) -> bool:
    """Whether text is a decimal that was kept as text for its many digits."""
    return isinstance(value, str) and len(value) > 16 and _LONG_DECIMAL.fullmatch(value) is not None


def moment(value: object) -> float | None:
    """A date, a date with a time, a month (2024-03) or a quarter (2024-Q1) as days, to place it in time; else None."""
    if not isinstance(value, str) or not 7 <= len(value) <= 32:
        return None
    try:
        if found := _MONTH.fullmatch(value):
            when = datetime(int(found[1]), int(found[2]), 1)
        elif found := _QUARTER.fullmatch(value):
            when = datetime(int(found[1]), int(found[2]) * 3 - 2, 1)
        elif value[4:5] == "-" and value[7:8] == "-":
            when = datetime.fromisoformat(value).replace(tzinfo=None)
        else:
            return None
    except ValueError:
        return None
    return when.toordinal() + (when.hour * 3600 + when.minute * 60 + when.second) / 86_400


def position(value: object, name: str) -> float | None:
    """Where a cell of a time column lies: its moment, or the number of a year."""
    return number(value) if is_year_name(name) and isinstance(value, int) else moment(value)


def is_year_name(name: str) -> bool:
    """Whether a column of whole numbers is called a year."""
    lowered = name.lower()
    return lowered in _YEAR_NAMES or lowered.endswith("_year")


def column_kinds(table: ResultTable) -> tuple[ColumnKind, ...]:
    """The kind of each column. NULLs say nothing; a column of nothing else is text."""
    return tuple(
        _kind([row[place] for row in table.rows if row[place] is not None], name)
        for place, name in enumerate(table.columns)
    )


def _kind(values: Sequence[object], name: str) -> ColumnKind:
    if not values:
        return "text"
    if is_year_name(name) and all(_is_year(value) for value in values):
        return "time"
    if all(number(value) is not None for value in values):
        return "number"
    if all(moment(value) is not None for value in values):
        return "time"
    return "blob" if all(isinstance(value, str) and _BLOB.fullmatch(value) for value in values) else "text"


def _is_year(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1000 <= value <= 2999
