"""Start-up time, page weight and memory of the default app, second start, seen from a real browser.

Run ``python benchmarks/startup.py``; it needs the dev extra and Chromium.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = (
    ("chat", "What can you do?"),
    ("documents", "How many days do customers have to return an article?"),
    ("database", "How many orders were placed in 2024?"),
)


def start(folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Start the app; returns at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "DATA_DIR": str(folder), "PORT": str(port), "LOG_LEVEL": "warning"}
    process = subprocess.Popen([sys.executable, "-m", "dbgpt_lite", "serve"], cwd=ROOT, env=environment)
    return process, f"http://127.0.0.1:{port}"


def wait_for(url: str, key: str, value: str) -> None:
    """Until /health says so."""
    while True:
        try:
            if httpx.get(f"{url}/health", trust_env=False).json()[key] == value:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    process.wait(30)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        folder = Path(name) / "data"
        process, url = start(folder)
        wait_for(url, "ready", "yes")
        stop(process)

        began = time.monotonic()
        process, url = start(folder)
        wait_for(url, "status", "ok")
        print(f"second start: server answers after {time.monotonic() - began:.1f} s")
        page = browser.new_page()
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        loaded: list[float] = []
        session.on("Network.loadingFinished", lambda event: loaded.append(event["encodedDataLength"]))
        page.goto(url)
        page.wait_for_selector("html.is-ready")
        print(f"second start: page usable after {time.monotonic() - began:.1f} s")
        print(f"page weight: {sum(loaded) / 1024:.0f} KiB in {len(loaded)} requests")
        wait_for(url, "ready", "yes")
        print(f"second start: everything warm after {time.monotonic() - began:.1f} s")
        memory = psutil.Process(process.pid)
        print(f"memory, warm: {memory.memory_info().rss / 2**20:.0f} MiB")
        for mode, question in QUESTIONS:
            asked = time.monotonic()
            body = {"model": f"dbgpt-lite/{mode}", "messages": [{"role": "user", "content": question}]}
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False).raise_for_status()
            print(f"first answer, {mode}: {time.monotonic() - asked:.2f} s")
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]
        print(f"memory, peak: {int(peak) / 1024:.0f} MiB")
        stop(process)
        browser.close()


if __name__ == "__main__":
    main()
