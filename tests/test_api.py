"""The public openai client against the real services: built-in assistant, sample documents, sample database."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from dbgpt_lite import api
from dbgpt_lite.api import create_api, extra
from dbgpt_lite.auth import new_api_key
from dbgpt_lite.bootstrap import Services, build_services
from dbgpt_lite.config import Settings
from dbgpt_lite.errors import Busy, ModelError, UserError
from dbgpt_lite.messages import MODES, Answer, Citation, Passage, Token
from dbgpt_lite.metrics import OUTCOMES


class Server:
    """The API on a free port in a thread."""

    def __init__(self, services: Services) -> None:
        self.services = services
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(create_api(services), log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), _env_file=None)  # type: ignore[call-arg]
    with build_services(settings) as services:
        services.prepare()
        running = Server(services)
        yield running
        running.stop()


def ask(server: Server, model: str, question: str, **more: object) -> openai.types.chat.ChatCompletion:
    messages = [{"role": "user", "content": question}]
    return server.client().chat.completions.create(model=model, messages=messages, **more)  # type: ignore[call-overload,no-any-return]


def test_documents_answer_carries_its_citation(server: Server) -> None:
    reply = ask(server, "dbgpt-lite/documents", "How many days do customers have to return an article?")
    assert "45 days" in (reply.choices[0].message.content or "")
    facts = reply.model_extra["dbgpt"]  # type: ignore[index]
    citation = facts["citations"][0]
    assert citation["document"] == "returns-and-warranty.md"
    assert "45 days" in citation["quote"]
    assert citation["quote"] in citation["text"]
    assert reply.usage
    assert reply.usage.completion_tokens > 0


def test_a_follow_up_is_searched_for_with_its_conversation(server: Server) -> None:
    messages = [
        {"role": "user", "content": "How long is the warranty on lanterns?"},
        {"role": "assistant", "content": "The lanterns have a warranty of three years."},
        {"role": "user", "content": "And on batteries?"},
    ]
    for stream in (False, True):
        reply = server.client().chat.completions.create(
            model="dbgpt-lite/documents",
            messages=messages,  # type: ignore[arg-type]
            stream=stream,
        )
        last = list(reply)[-1] if stream else reply
        facts = last.model_extra["dbgpt"]  # type: ignore[union-attr, index]
        assert facts["asked"] == "How long is the warranty on batteries?"
        assert "batter" in facts["text"].lower()
        assert facts["citations"]
        assert (facts["unsupported"], facts["near_misses"]) == ([], [])


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_carries_what_came_near(server: Server, stream: bool) -> None:
    reply = ask(server, "dbgpt-lite/documents", "Who painted the Mona Lisa?", stream=stream)
    last = list(reply)[-1] if stream else reply
    facts = last.model_extra["dbgpt"]  # type: ignore[union-attr, index]
    assert facts["citations"] == []
    assert facts["near_misses"]
    assert facts["unsupported"] == []
    assert {"document", "page", "heading", "text", "score"} == facts["near_misses"][0].keys()


def test_the_extra_field_tells_what_has_no_source() -> None:
    passage = Passage(1, "Two.", "d", "a.md", heading="H", score=0.31234)
    answer = Answer(
        "One. Two [1].", "documents", "m", citations=(Citation(1, passage, "Two."),), unsupported=("One.",),
        near_misses=(passage,), best=0.31234, needed=0.45, asked="whole",
    )  # fmt: skip
    found = extra(answer)
    assert found["unsupported"] == ("One.",)
    assert (found["asked"], found["best"], found["needed"]) == ("whole", 0.3123, 0.45)
    assert found["near_misses"] == [{"document": "a.md", "page": None, "heading": "H", "text": "Two.", "score": 0.3123}]
    assert found["citations"][0]["quote"] == "Two."


def test_database_answer_carries_query_and_rows(server: Server) -> None:
    reply = ask(server, "dbgpt-lite/database/shop", "How many customers are there?")
    facts = reply.model_extra["dbgpt"]  # type: ignore[index]
    assert facts["sql"].upper().startswith("SELECT")
    assert str(facts["table"]["rows"][0][0]) in (reply.choices[0].message.content or "")
    ran, planned = server.services.queries.audit.entries(owner="api", limit=2)
    assert (ran.origin, ran.asked, ran.outcome, ran.rows) == ("api", facts["sql"], "ok", 1)
    assert (planned.origin, planned.outcome) == ("explain", "ok")
    assert planned.statement.endswith(ran.statement)


def test_auto_chooses_and_streams(server: Server) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "工龄满五年有多少天年假？"}]}]
    stream = server.client().chat.completions.create(
        model="dbgpt-lite",
        messages=messages,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "15 天" in text
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 3
    assert chunks[-1].usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].model_extra["dbgpt"]["mode"] == "documents"  # type: ignore[index]


def test_models_lists_modes_spaces_and_connections(server: Server) -> None:
    names = [model.id for model in server.client().models.list()]
    assert {"dbgpt-lite", "dbgpt-lite/chat", "dbgpt-lite/database/shop"} <= set(names)
    assert len([n for n in names if n.startswith("dbgpt-lite/documents/")]) == 1


def test_embeddings_are_unit_vectors_in_both_encodings(server: Server) -> None:
    texts = ["a lamp", "保修期"]
    plain = server.client().embeddings.create(model="any", input=texts, encoding_format="float")
    packed = server.client().embeddings.create(model="any", input=texts)
    for one, other in zip(plain.data, packed.data, strict=True):
        assert len(one.embedding) == 384
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=0.01)
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_health_needs_no_key(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_only_a_refusal_for_want_of_places_says_when_to_come_again() -> None:
    # A server that was silent for 300 s may be back at any time.
    silent = api._user_error(None, ModelError("llm.server_silent", server="s", seconds=300))  # type: ignore[arg-type]
    busy = api._user_error(None, Busy("chat.too_many_yours", count=1, seconds=40))  # type: ignore[arg-type]
    assert [silent.headers["retry-after"], busy.headers["retry-after"]] == [str(api.RETRY_S), "40"]


def test_a_caller_who_has_hung_up_is_noticed_while_tokens_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LOOK_S", 0)
    read: list[int] = []

    class Run:
        cancelled = False

        def events(self) -> Iterator[Token]:
            for number in range(50):
                read.append(number)
                yield Token("x")

        def cancel(self) -> None:
            self.cancelled = True

    class Gone:
        async def is_disconnected(self) -> bool:
            return True

    run = Run()
    # In a thread: a browser of another test may have left its loop running in this one.
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError):
        pool.submit(asyncio.run, api._whole(run, Gone())).result()  # type: ignore[arg-type]
    assert (read, run.cancelled) == ([0], True)


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_it_takes_on_is_refused_at_once_with_a_time_to_come_again(server: Server, stream: bool) -> None:
    chat, settings = server.services.chat, server.services.settings
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    places = [chat.admit("api") for _ in range(settings.max_answers_per_user)]
    mine = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    places += [chat.admit(f"user:{number}") for number in range(settings.max_answers - len(places))]
    places.pop(0).leave()
    places.append(chat.admit("user:last"))
    full = httpx.post(f"{server.url}/v1/chat/completions", json=body)
    for place in places:
        place.leave()
    assert [mine.status_code, full.status_code] == [429, 503]
    assert int(full.headers["retry-after"]) >= 1
    assert full.json()["error"]["type"] == "Overloaded"
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_metrics_count_by_mode_and_name_nobody(server: Server) -> None:
    ask(server, "dbgpt-lite/database/shop", "How many customers are there?")
    ask(server, "dbgpt-lite/documents", "How many days do customers have to return an article?")
    reply = httpx.get(f"{server.url}/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    labels = {label for _, *labels in found for label in labels if not label.replace(".", "").isdigit()}
    assert labels == {*MODES, *OUTCOMES, "prompt", "cached", "written", "+Inf"}
    for mode in ("database", "documents"):
        assert found["dbgpt_lite_requests_total", mode, "answered"] >= 1
        assert found["dbgpt_lite_answer_seconds_count", mode] >= 1
    # The query's own tokens, beside the sentence over its rows.
    assert found["dbgpt_lite_tokens_total", "prompt"] > 100
    assert found[("dbgpt_lite_running",)] == found[("dbgpt_lite_waiting",)] == 0
    assert (found[("dbgpt_lite_ready",)], found[("dbgpt_lite_model_loaded",)]) == (server.services.ready, 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]}, 404),
        ({"model": "dbgpt-lite/documents/nope", "messages": [{"role": "user", "content": "hi"}]}, 404),
        ({"model": "dbgpt-lite/database/../../etc", "messages": [{"role": "user", "content": "hi"}]}, 404),
        ({"messages": []}, 422),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, 400),
        ({"messages": [{"role": "user", "content": "hi"}], "temperature": 9}, 422),
        ({"messages": [{"role": "root", "content": "hi"}]}, 422),
    ],
)
def test_wrong_requests_get_openais_error_shape(server: Server, body: dict[str, object], status: int) -> None:
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]
    assert "Traceback" not in reply.text


def test_error_in_a_stream_is_an_event(server: Server) -> None:
    body = {"model": "dbgpt-lite/documents/nope", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["error"]["type"] == "NotFound"
    assert reply.text.rstrip().endswith("[DONE]")


def test_keys_are_asked_for_once_there_are_any(tmp_path: Path) -> None:
    key, digest = new_api_key()
    settings = Settings(data_dir=tmp_path, api_keys=f"ana:{digest}", sample_data=False, _env_file=None)  # type: ignore[call-arg]
    with build_services(settings) as services:
        server = Server(services)
        for path, method in (
            ("/metrics", "GET"),
            ("/v1/models", "GET"),
            ("/v1/embeddings", "POST"),
            ("/v1/chat/completions", "POST"),
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {key}"}):
                body = {"input": "x", "messages": [{"role": "user", "content": "hi"}]} if method == "POST" else None
                reply = httpx.request(method, server.url + path, json=body, headers=headers)
                assert reply.status_code == 401, path
        assert [model.id for model in server.client(key).models.list()]
        assert httpx.get(f"{server.url}/health").status_code == 200
        server.stop()
