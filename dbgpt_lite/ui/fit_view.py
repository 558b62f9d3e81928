"""Will it fit? The plan of a model folder as the Models page shows it before anything is loaded."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from dbgpt_lite.errors import UserError
from dbgpt_lite.llm.units import gib
from dbgpt_lite.texts import Language, text
from dbgpt_lite.ui.i18n import say

if TYPE_CHECKING:
    from dbgpt_lite.llm.case import Row
    from dbgpt_lite.llm.plan import Plan

_SIZES = ("weights", "cache", "working", "overhead", "total")


def fit_panels(plans: Mapping[str, "Plan | UserError"], language: Language) -> Markup:
    """One panel for each way to quantize; the style sheet shows the one whose option is chosen in the same row.

    When they are all the same (weights that are stored quantized stay so), there is one panel, always shown.
    """
    panels = {wanted: _panel(found, language) for wanted, found in plans.items()}
    if len(set(panels.values())) == 1:
        return Markup('<div class="fit">{}</div>').format(next(iter(panels.values())))
    return Markup("").join(
        Markup('<div class="fit" data-numbers="{}">{}</div>').format(wanted, panel) for wanted, panel in panels.items()
    )


def _panel(found: "Plan | UserError", language: Language) -> Markup:
    if isinstance(found, UserError):
        return Markup("<p>{}</p>").format(found.render(language))
    notes = Markup("").join(Markup("<p>{}</p>").format(note.render(language)) for note in found.notes)
    return Markup(
        '<p class="verdict" data-verdict="{}">{}</p>{}{}{}<details class="fold"><summary>{}</summary>{}</details>'
    ).format(
        found.verdict,
        found.sentence.render(language),
        Markup("<p>{}</p>").format(found.speed_sentence.render(language)) if found.fits else "",
        notes,
        _remedies(found, language),
        say("fit_details", language),
        _table(found, language),
    )


def _remedies(found: "Plan", language: Language) -> Markup:
    if not found.remedies:
        return Markup("")
    items = Markup("").join(Markup("<li>{}</li>").format(one.text_here.render(language)) for one in found.remedies)
    return Markup("<p>{}</p><ol>{}</ol>").format(say("fit_better", language), items)


def _table(found: "Plan", language: Language) -> Markup:
    sizes = [name for name in _SIZES if name != "overhead" or any(row.overhead for row in found.rows)]
    names = ("device", "layers", *sizes, "free")
    head = Markup("").join(Markup("<th>{}</th>").format(_word(name, language)) for name in names)
    rows = Markup("").join(_row(row, sizes) for row in found.rows)
    return Markup('<div class="table-box"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        head, rows
    )


def _row(row: "Row", sizes: Sequence[str]) -> Markup:
    name = " ".join(part for part in (row.device.name, row.device.model) if part)
    free = "" if row.device.kind == "disk" else gib(row.device.free)
    cells = (name, row.layers, *(gib(getattr(row, size)) for size in sizes), free)
    return Markup("<tr{}>{}</tr>").format(
        Markup(' class="over"') if row.over else "",
        Markup("").join(Markup("<td>{}</td>").format(cell) for cell in cells),
    )


def _word(name: str, language: Language) -> str:
    return text(f"llm.plan_{name}", language)
