"""A Hugging Face hub, or a mirror of one (HF_ENDPOINT), over HTTP: what a repository holds, and the bytes of its files.

Asked by a client of its own: huggingface_hub is offline for the whole process here and is to stay so, sends a list of
the installed libraries along, and (1.33) begins a file anew that a stop or a crash cut off. The API is described at
https://huggingface.co/docs/hub/api; huggingface_hub itself is held against the same server in the tests.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from dbgpt_lite.errors import Cancelled, ConfigError, ModelError
from dbgpt_lite.hub.faults import Passing, check_status, network_fault
from dbgpt_lite.hub.selection import RemoteFile
from dbgpt_lite.outbound import asked_for

if TYPE_CHECKING:
    import httpx

CONNECT_S, SILENCE_S = 10.0, 10.0
TRIES = 5
_FIRST_WAIT_S = 1.0
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
# What may stand in a header as it is; quotes come from settings that were copied with them.
_TOKEN = re.compile(r"[!-~]*")
_REDIRECTS = 5
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as it is at one commit."""

    name: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether `commit` is one; a mirror may tell none, and a branch's name says nothing of what it holds."""
        return bool(_SHA1.fullmatch(self.commit))


class Hub:
    """Connections to one hub; a context manager that closes them. Threads may share it.

    `token` goes to `endpoint` alone: httpx takes it off when a redirect leads to another host. From https no redirect
    is followed to http. Proxies of the environment are used. Raises ConfigError for an endpoint or a proxy that is no
    address, and for a token that cannot be one.
    """

    def __init__(self, endpoint: str, token: str = "", first_wait_s: float = _FIRST_WAIT_S) -> None:
        import httpx

        try:
            self._endpoint = httpx.URL(endpoint.rstrip("/"))
        except httpx.InvalidURL:
            raise ConfigError("hub.bad_endpoint") from None
        if self._endpoint.scheme not in ("http", "https") or not self._endpoint.host:
            raise ConfigError("hub.bad_endpoint")
        if not _TOKEN.fullmatch(token) or '"' in token or "'" in token:
            raise ConfigError("hub.bad_token")
        self._with_token = bool(token)
        self._first_wait_s = first_wait_s
        headers = {"User-Agent": "dbgpt-lite", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        try:
            self._client = httpx.Client(
                headers=headers, timeout=timeout, follow_redirects=True, event_hooks={"request": [self._refuse_open]}
            )
        except (ValueError, ImportError, UnicodeError):
            raise ConfigError("hub.bad_proxy") from None

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def repository(self, name: str, revision: str, cancel: threading.Event) -> Repository:
        """What `owner/name` holds at a branch, tag or commit. Raises UserError and Cancelled."""
        url = f"{self._endpoint}/api/models/{name}/revision/{quote(revision, safe='')}"

        def ask() -> Repository:
            with self._asked("GET", url, name, revision, params={"blobs": "true"}) as response:
                response.read()
                return _read_repository(response, name, revision)

        return self.patiently(ask, cancel)

    def measured(
        self, repository: Repository, files: Sequence[RemoteFile], cancel: threading.Event
    ) -> tuple[RemoteFile, ...]:
        """The files with their sizes and hashes; mirrors leave them out of the list, so each such file is asked for its
        own. A hash may still be missing."""
        return tuple(
            file
            if file.size >= 0 and (file.sha256 or file.git_sha1)
            else self.patiently(partial(self._head, repository, file), cancel)
            for file in files
        )

    @contextmanager
    def content(self, repository: Repository, path: str, start: int) -> Iterator["httpx.Response"]:
        """A file's bytes from `start` on: status 206, or 200 when the server gives all. Raises Passing, UserError."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        url = self._file_url(repository, path)
        with self._asked("GET", url, repository.name, repository.revision, headers=headers) as response:
            yield response

    def patiently(self, act: Callable[[], _Result], cancel: threading.Event) -> _Result:
        """`act`, several times when the fault may be a passing one. Raises UserError and Cancelled."""
        wait_s = self._first_wait_s
        for left in reversed(range(TRIES)):
            try:
                return act()
            except Passing as fault:
                if not left:
                    raise fault.error from None
                if cancel.wait(max(wait_s, fault.wait_s)):
                    raise Cancelled from None
                wait_s *= 2
        raise AssertionError

    def _head(self, repository: Repository, file: RemoteFile) -> RemoteFile:
        """Size and hash by the first answer that tells them: a redirect to a store of large files may."""
        request = self._client.build_request("HEAD", self._file_url(repository, file.path))
        for _ in range(_REDIRECTS):
            with self._sent(request, repository.name, repository.revision, follow=False) as response:
                size = response.headers.get("x-linked-size") or (
                    "" if response.is_redirect else response.headers.get("content-length", "")
                )
                etag = (response.headers.get("x-linked-etag") or response.headers.get("etag", "")).removeprefix("W/")
                if size.isdigit():
                    found = file if file.size >= 0 else replace(file, size=int(size))
                    return _with_etag(found, etag.strip('"'))
                if not response.next_request:
                    break
                # Not one made from its address: httpx has taken the token off where it leads to another host.
                request = response.next_request
        if file.size >= 0:
            return file
        raise ModelError("hub.no_size", file=file.path, host=self._endpoint.host)

    def _file_url(self, repository: Repository, path: str) -> str:
        return f"{self._endpoint}/{repository.name}/resolve/{quote(repository.commit, safe='')}/{quote(path)}"

    def _asked(
        self, method: str, url: str, name: str, revision: str, **more: Any
    ) -> AbstractContextManager["httpx.Response"]:
        return self._sent(self._client.build_request(method, url, **more), name, revision)

    @contextmanager
    def _sent(
        self, request: "httpx.Request", name: str, revision: str, follow: bool = True
    ) -> Iterator["httpx.Response"]:
        """One request; what goes wrong on the wire, also while its body is read, is told as UserError or Passing."""
        import httpx

        with asked_for("download"):
            try:
                response = self._client.send(request, stream=True, follow_redirects=follow)
                try:
                    check_status(response, name, revision, self._with_token)
                    yield response
                finally:
                    response.close()
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                raise network_fault(error, self._endpoint.host) from None

    def _refuse_open(self, request: "httpx.Request") -> None:
        """Called before every request, those of redirects too."""
        if self._endpoint.scheme == "https" and request.url.scheme != "https":
            raise ModelError("hub.not_encrypted", host=self._endpoint.host, to=request.url.host)


def _read_repository(response: "httpx.Response", name: str, revision: str) -> Repository:
    """The hub's model info with ?blobs=true."""
    try:
        found = response.json()
        commit = str(found.get("sha") or revision)
        files = tuple(_read_file(entry) for entry in found["siblings"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError("hub.bad_answer", host=response.url.host) from None
    return Repository(name, revision, commit, files)


def _read_file(entry: Mapping[str, Any]) -> RemoteFile:
    lfs = entry.get("lfs") or {}
    size = lfs.get("size", entry.get("size"))
    file = RemoteFile(str(entry["rfilename"]), size if isinstance(size, int) and size >= 0 else -1)
    if _SHA256.fullmatch(str(lfs.get("sha256", ""))):
        return replace(file, sha256=lfs["sha256"])
    return _with_etag(file, "" if lfs else str(entry.get("blobId", "")))


def _with_etag(file: RemoteFile, etag: str) -> RemoteFile:
    if _SHA256.fullmatch(etag):
        return replace(file, sha256=etag)
    return replace(file, git_sha1=etag) if _SHA1.fullmatch(etag) else file
