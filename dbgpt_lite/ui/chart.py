"""A chart as inline SVG: no script, no library, nothing fetched; colours and fonts are style.css's.

Text in a picture that shrinks cannot be read, so a chart is drawn twice, for a wide and for a narrow column, and
style.css shows the one that fits. Marks carry their values as ``data-tip``, which queries.js shows under the pointer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from dbgpt_lite.messages import ChartSpec, ResultTable
from dbgpt_lite.sql.charts import Plot, plot
from dbgpt_lite.sql.columns import column_kinds, number
from dbgpt_lite.sql.labels import column_label
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.scale import cut, exact, short, text_width, ticks

WIDE, NARROW = 720, 360
_FONT = 12.0
_HEIGHT = 250.0
_BAR = 15.0


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie: the drawing area, and the range of values that its height (or width) stands for."""

    left: float
    top: float
    width: float
    height: float
    marks: tuple[float, ...]

    def up(self, value: float) -> float:
        """The y of a value."""
        return self.top + self.height * (1 - self._share(value))

    def along(self, value: float) -> float:
        """The x of a value."""
        return self.left + self.width * self._share(value)

    def _share(self, value: float) -> float:
        return (value - self.marks[0]) / (self.marks[-1] - self.marks[0])


def chart(spec: ChartSpec, table: ResultTable, language: Language) -> Markup:
    """The drawings of a checked spec with its title and its legend; empty for kind "none" and for no points."""
    points = plot(spec, table) if spec.kind != "none" else None
    if points is None or not points.labels:
        return Markup("")
    title = spec.title or chart_title(spec, table, language)
    drawings = Markup("").join(
        Markup(
            '<svg class="chart {}" viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}"><desc>{}</desc>{}</svg>'
        ).format(name, width, round(height), width, title, summary(points, language), marks)
        for name, width in (("wide", WIDE), ("narrow", NARROW))
        for height, marks in (_drawn(spec, table, points, width, language),)
    )
    caption = Markup("<figcaption>{}</figcaption>").format(chart_title(spec, table, language))
    note = Markup('<p class="chart-note">{}</p>').format(part) if (part := _part(points, language)) else ""
    legend = _legend(points) if len(points.series) > 1 else ""
    return Markup('<figure class="drawing" data-kind="{}">{}{}{}{}</figure>').format(
        spec.kind, caption, legend, drawings, note
    )


def chart_title(spec: ChartSpec, table: ResultTable, language: Language) -> str:
    """What is drawn against what, by the columns' names."""
    values = ", ".join(column_label(table.columns[place], language) for place in spec.y)
    return say("chart_title", language, y=values, x=column_label(table.columns[spec.x], language))


def summary(points: Plot, language: Language) -> str:
    """What a listener is told instead of the picture: how many points, and the largest and smallest."""
    drawn = [(n, label, v) for label, v in zip(points.labels, points.series[0].values, strict=True)
             if (n := number(v)) is not None]  # fmt: skip
    if not drawn:
        return ""
    largest, smallest = max(drawn, key=lambda one: one[0]), min(drawn, key=lambda one: one[0])
    facts = {"count": len(points.labels), "most": largest[1], "most_value": exact(largest[2])}
    return say("chart_summary", language, **facts, least=smallest[1], least_value=exact(smallest[2]))


def shape(name: str, words: str = "", **facts: object) -> Markup:
    """One SVG element; `facts` are its attributes ("_" becomes "-"), numbers with one decimal."""
    attributes = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), f"{v:.1f}" if isinstance(v, float) else v)
        for key, v in facts.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), attributes, words, Markup(name))


def _drawn(spec: ChartSpec, table: ResultTable, points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """Height and marks."""
    if spec.kind == "pie":
        return _pie(points, width, language)
    if spec.kind == "line":
        return _line(points, width, language)
    if spec.kind == "scatter":
        return _scatter(spec, table, points, width, language)
    in_time = column_kinds(table)[spec.x] == "time"
    slot = (width - 60) / len(points.labels)
    short_names = max(text_width(label, _FONT) for label in points.labels) <= slot - 6
    upright = in_time or (short_names and len(points.labels) <= 12)
    return _columns(points, width, language) if upright else _bars(points, width, language)


# --- Bars


def _columns(points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """Upright bars, for few names or moments in time."""
    frame = _value_frame(points, width, language, from_zero=True)
    slot = frame.width / len(points.labels)
    thick = min(slot * 0.72 / len(points.series), 46.0)
    marks = _grid(frame, width, language)
    for at, label in enumerate(points.labels):
        middle = frame.left + slot * (at + 0.5)
        for place, series in enumerate(points.series):
            value = number(series.values[at])
            if value is not None:
                x = middle + (place - len(points.series) / 2) * thick
                top, bottom = sorted((frame.up(value), frame.up(0.0)))
                tip = _tip(label, column_label(series.name, language), series.values[at])
                marks += _bar(x, top, max(thick - 1.5, 0.8), max(bottom - top, 0.5), place, tip)
    middles = [frame.left + slot * (at + 0.5) for at in range(len(points.labels))]
    return frame.top + frame.height + 26, marks + _names_below(points.labels, middles, frame, width)


def _bars(points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """Lying bars, for many or long names: each name stands beside its bar, each value at its end."""
    names = min(max(text_width(label, _FONT) for label in points.labels) + 2, width * 0.36)
    marks_of_axis = ticks(*_range(points, from_zero=True), 5)
    each = _BAR * len(points.series) + 9
    frame = _Frame(names + 8, 4.0, width - names - 8 - 64, each * len(points.labels), marks_of_axis)
    zero = frame.along(0.0)
    marks = shape("line", class_="zero", x1=zero, x2=zero, y1=frame.top, y2=frame.top + frame.height)
    for at, label in enumerate(points.labels):
        top = frame.top + each * at + 4.5
        middle = top + _BAR * len(points.series) / 2
        words = cut(label, names, _FONT)
        marks += shape("text", words, class_="name", x=names, y=middle + 4, text_anchor="end")
        for place, series in enumerate(points.series):
            value = number(series.values[at])
            if value is None:
                continue
            start, end = sorted((frame.along(value), zero))
            y = top + _BAR * place
            tip = _tip(label, column_label(series.name, language), series.values[at])
            marks += _bar(start, y, max(end - start, 0.5), _BAR - 2, place, tip)
            marks += shape("text", short(value, language), class_="value", x=end + 5, y=y + 10.5)
    return frame.top + frame.height + 4, marks


def _bar(x: float, y: float, width: float, height: float, place: int, tip: str) -> Markup:
    return shape("rect", class_=f"c{place}", x=x, y=y, width=width, height=height, rx=2, data_tip=tip)


# --- Lines and clouds


def _line(points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """Lines over time or a scale; where a value is missing, the line is broken."""
    frame = _value_frame(points, width, language, from_zero=False)
    along = _spread(points.places, frame)
    marks = _grid(frame, width, language)
    for place, series in enumerate(points.series):
        for run in _runs(along, series.values, frame):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            marks += shape("polyline", class_=f"l{place}", points=path) if len(run) > 1 else ""
            if len(run) == 1 or len(points.labels) <= 40:
                marks += Markup("").join(shape("circle", class_=f"c{place}", cx=x, cy=y, r=2.6) for x, y in run)
    marks += _names_below(points.labels, along, frame, width)
    edges = [frame.left, *((a + b) / 2 for a, b in pairwise(along)), frame.left + frame.width]
    for at, label in enumerate(points.labels):
        named = [(s.name, s.values[at]) for s in points.series if s.values[at] is not None]
        tip = f"{label}\n" + "\n".join(f"{name}: {exact(value)}" for name, value in named)
        marks += shape(
            "rect", class_="hit", x=edges[at], y=frame.top, width=max(edges[at + 1] - edges[at], 1.0),
            height=frame.height, data_tip=tip,
        )  # fmt: skip
    return frame.top + frame.height + 26, marks


def _scatter(spec: ChartSpec, table: ResultTable, points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """A cloud of points over two scales of numbers."""
    frame = _value_frame(points, width, language, from_zero=False)
    sides = ticks(min(points.places), max(points.places), 6 if width == WIDE else 4)
    across = _Frame(frame.left, 0.0, frame.width, 0.0, sides)
    marks = _grid(frame, width, language)
    foot = frame.top + frame.height
    for mark in sides:
        x = across.along(mark)
        marks += shape("text", short(mark, language), class_="tick", x=x, y=foot + 17, text_anchor="middle")
    name_x, series = column_label(table.columns[spec.x], language), points.series[0]
    for label, place, value in zip(points.labels, points.places, series.values, strict=True):
        y = number(value)
        if y is not None:
            tip = f"{name_x}: {label}\n{column_label(series.name, language)}: {exact(value)}"
            marks += shape("circle", class_="c0 dot", cx=across.along(place), cy=frame.up(y), r=4, data_tip=tip)
    return foot + 26, marks


def _runs(along: Sequence[float], values: Sequence[object], frame: _Frame) -> list[list[tuple[float, float]]]:
    """The points of a series in stretches without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, cell in zip(along, values, strict=True):
        value = number(cell)
        if value is None:
            runs.append([])
        else:
            runs[-1].append((x, frame.up(value)))
    return [run for run in runs if run]


def _spread(places: Sequence[float], frame: _Frame) -> list[float]:
    """Points along the foot, as far apart as their moments are, with a little room at both ends."""
    first, span = min(places), max(places) - min(places)
    if span <= 0:
        return [frame.left + frame.width / 2 for _ in places]
    return [frame.left + 8 + (frame.width - 16) * (place - first) / span for place in places]


# --- Shares


def _pie(points: Plot, width: int, language: Language) -> tuple[float, Markup]:
    """A ring with its slices' names, values and shares beside it (below it where there is no room)."""
    radius, wide = 88.0, width == WIDE
    middle_x, middle_y = (118.0 if wide else width / 2), 100.0
    values = [number(value) or 0.0 for value in points.series[0].values]
    total = sum(values)
    marks, turned = Markup(""), 0.0
    for at, value in enumerate(values):
        name = points.labels[at] if at < len(values) - 1 or not points.gathered else _rest(points, language)
        share = value / total
        words = f"{short(value, language)} · {share * 100:.1f}%"
        tip = f"{name}\n{_digits_of(points, at)} · {share * 100:.1f}%"
        colour = "c7" if points.gathered and at == len(values) - 1 else f"c{at}"
        marks += _slice(middle_x, middle_y, radius, turned, turned + share, colour, tip)
        turned += share
        x, y = (260.0, 100 - len(values) * 11 + at * 22 + 11.0) if wide else (14.0, 222.0 + at * 22)
        marks += shape("rect", class_=colour, x=x, y=y - 9, width=10, height=10, rx=3)
        room = width - x - 36 - text_width(words, _FONT)
        marks += shape("text", cut(name, room, _FONT), class_="name", x=x + 18, y=y)
        marks += shape("text", words, class_="value", x=width - 8.0, y=y, text_anchor="end")
    return (200.0 if wide else 222 + len(values) * 22.0), marks


def _slice(x: float, y: float, radius: float, start: float, end: float, colour: str, tip: str) -> Markup:
    """A piece of a ring from one share of the turn to another. An arc of SVG cannot go all the way round."""
    if end - start > 0.9999:
        return shape("circle", class_=f"{colour} ring", cx=x, cy=y, r=radius * 0.79, data_tip=tip)
    inner = radius * 0.58
    (sin1, cos1), (sin2, cos2) = ((math.sin(t * math.tau), math.cos(t * math.tau)) for t in (start, end))
    large = int(end - start > 0.5)
    path = (
        f"M{x + radius * sin1:.2f} {y - radius * cos1:.2f}A{radius:.1f} {radius:.1f} 0 {large} 1 "
        f"{x + radius * sin2:.2f} {y - radius * cos2:.2f}L{x + inner * sin2:.2f} {y - inner * cos2:.2f}"
        f"A{inner:.1f} {inner:.1f} 0 {large} 0 {x + inner * sin1:.2f} {y - inner * cos1:.2f}Z"
    )
    return shape("path", class_=f"{colour} slice", d=path, data_tip=tip)


def _digits_of(points: Plot, at: int) -> str:
    return exact(points.series[0].values[at])


def _rest(points: Plot, language: Language) -> str:
    return say("chart_rest", language, count=points.gathered)


# --- Axes, legend, words


def _value_frame(points: Plot, width: int, language: Language, from_zero: bool) -> _Frame:
    """The drawing area right of the widest number of the axis."""
    counted = all(isinstance(value, int) for series in points.series for value in series.values if value is not None)
    marks = ticks(*_range(points, from_zero), 5, whole=counted)
    left = max(text_width(short(mark, language), _FONT) for mark in marks) + 10
    return _Frame(left, 10.0, width - left - 10, _HEIGHT - 36, marks)


def _range(points: Plot, from_zero: bool) -> tuple[float, float]:
    drawn = [v for series in points.series for cell in series.values if (v := number(cell)) is not None]
    low, high = min(drawn), max(drawn)
    # A line that stays far from zero shows its changes better without it.
    if from_zero or 0 <= low < high * 0.5 or high * 0.5 < low <= high <= 0:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def _grid(frame: _Frame, width: int, language: Language) -> Markup:
    marks = Markup("")
    for mark in frame.marks:
        y = frame.up(mark)
        marks += shape("line", class_="zero" if mark == 0 else "grid", x1=frame.left, x2=width - 10.0, y1=y, y2=y)
        words = short(mark, language)
        marks += shape("text", words, class_="tick", x=frame.left - 8, y=y + 4, text_anchor="end")
    return marks


def _names_below(labels: Sequence[str], along: Sequence[float], frame: _Frame, width: int) -> Markup:
    """Names under their points: all of them, or every second, third, ... so that none runs into the next."""
    words = [cut(label, 120, _FONT) for label in labels]
    wide = [text_width(word, _FONT) for word in words]
    places = [min(max(x, w / 2 + 2), width - w / 2 - 2) for x, w in zip(along, wide, strict=True)]
    steps = (range(0, len(words), step) for step in range(1, len(words) + 1))
    chosen = next(
        shown for shown in steps
        if all(places[a] + wide[a] / 2 + 8 <= places[b] - wide[b] / 2 for a, b in pairwise(shown))
    )  # fmt: skip
    foot = frame.top + frame.height + 17
    return Markup("").join(
        shape("text", words[at], class_="tick", x=places[at], y=foot, text_anchor="middle") for at in chosen
    )


def _legend(points: Plot) -> Markup:
    names = Markup("").join(
        Markup('<span><i class="c{}"></i>{}</span>').format(place, series.name)
        for place, series in enumerate(points.series)
    )
    return Markup('<div class="legend" aria-hidden="true">{}</div>').format(names)


def _part(points: Plot, language: Language) -> str:
    """Whether all rows are drawn."""
    if points.shown >= points.total:
        return ""
    return say("chart_part", language, shown=points.shown, total=points.total)


def _tip(label: str, name: str, value: object) -> str:
    return f"{label}\n{name}: {exact(value)}"
