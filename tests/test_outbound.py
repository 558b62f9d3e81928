"""The watch over outbound connections: in a process of its own, since a hook cannot be taken out again."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dbgpt_lite.config import ROOT, Settings, proxies_in_use, telemetry_left_on
from dbgpt_lite.outbound import ConnectionLog, configured_hosts, status_line
from dbgpt_lite.ui.connections_view import connections_panel

# A second hook, after the watch, stops what the first lets through: no packet leaves the test.
START = """
import json, socket, sys, threading
from dbgpt_lite.outbound import ConnectionLog, OutboundRefused, asked_for, status_line
connections = ConnectionLog({"llm.example": "LLM_ENDPOINT", "192.0.2.7": "DATABASE_URL"}, refuse=REFUSE)

def resolve(host, port, *args, **more):
    if host[0].isdigit():
        return real(host, port, *args, **more)
    sys.audit("socket.getaddrinfo", host, port, 0, 0, 0)
    address = "198.51.100.9" if host == "llm.example" else "198.51.100.8"
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

real, socket.getaddrinfo = socket.getaddrinfo, resolve
connections.install()

def stop(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0].startswith(("192.0.2.", "198.51.100.")):
        raise ConnectionError("stopped by the test")

sys.addaudithook(stop)

def reach(host, port=443):
    try:
        socket.create_connection((host, port), timeout=1)
    except OutboundRefused:
        return "refused"
    except OSError as error:
        return str(error)

CODE
print(json.dumps([[a.kind, a.who, a.host, a.port, a.count, a.refused] for a in connections.attempts()]))
"""


def watched(code: str, refuse: bool = False) -> list[list[object]]:
    """What the watch saw of `code`, the latest first."""
    program = START.replace("REFUSE", str(refuse)).replace("CODE", code)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_is_seen_of_this_computer() -> None:
    code = """
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
for host in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "localhost"):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.connect_ex((host, port))
socket.getaddrinfo = real
real("localhost", 80); real(None, 80); real(socket.gethostname(), 80); real("192.0.2.1", 80)
left, right = socket.socketpair()
left.sendmsg([b"x"])
with socket.socket(socket.AF_UNIX) as unix:
    unix.connect_ex("/nowhere")
"""
    assert watched(code) == []


def test_an_unexpected_connection_is_seen_and_its_package_named() -> None:
    code = """
assert reach("192.0.2.1") == "stopped by the test"
import httpx
try:
    httpx.get("http://tracker.example/ping", trust_env=False)
except httpx.HTTPError:
    pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    sys.audit("socket.sendto", one, ("192.0.2.2", 53))
"""
    assert watched(code) == [
        ["unexpected", "__main__", "192.0.2.2", 53, 1, False],
        ["unexpected", "__main__", "tracker.example", 80, 1, False],
        ["unexpected", "__main__", "192.0.2.1", 443, 1, False],
    ]


def test_a_library_is_named_by_itself(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import httpx\ndef report():\n    try:\n        httpx.get('http://192.0.2.3', trust_env=False)\n"
        "    except httpx.HTTPError: pass\n"
    )
    code = f"sys.path.insert(0, {str(tmp_path)!r}); import chatty; threading.Thread(target=chatty.report).start()"
    code += "\nfor thread in threading.enumerate()[1:]: thread.join()"
    assert watched(code) == [["unexpected", "chatty", "192.0.2.3", 80, 1, False]]


def test_what_was_asked_for_and_what_is_configured() -> None:
    code = """
import asyncio
with asked_for("download"):
    assert reach("hub.example") == "stopped by the test"
    reach("hub.example")
assert reach("llm.example", 8000) == "stopped by the test"
async def main():
    try:
        await asyncio.open_connection("llm.example", 8000)
    except ConnectionError:
        pass
asyncio.run(main())
reach("192.0.2.7", 3306)
assert reach("hub.example") == "refused"
"""
    assert watched(code, refuse=True) == [
        ["unexpected", "__main__", "hub.example", 0, 1, True],
        ["configured", "DATABASE_URL", "192.0.2.7", 3306, 1, False],
        # The event loop looks names up in a thread of its own; address and name are joined all the same.
        ["configured", "LLM_ENDPOINT", "llm.example", 8000, 2, False],
        ["asked", "download", "hub.example", 443, 2, False],
    ]


def test_a_page_that_a_reader_adds_is_asked_for(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
everywhere = lambda address: True
from dbgpt_lite.errors import UserError
from dbgpt_lite.knowledge.fetch import FetchLimits, fetch
try:
    fetch("http://page.example/a", Path({str(tmp_path)!r}), FetchLimits(), threading.Event(), allow=everywhere)
except UserError as error:
    assert error.key == "knowledge.url_unreachable", error.key
"""
    assert watched(code, refuse=True) == [["asked", "web_page", "page.example", 80, 1, False]]


def test_refusing_stops_it_before_it_is_made() -> None:
    code = """
assert reach("192.0.2.1") == "refused"
assert reach("tracker.example") == "refused"
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5).close()
"""
    seen = watched(code, refuse=True)
    assert [(one[2], one[5]) for one in seen] == [("tracker.example", True), ("192.0.2.1", True)]


def test_the_self_test_tells_a_watch_that_sees_from_one_that_does_not() -> None:
    code = """
assert connections.self_test() and connections.tested
blind = ConnectionLog()
assert not blind.tested
"""
    assert watched(code) == []
    assert not ConnectionLog().tested
    assert "not being watched" in status_line(ConnectionLog(), ())


def test_the_list_is_bounded() -> None:
    code = """
with socket.socket() as one:
    for port in range(1, 500):
        sys.audit("socket.sendto", one, ("192.0.2.1", port))
"""
    seen = watched(code)
    assert len(seen) == 200
    assert seen[0][3] == 499


def test_what_nobody_expected_stays_in_sight_and_everything_counts() -> None:
    code = """
reach("tracker.example")
with asked_for("download"), socket.socket() as one:
    for port in range(1, 500):
        sys.audit("socket.sendto", one, ("192.0.2.1", port))
with socket.socket() as one:
    for port in range(1, 31):
        sys.audit("socket.sendto", one, ("192.0.2.7", port))
assert connections.totals() == {"asked": 499, "configured": 30, "unexpected": 1}, connections.totals()
connections.self_test()
line = status_line(connections, ())
assert "499 asked for, 30 to configured servers, 1 unexpected" in line, line
"""
    seen = watched(code)
    assert len(seen) == 200
    assert [one[:4] for one in seen if one[0] == "unexpected"] == [["unexpected", "__main__", "tracker.example", 443]]
    assert [one[3] for one in seen if one[0] == "asked"] == list(range(499, 330, -1))
    assert sum(one[0] == "configured" for one in seen) == 30


def test_a_proxy_on_this_computer_is_no_way_out_unseen() -> None:
    """The name is asked of the proxy, so that the watch hears of nothing but a connect to this computer."""
    code = """
import httpx
proxy = socket.create_server(("127.0.0.1", 0))
port = proxy.getsockname()[1]
connections.__init__({"127.0.0.1": "LLM_ENDPOINT"}, REFUSE, {"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
connections.self_test()

def ask():
    try:
        httpx.get("https://tracker.example/", proxy=f"http://127.0.0.1:{port}", timeout=0.2)
    except (httpx.HTTPError, OutboundRefused):
        pass

ask()
with asked_for("download"):
    ask()
with socket.create_server(("127.0.0.1", 0)) as other:
    socket.create_connection(other.getsockname(), timeout=5).close()
for seen in connections.attempts():
    assert seen.port == port
line, chinese = status_line(connections, ()), status_line(connections, (), "zh")
assert "1 asked for" in line and "1 unexpected" in line, line
assert f"http://127.0.0.1:{port}" in line and "where it leads from there is not seen" in line, line
assert f"http://127.0.0.1:{port}" in chinese and "无法看到" in chinese, chinese
"""
    for refuse in (False, True):
        seen = watched(code.replace("REFUSE", str(refuse)), refuse)
        assert [(one[:3], one[5]) for one in seen] == [
            (["asked", "download", "127.0.0.1"], False),
            (["unexpected", "__main__", "127.0.0.1"], refuse),
        ]


def test_ports_of_proxies_elsewhere_are_nothing_special_here() -> None:
    connections = ConnectionLog(proxies={"HTTP_PROXY": "http://proxy.example:3128", "ALL_PROXY": "socks5://[::1"})
    with socket.socket() as one:
        connections.heard("socket.connect", (one, ("127.0.0.1", 3128)))
    assert connections.attempts() == ()
    assert "proxy.example" in status_line(connections, ())


def test_proxies_of_the_environment_are_named_without_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert proxies_in_use() == {}
    monkeypatch.setenv("https_proxy", "http://me:p@ss@127.0.0.1:3128/")
    monkeypatch.setenv("ALL_PROXY", "127.0.0.1:9")
    assert proxies_in_use() == {"HTTPS_PROXY": "http://127.0.0.1:3128", "ALL_PROXY": "http://127.0.0.1:9"}


def test_a_proxy_looks_like_an_alarm() -> None:
    quiet, loud = ConnectionLog(), ConnectionLog(proxies={"HTTP_PROXY": "http://127.0.0.1:3128"})
    for connections, alarm in ((quiet, False), (loud, True)):
        connections._tested = True
        assert ('class="connections alarm"' in connections_panel(connections, (), "en")) is alarm


def test_reverse_look_ups_are_seen() -> None:
    code = """
sys.audit("socket.gethostbyaddr", "192.0.2.3")
sys.audit("socket.getnameinfo", ("198.51.100.4", 80))
sys.audit("socket.gethostbyaddr", "127.0.0.1")
sys.audit("socket.getnameinfo", ("::1", 80, 0, 0))
sys.audit("socket.gethostbyaddr", socket.gethostname())
"""
    assert watched(code) == [
        ["unexpected", "__main__", "198.51.100.4", 0, 1, False],
        ["unexpected", "__main__", "192.0.2.3", 0, 1, False],
    ]


def test_reverse_look_ups_are_refused() -> None:
    code = """
for look_up in (lambda: socket.gethostbyaddr("192.0.2.3"), lambda: socket.getnameinfo(("192.0.2.4", 80), 0)):
    try:
        look_up()
    except OutboundRefused:
        continue
    raise AssertionError
"""
    assert len(watched(code, refuse=True)) == 2


def test_the_status_line_in_both_languages() -> None:
    code = """
connections.self_test()
quiet = status_line(connections, ())
assert "No outbound connection" in quiet and "tested" in quiet and "Telemetry of libraries is off" in quiet, quiet
assert "没有对外连接" in status_line(connections, (), "zh")
reach("192.0.2.1")
loud = status_line(connections, ("HF_HUB_OFFLINE",))
assert "1 unexpected" in loud and "HF_HUB_OFFLINE" in loud, loud
assert "意外 1 次" in status_line(connections, (), "zh")
"""
    assert len(watched(code)) == 1


def test_hosts_of_the_settings() -> None:
    settings = Settings(
        _env_file=None,
        llm_endpoint="http://GPU.example:8000/v1",
        database_url="mysql+pymysql://reader:p%40ss@db.example:3306/shop",
        databases={"two": "mysql://u:p@[2001:db8::1]/x", "file": "sqlite:////tmp/a.db"},
        vector_store="qdrant+https://key@vectors.example",
        store_url="mysql+pymysql://store.example/db",
    )
    assert configured_hosts(settings) == {
        "gpu.example": "LLM_ENDPOINT",
        "db.example": "DATABASE_URL",
        "2001:db8::1": "DATABASES",
        "vectors.example": "VECTOR_STORE",
        "store.example": "STORE_URL",
    }
    assert configured_hosts(Settings(_env_file=None)) == {}


def test_telemetry_that_the_environment_turns_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("HF_HUB_OFFLINE", "YES"), ("HF_HUB_DISABLE_TELEMETRY", "1"), ("GRADIO_ANALYTICS_ENABLED", "False"),
        ("LANGSMITH_TRACING", "false"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert telemetry_left_on() == ()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    assert telemetry_left_on() == ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED")
