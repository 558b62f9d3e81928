"""Who is reading: owner, language and time zone, from the request alone."""

import hashlib
import secrets
from dataclasses import dataclass

import gradio as gr

from dbgpt_lite.config import Settings
from dbgpt_lite.guards import BROWSER_COOKIE
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import choose_language

ZONE_COOKIE = "dbgpt_zone"
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Reader:
    """`owner` keys everything stored; `zone` is the browser's offset east of UTC in minutes."""

    owner: str
    language: Language
    zone: int = 0
    login: str = ""


def owner_of(request: gr.Request) -> str:
    """The login, else the browser's random cookie (HttpOnly, set by the server), hashed.

    A request without either gets an owner of its own that nothing else can name.
    """
    if request.username:
        return f"user:{request.username}"
    token = _cookies(request).get(BROWSER_COOKIE, "")
    if not token:
        return f"nobody:{secrets.token_hex(16)}"
    return f"browser:{hashlib.sha256(token.encode()).hexdigest()}"


def reader_of(request: gr.Request, settings: Settings) -> Reader:
    """Everything known about the reader of this request."""
    cookies = _cookies(request)
    headers = dict(request.headers)
    language = choose_language(settings.language, str(headers.get("accept-language", "")), cookies)
    return Reader(owner_of(request), language, _zone(cookies.get(ZONE_COOKIE, "")), request.username or "")


def _cookies(request: gr.Request) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(request.cookies).items()}


def _zone(value: str) -> int:
    """Minutes east of UTC; 0 for anything that is no offset."""
    try:
        minutes = int(value)
    except ValueError:
        return 0
    return minutes if abs(minutes) <= _DAY_MINUTES else 0
