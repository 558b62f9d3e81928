"""HTTP API in the shape of OpenAI's: chat completions, models, embeddings; /health, and /metrics for Prometheus.

Shapes: https://platform.openai.com/docs/api-reference. The model names the mode: ``dbgpt-lite`` (auto),
``dbgpt-lite/chat``, ``dbgpt-lite/documents[/<space>]``, ``dbgpt-lite/database[/<connection>]``.
Citations, SQL and rows travel in the extra field ``dbgpt``.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from struct import pack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from dbgpt_lite import __version__, errors
from dbgpt_lite.auth import api_key_owner
from dbgpt_lite.bootstrap import Services
from dbgpt_lite.chat.service import ChatRun
from dbgpt_lite.messages import MODES, Answer, ChatRequest, Done, Message, Mode, Passage, Sampling, Token, Waiting
from dbgpt_lite.metrics import CONTENT_TYPE

MODEL = "dbgpt-lite"
RETRY_S = 2
"""When to try again where nobody can tell."""
LOOK_S = 0.5
"""How often to look whether the caller is still there while an answer grows."""
_STATUS: tuple[tuple[type[errors.UserError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Busy, 429),
    (errors.Overloaded, 503),
    (errors.TooLarge, 400),
    (errors.ModelError, 503),
    (errors.DatabaseError, 502),
)


class Part(BaseModel):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    def message(self) -> Message:
        """The message with its parts joined; "developer" is OpenAI's newer word for "system"."""
        body = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, body)


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    include_usage: bool = False


class ChatBody(BaseModel):
    """POST /v1/chat/completions. Fields this server does not know are ignored."""

    model: str = MODEL
    messages: list[Turn] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)


class EmbeddingsBody(BaseModel):
    """POST /v1/embeddings."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"


def create_api(services: Services) -> FastAPI:
    """The API alone; the page is mounted beside it by the server."""
    app = FastAPI(title="dbgpt_lite", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = services
    app.include_router(_router)
    app.add_exception_handler(errors.UserError, _user_error)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(_Unauthorized, _unauthorized)
    return app


class _Unauthorized(Exception):
    pass


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _caller(request: Request) -> str:
    """Who calls, by API key. Without keys and logins the app listens on loopback only and needs none."""
    settings = _services(request).settings
    if not settings.api_keys and not settings.auth_users:
        return "api"
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    name = api_key_owner(settings.api_keys, key.strip()) if scheme.lower() == "bearer" else None
    if name is None:
        raise _Unauthorized
    return f"api:{name}"


Caller = Annotated[str, Depends(_caller)]
_router = APIRouter()


@_router.get("/health")
def health(request: Request) -> dict[str, str]:
    """Alive, what answers, and whether the warm-up is over."""
    services = _services(request)
    status, ready = services.models.status, "yes" if services.ready else "no"
    return {"status": "ok", "version": __version__, "model": status.name, "state": status.state, "ready": ready}


@_router.get("/metrics")
def metrics(request: Request, caller: Caller) -> Response:
    """What was answered and what runs, in Prometheus's text format."""
    return Response(_services(request).metrics.text(), media_type=CONTENT_TYPE)


@_router.get("/v1/models")
def models(request: Request, caller: Caller) -> dict[str, Any]:
    """The modes as models, with the spaces and connections there are."""
    services = _services(request)
    names = [MODEL, *(f"{MODEL}/{mode}" for mode in MODES if mode != "auto")]
    names += [f"{MODEL}/documents/{space.id}" for space in services.knowledge.spaces()]
    names += [f"{MODEL}/database/{name}" for name in services.databases.names()]
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "dbgpt_lite"} for name in names]
    return {"object": "list", "data": rows}


@_router.post("/v1/embeddings")
def embeddings(body: EmbeddingsBody, request: Request, caller: Caller) -> dict[str, Any]:
    """Unit vectors of the texts."""
    embedder = _services(request).embedder
    texts = [body.input] if isinstance(body.input, str) else body.input
    vectors = [[float(x) for x in vector] for vector in embedder.embed(texts)]
    rows = [
        {"object": "embedding", "index": i, "embedding": _encode(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    used = sum(embedder.count(text) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": rows, "model": embedder.name, "usage": usage}


@_router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request, caller: Caller) -> Response:
    """One answer, whole or as server-sent events."""
    services = _services(request)
    ask = _chat_request(services, body, caller)
    reply = _Reply(body.model)
    run = services.chat.run(ask)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(_stream(run, reply, usage, request), media_type="text/event-stream")
    answer = await _whole(run, request)
    return JSONResponse(reply.whole(answer))


def _chat_request(services: Services, body: ChatBody, owner: str) -> ChatRequest:
    mode, source = _mode(body.model)
    turns = [turn.message() for turn in body.messages]
    if turns[-1].role != "user":
        raise errors.UserError("app.last_not_user")
    settings = services.settings
    sampling = Sampling(
        temperature=settings.llm_temperature if body.temperature is None else body.temperature,
        top_p=settings.llm_top_p if body.top_p is None else body.top_p,
        max_tokens=body.max_completion_tokens or body.max_tokens or settings.llm_max_tokens,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        seed=body.seed,
    )
    history = tuple(turns[:-1])
    return ChatRequest("", turns[-1].content, owner, mode, source, sampling=sampling, history=history, origin="api")


def _mode(model: str) -> tuple[Mode, str]:
    name, _, rest = model.partition("/")
    wanted, _, source = rest.partition("/")
    for mode in MODES:
        if name == MODEL and (wanted == mode or (not wanted and mode == "auto")):
            return mode, source
    raise errors.NotFound("app.no_api_model", model=model[:80])


async def _events(run: ChatRun, request: Request) -> AsyncIterator[object]:
    """The run's events; a caller who has gone away cancels it."""
    events = run.events()
    end, looked = object(), time.monotonic()
    try:
        while (event := await run_in_threadpool(next, events, end)) is not end:
            if event is None or time.monotonic() - looked >= LOOK_S:
                if await request.is_disconnected():
                    return
                looked = time.monotonic()
            if event is not None:
                yield event
    finally:
        run.cancel()


async def _whole(run: ChatRun, request: Request) -> Answer:
    async for event in _events(run, request):
        if isinstance(event, Done):
            return event.answer
    raise errors.UserError("chat.failed")


async def _stream(run: ChatRun, reply: "_Reply", usage: bool, request: Request) -> AsyncIterator[str]:
    yield _sse(reply.chunk({"role": "assistant", "content": ""}))
    try:
        async for event in _events(run, request):
            if isinstance(event, Token):
                yield _sse(reply.chunk({"content": event.text}))
            elif isinstance(event, Waiting):
                # A comment, which clients skip: the connection stays alive.
                yield f": {event.position} ahead\n\n"
            elif isinstance(event, Done):
                for part in reply.last(event.answer, usage):
                    yield _sse(part)
    except errors.UserError as error:
        yield _sse(_error(error))
    yield "data: [DONE]\n\n"


class _Reply:
    """Builds the parts of one reply in OpenAI's shape."""

    def __init__(self, model: str) -> None:
        self._base = {"id": f"chatcmpl-{time.time_ns():x}", "created": int(time.time()), "model": model}

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**self._base, "object": "chat.completion.chunk", "choices": [choice]}

    def last(self, answer: Answer, usage: bool) -> Iterator[dict[str, Any]]:
        yield {**self.chunk({}, _finish(answer)), "dbgpt": extra(answer)}
        if usage:
            yield {**self._base, "object": "chat.completion.chunk", "choices": [], "usage": _usage(answer)}

    def whole(self, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": _finish(answer)}
        body = {**self._base, "object": "chat.completion", "choices": [choice]}
        return {**body, "usage": _usage(answer), "dbgpt": extra(answer)}


def extra(answer: Answer) -> dict[str, Any]:
    """What OpenAI's shape has no place for: mode, citations, the SQL, its rows and the prompt ledger.

    `text` is the answer as it stands after its citations were checked; a stream has sent it before that.
    """
    citations = [{"number": c.number, **_passage(c.passage), "quote": c.quote} for c in answer.citations]
    missed = [{**_passage(passage), "score": round(passage.score, 4)} for passage in answer.near_misses]
    table = answer.table and {
        "columns": answer.table.columns,
        "rows": answer.table.rows,
        "truncated": answer.table.truncated,
    }
    ledger = {line.section: line.tokens for line in answer.ledger.lines} if answer.ledger else {}
    attempts = [{"sql": a.sql, "problem": a.problem} for a in answer.attempts]
    return {
        "mode": answer.mode,
        "engine": answer.engine,
        "asked": answer.asked,
        "text": answer.text,
        "citations": citations,
        "unsupported": answer.unsupported,
        "near_misses": missed,
        "best": round(answer.best, 4),
        "needed": round(answer.needed, 4),
        "sql": answer.sql,
        "attempts": attempts,
        "table": table,
        "ledger": ledger,
    }


def _passage(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document,
        "page": passage.page,
        "heading": passage.heading,
        "text": passage.text,
    }


def _finish(answer: Answer) -> str:
    return "length" if answer.usage.finish_reason in ("length", "time") else "stop"


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage + answer.spent
    total = usage.prompt_tokens + usage.completion_tokens
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "total_tokens": total}


def _encode(vector: list[float], encoding: str) -> list[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(pack(f"<{len(vector)}f", *vector)).decode()


def _sse(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, default=str)}\n\n"


def _error(error: errors.UserError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": type(error).__name__, "code": error.key, "param": None}}


def _user_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.UserError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    # Other errors have seconds of another meaning.
    after = error.facts.get("seconds", RETRY_S) if isinstance(error, errors.Busy | errors.Overloaded) else RETRY_S
    headers = {"Retry-After": str(after)} if status in (429, 503) else None
    return JSONResponse(_error(error), status, headers)


def _bad_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    body = {"message": f"{where}: {first['msg']}", "type": "invalid_request_error", "code": None, "param": where}
    return JSONResponse({"error": body}, 422)


def _unauthorized(_request: Request, _error_: Exception) -> JSONResponse:
    body = {"message": str(errors.UserError("app.bad_api_key")), "type": "authentication_error", "code": None}
    return JSONResponse({"error": body}, 401, {"WWW-Authenticate": "Bearer"})
