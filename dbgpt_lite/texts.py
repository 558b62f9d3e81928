"""Every sentence a user can read, in English and Chinese.

Sentences live in ``locales/<section>.<language>.json`` as one flat object of name -> text with ``{variables}``.
A key is ``section.name``. Both languages hold the same keys with the same variables (a test compares them).
"""

import json
from functools import cache
from importlib import resources
from string import Formatter
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@cache
def section_texts(section: str, language: Language) -> dict[str, str]:
    """The texts of one section: name -> text."""
    file = resources.files("dbgpt_lite") / "locales" / f"{section}.{language}.json"
    texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return texts


def text(key: str, language: Language = "en", /, **facts: object) -> str:
    """Render the text `key` (``section.name``); a fact that the text does not name is ignored.

    Raises KeyError for an unknown key or a missing fact: both are faults of the program, found by its tests.
    """
    section, _, name = key.partition(".")
    return section_texts(section, language)[name].format(**facts)


def time_left(seconds: float | None, language: Language = "en") -> str:
    """How long something will take, as people say it; "" while nobody knows."""
    if seconds is None:
        return ""
    if seconds < 60:
        return text("app.left_moments" if seconds < 10 else "app.left_under_a_minute", language)
    minutes = round(seconds / 60)
    if minutes < 60:
        return text("app.left_minute" if minutes == 1 else "app.left_minutes", language, count=minutes)
    return text("app.left_hours", language, hours=minutes // 60, minutes=minutes % 60)


def memory_size(count: float) -> str:
    """Bytes as memory and models are counted: 1.23 GiB, and 12.3 MiB where GiB would be 0.0x."""
    value, unit = (count / 2**30, "GiB") if count >= 2**30 / 10 else (count / 2**20, "MiB")
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}" if value >= 10 else f"{value:.2f} {unit}"


def variables(template: str) -> set[str]:
    """Names of the ``{variables}`` in a template."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}
