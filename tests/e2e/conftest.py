"""The app as people run it: a process of its own, driven through real Chromium."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from dbgpt_lite.config import ROOT
from tests.e2e.pages import new_page


@dataclass
class App:
    """The app over a data folder of its own; `environment` holds its settings."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    url: str = ""

    def start(self, wait_until_warm: bool = True) -> "App":
        """Start and wait for the page; `wait_until_warm` also for the samples and models."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        ours = {"DATA_DIR": str(self.data), "PORT": str(port), "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        self.log = self.data.with_suffix(".log")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dbgpt_lite", "serve"],
            cwd=ROOT,
            env={**ours, **self.environment},
            stdout=self.log.open("a"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._wait_for(lambda health: not wait_until_warm or health["ready"] == "yes")
        return self

    def health(self) -> dict[str, str]:
        reply: dict[str, str] = httpx.get(f"{self.url}/health", timeout=5, trust_env=False).json()
        return reply

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As Ctrl-C would."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def _wait_for(self, state: "object") -> None:
        assert self.process
        assert callable(state)
        end = time.monotonic() + 180
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if state(self.health()):
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail(f"the app did not get ready:\n{self.log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    running = App(tmp_path_factory.mktemp("app") / "data").start()
    yield running
    running.stop()


@pytest.fixture
def page(browser: Browser, app: App) -> Iterator[Page]:
    yield from new_page(browser, app.url)
