"""The ways into a space beside the upload button, as HTML: a folder, a web page, a pasted text. Pure."""

import json
from collections.abc import Sequence

from markupsafe import Markup

from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon


def ways_in(kinds: Sequence[str], language: Language) -> Markup:
    """`kinds`: endings of the files that can be read; page.js leaves the others of a folder out."""
    folder = Markup(
        '<button type="button" class="text-button add-folder" data-kinds="{}" data-left-out="{}">{}<span>{}</span>'
        "</button>"
    ).format(
        " ".join(kinds), say("left_out", language, count="{count}"), icon("folder"), say("add_folder", language)
    )  # fmt: skip
    address: list[dict[str, object]] = [
        {"name": "value", "label": say("url_label", language), "kind": "url", "hint": "https://"}
    ]
    text: list[dict[str, object]] = [
        {"name": "title", "label": say("text_name", language), "kind": "text", "optional": True},
        {"name": "value", "label": say("text_body", language), "kind": "area"},
    ]
    return Markup('<div class="ways">{}{}{}</div>').format(
        folder,
        _asking("add_url", "globe", address, language),
        _asking("add_text", "text", text, language),
    )


def _asking(action: str, picture: str, fields: list[dict[str, object]], language: Language) -> Markup:
    """A button whose dialog asks for some fields; they become facts of its action."""
    name = action.removeprefix("add_")
    return Markup(
        '<button type="button" class="text-button {}" data-action="{}" data-prompt="{}" data-fields="{}" data-ok="{}">'
        "{}<span>{}</span></button>"
    ).format(
        action.replace("_", "-"),
        action,
        say(f"{name}_title", language),
        json.dumps(fields),
        say("add", language),
        icon(picture),
        say(action, language),
    )
