"""ASGI middleware in front of page and API: who may send requests, and which browser it is.

Written against the ASGI interface (https://asgi.readthedocs.io) because wrappers that read responses would
hold back streamed answers.
"""

import re
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbgpt_lite.texts import text

BROWSER_COOKIE = "dbgpt_browser"
MAX_API_BODY_MB = 4
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "[::1]"}
_NO_COOKIE = ("/v1/", "/health", "/metrics")
# What gradio serves and the page never asks for: files by path, fetching of foreign addresses, recordings, listings.
_UNUSED_ROUTES = (
    "/gradio_api/file",
    "/gradio_api/proxy",
    "/gradio_api/stream",
    "/gradio_api/process_recording",
    "/gradio_api/vibe",
    "/gradio_api/deep_link",
    "/gradio_api/openapi.json",
    "/openapi.json",
    "/file=",
    "/monitoring",
)
_YEAR_S = 365 * 24 * 3600


class RequestFence:
    """Refuses what other websites make a browser send.

    A page elsewhere can post to a server on this computer (cross-site request forgery), or point its own name at
    127.0.0.1 (DNS rebinding). Both show in the Origin and Host headers, which page scripts cannot set.
    """

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        """`loopback`: the server listens on this computer only, so no other Host is genuine."""
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400, 403 or 413."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._loopback and _hostname(host) not in _LOOPBACK_HOSTS:
            return await _refuse(400, text("app.foreign_request"), scope, receive, send)
        origin = headers.get("origin", "")
        if origin and urlsplit(origin).netloc != host and scope.get("method") not in ("GET", "HEAD"):
            return await _refuse(403, text("app.foreign_request"), scope, receive, send)
        if scope["path"].startswith(_UNUSED_ROUTES):
            return await _refuse(404, "Not Found", scope, receive, send)
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            body = await _read_body(receive)
            if body is None:
                return await _refuse(413, text("app.body_too_large", limit=MAX_API_BODY_MB), scope, receive, send)
            receive = _replay(body, receive)
        await self._app(scope, receive, send)


class BrowserIdentity:
    """Gives each browser a random, unguessable cookie: the owner of its conversations while there are no logins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set the cookie with the first answer; requests that carry one pass unchanged."""
        if scope["type"] != "http" or scope["path"].startswith(_NO_COOKIE) or _has_token(Headers(scope=scope)):
            return await self._app(scope, receive, send)
        token = secrets.token_urlsafe(32)
        _add_cookie(scope, token)

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = f"{BROWSER_COOKIE}={token}; Path=/; Max-Age={_YEAR_S}; HttpOnly; SameSite=Lax"
                MutableHeaders(scope=message).append("set-cookie", cookie)
            await send(message)

        await self._app(scope, receive, send_with_cookie)


class PageHeaders:
    """Adds headers to every answer: what the page may load, and that nobody may frame it or guess its types."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        """`policy`: the Content-Security-Policy."""
        self._app = app
        self._headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the headers on its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body, or None once it is larger than an API request may be."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_API_BODY_MB * 2**20:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand `body` over as one message, then whatever still comes (the end of the connection)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _hostname(host: str) -> str:
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.rsplit(":", 1)[0]


def _has_token(headers: Headers) -> bool:
    # Cookies of 127.0.0.1 are shared by every local app: parse as leniently as the page does.
    return bool(_TOKEN.fullmatch(cookie_parser(headers.get("cookie", "")).get(BROWSER_COOKIE, "")))


def _add_cookie(scope: Scope, token: str) -> None:
    """Let the very first request already see its cookie."""
    headers = MutableHeaders(scope=scope)
    kept = headers.get("cookie")
    headers["cookie"] = f"{kept}; {BROWSER_COOKIE}={token}" if kept else f"{BROWSER_COOKIE}={token}"


async def _refuse(status: int, reason: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(reason, status)(scope, receive, send)
