"""From a click on rendered HTML to a Python handler.

Rendered buttons carry ``data-action="name"``; page.js triggers the event of that name on one hidden component,
with the button's other data attributes as its facts.
"""

import functools
import html
import logging
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from dbgpt_lite.config import Settings
from dbgpt_lite.errors import UserError
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.session import reader_of

log = logging.getLogger(__name__)
ACTIONS = (
    "open_conversation",
    "new_chat",
    "rename_conversation",
    "delete_conversation",
    "ask",
    "stop",
    "rows",
    "chart",
    "save_rows",
    "explain_sql",
    "rerun_sql",
    "cancel_sql",
    "rate",
    "show_knowledge",
    "open_space",
    "create_space",
    "rename_space",
    "empty_space",
    "delete_space",
    "resume_space",
    "reembed_space",
    "delete_document",
    "show_chunks",
    "add_url",
    "add_text",
    "choose_encoding",
    "index_held",
    "drop_held",
    "stop_job",
    "dismiss_job",
    "keep_space",
    "detach",
    "poll",
    "show_data",
    "run_sql",
    "save_query",
    "rename_query",
    "delete_query",
    "show_models",
    "load_model",
    "unload_model",
    "cancel_load",
    "model_status",
    "show_settings",
)
# Hands a file to the reader once; a failed handler leaves "" and so nothing.
SAVE_FILE = "(file) => { if (file) window.dbgpt.download(file); return ''; }"
# Events of this page are for this page: not in an API listing, no spinner over the parts they change.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


class Bridge:
    """The hidden component; ``on(action, handler, ...)`` wires one action."""

    def __init__(self) -> None:
        # Gradio offers exactly the events whose quoted names it finds in this script.
        names = ", ".join(f"'{name}'" for name in ACTIONS)
        self._html = gr.HTML(
            "", elem_id="bridge", visible="hidden", js_on_load=f"window.dbgpt.connect(trigger, [{names}])"
        )

    def on(self, action: str, handler: Callable[..., Any], inputs: Any = None, outputs: Any = None, **more: Any) -> Any:
        """Call `handler` when a rendered button of this action is pressed; `event: gr.EventData` holds its facts."""
        listen = getattr(self._html, action)
        # Gradio's own default drops an event while an earlier one of its kind is on its way.
        return listen(handler, inputs, outputs, **{**QUIET, "trigger_mode": "multiple", **more})


def fact(event: gr.EventData, name: str) -> str:
    """A fact of a pressed button as text, "" when missing. It comes from the browser: check before use."""
    data = event._data if isinstance(event._data, dict) else {}
    value = data.get(name, "")
    return value if isinstance(value, str) else ""


def toast(message: str) -> None:
    """A passing notice. Gradio renders its text as HTML, so it is escaped."""
    gr.Warning(html.escape(message), title="")


def telling(settings: Settings, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler: a UserError becomes a notice in the reader's language and leaves the page as it was."""

    @functools.wraps(handler)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            toast(sentence(error, args, settings))
            return gr.skip()

    return told


def telling_stream(settings: Settings, handler: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The same for a handler that yields."""

    @functools.wraps(handler)
    def told(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from handler(*args, **kwargs)
        except Exception as error:
            toast(sentence(error, args, settings))
            yield gr.skip()

    return told


def sentence(error: Exception, args: tuple[Any, ...], settings: Settings) -> str:
    """What to tell the reader; anything but a UserError goes to the log and is told in general words."""
    request = next((arg for arg in args if isinstance(arg, gr.Request)), None)
    language = reader_of(request, settings).language if request else "en"
    if isinstance(error, UserError):
        return error.render(language)
    log.error("a handler of the page failed", exc_info=error)
    return say("failed", language)
