"""Database values as cells of a ResultTable, and the caps on how many are kept."""

import datetime
import decimal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dbgpt_lite.messages import ResultTable


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may use: rows, bytes of cells kept, seconds."""

    rows: int
    seconds: float
    bytes: int = 16 * 2**20

    @property
    def bytes_read(self) -> int:
        """What may come from the database at all, e.g. one row of many huge values; four times the bytes kept."""
        return 4 * self.bytes


def cell(value: object) -> object:
    """`value` as str, int, float, bool or None. Decimals keep every digit: as text where a float would not."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, decimal.Decimal):
        return _decimal(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _hours(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return str(value)


def _hours(value: datetime.timedelta) -> str:
    """A TIME of MySQL, which may be negative and longer than a day, as [-]hh:mm:ss."""
    minutes, seconds = divmod(abs(value).seconds, 60)
    hours = abs(value).days * 24 + minutes // 60
    fraction = f".{abs(value).microseconds:06d}" if value.microseconds else ""
    return f"{'-' * (value.days < 0)}{hours:02d}:{minutes % 60:02d}:{seconds:02d}{fraction}"


def _decimal(value: decimal.Decimal) -> object:
    """An int when it is whole and declared so, a float when that is exact in 15 digits, else the digits as text."""
    if not value.is_finite():
        return str(value)
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= 0:
        return int(value)
    return float(value) if len(value.as_tuple().digits) <= 15 else format(value, "f")


def _size(row: tuple[object, ...]) -> int:
    return sum(len(value) * 2 + 50 if isinstance(value, str) else 32 for value in row)


def collect(columns: Iterable[str], rows: Iterable[Iterable[object]], limits: Limits, started: float) -> ResultTable:
    """Rows up to the limits. `truncated` tells that there were more; `started` is time.monotonic() of the start."""
    kept: list[tuple[object, ...]] = []
    used, truncated = 0, False
    for row in rows:
        if len(kept) >= limits.rows or used > limits.bytes:
            truncated = True
            break
        cells = tuple(cell(value) for value in row)
        used += _size(cells)
        kept.append(cells)
    return ResultTable(tuple(columns), tuple(kept), truncated, time.monotonic() - started)
