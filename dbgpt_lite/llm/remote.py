"""Engine over any OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama.

Chat completions with server-sent events (https://platform.openai.com/docs/api-reference/chat/streaming). The address
is the administrator's setting, never a client's. Proxies of the environment are not used, and the key is not logged.
"""

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from dbgpt_lite.errors import Cancelled, ModelError, TooLarge, UserError
from dbgpt_lite.llm.answer import Answer
from dbgpt_lite.llm.estimate import estimate_tokens
from dbgpt_lite.llm.sse import EventReader, Refused, ServerAddress
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage

DEFAULT_CONTEXT = 4096
CONNECT_S = 5.0
# A server may read a long prompt for minutes before the first byte; a stop does not wait for it.
SILENCE_S = 300.0
_POLL_S = 0.05
_MESSAGE_TOKENS = 4


class RemoteEngine:
    """An Engine that asks a server.

    `endpoint`: base URL up to and including /v1. `model` "": the first the server lists. `context` 0: as the server
    says, else 4096. Making one asks the server for its models; raises ModelError when it cannot be used.
    """

    def __init__(self, endpoint: str, model: str = "", api_key: str = "", context: int = 0) -> None:
        import httpx

        self._server = httpx.URL(endpoint).host or endpoint
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._address = ServerAddress(endpoint.rstrip("/"), headers)
        self._closed = threading.Event()
        self._window = context or DEFAULT_CONTEXT
        entry = self._choose(model)
        self._window = context or _context_length(entry) or DEFAULT_CONTEXT
        self._info = EngineInfo(
            name=str(entry["id"]),
            kind="remote",
            context_length=self._window,
            device=self._server,
        )
        self._wants_usage = True

    @property
    def info(self) -> EngineInfo:
        """Facts about the model; the device is the server's host name."""
        return self._info

    @property
    def waiting(self) -> int:
        """Always 0: the server keeps its own queue."""
        return 0

    def count(self, messages: Sequence[Message]) -> int:
        """An estimate of the prompt's tokens, meant to be high rather than low."""
        return sum(_MESSAGE_TOKENS + estimate_tokens(message.content) for message in messages) + _MESSAGE_TOKENS

    def count_text(self, text: str) -> int:
        """An estimate of a text's tokens, meant to be high rather than low."""
        return estimate_tokens(text)

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Usage]:
        """Pieces of the answer's text, then its Usage. See Engine.stream."""
        answer = Answer()
        answer.prompt_tokens = self.count(prompt.messages)
        text: list[str] = []
        reported: Usage | None = None
        try:
            with closing(self._events(self._body(prompt, sampling), cancel)) as events:
                for event in events:
                    reported = _usage(event) or reported
                    if piece := _piece(event):
                        answer.token()
                        text.append(piece)
                        yield piece
                    if _choice(event).get("finish_reason") == "length":
                        answer.finish_reason = "length"
                    elif answer.first_token_s and 0 < sampling.seconds <= answer.elapsed - answer.first_token_s:
                        # The server's queue is its own affair: only what comes after the first token is its computing.
                        answer.finish_reason = "time"
                        break
        except Cancelled:
            self._refuse_closed()
            answer.finish_reason = "cancelled"
        answer.completion_tokens = max(answer.completion_tokens, estimate_tokens("".join(text)))
        yield _merged(answer.usage(), reported)

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """`count` samples, most frequent first; raises Cancelled when stopped. Not every server has a beam search."""
        texts: list[str] = []
        for number in range(count):
            sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=max_tokens, seed=number)
            pieces = list(self.stream(prompt, sampling, cancel))
            if cancel.is_set():
                raise Cancelled
            texts.append("".join(piece for piece in pieces if isinstance(piece, str)))
        return sorted(dict.fromkeys(texts), key=lambda text: -texts.count(text))

    def close(self) -> None:
        """End requests under way and close the connections."""
        self._closed.set()

    def _choose(self, wanted: str) -> Mapping[str, Any]:
        import httpx

        try:
            response = httpx.get(
                f"{self._address.url}/models",
                headers=self._address.headers,
                timeout=CONNECT_S * 2,
                trust_env=False,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if response.status_code != 200:
            raise self._refusal(response.status_code, response.text)
        try:
            entries = [entry for entry in response.json()["data"] if entry.get("id")]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError("llm.server_strange", server=self._server) from None
        names = [str(entry["id"]) for entry in entries]
        if not entries or (wanted and wanted not in names):
            raise ModelError(
                "llm.server_no_model", server=self._server, model=wanted or "-", known=", ".join(names[:10]) or "-"
            )
        chosen: Mapping[str, Any] = entries[names.index(wanted) if wanted else 0]
        return chosen

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._info.name,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stream": True,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if self._wants_usage:
            body["stream_options"] = {"include_usage": True}
        return body

    def _events(self, body: dict[str, Any], cancel: threading.Event) -> Generator[Mapping[str, Any]]:
        """Events of one answer. A thread reads the connection, so that a stop need not wait for its next byte."""
        self._refuse_closed()
        reader = EventReader(self._address, body, CONNECT_S, SILENCE_S)
        try:
            for item in reader.items(cancel, self._closed):
                if isinstance(item, Refused):
                    if (
                        item.status not in (400, 422)
                        or "stream_options" not in body
                        or "stream_options" not in item.text
                    ):
                        raise self._refusal(item.status, item.text)
                    self._wants_usage = False
                    yield from self._events({k: v for k, v in body.items() if k != "stream_options"}, cancel)
                    return
                if isinstance(item, Exception):
                    raise self._unreachable(item)
                if "error" in item:
                    raise self._refusal(500, str(item["error"]))
                yield item
        finally:
            reader.stop()

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise ModelError("llm.closed", name=self._info.name)

    def _unreachable(self, error: Exception) -> ModelError:
        import httpx

        key = "llm.server_silent" if isinstance(error, httpx.ReadTimeout) else "llm.server_down"
        return ModelError(key, server=self._server, seconds=int(SILENCE_S))

    def _refusal(self, status: int, text: str) -> UserError:
        """The server's refusal as a sentence; its own words are not shown, they may quote the prompt."""
        if status in (400, 413, 422, 500) and "context" in text.lower() and ("length" in text or "size" in text):
            return TooLarge("llm.server_context", server=self._server, window=self._window)
        names = {401: "server_key", 403: "server_key", 404: "server_not_found", 429: "server_busy", 503: "server_busy"}
        return ModelError(f"llm.{names.get(status, 'server_refused')}", server=self._server, status=status)


def _context_length(entry: Mapping[str, Any]) -> int:
    """The window a server states: vLLM and SGLang, others, llama.cpp. 0 when it does not."""
    meta = entry.get("meta")
    places = (
        entry.get("max_model_len"),
        entry.get("context_length"),
        meta.get("n_ctx_train") if isinstance(meta, dict) else 0,
    )
    return next((value for value in places if isinstance(value, int) and value > 0), 0)


def _choice(event: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


def _piece(event: Mapping[str, Any]) -> str:
    delta = _choice(event).get("delta")
    content = delta.get("content") if isinstance(delta, dict) else ""
    return content if isinstance(content, str) else ""


def _usage(event: Mapping[str, Any]) -> Usage | None:
    given = event.get("usage")
    if not isinstance(given, dict):
        return None
    details = given.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(given.get("prompt_tokens") or 0),
        completion_tokens=int(given.get("completion_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def _merged(own: Usage, reported: Usage | None) -> Usage:
    """The server's token counts where it gave them, our clock."""
    if reported is None:
        return own
    return replace(
        own,
        prompt_tokens=reported.prompt_tokens or own.prompt_tokens,
        completion_tokens=reported.completion_tokens or own.completion_tokens,
        cached_tokens=reported.cached_tokens,
    )
