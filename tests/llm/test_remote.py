"""The remote engine against a real socket server that answers, refuses, stalls and goes away."""

import logging
import threading
from collections.abc import Iterator

import pytest

from dbgpt_lite.errors import Cancelled, ModelError, TooLarge
from dbgpt_lite.llm.estimate import estimate_tokens
from dbgpt_lite.llm.remote import RemoteEngine
from dbgpt_lite.messages import Message, Sampling
from tests.llm.fake_server import FakeServer
from tests.llm.tiny_models import answer_of, ask

GREEDY = Sampling(0, 1, 16, stop=("END",), seed=5)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.stop()


def test_answer_with_usage(server: FakeServer, never: threading.Event) -> None:
    engine = RemoteEngine(server.url)
    text, usage = answer_of(engine.stream(ask("Hi", Message("system", "S")), GREEDY, never))
    assert text == "Hello 世界"
    assert (usage.prompt_tokens, usage.completion_tokens, usage.finish_reason) == (11, 3, "stop")
    body = server.asked[0]
    assert body["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("big-model", 0, 16)
    assert (body["stop"], body["seed"], body["stream"]) == (["END"], 5, True)


def test_facts(server: FakeServer) -> None:
    info = RemoteEngine(server.url).info
    assert (info.name, info.kind, info.context_length, info.device) == ("big-model", "remote", 8192, "127.0.0.1")
    assert RemoteEngine(server.url + "/", "other").info.context_length == 4096
    assert RemoteEngine(server.url, context=1000).info.context_length == 1000


def test_context_of_llama_cpp(server: FakeServer) -> None:
    server.models = {"data": [{"id": "m", "meta": {"n_ctx_train": 2000}}]}
    assert RemoteEngine(server.url).info.context_length == 2000


def test_usage_is_estimated_without_the_servers(server: FakeServer, never: threading.Event) -> None:
    server.rejects_stream_options = True
    engine = RemoteEngine(server.url)
    for _ in range(2):
        text, usage = answer_of(engine.stream(ask("Hi"), GREEDY, never))
        assert text == "Hello 世界"
        assert usage.completion_tokens >= 3
        assert usage.prompt_tokens == engine.count(ask("Hi").messages)
    assert ["stream_options" in body for body in server.asked] == [True, False, False]


def test_the_time_limit_ends_an_answer_with_what_there_is(server: FakeServer, never: threading.Event) -> None:
    engine = RemoteEngine(server.url)
    text, usage = answer_of(engine.stream(ask("Hi"), Sampling(0, 1, 16, seconds=1e-9), never))
    assert text
    assert "Hello 世界".startswith(text)
    assert text != "Hello 世界"
    assert usage.finish_reason == "time"


def test_the_servers_queue_is_not_in_the_time_limit(server: FakeServer, never: threading.Event) -> None:
    server.pieces = ["", *server.pieces]
    text, _ = answer_of(RemoteEngine(server.url).stream(ask("Hi"), Sampling(0, 1, 16, seconds=1e-9), never))
    assert text


def test_length_is_reported(server: FakeServer, never: threading.Event) -> None:
    server.finish = "length"
    assert answer_of(RemoteEngine(server.url).stream(ask("Hi"), GREEDY, never))[1].finish_reason == "length"


@pytest.mark.parametrize("stall", ["headers", "body"])
def test_cancel_hangs_up_at_once(server: FakeServer, stall: str) -> None:
    engine, cancel = RemoteEngine(server.url), threading.Event()
    server.stall = stall
    threading.Thread(target=lambda: server.reached.wait(20) and cancel.set()).start()
    text, usage = answer_of(engine.stream(ask("Hi"), GREEDY, cancel))
    assert usage.finish_reason == "cancelled"
    assert text in ("", "one")
    assert server.gone.wait(10)


def test_closing_the_iterator_hangs_up(server: FakeServer, never: threading.Event) -> None:
    server.stall = "body"
    stream = RemoteEngine(server.url).stream(ask("Hi"), GREEDY, never)
    assert next(stream) == "one"
    stream.close()
    assert server.gone.wait(10)


def test_close_ends_what_runs(server: FakeServer, never: threading.Event) -> None:
    server.stall = "body"
    engine = RemoteEngine(server.url)
    stream = engine.stream(ask("Hi"), GREEDY, never)
    next(stream)
    engine.close()
    with pytest.raises(ModelError, match="unloaded"):
        next(stream)
    assert server.gone.wait(10)


@pytest.mark.parametrize(
    ("status", "text", "kind", "match"),
    [
        (401, "", ModelError, "LLM_API_KEY"),
        (404, "", ModelError, "LLM_ENDPOINT_MODEL"),
        (429, "", ModelError, "overloaded"),
        (503, "", ModelError, "overloaded"),
        (500, "secret prompt", ModelError, "could not answer"),
        (400, "This model's maximum context length is 8192 tokens", TooLarge, "too long"),
        (400, "exceeds the available context size", TooLarge, "too long"),
    ],
)
def test_refusals(
    server: FakeServer, never: threading.Event, status: int, text: str, kind: type[Exception], match: str
) -> None:
    engine = RemoteEngine(server.url)
    server.status, server.text = status, text
    with pytest.raises(kind, match=match) as caught:
        list(engine.stream(ask("Hi"), GREEDY, never))
    assert "secret" not in str(caught.value)


def test_server_down_at_start_and_later(server: FakeServer, never: threading.Event) -> None:
    engine = RemoteEngine(server.url)
    server.stop()
    with pytest.raises(ModelError, match="does not answer"):
        list(engine.stream(ask("Hi"), GREEDY, never))
    with pytest.raises(ModelError, match="does not answer"):
        RemoteEngine(server.url)


@pytest.mark.parametrize("endpoint", ["nonsense", "", "http://", "ftp://127.0.0.1/v1", "http://127.0.0.1:99999/v1"])
def test_bad_address(endpoint: str) -> None:
    with pytest.raises(ModelError, match="LLM_ENDPOINT"):
        RemoteEngine(endpoint)


def test_unlisted_model_names_the_listed(server: FakeServer) -> None:
    with pytest.raises(ModelError, match="big-model, other"):
        RemoteEngine(server.url, "missing")


@pytest.mark.parametrize("models", [{}, {"data": 3}, {"data": []}, []])
def test_strange_model_lists(server: FakeServer, models: dict[str, object]) -> None:
    server.models = models
    with pytest.raises(ModelError):
        RemoteEngine(server.url)


def test_key_is_sent_and_never_logged(
    server: FakeServer, never: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = RemoteEngine(server.url, api_key="top-secret-key")
    list(engine.stream(ask("Hi"), GREEDY, never))
    assert server.keys == ["Bearer top-secret-key"]
    assert "top-secret-key" not in caplog.text
    assert "top-secret-key" not in repr(engine._address)


def test_proxies_of_the_environment_are_not_used(
    server: FakeServer, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert answer_of(RemoteEngine(server.url).stream(ask("Hi"), GREEDY, never))[0] == "Hello 世界"


def test_candidates(server: FakeServer, never: threading.Event) -> None:
    engine = RemoteEngine(server.url)
    assert engine.candidates(ask("Hi"), 3, 16, never) == ["Hello 世界"]
    assert len({body["seed"] for body in server.asked}) == 3
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        engine.candidates(ask("Hi"), 3, 16, cancel)


def test_estimate_is_high_for_both_scripts(engine: object) -> None:
    from pathlib import Path

    from transformers import AutoTokenizer

    folder = Path(__file__).parents[2] / "models" / "starter-sql"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    english = (folder / "README.md").read_text(encoding="utf-8")[:2000]
    assert estimate_tokens(english) >= 0.9 * len(tokenizer(english)["input_ids"])
    assert estimate_tokens("今天天气很好") == 9
    assert estimate_tokens("") == 0
