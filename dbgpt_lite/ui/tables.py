"""Query results as an HTML table and as a CSV file."""

import csv
import io
import json

from markupsafe import Markup, escape

from dbgpt_lite.messages import ResultTable
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say

SHOWN_ROWS = 200
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def result_table(table: ResultTable, language: Language) -> Markup:
    """The first SHOWN_ROWS rows, every cell as text."""
    if not table.columns:
        return Markup("")
    head = Markup("").join(_head(name, n, table) for n, name in enumerate(table.columns))
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(_cell(value) for value in row)) for row in table.rows[:SHOWN_ROWS]
    )
    return Markup(
        '<div class="table-box" tabindex="0"><table class="result-table"><thead><tr>{}</tr></thead>'
        '<tbody>{}</tbody></table></div><p class="table-note">{}</p>'
    ).format(head, rows, table_note(table, language))


def table_note(table: ResultTable, language: Language) -> str:
    """How many rows there are, how many of them are shown, and whether the limit cut them."""
    count = len(table.rows)
    parts = [say("rows_one" if count == 1 else "rows", language, count=f"{count:,}")]
    if count > SHOWN_ROWS:
        parts.append(say("rows_shown", language, shown=SHOWN_ROWS))
    if table.truncated:
        parts.append(say("rows_cut", language))
    return " · ".join(parts)


def _head(name: str, column: int, table: ResultTable) -> Markup:
    values = [row[column] for row in table.rows[:SHOWN_ROWS] if row[column] is not None]
    kind = "number" if values and all(_is_number(value) for value in values) else "text"
    return Markup('<th class="{}">{}</th>').format(kind, name)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> Markup:
    if value is None:
        return Markup('<td class="null">NULL</td>')
    if isinstance(value, bool):
        return Markup("<td>{}</td>").format("true" if value else "false")
    if _is_number(value):
        return Markup('<td class="number">{}</td>').format(value)
    return Markup("<td>{}</td>").format(escape(str(value)))


def to_csv(table: ResultTable) -> str:
    """RFC 4180 with a byte order mark, which spreadsheet programs need to read Chinese.

    Text that a spreadsheet would run as a formula gets a leading apostrophe
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out)
    writer.writerow([_harmless(name) for name in table.columns])
    writer.writerows([[_harmless(value) for value in row] for row in table.rows])
    return out.getvalue()


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS):
        return f"'{value}"
    return "" if value is None else value


def download(name: str, content: str) -> str:
    """A file for page.js to hand to the reader: made in the browser, never written here nor served by a path."""
    return json.dumps({"name": name, "text": content})
