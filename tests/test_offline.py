"""Proof that nothing leaves the machine: every connection the process tries is seen by an audit hook."""

import os
import subprocess
import sys
from pathlib import Path

from dbgpt_lite.config import ROOT

THREE_JOBS = """
import ipaddress, sys

from dbgpt_lite.outbound import ConnectionLog, status_line

connections = ConnectionLog()
connections.install()
assert connections.self_test()
seen = []

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        if not ipaddress.ip_address(args[1][0]).is_loopback:
            seen.append(args[1][0])
            raise PermissionError("outbound connection")
    if event == "socket.getaddrinfo" and args[0] not in ("localhost", "127.0.0.1", "::1", None, ""):
        seen.append(str(args[0]))
        raise PermissionError("name look-up")

sys.addaudithook(watch)

from dbgpt_lite.config import Settings, prepare_process, telemetry_left_on

prepare_process()
from dbgpt_lite.bootstrap import build_services
from dbgpt_lite.messages import ChatRequest, Done
from dbgpt_lite.server import create_app

{attempt}
settings = Settings(_env_file=None)
with build_services(settings, connections) as services:
    create_app(settings, services)
    services.prepare()
    for mode, question in (("chat", "What can you do?"), ("documents", "What is the return period?"),
                           ("database", "How many customers are there?"), ("auto", "工龄满五年有多少天年假？")):
        request = ChatRequest("", question, "test", mode, history=())
        answer = [e for e in services.chat.stream(request) if isinstance(e, Done)][0].answer
        assert answer.text and not answer.error, question
assert connections.attempts() == (), connections.attempts()
print(status_line(connections, telemetry_left_on()))
print("seen:", sorted(set(seen)))
"""


def run(data: Path, attempt: str = "") -> "subprocess.CompletedProcess[str]":
    # The variables that keep libraries offline are the app's own business: none is set from outside.
    environment = {"PATH": os.environ["PATH"], "HOME": str(data), "DATA_DIR": str(data)}
    code = THREE_JOBS.replace("{attempt}", attempt)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_three_jobs_make_no_outbound_connection(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    status, seen = done.stdout.strip().splitlines()[-2:]
    assert seen == "seen: []"
    assert status.startswith("No outbound connection since the start")
    assert "Telemetry of libraries is off" in status


def test_the_watch_sees_an_attempt(tmp_path: Path) -> None:
    done = run(tmp_path, 'import urllib.request; urllib.request.urlopen("http://192.0.2.1/", timeout=1)')
    assert done.returncode != 0
    assert "outbound connection" in done.stderr or "name look-up" in done.stderr
