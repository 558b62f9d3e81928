"""Thirty-two readers of the page at once on the default app, a third of whom close their tabs in the middle of answers.

Is a place lost, does the queue stick, does memory grow, and does everybody get on? The readers are HTTP clients that
speak to the page's own queue as its script does (Gradio's protocol: join, then events), each with a cookie of its own;
browsers would need more than the machine has. Questions go to the sample documents and the sample database by turns.
Prints a report in Markdown.

    python benchmarks/crowd.py [--users 32] [--seconds 300]
"""

import argparse
import asyncio
import json
import os
import random
import re
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from soak import start_app

QUESTIONS = (
    ("documents", "How many days do customers have to return an article?"),
    ("database", "How many orders were placed in 2024?"),
    ("documents", "工龄满五年有多少天年假？"),
    ("database", "Which cities have more than 50 customers?"),
    ("documents", "What is the daily meal allowance on a business trip?"),
    ("database", "What is the average price of the products of each category?"),
    ("database", "List the names of customers who live in Berlin."),
)
TOKENS = re.compile(r"→ ([\d,]+) tokens")
PATIENCE_S = 240


@dataclass
class Reader:
    """One person at the page. `leaves`: closes the tab in the middle of every other answer and opens another."""

    url: str
    events: dict[str, int]
    end: float
    number: int
    leaves: bool
    took: list[float] = field(default_factory=list)
    tokens: int = 0
    left: int = 0
    queued: int = 0
    failed: list[str] = field(default_factory=list)
    tab: str = field(default_factory=lambda: secrets.token_hex(6))

    async def read(self) -> None:
        """Ask, read, think for a moment, ask again until the end."""
        chance = random.Random(self.number)
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
            await http.get(self.url)
            asked = self.number
            while time.monotonic() < self.end:
                mode, question = QUESTIONS[asked % len(QUESTIONS)]
                closing = self.leaves and asked % 2 == 0
                try:
                    await self._ask(http, mode, question, chance.uniform(0.2, 2) if closing else None)
                except (httpx.HTTPError, ValueError, KeyError, TimeoutError) as error:
                    self.failed.append(repr(error))
                asked += 1
                await asyncio.sleep(chance.uniform(0.5, 2))

    async def _ask(self, http: httpx.AsyncClient, mode: str, question: str, stay_s: float | None) -> None:
        """One answer in a new conversation; the tab is closed after `stay_s` if the answer is not there by then."""
        session, started, conversation = self.tab, time.monotonic(), ""
        try:
            async with asyncio.timeout(stay_s or PATIENCE_S):
                fact = {"question": question, "mode": mode}
                async for message in self._event(http, session, "ask", ["auto", "", "", 0.7, 512], fact):
                    self.queued += "ahead of you" in json.dumps(message.get("output", {}))
                    data = message.get("output", {}).get("data", [])
                    if message["msg"] == "process_generating" and not conversation:
                        conversation = data[2]
        except TimeoutError:
            if stay_s is None:
                raise
            self.left += 1
            self.tab = secrets.token_hex(6)
            return
        async for message in self._event(http, session, "show", [conversation, ""], None):
            if message["msg"] == "process_completed":
                shown = message["output"]["data"][0]
        found = TOKENS.findall(shown)
        if not found:
            raise ValueError(f"no answer to {question}")
        self.took.append(time.monotonic() - started)
        self.tokens += int(found[-1].replace(",", ""))

    async def _event(
        self, http: httpx.AsyncClient, session: str, name: str, data: list[Any], fact: dict[str, str] | None
    ) -> AsyncIterator[dict[str, Any]]:
        """An event of the page and what comes back; leaving early closes the connection as a closed tab does."""
        body = {"data": data, "event_data": fact, "fn_index": self.events[name], "session_hash": session}
        joined = await http.post(f"{self.url}/gradio_api/queue/join", json=body)
        joined.raise_for_status()
        async with http.stream("GET", f"{self.url}/gradio_api/queue/data?session_hash={session}") as reply:
            async for line in reply.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message: dict[str, Any] = json.loads(line[5:])
                if message["msg"] == "process_completed" and not message.get("success", True):
                    raise ValueError("the page's handler failed")
                # Not to be left before: a connection that ends early is a tab that was closed.
                if message["msg"] == "close_stream":
                    return
                yield message


def page_events(url: str) -> dict[str, int]:
    """Gradio's numbers of the two events that a question makes: asking, and showing the stored thread."""
    config = httpx.get(f"{url}/config", trust_env=False).json()
    dependencies = config["dependencies"]
    ask = next(d["id"] for d in dependencies if any(event == "ask" for _, event in d["targets"]))
    return {"ask": ask, "show": next(d["id"] for d in dependencies if d["trigger_after"] == ask)}


def numbers(url: str) -> dict[str, float]:
    """The gauges of /metrics."""
    lines = httpx.get(f"{url}/metrics", trust_env=False, timeout=30).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def crowd(url: str, users: int, seconds: int, memory: psutil.Process) -> tuple[list[Reader], list[int], float]:
    """(readers, resident bytes every tenth of the time, longest queue)."""
    events, end = page_events(url), time.monotonic() + seconds
    readers = [Reader(url, events, end, number, leaves=number % 3 == 0) for number in range(users)]
    tasks = [asyncio.create_task(reader.read()) for reader in readers]
    sizes, longest = [memory.memory_info().rss], 0.0
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        sizes.append(memory.memory_info().rss)
        longest = max(longest, (await asyncio.to_thread(numbers, url))["dbgpt_lite_waiting"])
    await asyncio.gather(*tasks)
    return readers, sizes, longest


def settled(url: str) -> dict[str, float]:
    """What is still taken or waits once everybody has gone; ten seconds are given."""
    for _ in range(50):
        found = numbers(url)
        if not found["dbgpt_lite_running"] and not found["dbgpt_lite_waiting"]:
            break
        time.sleep(0.2)
    return found


def main() -> None:
    """Run and print the report; the exit code tells whether anything is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = start_app(Path(folder))
        load = os.getloadavg()[0]
        try:
            memory = psutil.Process(process.pid)
            readers, sizes, longest = asyncio.run(crowd(url, options.users, options.seconds, memory))
            after = settled(url)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    sys.exit(report(readers, sizes, longest, after, options.seconds, load))


def report(
    readers: list[Reader], sizes: list[int], longest: float, after: dict[str, float], seconds: int, load: float
) -> int:
    """Print what was found; 1 when something is wrong."""
    staying = sorted(reader.tokens for reader in readers if not reader.leaves)
    leaving = sorted(reader.tokens for reader in readers if reader.leaves)
    took = sorted(one for reader in readers for one in reader.took)
    failed = [reason for reader in readers for reason in reader.failed]
    ended = {name: value for name, value in after.items() if name.startswith("dbgpt_lite_requests_total") and value}
    share = staying[0] / statistics.median(staying)
    minute = sizes[min(max(1, round(60 * (len(sizes) - 1) / seconds)), len(sizes) - 1)]
    print(f"{len(readers)} readers for {seconds} s on {os.cpu_count()} cores (load before: {load:.1f})\n")
    print("| | |\n|---|--:|")
    print(f"| answers read to their end | {len(took)} |")
    print(f"| tabs closed in the middle of an answer | {sum(reader.left for reader in readers)} |")
    print(f"| failures | {len(failed)} |")
    print(f"| seconds an answer: median, 95 %, worst | {_spread(took)} |")
    print(f"| times a page told how many come first | {sum(reader.queued for reader in readers)} |")
    print(f"| longest queue at the model | {longest:.0f} |")
    print(f"| tokens of a reader who stays: slowest, median, fastest | {_range(staying)} |")
    print(f"| slowest / median | {share:.2f} |")
    print(f"| tokens of a reader who leaves every other answer: slowest, median, fastest | {_range(leaving)} |")
    resident = " · ".join(f"{size / 2**20:.0f}" for size in (sizes[0], minute, sizes[-1]))
    print(f"| MiB resident: start, first minute, end | {resident} |")
    print(f"| MiB at every tenth | {' '.join(f'{size / 2**20:.0f}' for size in sizes)} |")
    kept = " · ".join(f"{after[f'dbgpt_lite_{name}']:.0f}" for name in ("running", "waiting"))
    print(f"| places taken and requests waiting after the end | {kept} |")
    print("\nEnds of answers by /metrics: " + ", ".join(f"{n.split('{')[1][:-1]} {v:.0f}" for n, v in ended.items()))
    for reason in sorted(set(failed))[:5]:
        print("  failed:", reason)
    return int(bool(failed) or share < 0.5 or bool(after["dbgpt_lite_running"] or after["dbgpt_lite_waiting"]))


def _spread(values: list[float]) -> str:
    chosen = (statistics.median(values), values[int(0.95 * len(values))], values[-1])
    return " · ".join(f"{value:.2f}" for value in chosen)


def _range(values: list[int]) -> str:
    return f"{values[0]} · {statistics.median(values):.0f} · {values[-1]}"


if __name__ == "__main__":
    main()
