"""Which language a reader gets, and the page's words in it."""

from collections.abc import Mapping
from typing import Literal

from dbgpt_lite.texts import Language, text

LANGUAGE_COOKIE = "dbgpt_language"


def choose_language(setting: Literal["auto", "en", "zh"], accept_language: str, cookies: Mapping[str, str]) -> Language:
    """The reader's own choice (cookie), else LANGUAGE, else the first language of the browser that exists here."""
    chosen = cookies.get(LANGUAGE_COOKIE, "")
    if chosen == "en" or chosen == "zh":
        return "zh" if chosen == "zh" else "en"
    if setting != "auto":
        return setting
    for tag in _by_preference(accept_language):
        if tag.startswith("zh"):
            return "zh"
        if tag.startswith("en"):
            return "en"
    return "en"


def _by_preference(header: str) -> list[str]:
    """Language tags of an Accept-Language header (RFC 9110, 12.5.4), the most wanted first."""
    weighted: list[tuple[float, str]] = []
    for part in header.lower().split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighted.append((float(weight) if weight else 1.0, tag))
        except ValueError:
            continue
    return [tag for weight, tag in sorted(weighted, key=lambda pair: -pair[0]) if weight > 0]


def say(name: str, language: Language, /, **facts: object) -> str:
    """The page's text `name` (a key of locales/ui.*.json)."""
    return text(f"ui.{name}", language, **facts)
