"""Whether two results say the same thing.

The rows must be the same as often (a multiset), in the same order where order is asked for. The columns may stand in
another order and have other names, as in Spider's test-suite evaluation. Whole numbers are compared exactly, however
they are typed; a number with a fraction to 1e-6 of its size. Text that spells a plain number is that number, so
that a year or a month ("03") counts however it was taken from a date. NULL equals NULL and nothing else.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dbgpt_lite.messages import ResultTable

TOLERANCE = 1e-6
ROWS_SHOWN = 5
_EXACT = 2.0**53
_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?", re.ASCII)
# Orders of columns that are tried when several columns hold the same values; Spider gives up in a similar way.
_MAX_ORDERS = 200
# Rows that differ in numbers with a fraction only, and so are paired one by one.
_MAX_PAIRED = 400

Cell = None | str | int | float
Row = tuple[Cell, ...]
Reason = Literal["columns", "rows", "values", "order"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that differs, and the first rows that only one of the results has, as they came."""

    reason: Reason
    missing: tuple[tuple[object, ...], ...] = ()
    unexpected: tuple[tuple[object, ...], ...] = ()


def compare(gold: ResultTable, found: ResultTable, ordered: bool) -> Difference | None:
    """What keeps `found` from saying the same as `gold`; None when nothing does."""
    if len(gold.columns) != len(found.columns):
        return Difference("columns", gold.rows[:ROWS_SHOWN], found.rows[:ROWS_SHOWN])
    wanted, given = _rows(gold), _rows(found)
    if len(wanted) == len(given) and _columns_in_order(wanted, given, ordered) is not None:
        return None
    missing, unexpected = _only(wanted, given), _only(given, wanted)
    if not missing and not unexpected:
        place = next(n for n, (one, other) in enumerate(zip(wanted, given, strict=True)) if not _same(one, other))
        window = slice(place, place + ROWS_SHOWN)
        return Difference("order", gold.rows[window], found.rows[window])
    return Difference(
        "values" if len(wanted) == len(given) else "rows",
        tuple(gold.rows[n] for n in missing[:ROWS_SHOWN]),
        tuple(found.rows[n] for n in unexpected[:ROWS_SHOWN]),
    )


def _rows(table: ResultTable) -> list[Row]:
    return [tuple(_plain(cell) for cell in row) for row in table.rows]


def _plain(cell: object) -> Cell:
    """The cell with every whole number an int and every other number a float."""
    if isinstance(cell, str):
        if not _NUMBER.fullmatch(cell):
            return cell
        cell = float(cell) if "." in cell else int(cell)
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) < _EXACT else cell
    return int(cell) if isinstance(cell, bool | int) else None if cell is None else str(cell)


def _equal(one: Cell, other: Cell) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9)  # type: ignore[arg-type]
    return type(one) is type(other) and one == other


def _same(one: Row, other: Row) -> bool:
    return all(map(_equal, one, other))


def _columns_in_order(wanted: Sequence[Row], given: Sequence[Row], ordered: bool) -> tuple[int, ...] | None:
    """Which column of `given` stands for each of `wanted` so that the rows are the same; None when there is no way."""
    if not wanted:
        return ()
    sources, targets = list(zip(*given, strict=True)), list(zip(*wanted, strict=True))
    choices = [
        sorted((n for n in range(len(sources)) if _same_column(target, sources[n], ordered)), key=lambda n: n != place)
        for place, target in enumerate(targets)
    ]
    tries = 0

    def search(chosen: tuple[int, ...]) -> tuple[int, ...] | None:
        nonlocal tries
        if len(chosen) == len(targets):
            tries += 1
            return chosen if _same_rows(wanted, [tuple(row[n] for n in chosen) for row in given], ordered) else None
        seen: set[tuple[Cell, ...]] = set()
        for n in choices[len(chosen)]:
            # Two columns with the same cells are one choice.
            if n not in chosen and sources[n] not in seen and tries < _MAX_ORDERS:
                seen.add(sources[n])
                if found := search((*chosen, n)):
                    return found
        return None

    return search(())


def _same_column(one: Sequence[Cell], other: Sequence[Cell], ordered: bool) -> bool:
    return _same_rows([(cell,) for cell in one], [(cell,) for cell in other], ordered)


def _same_rows(wanted: Sequence[Row], given: Sequence[Row], ordered: bool) -> bool:
    if ordered:
        return all(map(_same, wanted, given))
    return not _only(wanted, given)


def _only(these: Sequence[Row], others: Sequence[Row]) -> list[int]:
    """Places of the rows of `these` that `others` does not have, or not as often."""
    left: dict[Row, list[Row]] = defaultdict(list)
    for row in others:
        left[_without_numbers(row)].append(row)
    mine: dict[Row, list[int]] = defaultdict(list)
    for place, row in enumerate(these):
        mine[_without_numbers(row)].append(place)
    alone = [n for key, places in mine.items() for n in _unpaired(these, places, left.get(key, []))]
    return sorted(alone)


def _without_numbers(row: Row) -> Row:
    """What must be equal to the letter: numbers are left out, since nearly equal ones may match."""
    return tuple(0 if isinstance(cell, int | float) else cell for cell in row)


def _unpaired(these: Sequence[Row], places: Sequence[int], others: Sequence[Row]) -> list[int]:
    """Places of rows that find no partner among `others`: equal rows first, then near ones."""
    free = Counter(others)
    rest: list[int] = []
    for place in places:
        if free[these[place]]:
            free[these[place]] -= 1
        else:
            rest.append(place)
    remaining = sorted(free.elements())  # type: ignore[type-var]
    rest.sort(key=lambda place: these[place])  # type: ignore[arg-type, return-value]
    if len(rest) == len(remaining) and all(_same(these[n], row) for n, row in zip(rest, remaining, strict=True)):
        return []
    if len(rest) > _MAX_PAIRED or len(remaining) > _MAX_PAIRED:
        return rest
    return _without_partner(these, rest, remaining)


def _without_partner(these: Sequence[Row], places: Sequence[int], others: Sequence[Row]) -> list[int]:
    """A largest pairing of near rows (augmenting paths); the places it leaves out."""
    near = {place: [n for n, row in enumerate(others) if _same(these[place], row)] for place in places}
    partner: dict[int, int] = {}

    def place_it(place: int, tried: set[int]) -> bool:
        for n in near[place]:
            if n not in tried:
                tried.add(n)
                if n not in partner or place_it(partner[n], tried):
                    partner[n] = place
                    return True
        return False

    return [place for place in places if not place_it(place, set())]
