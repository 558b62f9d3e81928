"""A hub on this computer: the part of the Hugging Face hub's API that a download uses, with faults on request."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class FakeRepository:
    """Files by path; those of `large` are listed as LFS files, with a SHA-256, and lie behind a redirect."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    large: tuple[str, ...] = (".safetensors", ".bin", ".gguf")
    # What the list says in place of the truth.
    said_sizes: dict[str, int] = field(default_factory=dict)
    tells_sizes: bool = True
    # Without: a mirror whose store keeps no hashes. `links`: a redirect tells the size and hash of what it leads to.
    tells_hashes: bool = True
    links: bool = True

    def is_large(self, path: str) -> bool:
        return path.endswith(self.large)

    def etag(self, path: str) -> str:
        content = self.files[path]
        if not self.tells_hashes:
            return f"{len(content):x}-5f3e"
        if self.is_large(path):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def sibling(self, path: str) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": path}
        if self.tells_sizes:
            size = self.said_sizes.get(path, len(self.files[path]))
            entry["size"] = size
            if self.tells_hashes:
                entry["blobId"] = self.etag(path)[:40]
            if self.is_large(path) and self.tells_hashes:
                entry["lfs"] = {"sha256": self.etag(path), "size": size, "pointerSize": 130}
        return entry


@dataclass
class FakeHub:
    """The server's state. `cuts`: after how many bytes the next answers for a path break off."""

    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    url: str = ""
    token: str = ""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    # Status codes for the next requests, whatever they ask.
    statuses: list[int] = field(default_factory=list)
    ignores_range: bool = False
    # Bytes after which every large file waits until `go` is set.
    waits_after: int = -1
    go: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    authorized: Counter[str] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fetched(self, path: str) -> list[str]:
        """Range headers of the requests for a file's bytes."""
        return [header for method, where, header in self.asked if method == "GET" and where.endswith(f"/{path}")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None: ...

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
            self.hub.agents.add(self.headers.get("User-Agent", ""))
            if self.headers.get("Authorization"):
                self.hub.authorized[path.split("/")[1]] += 1
            status = self.hub.statuses.pop(0) if self.hub.statuses else 0
        if status:
            return self._send(status, {}, b"", with_body)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._api("/".join(parts[2:4]), parts[4:], with_body)
        if parts[0] == "store":
            return self._content("/".join(parts[1:3]), "/".join(parts[3:]), with_body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)
        self._send(404, {}, b"", with_body)

    def _found(self, name: str, revision: str, with_body: bool) -> FakeRepository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            status = 404 if self.headers.get("Authorization") else 401
            self._send(status, {"X-Error-Code": "RepoNotFound"}, b"Repository not found", with_body)
        elif revision not in ("main", repository.commit):
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
            return None
        elif repository.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(403, {"X-Error-Code": "GatedRepo"}, b"", with_body)
            return None
        return repository

    def _api(self, name: str, rest: list[str], with_body: bool) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        # The list of a gated repository is open.
        repository = self.hub.repositories.get(name)
        if repository is None or revision not in ("main", repository.commit):
            self._found(name, revision, with_body)
            return
        if rest and rest[0] == "tree":
            found: object = [self._leaf(repository, path) for path in repository.files]
        else:
            siblings = [repository.sibling(path) for path in repository.files]
            found = {"id": name, "sha": repository.commit, "siblings": siblings, "gated": "manual"}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(found).encode(), with_body)

    def _leaf(self, repository: FakeRepository, path: str) -> Mapping[str, object]:
        entry = repository.sibling(path)
        lfs = entry.get("lfs")
        leaf: dict[str, object] = {"type": "file", "path": path, "size": entry["size"], "oid": entry["blobId"]}
        if isinstance(lfs, dict):
            leaf["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 130}
        return leaf

    def _resolve(self, name: str, revision: str, path: str, with_body: bool) -> None:
        repository = self._found(name, revision, with_body)
        if repository is None:
            return
        if path not in repository.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound"}, b"", with_body)
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{repository.etag(path)}"'}
        if not repository.is_large(path):
            return self._bytes(repository.files[path], path, headers, with_body)
        if repository.links:
            headers["X-Linked-Etag"] = f'"{repository.etag(path)}"'
            headers["X-Linked-Size"] = str(len(repository.files[path]))
        # "localhost" is another host than "127.0.0.1": no token may follow there.
        headers["Location"] = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/store/{name}/{path}"
        self._send(302, headers, b"", with_body)

    def _content(self, name: str, path: str, with_body: bool) -> None:
        self._bytes(self.hub.repositories[name].files[path], path, {}, with_body)

    def _bytes(self, content: bytes, path: str, headers: dict[str, str], with_body: bool) -> None:
        asked = "" if self.hub.ignores_range else self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start and start >= len(content):
            return self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"", with_body)
        if start:
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        with self.hub.lock:
            cuts = self.hub.cuts.get(path)
            cut = cuts.pop(0) if cuts and with_body else -1
        waits = self.hub.waits_after
        if cut < 0 and (waits < 0 or len(content) <= waits or not with_body):
            return self._send(206 if start else 200, headers, body, with_body)
        self._head(206 if start else 200, headers, len(body))
        self.wfile.write(body[: cut if cut >= 0 else waits])
        self.wfile.flush()
        if cut < 0:
            self.hub.go.wait(60)
            self.wfile.write(body[waits:])
        else:
            self.close_connection = True

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, with_body: bool) -> None:
        self._head(status, headers, len(body))
        if with_body:
            self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is what some tests are about."""


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub for the time of a block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()
