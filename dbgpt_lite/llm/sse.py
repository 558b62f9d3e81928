"""One streamed answer of an HTTP server, read so that it can be stopped at any moment.

Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html. The connection lives in a thread
with an event loop of its own; a stop cancels its task, which closes the socket even before the first byte came.
"""

import asyncio
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dbgpt_lite.errors import Cancelled

_POLL_S = 0.02
_DONE = "data: [DONE]"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Base URL and headers; the headers may hold a key and stay out of repr."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answered with an error status; `text` is the beginning of its words."""

    status: int
    text: str


Item = Mapping[str, Any] | Refused | Exception


class EventReader:
    """Posts `body` to chat/completions and hands over the events of the answer."""

    def __init__(self, address: ServerAddress, body: Mapping[str, Any], connect_s: float, silence_s: float) -> None:
        self._address, self._body = address, body
        self._timeouts = (connect_s, silence_s)
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._read())
        self._thread = threading.Thread(target=self._run, name="remote-answer", daemon=True)
        self._thread.start()

    def items(self, *cancel: threading.Event) -> Iterator[Item]:
        """Events as they come; a Refused or an exception is the last. Raises Cancelled at once after a stop."""
        while True:
            if any(event.is_set() for event in cancel):
                raise Cancelled
            try:
                item = self._items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item

    def stop(self) -> None:
        """Close the connection, so that the server stops computing."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._items.put(None)
            self._loop.close()

    async def _read(self) -> None:
        import httpx

        connect_s, silence_s = self._timeouts
        timeout = httpx.Timeout(silence_s, connect=connect_s)
        url = f"{self._address.url}/chat/completions"
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client,
                client.stream("POST", url, json=self._body, headers=dict(self._address.headers)) as response,
            ):
                await self._hand_over(response)
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            self._items.put(error)

    async def _hand_over(self, response: Any) -> None:
        if response.status_code != 200:
            self._items.put(Refused(response.status_code, (await response.aread())[:2000].decode("utf-8", "replace")))
            return
        async for line in response.aiter_lines():
            if line.strip() == _DONE:
                return
            name, _, value = line.partition(":")
            with suppress(ValueError):
                event = json.loads(value) if name == "data" else None
                if isinstance(event, dict):
                    self._items.put(event)
