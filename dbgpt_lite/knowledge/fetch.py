"""A page or file from the web -> an upload. Only the public internet is reached; see addresses.py and pinned.py."""

import secrets
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpcore
import httpx

from dbgpt_lite.errors import TooLarge, UserError
from dbgpt_lite.knowledge.addresses import check_port, is_foreign
from dbgpt_lite.knowledge.encodings import canonical, is_strictly
from dbgpt_lite.knowledge.loaders import TEXT_READERS
from dbgpt_lite.knowledge.pinned import Allow, Patience, PinnedBackend, Resolver, system_resolver
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.knowledge.web_names import page_name, reader_suffix
from dbgpt_lite.outbound import asked_for

_MAX_URL = 2000
# Most that is unpacked at a time, so that the cap is looked at before the memory is full.
_UNPACK_STEP = 1 << 18
_BEGINNING = 100_000
_REDIRECTS = (301, 302, 303, 307, 308)
# Identity is asked for; what servers send all the same.
_GZIP_WINDOW = 32 + zlib.MAX_WBITS
_HEADERS = (
    (b"User-Agent", b"dbgpt-lite"),
    (b"Accept", b"text/html,application/pdf,text/plain,text/*;q=0.9,*/*;q=0.5"),
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one fetch: bytes (also after unpacking), seconds altogether, redirects."""

    max_bytes: int = 20_000_000
    max_seconds: float = 60.0
    max_redirects: int = 5


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer's head, from the address that gave it in the end."""

    url: httpx.URL
    headers: httpx.Headers
    body: Iterator[bytes]


def fetch(
    url: str,
    folder: Path,
    limits: FetchLimits,
    cancel: threading.Event,
    *,
    resolve: Resolver = system_resolver,
    allow: Allow = is_foreign,
) -> Upload:
    """Fetch `url` into a file of `folder` with a generated name; it is the caller's to remove.

    Each redirect is checked like the first address. Raises UserError (knowledge.url_*) that says what to do, and
    Cancelled once `cancel` is set.
    """
    patience = Patience(time.monotonic() + limits.max_seconds, limits.max_seconds, cancel)
    backend = PinnedBackend(resolve, allow, patience)
    path = folder / f"{secrets.token_hex(8)}.part"
    try:
        with _following(checked_url(url), limits, backend) as answer:
            suffix = reader_suffix(answer.headers, answer.url)
            beginning = _save(answer, path, limits.max_bytes)
        charset = _needed(_charset(answer.headers), path) if suffix in TEXT_READERS else ""
        name = page_name(answer.headers, answer.url, suffix, beginning, charset)
        return Upload(path, name, charset, str(answer.url))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def checked_url(url: str) -> httpx.URL:
    """The address parsed, once and for all who use it. Raises UserError when it is none for the web."""
    text = url.strip()
    if len(text) > _MAX_URL or "\\" in text or any(character.isspace() for character in text):
        raise UserError("knowledge.url_invalid")
    try:
        parsed = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise UserError("knowledge.url_invalid") from None
    return _checked(parsed)


def _checked(url: httpx.URL) -> httpx.URL:
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise UserError("knowledge.url_invalid")
    if url.userinfo:
        raise UserError("knowledge.url_credentials")
    if url.port is not None:
        check_port(url.port)
    return url.copy_with(fragment=None)


@contextmanager
def _following(url: httpx.URL, limits: FetchLimits, backend: PinnedBackend) -> Iterator[_Answer]:
    """The first answer that is no redirect, its body unread. The bodies of redirects are never read."""
    for _ in range(limits.max_redirects + 1):
        with _asked(url, backend) as response:
            headers = httpx.Headers(response.headers)
            if response.status not in _REDIRECTS:
                if response.status != 200:
                    raise UserError("knowledge.url_status", status=response.status, host=url.host)
                yield _Answer(url, headers, _unpacked(_raw(response, url), headers))
                return
        url = _next(url, headers.get("location", ""))
    raise UserError("knowledge.url_redirects", limit=limits.max_redirects)


def _next(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return _checked(url.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise UserError("knowledge.url_invalid") from None


@contextmanager
def _asked(url: httpx.URL, backend: PinnedBackend) -> Iterator[httpcore.Response]:
    """One request on a connection of its own; proxies and their variables have no part in it."""
    target = httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path.partition(b"#")[0]
    )
    tls = httpx.create_ssl_context() if url.scheme == "https" else None
    with (
        _named(url),
        asked_for("web_page"),
        httpcore.ConnectionPool(ssl_context=tls, network_backend=backend, max_connections=1) as pool,
        pool.stream("GET", target, headers=[(b"Host", url.netloc), *_HEADERS]) as response,
    ):
        yield response


@contextmanager
def _named(url: httpx.URL) -> Iterator[None]:
    """What goes wrong on the wire becomes a UserError."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        raise UserError("knowledge.url_unreachable", host=url.host) from None


def _raw(response: httpcore.Response, url: httpx.URL) -> Iterator[bytes]:
    with _named(url):
        yield from response.iter_stream()


def _unpacked(blocks: Iterator[bytes], headers: httpx.Headers) -> Iterator[bytes]:
    """The body without its content coding, never more than _UNPACK_STEP bytes at a time."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from blocks
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise UserError("knowledge.url_damaged", coding=coding)
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        for block in blocks:
            while block and not unpacker.eof:
                yield unpacker.decompress(block, _UNPACK_STEP)
                block = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        raise UserError("knowledge.url_damaged", coding=coding) from None
    if not unpacker.eof:
        raise UserError("knowledge.url_damaged", coding=coding)


def _save(answer: _Answer, path: Path, limit: int) -> bytes:
    """Write the body to a new file; gives its beginning."""
    if int(_digits(answer.headers.get("content-length", "")) or 0) > limit:
        raise TooLarge("knowledge.url_too_large", limit=limit // 1_000_000)
    size, beginning = 0, b""
    with path.open("xb") as file:
        for block in answer.body:
            size += len(block)
            if size > limit:
                raise TooLarge("knowledge.url_too_large", limit=limit // 1_000_000)
            if len(beginning) < _BEGINNING:
                beginning += block
            file.write(block)
    if not size:
        raise UserError("knowledge.url_empty")
    return beginning


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() and len(text) < 20 else ""


def _charset(headers: httpx.Headers) -> str:
    """The encoding the header names, "" when it names none that is read."""
    for part in headers.get("content-type", "").split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == "charset":
            return canonical(value.strip(" \"'"))
    return ""


def _needed(charset: str, path: Path) -> str:
    """The charset, unless the bytes contradict it or speak for themselves: many servers name one from habit."""
    if not charset:
        return ""
    content = path.read_bytes()
    if is_strictly(content, "utf-8") or not is_strictly(content, charset):
        return ""
    return charset
