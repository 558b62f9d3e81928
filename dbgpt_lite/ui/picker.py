"""A choice among named things, drawn by the browser itself: light, and right on every phone.

page.js copies what is chosen into the hidden text box named by ``data-into``, which handlers read.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup


class Picker:
    """The drawn choice (`html`) and its value (`value`). Set both with what `options` returns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.html = gr.HTML("", elem_id=name, js_on_load=None, apply_default_css=False)
        self.value = gr.Textbox("", elem_id=f"{name}-value", visible="hidden")

    @property
    def both(self) -> list[Any]:
        """As outputs."""
        return [self.html, self.value]

    def options(self, choices: Sequence[tuple[str, str]], chosen: str, label: str) -> tuple[Markup, str]:
        """`choices` are (shown, value); an unknown `chosen` gives the first, no choices an empty picker."""
        values = [value for _, value in choices]
        value = chosen if chosen in values else next(iter(values), "")
        if not choices:
            return Markup(""), ""
        rows = Markup("").join(
            Markup('<option value="{}"{}>{}</option>').format(v, Markup(" selected") if v == value else "", shown)
            for shown, v in choices
        )
        drawn = Markup('<select data-into="{}-value" data-value="{}" aria-label="{}">{}</select>')
        return drawn.format(self._name, value, label, rows), value
