"""A chart chosen from a result's shape, changed only among validated choices. Pure; never code from a model.

Choosing, judged by the columns' kinds (columns.py) and the number of rows:

    time and numbers, no moment twice          line, in order of time
    names and numbers that sum to 1 or 100     pie, the tail summed up as one slice
    names and numbers, at most MAX_BARS rows   bar; numbers that name things are names where there are no others
    two columns of numbers                     scatter
    anything else                              none; the reader may still choose one that fits
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import ChartKind, ChartSort, ChartSpec, ResultTable
from dbgpt_lite.sql.columns import ColumnKind, column_kinds, number, position

MAX_BARS = 40
MAX_POINTS = 400
MAX_SLICES = 8
MAX_SERIES = 4
_KINDS: tuple[ChartKind, ...] = ("bar", "line", "scatter", "pie")
# Series that differ more in size would show only the largest.
_COMPARABLE = 20.0


@dataclass(frozen=True, slots=True)
class Choices:
    """What a reader may choose for a result: kinds, and the columns that fit each axis of a kind."""

    kinds: tuple[ChartKind, ...]
    x: dict[ChartKind, tuple[int, ...]]
    y: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One column of values; `values` are the cells as they came, None where there is nothing to draw."""

    name: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn, in order. `labels` name the points; `places` is where they lie on a scale, () when side by side.

    `shown` of `total` rows are drawn. `gathered`: how many rows the last slice of a pie sums up (0: none).
    """

    labels: tuple[str, ...]
    places: tuple[float, ...]
    series: tuple[Series, ...]
    shown: int
    total: int
    gathered: int = 0


def choices(table: ResultTable) -> Choices:
    """The charts that fit a result; no kinds when none does."""
    kinds = column_kinds(table)
    values = tuple(place for place, kind in enumerate(kinds) if kind == "number")
    if len(table.rows) < 2 or not values or len(table.columns) < 2:
        return Choices((), {}, ())
    shares = [place for place in values if _has_shares(table, place)]
    beside = tuple(p for p, kind in enumerate(kinds) if kind != "blob" and values != (p,))
    fitting: dict[ChartKind, tuple[int, ...]] = {
        "bar": beside,
        "line": tuple(place for place in beside if kinds[place] != "text" and _distinct(table, place)),
        "scatter": values if len(values) > 1 else (),
        "pie": tuple(place for place in beside if shares and shares != [place]),
    }
    return Choices(tuple(kind for kind in _KINDS if fitting[kind]), {k: x for k, x in fitting.items() if x}, values)


def propose(table: ResultTable, title: str = "") -> ChartSpec | None:
    """The chart that fits a result's shape best, None when a table says more."""
    possible, kinds = choices(table), column_kinds(table)
    if not possible.kinds:
        return None
    measures = _measures(table, possible.y)
    distinct = [place for place, kind in enumerate(kinds) if kind != "blob" and _distinct(table, place)]
    keys = [place for place in distinct if kinds[place] == "number" and _is_key(table.columns[place])]
    names = [place for place in distinct if kinds[place] == "text"] or ([] if "text" in kinds else keys)
    moments = [place for place in possible.x.get("line", ()) if kinds[place] == "time"]
    if moments and measures:
        return ChartSpec("line", moments[0], _comparable(table, measures), "x", title)
    if names and measures:
        if len(measures) == 1 and _are_shares(table, measures[0]):
            return ChartSpec("pie", names[0], (measures[0],), "y", title)
        if len(table.rows) <= MAX_BARS:
            return ChartSpec("bar", names[0], _comparable(table, measures), "rows", title)
    if "text" not in kinds and len(measures) == 2 and len(table.rows) > 2:
        return ChartSpec("scatter", measures[0], (measures[1],), "rows", title)
    return None


def checked(spec: ChartSpec, table: ResultTable) -> ChartSpec:
    """A reader's choice, made to fit: what does not is replaced by the best that does, and values are never drawn
    against themselves. Raises UserError when nothing fits.
    """
    if spec.kind == "none":
        return spec
    possible = choices(table)
    if spec.kind not in possible.kinds:
        raise UserError("sql.chart_kind")
    x = spec.x if spec.x in possible.x[spec.kind] else _best_x(spec.kind, table, possible)
    fitting = [p for p in possible.y if p != x and (spec.kind != "pie" or _has_shares(table, p))]
    y = tuple(dict.fromkeys(place for place in spec.y if place in fitting))
    if not y and not fitting:
        raise UserError("sql.chart_columns")
    y = (y or _comparable(table, _measures(table, fitting) or fitting))[: _most_series(spec.kind)]
    return ChartSpec(spec.kind, x, y, _sort_of(spec, column_kinds(table)[x]), spec.title)


def plot(spec: ChartSpec, table: ResultTable) -> Plot:
    """The points of a checked spec, sorted, cut to what can be read, a pie's tail summed up."""
    name = table.columns[spec.x]
    rows = [row for row in table.rows if any(number(row[place]) is not None for place in spec.y)]
    if spec.kind in ("line", "scatter"):
        rows = [row for row in rows if _place(row[spec.x], name) is not None]
    if spec.sort == "x":
        rows = sorted(rows, key=lambda row: _sortable(row[spec.x], name))
    elif spec.sort == "y":
        rows = sorted(rows, key=lambda row: -(number(row[spec.y[0]]) or 0.0))
    if spec.kind == "pie":
        return _slices(spec, table, rows)
    kept = rows[: MAX_BARS if spec.kind == "bar" else MAX_POINTS]
    placed = [_place(row[spec.x], name) for row in kept] if spec.kind != "bar" else []
    return Plot(
        tuple(_label(row[spec.x]) for row in kept),
        tuple(place for place in placed if place is not None),
        tuple(_series(table.columns[place], place, kept) for place in spec.y),
        len(kept),
        len(table.rows),
    )


def _slices(spec: ChartSpec, table: ResultTable, rows: Sequence[tuple[object, ...]]) -> Plot:
    """Shares of a whole: what lies past the largest MAX_SLICES - 1 becomes one slice without a label."""
    column = spec.y[0]
    shares = [row for row in rows if (number(row[column]) or 0.0) > 0]
    head, tail = (shares, []) if len(shares) <= MAX_SLICES else (shares[: MAX_SLICES - 1], shares[MAX_SLICES - 1 :])
    labels = [_label(row[spec.x]) for row in head]
    values: list[object] = [row[column] for row in head]
    if tail:
        labels.append("")
        values.append(sum(number(row[column]) or 0.0 for row in tail))
    series = (Series(table.columns[column], tuple(values)),)
    return Plot(tuple(labels), (), series, len(shares), len(table.rows), len(tail))


def _series(name: str, place: int, rows: Sequence[tuple[object, ...]]) -> Series:
    return Series(name, tuple(row[place] if number(row[place]) is not None else None for row in rows))


def _best_x(kind: ChartKind, table: ResultTable, possible: Choices) -> int:
    """Moments before names before numbers; for a cloud, the first measure."""
    kinds = column_kinds(table)
    fitting = possible.x[kind]
    if kind == "scatter":
        return (_measures(table, fitting) or list(fitting))[0]
    order: tuple[ColumnKind, ...] = ("time", "text", "number")
    return min(fitting, key=lambda place: (order.index(kinds[place]), not _distinct(table, place)))


def _sort_of(spec: ChartSpec, kind: ColumnKind) -> ChartSort:
    if spec.kind == "line" or (spec.kind == "bar" and kind == "time"):
        return "x"
    return "y" if spec.kind == "pie" else spec.sort if spec.kind == "bar" else "rows"


def _most_series(kind: ChartKind) -> int:
    return MAX_SERIES if kind in ("bar", "line") else 1


def _place(value: object, name: str) -> float | None:
    placed = position(value, name)
    return placed if placed is not None else number(value)


def _sortable(value: object, name: str) -> tuple[int, float, str]:
    placed = _place(value, name)
    return (0, placed, "") if placed is not None else (1, 0.0, _label(value))


def _label(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return "NULL" if value is None else str(value)


def _distinct(table: ResultTable, place: int) -> bool:
    values = [row[place] for row in table.rows if row[place] is not None]
    return len(set(values)) == len(values)


def _measures(table: ResultTable, places: Sequence[int]) -> list[int]:
    return [place for place in places if not _is_key(table.columns[place])]


def _is_key(name: str) -> bool:
    """Numbers that name a thing are no measure."""
    lowered = name.lower()
    return lowered == "id" or lowered.endswith(("_id", " id", "编号", "序号")) or name.endswith("ID")


def _comparable(table: ResultTable, measures: Sequence[int]) -> tuple[int, ...]:
    """The first measure, and those after it that are of its order of size."""
    sizes = {place: max(abs(number(row[place]) or 0.0) for row in table.rows) for place in measures}
    first = sizes[measures[0]]
    near = (p for p in measures if p == measures[0] or first / _COMPARABLE <= sizes[p] <= first * _COMPARABLE)
    return tuple(near)[:MAX_SERIES]


def _has_shares(table: ResultTable, place: int) -> bool:
    """Whether values can be parts of a whole: none is negative, one is there."""
    drawn = [value for value in (number(row[place]) for row in table.rows) if value is not None]
    return bool(drawn) and min(drawn) >= 0 and max(drawn) > 0


def _are_shares(table: ResultTable, place: int) -> bool:
    """Whether values are shares already: they sum to 1 or to 100, as far as rounding lets them."""
    if not _has_shares(table, place):
        return False
    total = sum(number(row[place]) or 0.0 for row in table.rows)
    return abs(total - 1) <= 0.005 or abs(total - 100) <= 0.5
