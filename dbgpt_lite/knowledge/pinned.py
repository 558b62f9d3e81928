"""Connections that go only to an address just checked, and end with a deadline or when their reader has left.

The one place where this package opens a socket to the internet. A host is resolved once for a connection, every answer
is checked and the connection is made to one of those very addresses, so a name that answers differently the next moment
(DNS rebinding) gains nothing. Host header, SNI and certificate check keep the name.
"""

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import httpcore

from dbgpt_lite.errors import Cancelled, UserError
from dbgpt_lite.knowledge.addresses import Address, check_name, check_port, literal

# Longest wait between two looks at the deadline and the cancel event.
POLL_S = 0.25
_CONNECT_S = 10.0
# Answers of a resolver tried one after the other.
_MAX_ADDRESSES = 4

# Host and port -> addresses as text; raises OSError.
Resolver = Callable[[str, int], Sequence[str]]
Allow = Callable[[Address], bool]


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses the machine's resolver gives for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a fetch may go on: until the deadline (time.monotonic) or until `cancel` is set."""

    deadline: float
    seconds: float
    cancel: threading.Event

    def left(self) -> float:
        """Seconds for the next step, at most POLL_S. Raises Cancelled or UserError (knowledge.url_too_slow)."""
        if self.cancel.is_set():
            raise Cancelled
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise UserError("knowledge.url_too_slow", limit=f"{self.seconds:g}")
        return min(left, POLL_S)

    def step(self) -> float:
        """Seconds for a step that cannot be taken up again: connecting, a TLS handshake."""
        self.left()
        return max(POLL_S, min(_CONNECT_S, self.deadline - time.monotonic()))


class PinnedBackend(httpcore.NetworkBackend):
    """Opens sockets for httpcore, each to an address that `allow` has let pass."""

    def __init__(self, resolve: Resolver, allow: Allow, patience: Patience) -> None:
        self._resolve = resolve
        self._allow = allow
        self._patience = patience

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        check_port(port)
        addresses = self._checked(host, port)[:_MAX_ADDRESSES]
        for number, address in enumerate(addresses, start=1):
            try:
                return _Stream(self._connect(address, port), self._patience)
            except OSError:
                if number == len(addresses):
                    raise UserError("knowledge.url_unreachable", host=host) from None
        raise UserError("knowledge.url_not_found", host=host)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise NotImplementedError

    def _checked(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, all of them allowed: one that is not spoils the others."""
        spelled = literal(host)
        if spelled is None:
            check_name(host)
            found = [ipaddress.ip_address(answer) for answer in self._answers(host, port)]
        else:
            found = [spelled]
        if not all(self._allow(address) for address in found):
            raise UserError("knowledge.url_private", host=host)
        return list(dict.fromkeys(found))

    def _answers(self, host: str, port: int) -> Sequence[str]:
        """The resolver's answers; it cannot be interrupted, so it works in a thread that may be left behind."""
        answers: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolve(host, port))
            except (OSError, UnicodeError):
                answers.put(())

        threading.Thread(target=copy_context().run, args=(ask,), daemon=True, name="resolver").start()
        while True:
            try:
                return answers.get(timeout=self._patience.left())
            except queue.Empty:
                continue

    def _connect(self, address: Address, port: int) -> socket.socket:
        """A socket connected to the address; raises OSError."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._patience.step())
            connection.connect((str(address), port))
        except BaseException:
            connection.close()
            raise
        return connection


class _Stream(httpcore.NetworkStream):
    """A socket whose reads and writes end with the patience, however slowly the other side drips."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self._socket = connection
        self._patience = patience

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            self._socket.settimeout(self._patience.left())
            try:
                return self._socket.recv(max_bytes)
            except TimeoutError:
                continue
            except OSError as error:
                raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._socket.settimeout(self._patience.step())
        try:
            self._socket.sendall(buffer)
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # The time-out of a handshake counts for the whole of it.
        self._socket.settimeout(self._patience.step())
        try:
            return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._patience)
        except OSError as error:
            self.close()
            if isinstance(error, ssl.SSLError):
                raise UserError("knowledge.url_certificate", host=server_hostname or "?") from error
            raise httpcore.ConnectError(str(error)) from error

    def get_extra_info(self, info: str) -> Any:
        return None
