"""A small OpenAI-compatible server for tests: real sockets, scripted answers, a record of what it was asked."""

import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"data": [{"id": "big-model", "max_model_len": 8192}, {"id": "other"}]}


class FakeServer:
    """Serves `models`, then answers with `pieces`. `status` 200 streams; anything else refuses with `text`.

    `stall`: "" , "headers" (nothing is ever sent) or "body" (one piece, then silence). `gone` is set when the client
    hangs up during a stall.
    """

    def __init__(self, models: Mapping[str, Any] = MODELS) -> None:
        self.models = models
        self.models_status = 200
        self.pieces = ["Hello ", "世", "界"]
        self.status, self.text = 200, ""
        self.stall = ""
        self.usage: dict[str, Any] | None = {"prompt_tokens": 11, "completion_tokens": 3}
        self.finish = "stop"
        self.rejects_stream_options = False
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reached, self.gone = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.keys.append(self.headers.get("Authorization"))
                self._send(fake.models_status, json.dumps(fake.models))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.asked.append(body)
                fake.reached.set()
                if fake.rejects_stream_options and "stream_options" in body:
                    return self._send(400, "unknown field stream_options")
                if fake.status != 200:
                    return self._send(fake.status, fake.text)
                if fake.stall != "headers":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                if fake.stall:
                    return self._hang()
                for piece in fake.pieces:
                    self._event({"choices": [{"delta": {"content": piece}}]})
                self._event({"choices": [{"delta": {}, "finish_reason": fake.finish}]})
                if fake.usage and "stream_options" in body:
                    self._event({"choices": [], "usage": fake.usage})
                self.wfile.write(b": a comment\n\ndata: not json\n\ndata: [DONE]\n\n")
                return None

            def _hang(self) -> None:
                if fake.stall == "body":
                    self._event({"choices": [{"delta": {"content": "one"}}]})
                self.connection.settimeout(20)
                while not self.connection.recv(1):
                    fake.gone.set()
                    return
                time.sleep(0)

            def _event(self, event: dict[str, Any]) -> None:
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()

            def _send(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        return Handler
