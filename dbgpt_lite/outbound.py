"""Every outbound connection of this process, seen as it is tried: who asked for it, where to, how often.

An audit hook (https://docs.python.org/3/library/sys.html#sys.addaudithook) hears of the look-ups of the socket module
and of every connect of Python's sockets before they happen, and cannot be taken out again. Connections to this computer
do not count, except those to a proxy of the environment. What is out of its reach: child processes, sockets opened by
compiled code, where a proxy leads, and the look-up of a name that is given to connect itself, which Python makes before
it tells of the connect.
"""

import ipaddress
import logging
import socket
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from dbgpt_lite.config import Settings
from dbgpt_lite.texts import Language, text

log = logging.getLogger(__name__)

Purpose = Literal["download", "web_page", "self_test"]
Kind = Literal["asked", "configured", "unexpected"]

MAX_KEPT = 200
_MAX_NAMES = 1000
# TEST-NET-1 (RFC 5737): an address that belongs to nobody.
_NOBODY = ("192.0.2.1", 9)
# Libraries that open sockets on behalf of others.
_CARRIERS = frozenset(
    ("aiohttp", "anyio", "certifi", "h11", "h2", "httpcore", "httpx", "requests", "sniffio", "socksio", "urllib3")
)
_purpose: ContextVar[Purpose | None] = ContextVar("purpose", default=None)


class OutboundRefused(PermissionError):
    """A connection that nobody asked for, refused because of BLOCK_UNEXPECTED_CONNECTIONS."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where somebody tried to connect, how often, and when last (UTC).

    `who`: the purpose when asked for, the setting when configured, else the package that tried. `port` 0: only a name
    was looked up.
    """

    kind: Kind
    who: str
    host: str
    port: int
    count: int
    refused: bool
    last: datetime


@contextmanager
def asked_for(purpose: Purpose) -> Iterator[None]:
    """Connections that this thread opens inside the block are asked for. Threads begun in it need a copied context."""
    token = _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.reset(token)


def configured_hosts(settings: Settings) -> dict[str, str]:
    """Hosts that the administrator's settings name -> the setting."""
    urls = {
        "LLM_ENDPOINT": [settings.llm_endpoint],
        "DATABASE_URL": [settings.database_url.get_secret_value()],
        "DATABASES": [url.get_secret_value() for url in settings.databases.values()],
        "VECTOR_STORE": [settings.vector_store.get_secret_value()],
        "STORE_URL": [settings.store_url.get_secret_value()],
    }
    return {host: setting for setting, given in urls.items() for url in given if (host := _url_host(url))}


class ConnectionLog:
    """Counts attempts once `install` was called; MAX_KEPT places are kept, unexpected ones the longest. Thread-safe."""

    def __init__(
        self,
        configured: Mapping[str, str] | None = None,
        refuse: bool = False,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        """`configured`: host -> setting that names it. `refuse`: let unexpected connections fail. `proxies`: variable
        of the environment -> address, as `proxies_in_use` gives them."""
        self._configured = dict(configured or {})
        self._refuse = refuse
        self.proxies = tuple(sorted(set((proxies or {}).values())))
        self._totals: Counter[Kind] = Counter()
        self._own = frozenset(("localhost", socket.gethostname().lower()))
        self._proxy_ports = frozenset(_port(url) for url in self.proxies if self._is_here(_url_host(url))) - {0}
        self._attempts: OrderedDict[tuple[str, str, str, int], Attempt] = OrderedDict()
        self._names: OrderedDict[str, str] = OrderedDict()
        # A finalizer that runs while the lock is held may connect too.
        self._lock = threading.RLock()
        self._tested: bool | None = None
        self.since = datetime.now(UTC)

    @property
    def tested(self) -> bool:
        """Whether the self-test was made and saw its attempt."""
        return bool(self._tested)

    def attempts(self) -> tuple[Attempt, ...]:
        """Everything that was tried, the latest first."""
        with self._lock:
            return tuple(reversed(self._attempts.values()))

    def totals(self) -> dict[Kind, int]:
        """How many attempts there were of each kind, also at places that are no longer kept."""
        with self._lock:
            return {kind: self._totals[kind] for kind in get_args(Kind)}

    def install(self) -> None:
        """Begin to watch, for the rest of the process."""

        def hook(event: str, args: tuple[Any, ...]) -> None:
            # Called for every id() and open() of the process: a plain function costs a third of a bound method.
            if event in _TARGETS:
                self.heard(event, args)

        sys.addaudithook(hook)
        # The hook sees names and addresses but not which belong together.
        socket.getaddrinfo = self._learning(socket.getaddrinfo)

    def self_test(self) -> bool:
        """Try to connect to nobody and see whether the hook stops it; not one packet is sent, even if it does not."""
        with asked_for("self_test"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(_NOBODY)
                self._tested = False
            except OutboundRefused:
                self._tested = True
        return self._tested

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """Take note of one of the audit events in _TARGETS. Raises OutboundRefused."""
        host, port = _TARGETS[event](args)
        if not host or (self._is_here(host) and port not in self._proxy_ports):
            return
        if _purpose.get() == "self_test":
            raise OutboundRefused
        if self._note(host, port):
            raise OutboundRefused(text("outbound.refused", host=host))

    def _is_here(self, host: str) -> bool:
        address = _address(host)
        if address is None:
            return host in self._own or host.endswith(".localhost")
        mapped = getattr(address, "ipv4_mapped", None) or address
        return bool(mapped.is_loopback or mapped.is_unspecified)

    def _note(self, host: str, port: int) -> bool:
        """Count an attempt; whether it is to be refused."""
        name = self._names.get(host, host)
        kind, who = self._reason(host, name)
        refused = self._refuse and kind == "unexpected"
        key = (kind, who, name, port)
        now = datetime.now(UTC)
        with self._lock:
            known = self._attempts.pop(key, None)
            # A look-up is told only until the connection that it was for is made.
            looked_up = self._attempts.pop((kind, who, name, 0), None) if port else None
            self._totals[kind] += 1 - (looked_up.count if looked_up else 0)
            count = known.count + 1 if known else 1
            self._attempts[key] = Attempt(kind, who, name, port, count, refused, now)
            if len(self._attempts) > MAX_KEPT:
                self._forget_one()
        if kind == "unexpected" and known is None:
            said = "outbound.log_refused" if refused else "outbound.log_unexpected"
            log.warning("%s", text(said, host=name, who=who))
        return refused

    def _forget_one(self) -> None:
        """The oldest place; one that nobody expected only when there are no others."""
        by_kind = {one.kind: key for key, one in reversed(self._attempts.items())}
        del self._attempts[next(by_kind[kind] for kind in get_args(Kind) if kind in by_kind)]

    def _reason(self, host: str, name: str) -> tuple[Kind, str]:
        if purpose := _purpose.get():
            return "asked", purpose
        setting = self._configured.get(host) or self._configured.get(name)
        # What goes to a proxy on this computer is not for the server beside it that a setting names.
        if setting and not self._is_here(host):
            return "configured", setting
        return "unexpected", _caller()

    def _learning(self, look_up: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(look_up)
        def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
            answers = look_up(host, *args, **more)
            name = _plain(host)
            with self._lock:
                for answer in answers if name and _address(name) is None else ():
                    address = str(answer[4][0])
                    # A configured server may share its address with others.
                    if self._names.get(address) not in self._configured:
                        self._names[address] = name
                while len(self._names) > _MAX_NAMES:
                    self._names.popitem(last=False)
            return answers

        return getaddrinfo


def status_line(connections: ConnectionLog, telemetry_on: tuple[str, ...], language: Language = "en") -> str:
    """What left this process since it started, whether that was watched, and which telemetry is on."""
    if not connections.tested:
        watched = text("outbound.unwatched", language)
    else:
        counts = connections.totals()
        since = f"{connections.since:%Y-%m-%d %H:%M}"
        watched = text("outbound.some" if any(counts.values()) else "outbound.none", language, since=since, **counts)
    through = text("outbound.proxies", language, proxies=", ".join(connections.proxies)) if connections.proxies else ""
    reports = text("outbound.telemetry_on" if telemetry_on else "outbound.telemetry_off", language,
                   names=", ".join(telemetry_on))  # fmt: skip
    return ("" if language == "zh" else " ").join(part for part in (watched, through, reports) if part)


def _of_socket(args: tuple[Any, ...]) -> tuple[str, int]:
    """connect, sendto and sendmsg: (socket, address); "" for what is no internet address."""
    connection, address = args[0], args[1]
    if connection.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return "", 0
    return _plain(address[0]), int(address[1])


def _of_look_up(args: tuple[Any, ...]) -> tuple[str, int]:
    """getaddrinfo and the like; an address that is spelled out asks nobody."""
    name = _plain(args[0])
    return ("", 0) if _address(name) else (name, 0)


def _of_reverse_look_up(args: tuple[Any, ...]) -> tuple[str, int]:
    """gethostbyaddr(host) and getnameinfo(address): an address that is spelled out is just what they ask about."""
    asked = args[0][0] if isinstance(args[0], tuple) and args[0] else args[0]
    return _plain(asked), 0


_TARGETS: Mapping[str, Callable[[tuple[Any, ...]], tuple[str, int]]] = {
    "socket.connect": _of_socket,
    "socket.sendto": _of_socket,
    "socket.sendmsg": _of_socket,
    "socket.getaddrinfo": _of_look_up,
    "socket.gethostbyname": _of_look_up,
    "socket.gethostbyaddr": _of_reverse_look_up,
    "socket.getnameinfo": _of_reverse_look_up,
}


def _plain(host: object) -> str:
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii", "replace")
    return host.lower().removesuffix(".") if isinstance(host, str) else ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _url_host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _port(url: str) -> int:
    """The port of a proxy's address, 0 for none that could be."""
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme, 1080)
    except ValueError:
        return 0


def _caller() -> str:
    """The package that opens a connection: the nearest on the stack that is not there to carry bytes for others.

    "python" where there is none: asyncio looks names up in threads that begin in the standard library.
    """
    frame, carrier = sys._getframe(1), ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package == "dbgpt_lite" and module != __name__:
            return module
        if package in _CARRIERS:
            carrier = carrier or package
        elif package not in sys.stdlib_module_names and module != __name__:
            return package
        frame = frame.f_back  # type: ignore[assignment]
    return carrier or "python"
