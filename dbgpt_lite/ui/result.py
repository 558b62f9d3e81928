"""A query and what came of it, as the chat and the Data page show it: SQL, chart, rows, files. Pure; all escaped.

Every part carries ``data-part`` and ``data-of``: by the two, queries.js puts a new drawing of a part in its place.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import ChartKind, ChartSpec, ResultTable
from dbgpt_lite.sql.charts import checked, choices, propose
from dbgpt_lite.sql.labels import column_label
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.chart import chart
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon
from dbgpt_lite.ui.markdown import highlight
from dbgpt_lite.ui.tables import result_table, table_foot

_CHART_KINDS: tuple[ChartKind, ...] = ("none", "bar", "line", "scatter", "pie")


def part(name: str, of: str, content: Markup | str = "") -> Markup:
    """A place that can be drawn anew by itself."""
    return Markup('<div class="part-{}" data-part="{}" data-of="{}">{}</div>').format(name, name, of, content)


def query_block(sql: str, language: Language, of: str = "", edited: bool = False) -> Markup:
    """The query with its colours; with `of`, it can be edited, run again and explained where it stands."""
    if not sql:
        return Markup("")
    head = "SQL · " + say("sql_edited", language) if edited else "SQL"
    tools = _tool("edit-sql", "pencil", "edit_sql", "edit_sql", language, of) if of else Markup("")
    tools += _tool("explain-sql", "bulb", "explain_sql", "explain_hint", language, of) if of else Markup("")
    label = say("copy", language)
    code = Markup(
        '<figure class="code sql"><figcaption><span>{}</span><span class="code-tools">{}'
        '<button type="button" class="copy" data-copy="code" title="{}" aria-label="{}">{}</button></span></figcaption>'
        "<pre><code>{}</code></pre></figure>"
    ).format(head, tools, label, label, icon("copy"), highlight(sql, "sql"))
    below = part("problem", of) + part("explained", of) if of else ""
    return Markup('<div class="query">{}{}</div>').format(code, below)


def result_block(
    table: ResultTable, language: Language, of: str, spec: ChartSpec | None = None, title: str = "", size: int = 10
) -> Markup:
    """Chart, rows and files of a result; an empty one says so."""
    if not table.rows:
        note = Markup('<p class="no-rows">{}</p>').format(say("no_rows", language))
        return note + table_foot(table, language, of)
    drawn = part("chart", of, chart_block(table, spec, language, of, title))
    return drawn + part("rows", of, result_table(table, language, of, 0, size))


def chart_block(
    table: ResultTable, spec: ChartSpec | None, language: Language, of: str = "", title: str = ""
) -> Markup:
    """The chart a reader chose, else the one that fits; with `of`, choices to change it. Empty when none fits."""
    possible = choices(table)
    if not possible.kinds:
        return Markup("")
    shown = _fitting(table, spec, title)
    picture = chart(shown, table, language)
    return (_controls(table, shown, language, of) if of else Markup("")) + picture


def chosen_chart(facts: Mapping[str, str]) -> ChartSpec:
    """What a reader chose, as page.js sends it: kind, x and y (places, separated by commas; "" for the best that fit).

    Raises UserError for anything else.
    """
    kind = next((known for known in _CHART_KINDS if known == facts.get("kind")), None)
    x, y = facts.get("x", ""), [place for place in facts.get("y", "").split(",") if place]
    if kind is None or not all(place.isascii() and place.isdigit() and len(place) < 6 for place in [*y, x or "0"]):
        raise UserError("sql.chart_kind")
    return ChartSpec(kind, int(x or -1), tuple(int(place) for place in y))


def explanation(steps: Sequence[str]) -> Markup:
    """What a query does, step by step."""
    lines = Markup("").join(Markup("<li>{}</li>").format(step) for step in steps)
    return Markup('<ol class="explained">{}</ol>').format(lines)


def _fitting(table: ResultTable, spec: ChartSpec | None, title: str) -> ChartSpec:
    """A stored choice that no longer fits (the query was edited meanwhile) gives way to the proposal."""
    if spec is not None:
        try:
            return checked(spec, table)
        except UserError:
            pass
    return propose(table, title) or ChartSpec("none")


def _controls(table: ResultTable, shown: ChartSpec, language: Language, of: str) -> Markup:
    possible = choices(table)
    kinds = [(kind, say(f"chart_{kind}", language)) for kind in ("none", *possible.kinds)]
    controls = _choice("kind", kinds, shown.kind, say("chart", language), of)
    if shown.kind != "none":
        across = [(str(place), column_label(table.columns[place], language)) for place in possible.x[shown.kind]]
        controls += _choice("x", across, str(shown.x), say("chart_x", language), of)
        controls += _choice("y", _value_choices(table, shown, language), _places(shown.y), say("chart_y", language), of)
    return Markup('<div class="chart-tools">{}</div>').format(controls)


def _value_choices(table: ResultTable, shown: ChartSpec, language: Language) -> list[tuple[str, str]]:
    """Each column of numbers by itself, and those that are or would be drawn together."""
    proposed = propose(table)
    together = {spec.y for spec in (shown, proposed) if spec and len(spec.y) > 1 and shown.kind in ("bar", "line")}
    single = [(place,) for place in choices(table).y if place != shown.x]
    names = [column_label(name, language) for name in table.columns]
    return [(_places(y), ", ".join(names[place] for place in y)) for y in [*single, *sorted(together)]]


def _places(columns: Sequence[int]) -> str:
    return ",".join(map(str, columns))


def _choice(name: str, options: Sequence[tuple[str, str]], chosen: str, label: str, of: str) -> Markup:
    rows = Markup("").join(
        Markup('<option value="{}"{}>{}</option>').format(value, Markup(" selected") if value == chosen else "", words)
        for value, words in options
    )
    return Markup(
        '<label><span>{}</span><select class="small" name="{}" data-change="chart" data-of="{}" aria-label="{}">'
        "{}</select></label>"
    ).format(label, name, of, label, rows)


def _tool(name: str, picture: str, words: str, hint: str, language: Language, of: str) -> Markup:
    return Markup(
        '<button type="button" class="{} text-button" data-of="{}" title="{}">{}<span>{}</span></button>'
    ).format(name, of, say(hint, language), icon(picture), say(words, language))
