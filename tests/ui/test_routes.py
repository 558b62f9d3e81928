"""Every route of the real app asked for files by hostile names: nothing outside is read, nothing outside is written.

Requests go straight to the ASGI app: a client would tidy "../" away before the server sees it.
"""

import asyncio
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fake_services import make_services
from fastapi import FastAPI
from gradio.utils import get_upload_folder

from dbgpt_lite.config import ROOT
from dbgpt_lite.server import create_app

CANARY = "canary-7c1f0e"
# Parameters of routes that stand for a file or an address.
NAMES_A_FILE = re.compile(r"\{(path|path_or_url|url_path|file_name|segment_id|size)(:path)?\}")
# Values that let the other parameters of such a route pass.
FILLED = {"environment": "client", "type": "component", "ext": "ts"}
# Streams without an end.
ENDLESS = ("/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/upload_progress")
WAIT_S = 1.0


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a canary, and another canary beside it."""
    top = tmp_path_factory.mktemp("routes")
    (top / "data").mkdir()
    (top / "above" / "uploads").mkdir(parents=True)
    for file in (top / "canary.txt", top / "data" / "canary.txt"):
        file.write_text(CANARY)
    return top


@pytest.fixture(scope="module")
def app(place: Path) -> Iterator[FastAPI]:
    services = make_services(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        # In the system's own place others write at any time.
        patch.setenv("GRADIO_TEMP_DIR", str(place / "above" / "uploads"))
        yield create_app(services.settings, services)
    services.store.close()
    services.databases.close()


def routes(parent: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, method) of every route, mounted and included ones too."""
    for route in parent.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(inner, "routes"):
            yield from routes(inner, prefix + getattr(route, "path", ""))
        else:
            for method in getattr(route, "methods", None) or ():
                yield prefix + route.path, method


async def _ask(app: FastAPI, method: str, raw: str, body: bytes = b"", kind: str = "application/json") -> Reply:
    raw, _, query = raw.partition("?")
    headers = [(b"host", b"127.0.0.1:7860"), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(raw), "raw_path": raw.encode(), "query_string": query.encode(), "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 7860), "state": {},
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(parts, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await asyncio.wait_for(app(scope, receive, send), WAIT_S)
    except TimeoutError:
        assert raw.startswith(ENDLESS), raw
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 0)
    return Reply(status, b"".join(message.get("body", b"") for message in sent))


def ask(app: FastAPI, method: str, raw: str, **more: Any) -> Reply:
    # In a thread of its own: Playwright leaves an event loop running in the thread of the tests.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _ask(app, method, raw, **more)).result()


def hostile(place: Path) -> list[str]:
    """Ways to the canaries and to files every system has, in the notations that were ever let through somewhere."""
    targets = [
        str(place / "canary.txt"),
        str(place / "data" / "canary.txt"),
        "/etc/passwd",
        str(ROOT / "pyproject.toml"),
    ]
    climbs = [
        "../", "%2e%2e%2f", "%252e%252e%252f", "..%5c", "..\\", "....//", "%c0%ae%c0%ae%c0%af", "%ef%bc%8e%ef%bc%8e/",
        "..;/", "./..%2f",
    ]  # fmt: skip
    names = [climb * 12 + target.lstrip("/") for climb, target in itertools.product(climbs, targets)]
    for target in targets:
        names += [target, target.replace("/", "%2f"), target.replace("/", "%5c"), f"/{target}", f"file://{target}"]
        names += [f"{target}%00.txt", f"{target}%00", f"http://127.0.0.1:1{target}", f"C:{target}"]
    return [*names, "http://127.0.0.1:1/", "//127.0.0.1:1/x", "%00", "..", "%2e%2e", "~root/.bashrc", "\\\\host\\share"]


def outside(place: Path) -> set[Path]:
    """Every file but the uploads and what the app itself keeps open."""
    uploads = Path(get_upload_folder())
    kept = {file for file in place.rglob("*") if file.is_file() and not file.is_relative_to(uploads)}
    return {file for file in kept if not re.search(r"\.db(-wal|-shm)?$", file.name)}


def test_the_walk_knows_the_routes(app: FastAPI) -> None:
    known = {path for path, _ in routes(app)}
    assert {"/health", "/gradio_api/file={path_or_url:path}", "/gradio_api/upload", "/static/{path:path}"} <= known
    assert ask(app, "GET", "/theme.css").status == 200, "requests do arrive"


def test_downloads_by_hostile_names_are_403_or_404(app: FastAPI, place: Path) -> None:
    asked = 0
    for path, method in sorted(set(routes(app))):
        if not NAMES_A_FILE.search(path) or path.startswith("/pwa_icon"):
            continue
        for name in hostile(place):
            raw = NAMES_A_FILE.sub(lambda _: name, path, count=1)  # noqa: B023
            raw = re.sub(r"\{([^}]*)\}", lambda found: FILLED.get(found.group(1), "x"), raw)
            reply = ask(app, method, raw)
            assert reply.status in (403, 404), (method, raw, reply.status)
            assert CANARY.encode() not in reply.body, raw
            assert b"root:" not in reply.body, raw
            asked += 1
    assert asked > 500


def test_no_other_route_reads_or_writes_by_name(app: FastAPI, place: Path) -> None:
    before = outside(place)
    names = [f"{'../' * 12}{place}/canary.txt", f"{place}/data/canary.txt", f"file://{place}/canary.txt"]
    for path, method in sorted(set(routes(app))):
        if NAMES_A_FILE.search(path) and not path.startswith("/pwa_icon"):
            continue
        for name in names:
            raw = re.sub(r"\{[^}]*\}", lambda _: name.replace("/", "%2f"), path)  # noqa: B023
            query = "&".join(
                f"{key}={name}" for key in ("path", "file", "filename", "name", "upload_id", "session_hash")
            )
            body = (
                f'{{"path": "{name}", "data": [{{"path": "{name}", "meta": {{"_type": "gradio.FileData"}}}}]}}'.encode()
            )
            reply = ask(app, method, f"{raw}?{query}", body=b"" if method in ("GET", "HEAD") else body)
            assert CANARY.encode() not in reply.body, (method, raw)
            assert reply.status < 500, (method, raw, reply.status)
    assert outside(place) == before


UPLOAD_NAMES = (
    "../../x.txt", "..\\..\\x.txt", "/etc/x.txt", "%2e%2e%2fx.txt", "x\x00.txt", "．．／x.txt", "file:///etc/passwd",
    "http://127.0.0.1:1/x", "C:\\x.txt", "a/b/../../../x.txt", "~/x.txt", "x" * 5000, "..", ".", "", "CON",
    "\u202etxt.exe", "%c0%ae%c0%ae%c0%afx.txt", "x.txt\r\nX-Evil: 1",
)  # fmt: skip


@pytest.mark.parametrize("name", UPLOAD_NAMES, ids=range(len(UPLOAD_NAMES)))
def test_an_upload_lands_in_the_upload_folder_or_nowhere(app: FastAPI, place: Path, name: str) -> None:
    before = outside(place)
    above = set(Path(get_upload_folder()).parent.iterdir())
    marker = f"upload-{UPLOAD_NAMES.index(name)}"
    body = (
        f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        f"Content-Type: text/plain\r\n\r\n{marker}\r\n--b--\r\n"
    ).encode()
    reply = ask(app, "POST", "/gradio_api/upload", body=body, kind="multipart/form-data; boundary=b")
    assert reply.status in (200, 400, 403, 404, 413, 422), reply
    if reply.status == 200:
        for path in re.findall(r'"([^"]+)"', reply.body.decode()):
            assert Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()), path
            # What was uploaded is not handed out again either, to anybody.
            assert ask(app, "GET", f"/gradio_api/file={path}").status in (403, 404)
    assert outside(place) == before
    assert set(Path(get_upload_folder()).parent.iterdir()) == above
