"""Query results as an HTML table, a page of rows at a time. Every cell is text, whatever it holds. Pure."""

from collections.abc import Sequence

from markupsafe import Markup

from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.columns import number
from dbgpt_lite.sql.labels import column_label
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.figures import duration
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon

PAGE_SIZES = (10, 50, 200)
# A cell of a page is for reading; the files hold all of it.
MAX_CELL = 1000


def result_table(table: ResultTable, language: Language, of: str = "", page: int = 0, size: int = 10) -> Markup:
    """One page of rows with their numbers, and the way to the other pages. `of` names the result to page.js.

    A page that does not exist is the nearest that does.
    """
    if not table.columns:
        return Markup("")
    page = max(0, min(page, (len(table.rows) - 1) // size))
    first = page * size
    rows = table.rows[first : first + size]
    numbers = [_is_number_column([row[place] for row in table.rows]) for place in range(len(table.columns))]
    head = Markup("").join(
        _head(name, "number" if numeric else "text", language)
        for name, numeric in zip(table.columns, numbers, strict=True)
    )
    body = Markup("").join(_row(row, first + at, numbers) for at, row in enumerate(rows, 1))
    return Markup(
        '<div class="table-box" tabindex="0" role="region" aria-label="{}"><table class="result-table">'
        '<thead><tr><th class="row" aria-label="{}"></th>{}</tr></thead><tbody>{}</tbody></table></div>{}'
    ).format(
        table_note(table, language),
        say("row_number", language),
        head,
        body,
        table_foot(table, language, of, page, size),
    )


def _head(name: str, kind: str, language: Language) -> Markup:
    """The name of a column; of one that the query computes in words, with what it computes at hand."""
    label = column_label(name, language)
    title = Markup(' title="{}"').format(name) if label != name else ""
    return Markup('<th scope="col" class="{}"{}>{}</th>').format(kind, title, label)


def table_note(table: ResultTable, language: Language) -> str:
    """How many rows there are, whether the limit cut them, and how long the database took."""
    count = len(table.rows)
    note = [say("rows_one" if count == 1 else "rows", language, count=f"{count:,}")]
    if table.truncated:
        note.append(say("rows_cut", language))
    if table.seconds:
        note.append(duration(table.seconds, language))
    return " · ".join(note)


def table_foot(table: ResultTable, language: Language, of: str = "", page: int = 0, size: int = 10) -> Markup:
    """What there is, steps through the pages where there are several, and the files; with `of` only."""
    note = Markup('<p class="table-note">{}</p>').format(table_note(table, language))
    if not of:
        return note
    files = Markup('<span class="files">{}{}</span>').format(_file(of, "csv", language), _file(of, "xlsx", language))
    steps = _steps(table, language, of, page, size) if len(table.rows) > PAGE_SIZES[0] else ""
    return Markup('<div class="table-foot">{}{}{}</div>').format(note, steps, files)


def _steps(table: ResultTable, language: Language, of: str, page: int, size: int) -> Markup:
    count = len(table.rows)
    last, end = (count - 1) // size, min((page + 1) * size, count)
    place = say("page_range", language, first=f"{page * size + 1:,}", end=f"{end:,}", count=f"{count:,}")
    back, on = say("previous_page", language), say("next_page", language)
    return Markup('<span class="steps">{}<span class="place">{}</span>{}</span>{}').format(
        _step(of, page - 1, size, back, "back", page == 0),
        place,
        _step(of, page + 1, size, on, "next", page == last),
        _sizes(of, size, language),
    )


def _file(of: str, kind: str, language: Language) -> Markup:
    return Markup(
        '<button type="button" class="{} text-button" data-action="save_rows" data-of="{}" data-format="{}" '
        'title="{}">{}<span>{}</span></button>'
    ).format(kind, of, kind, say(f"{kind}_hint", language), icon("download"), say(kind, language))


def _step(of: str, page: int, size: int, label: str, picture: str, disabled: bool) -> Markup:
    return Markup(
        '<button type="button" class="icon-button page-{}" data-action="rows" data-of="{}" data-page="{}" '
        'data-size="{}" title="{}" aria-label="{}"{}>{}</button>'
    ).format(picture, of, page, size, label, label, Markup(" disabled") if disabled else "", icon(picture))


def _sizes(of: str, size: int, language: Language) -> Markup:
    options = Markup("").join(
        Markup('<option value="{}"{}>{}</option>').format(
            rows, Markup(" selected") if rows == size else "", say("rows_a_page", language, count=rows)
        )
        for rows in PAGE_SIZES
    )
    return Markup(
        '<select class="small" name="size" data-change="rows" data-of="{}" data-page="0" aria-label="{}">{}</select>'
    ).format(of, say("page_size", language), options)


def _is_number_column(values: Sequence[object]) -> bool:
    filled = [value for value in values if value is not None]
    return bool(filled) and all(_is_number(value) for value in filled)


def _is_number(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or number(value) is not None


def _row(row: Sequence[object], place: int, numbers: Sequence[bool]) -> Markup:
    cells = Markup("").join(_cell(value, numeric) for value, numeric in zip(row, numbers, strict=True))
    return Markup('<tr><th scope="row" class="row">{}</th>{}</tr>').format(f"{place:,}", cells)


def _cell(value: object, numeric: bool) -> Markup:
    if value is None:
        return Markup('<td class="null{}">NULL</td>').format(" number" if numeric else "")
    shown = cell_text(value)
    if len(shown) > MAX_CELL:
        return Markup('<td class="cut">{}…</td>').format(shown[:MAX_CELL])
    return Markup('<td class="{}">{}</td>').format("number" if numeric else "", shown)


def cell_text(value: object) -> str:
    """A cell as it is read: every digit of a number, no more than there are.

    A double holds 15 digits; what comes behind them is the rounding of sums (6112.799999999999).
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value)) if value else "0"
    return f"{value:.15g}" if isinstance(value, float) else str(value)
