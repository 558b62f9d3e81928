"""Twenty people at once on the default app: does anybody fail, and does memory grow?

Starts the app over an empty data folder; N clients ask over the streaming API, one in seven leaving midway. Prints
answers, failures, waiting times and the server's resident memory along the way.

    python benchmarks/soak.py [--users 20] [--seconds 120]
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    ("dbgpt-lite/documents", "How many days do customers have to return an article?"),
    ("dbgpt-lite/documents", "工龄满五年有多少天年假？"),
    ("dbgpt-lite/documents", "What is the daily meal allowance on a business trip?"),
    ("dbgpt-lite/database", "How many orders were placed in 2024?"),
    ("dbgpt-lite/database", "Which cities have more than 50 customers?"),
    ("dbgpt-lite/chat", "What can you do?"),
    ("dbgpt-lite", "How long is the warranty on batteries?"),
)


class Client(threading.Thread):
    """One person: asks, reads the stream to its end, thinks for a moment, asks again; sometimes leaves midway."""

    def __init__(self, url: str, end: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.url, self.end, self.random = url, end, random.Random(seed)
        self.took: list[float] = []
        self.left = 0
        self.failed: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=120, trust_env=False) as http:
            while time.monotonic() < self.end:
                try:
                    self._ask(http)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failed.append(repr(error))
                time.sleep(self.random.uniform(0.5, 3))

    def _ask(self, http: httpx.Client) -> None:
        model, question = self.random.choice(QUESTIONS)
        body = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
        started = time.monotonic()
        leave_early = self.random.random() < 0.15
        with http.stream("POST", f"{self.url}/v1/chat/completions", json=body) as reply:
            if reply.status_code != 200:
                raise ValueError(f"status {reply.status_code}")
            finished = False
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    raise ValueError(event["error"]["message"])
                finished = finished or bool(event["choices"] and event["choices"][0]["finish_reason"])
                if leave_early:
                    self.left += 1
                    return
        if not finished:
            raise ValueError("stream ended early")
        self.took.append(time.monotonic() - started)


def start_app(folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """The app, ready for questions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"DATA_DIR": str(folder), "PORT": str(port), "LOG_LEVEL": "warning"}
    # Without keys the whole API is one user.
    environment = {**os.environ, **ours, "MAX_ANSWERS_PER_USER": "64"}
    process = subprocess.Popen([sys.executable, "-m", "dbgpt_lite", "serve"], cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    while True:
        try:
            if httpx.get(f"{url}/health", trust_env=False).json()["ready"] == "yes":
                return process, url
        except httpx.TransportError:
            pass
        time.sleep(0.2)


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = start_app(Path(folder))
        memory = psutil.Process(process.pid)
        end = time.monotonic() + options.seconds
        clients = [Client(url, end, seed) for seed in range(options.users)]
        samples = [memory.memory_info().rss]
        for client in clients:
            client.start()
        while time.monotonic() < end:
            time.sleep(options.seconds / 8)
            samples.append(memory.memory_info().rss)
        for client in clients:
            client.join(120)
        samples.append(memory.memory_info().rss)
        stuck = sum(client.is_alive() for client in clients)
        process.send_signal(signal.SIGINT)
        process.wait(30)
    took = [seconds for client in clients for seconds in client.took]
    failed = [reason for client in clients for reason in client.failed]
    print(f"users {options.users}, seconds {options.seconds}, cores {os.cpu_count()}")
    print(f"answers {len(took)}, left midway {sum(c.left for c in clients)}, failed {len(failed)}, stuck {stuck}")
    if took:
        print(f"seconds an answer: median {statistics.median(took):.2f}, worst {max(took):.2f}")
    print("memory MiB:", " ".join(f"{rss / 2**20:.0f}" for rss in samples))
    for reason in sorted(set(failed))[:5]:
        print("  failed:", reason)
    sys.exit(bool(failed or stuck))


if __name__ == "__main__":
    main()
