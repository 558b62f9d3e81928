"""Whole downloads from a hub on this computer: the right files, taken up after every kind of break, or refused."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dbgpt_lite.chat.extractive import ExtractiveEngine
from dbgpt_lite.config import ROOT
from dbgpt_lite.errors import Busy, Cancelled, ConfigError, ModelError, NotFound, UserError
from dbgpt_lite.hub import download as download_module
from dbgpt_lite.hub import transfer
from dbgpt_lite.hub.client import Hub, Repository
from dbgpt_lite.hub.download import download
from dbgpt_lite.hub.partial import discard, interrupted, wanted
from dbgpt_lite.hub.selection import RemoteFile
from dbgpt_lite.llm.manager import ModelManager
from dbgpt_lite.texts import LANGUAGES
from tests.hub.conftest import NAME, content
from tests.hub.fake_hub import FakeHub, FakeRepository

TAKEN = {
    "config.json", "tokenizer.json", "README.md", "model.safetensors.index.json",
    "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
}  # fmt: skip
FIRST = "model-00001-of-00002.safetensors"


def fetch(hub: FakeHub, models: Path, name: str = NAME, token: str = "", **more: Any) -> list[tuple[int, int]]:
    """Download; gives the progress that was told."""
    told: list[tuple[int, int]] = []
    cancel = more.pop("cancel", threading.Event())
    with Hub(hub.url, token, first_wait_s=0.01) as client:
        wish = wanted(hub.url, name, **more)
        download(client, models, wish, lambda done, total: told.append((done, total)), cancel)
    return told


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def refusal(hub: FakeHub, models: Path, **more: Any) -> UserError:
    with pytest.raises(UserError) as told:
        fetch(hub, models, **more)
    assert told.value.render("en") != told.value.render("zh")
    return told.value


def test_the_right_files_arrive_whole(hub: FakeHub, tmp_path: Path) -> None:
    told = fetch(hub, tmp_path)
    there = files_in(tmp_path / "tiny-llama")
    assert there == {path: hub.repositories[NAME].files[path] for path in TAKEN}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-llama"]
    note = json.loads((tmp_path / "tiny-llama" / ".download.json").read_text())
    assert (note["name"], note["commit"]) == (NAME, hub.repositories[NAME].commit)
    total = sum(len(there[path]) for path in TAKEN)
    assert told[-1] == (total, total)
    assert told == sorted(told)
    assert hub.agents == {"dbgpt-lite"}


def test_huggingface_hub_gets_the_same_from_this_server(hub: FakeHub, tmp_path: Path) -> None:
    """The server is a fair one: the hub's own client takes from it what ours takes."""
    code = (
        "import sys; from huggingface_hub import snapshot_download\n"
        f"snapshot_download({NAME!r}, local_dir=sys.argv[1], allow_patterns={sorted(TAKEN)!r})"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    theirs = tmp_path / "theirs"
    subprocess.run([sys.executable, "-c", code, str(theirs)], env=environment, check=True, capture_output=True)
    fetch(hub, tmp_path, folder="ours")
    hidden = {path: body for path, body in files_in(theirs).items() if not path.startswith(".cache")}
    assert hidden == files_in(tmp_path / "ours")


def test_a_broken_connection_goes_on_where_it_broke(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {FIRST: [1_000_000, 2_000_000]}
    fetch(hub, tmp_path)
    assert (tmp_path / "tiny-llama" / FIRST).read_bytes() == hub.repositories[NAME].files[FIRST]
    starts = [header for header in hub.fetched(FIRST) if header]
    # Each request is made twice: at the hub, and at the store it leads to.
    assert sorted(set(starts)) == ["bytes=1000000-", "bytes=3000000-"]


def test_a_connection_that_breaks_for_good_leaves_what_came(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {FIRST: [1_000_000, *[0] * 20]}
    assert refusal(hub, tmp_path).key == "hub.broken_off"
    assert not (tmp_path / "tiny-llama").exists()
    (one,) = interrupted(tmp_path, hub.url)
    assert one.wanted == wanted(hub.url, NAME)
    assert 1_000_000 <= one.done_bytes < one.total_bytes
    hub.cuts = {}
    told = fetch(hub, tmp_path)
    assert told[0][0] > 0
    assert told[-1][0] == told[-1][1]
    assert hub.fetched(FIRST)[-1] == "bytes=1000000-"
    assert interrupted(tmp_path, hub.url) == []


def test_a_slow_line_that_keeps_breaking_gets_there(hub: FakeHub, tmp_path: Path) -> None:
    """More breaks than tries: patience begins anew while something comes."""
    hub.cuts = {FIRST: [200_000] * 24}
    fetch(hub, tmp_path)
    assert (tmp_path / "tiny-llama" / FIRST).read_bytes() == hub.repositories[NAME].files[FIRST]


def test_a_server_without_ranges_is_read_from_the_start(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {FIRST: [1_000_000]}
    hub.ignores_range = True
    told = fetch(hub, tmp_path)
    assert (tmp_path / "tiny-llama" / FIRST).read_bytes() == hub.repositories[NAME].files[FIRST]
    assert max(done for done, _ in told) == told[-1][1]


def test_passing_trouble_is_waited_out(hub: FakeHub, tmp_path: Path) -> None:
    hub.statuses = [503, 429, 500, 502]
    fetch(hub, tmp_path)
    hub.statuses = [503] * 5
    assert refusal(hub, tmp_path, folder="again").key == "hub.trouble"
    assert not (tmp_path / ".again.partial").exists()


def test_what_the_hub_changed_meanwhile_is_fetched_anew(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {FIRST: [1_000_000, *[0] * 20]}
    refusal(hub, tmp_path)
    hub.cuts = {}
    repository = hub.repositories[NAME]
    repository.files = {**repository.files, FIRST: content(9, 5_000_000)}
    repository.commit = "d" * 40
    fetch(hub, tmp_path)
    assert (tmp_path / "tiny-llama" / FIRST).read_bytes() == content(9, 5_000_000)
    assert hub.fetched(FIRST)[-1] == ""


def broken_off(hub: FakeHub, models: Path, **more: Any) -> None:
    """A download that stops within FIRST."""
    hub.cuts = {FIRST: [1_000_000, *[0] * 20]}
    refusal(hub, models, **more)
    hub.cuts = {}


def test_without_hashes_two_commits_are_not_mixed(hub: FakeHub, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    repository.tells_hashes = repository.links = False
    broken_off(hub, tmp_path)
    fetch(hub, tmp_path)
    assert hub.fetched(FIRST)[-1].startswith("bytes=")  # the same commit: gone on with
    shutil.rmtree(tmp_path / "tiny-llama")
    broken_off(hub, tmp_path)
    # Files of the same sizes at another commit.
    changed = {path: bytes(byte ^ 1 for byte in body) for path, body in repository.files.items()}
    repository.files, repository.commit = changed, "d" * 40
    fetch(hub, tmp_path)
    assert files_in(tmp_path / "tiny-llama") == {path: changed[path] for path in TAKEN}


def test_without_hashes_and_commits_nothing_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    repository.tells_hashes = repository.links = False
    repository.commit = "main"
    broken_off(hub, tmp_path)
    fetch(hub, tmp_path)
    assert hub.fetched(FIRST)[-1] == ""


def test_files_listed_without_a_hash_are_asked_for_one(hub: FakeHub, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    with Hub(hub.url) as client:
        bare = tuple(RemoteFile(path, len(repository.files[path])) for path in (FIRST, "config.json"))
        found = Repository(NAME, "main", repository.commit, bare)
        large, small = client.measured(found, bare, threading.Event())
    assert large.sha256 == hashlib.sha256(repository.files[FIRST]).hexdigest()
    assert small.git_sha1 == repository.etag("config.json")


def test_the_unfinished_download_of_another_is_not_touched(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["lamp/tiny-llama"] = FakeRepository({"config.json": b"{}", "model.safetensors": content(7, 50)})
    broken_off(hub, tmp_path)
    before = files_in(tmp_path / ".tiny-llama.partial")
    error = refusal(hub, tmp_path, name="lamp/tiny-llama")
    assert error.key == "hub.other_partial"
    assert NAME in error.render("en")
    assert NAME in error.render("zh")
    assert files_in(tmp_path / ".tiny-llama.partial") == before
    fetch(hub, tmp_path, name="lamp/tiny-llama", folder="lamp")
    discard(tmp_path, "tiny-llama")
    fetch(hub, tmp_path, name="lamp/tiny-llama")
    assert set(files_in(tmp_path / "tiny-llama")) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "entry",
    [
        {"path": FIRST, "size": None}, {"path": FIRST, "size": -5}, {"path": FIRST, "size": True}, {"path": FIRST},
        {"size": 5}, {"path": ["x"], "size": 5}, {"path": "../../secret", "size": 5},
        {"path": "/etc/passwd", "size": 5}, {"path": "a\0b", "size": 5}, "x", None,
    ],
)  # fmt: skip
def test_a_broken_note_costs_no_more_than_its_entry(hub: FakeHub, tmp_path: Path, entry: object) -> None:
    models = tmp_path / "a" / "models"
    (tmp_path / "secret").write_text("12345")
    broken_off(hub, models)
    note = models / ".tiny-llama.partial" / ".download.json"
    written = json.loads(note.read_text())
    others = [file for file in written["files"] if file["path"] != FIRST]
    note.write_text(json.dumps({**written, "files": [*others, entry]}))
    (one,) = interrupted(models, hub.url)
    assert one.total_bytes == sum(file["size"] for file in others)
    fetch(hub, models)
    assert files_in(models / "tiny-llama") == {path: hub.repositories[NAME].files[path] for path in TAKEN}
    assert (tmp_path / "secret").read_text() == "12345"


def test_bytes_that_no_note_explains_are_not_taken_for_the_model(hub: FakeHub, tmp_path: Path) -> None:
    broken_off(hub, tmp_path)
    folder = tmp_path / ".tiny-llama.partial"
    for path in TAKEN:
        (folder / path).write_bytes(bytes(len(hub.repositories[NAME].files[path])))
    (folder / ".download.json").write_text("{")
    fetch(hub, tmp_path)
    assert files_in(tmp_path / "tiny-llama") == {path: hub.repositories[NAME].files[path] for path in TAKEN}


@pytest.mark.parametrize("said", [4_999_000, 5_001_000])
def test_a_wrong_size_is_refused(hub: FakeHub, tmp_path: Path, said: int) -> None:
    hub.repositories[NAME].said_sizes[FIRST] = said
    assert refusal(hub, tmp_path).key in ("hub.damaged", "hub.too_short")
    assert not (tmp_path / "tiny-llama").exists()
    assert not (tmp_path / ".tiny-llama.partial" / FIRST).exists()
    assert not (tmp_path / ".tiny-llama.partial" / f"{FIRST}.part").exists()


@pytest.mark.parametrize("path", [FIRST, "config.json"])
def test_a_wrong_hash_is_refused(hub: FakeHub, tmp_path: Path, path: str) -> None:
    """Both kinds: SHA-256 of large files, git's SHA-1 of small ones; a flipped bit in what an earlier run left too."""
    hub.cuts = {path: [10, *[0] * 20]}
    refusal(hub, tmp_path)
    part = tmp_path / ".tiny-llama.partial" / f"{path}.part"
    part.write_bytes(bytes([part.read_bytes()[0] ^ 1]) + part.read_bytes()[1:])
    hub.cuts = {}
    told = refusal(hub, tmp_path)
    assert told.key == "hub.damaged"
    assert told.facts["file"] == path
    assert not part.exists()
    fetch(hub, tmp_path)
    assert (tmp_path / "tiny-llama" / path).read_bytes() == hub.repositories[NAME].files[path]


def test_a_mirror_that_tells_no_sizes_is_asked_for_each_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[NAME].tells_sizes = False
    fetch(hub, tmp_path)
    assert set(files_in(tmp_path / "tiny-llama")) == TAKEN
    assert {where.rpartition("/")[2] for method, where, _ in hub.asked if method == "HEAD"} == TAKEN
    note = json.loads((tmp_path / "tiny-llama" / ".download.json").read_text())
    hashes = {file["path"]: file["sha256"] for file in note["files"]}
    assert hashes[FIRST] == hashlib.sha256(content(1, 5_000_000)).hexdigest()


def test_the_token_goes_to_the_hub_and_no_further(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    hub.repositories[NAME].gated = True
    error = refusal(hub, tmp_path)
    assert error.key == "hub.gated"
    assert "HF_TOKEN" in str(error)
    fetch(hub, tmp_path, token="hf_secret")
    assert hub.authorized["store"] == 0
    assert hub.authorized["lantern"] > 0
    assert b"hf_secret" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_token_does_not_follow_a_redirect_that_is_asked_for_a_size(hub: FakeHub, tmp_path: Path) -> None:
    repository = hub.repositories[NAME]
    hub.token, repository.gated = "hf_secret", True
    repository.tells_sizes = repository.links = False
    fetch(hub, tmp_path, token="hf_secret")
    assert [where for method, where, _ in hub.asked if method == "HEAD" and where.startswith("/store")]
    assert hub.authorized["store"] == 0
    assert set(files_in(tmp_path / "tiny-llama")) == TAKEN


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_no_redirect_leads_from_https_to_http(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    sent: list[str] = []

    def answer(transport: object, request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url))
        return httpx.Response(302, headers={"Location": str(request.url.copy_with(scheme="http"))}, content=b"")

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    repository = Repository(NAME, "main", "c" * 40, (RemoteFile("config.json"),))
    with Hub("https://hub.example", "hf_secret") as client:
        ask: dict[str, Callable[[], object]] = {
            "HEAD": lambda: client.measured(repository, repository.files, threading.Event()),
            "GET": lambda: client.content(repository, "config.json", 0).__enter__(),
        }
        with pytest.raises(ModelError) as told:
            ask[method]()
    assert told.value.key == "hub.not_encrypted"
    assert [url.partition(":")[0] for url in sent] == ["https"]


@pytest.mark.parametrize("token", ["hf_ä", '"hf_a"', "'hf_a'", "hf_a\n", "hf_a\r\nX: y", "hf a", "秘密"])
def test_a_token_that_cannot_be_one_is_named_and_not_shown(hub: FakeHub, token: str) -> None:
    with pytest.raises(ConfigError, match="HF_TOKEN") as told:
        Hub(hub.url, token)
    assert token not in told.value.render("en") + told.value.render("zh")


def test_what_is_not_there_is_said(hub: FakeHub, tmp_path: Path) -> None:
    assert refusal(hub, tmp_path, name="lantern/nothing").key == "hub.no_repository"
    assert refusal(hub, tmp_path, name="lantern/nothing", token="t").key == "hub.no_repository"
    assert refusal(hub, tmp_path, revision="v9").key == "hub.no_revision"
    hub.statuses = [401]
    assert refusal(hub, tmp_path, token="old").key == "hub.token_refused"
    hub.statuses = [403]
    assert refusal(hub, tmp_path).key == "hub.forbidden"
    assert list(tmp_path.iterdir()) == []


def test_no_network_no_hub_no_proxy(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_url, hub.url = hub.url, "http://127.0.0.1:9"
    assert refusal(hub, tmp_path).key == "hub.no_network"
    hub.url = hub_url
    for endpoint in ("ftp://mirror", "mirror.example", "http://", "http://a:b", ""):
        with pytest.raises(ConfigError, match="HF_ENDPOINT"):
            Hub(endpoint)
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:1")
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        Hub(hub.url)
    # The hub serves as a proxy that refuses.
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    hub.statuses = [407]
    hub.url = "http://hub.example"
    assert refusal(hub, tmp_path).key == "hub.proxy"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"siblings": [{}]}', b"<html>", b'{"siblings": 7}'])
def test_a_server_that_is_no_hub(hub: FakeHub, tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.hub.fake_hub.json.dumps", lambda found: answer.decode())
    assert refusal(hub, tmp_path).key == "hub.bad_answer"


@pytest.mark.parametrize("path", ["../../escaped.json", "/tmp/escaped.json", "..\\escaped.json"])
def test_a_repository_cannot_write_elsewhere(hub: FakeHub, tmp_path: Path, path: str) -> None:
    models = tmp_path / "a" / "models"
    hub.repositories[NAME].files[path] = b"crossed"
    assert refusal(hub, models).key == "hub.bad_file_name"
    assert not [found for found in tmp_path.rglob("*") if "escaped" in found.name]


def test_names_reach_the_terminal_without_control_characters(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[NAME].files["a\x1b]0;owned\x07\u202e.json"] = b"{}"
    error = refusal(hub, tmp_path)
    assert error.key == "hub.bad_file_name"
    for language in LANGUAGES:
        assert error.render(language).isprintable()
        assert r"a\x1b]0;owned\x07\u202e.json" in error.render(language)


def test_a_folder_that_is_there_is_not_touched(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "tiny-llama").mkdir()
    assert refusal(hub, tmp_path).key == "hub.exists"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert refusal(hub, tmp_path, folder="link").key == "hub.exists"
    assert hub.asked == []


def test_room_is_looked_at_before(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: usage._replace(free=2**28 + 8_000_000))
    error = refusal(hub, tmp_path)
    assert error.key == "hub.no_room"
    assert error.facts == {"needed": "7.63 MiB", "free": "0.26 GiB"}
    assert not hub.fetched(FIRST)
    assert interrupted(tmp_path, hub.url) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_what_came_is_kept(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transfer._Part.write

    def write(self: Any, block: bytes) -> None:
        if self.size >= 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, block)

    monkeypatch.setattr(transfer._Part, "write", write)
    assert refusal(hub, tmp_path).key == "hub.disk_full"
    monkeypatch.setattr(transfer._Part, "write", whole)
    fetch(hub, tmp_path)
    assert any(header.startswith("bytes=") for path in TAKEN for header in hub.fetched(path))
    assert set(files_in(tmp_path / "tiny-llama")) == TAKEN


def test_a_models_folder_that_cannot_be_written(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    assert refusal(hub, tmp_path / "models").key == "hub.cannot_write"


def test_a_stop_keeps_what_came_and_others_stay_out(hub: FakeHub, tmp_path: Path) -> None:
    hub.waits_after = 1_000_000
    cancel, errors = threading.Event(), []

    def run() -> None:
        try:
            fetch(hub, tmp_path, cancel=cancel)
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    part = tmp_path / ".tiny-llama.partial" / f"{FIRST}.part"
    wait_for(lambda: part.exists() and hub.fetched(FIRST) != [])
    with pytest.raises(Busy):
        fetch(hub, tmp_path)
    with pytest.raises(Busy):
        discard(tmp_path, "tiny-llama")
    cancel.set()
    hub.go.set()
    worker.join(30)
    assert [type(error) for error in errors] == [Cancelled]
    hub.waits_after = -1
    fetch(hub, tmp_path)
    assert set(files_in(tmp_path / "tiny-llama")) == TAKEN


def test_what_is_unfinished_is_no_model_and_can_be_discarded(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = {FIRST: [1_000_000, *[0] * 20]}
    refusal(hub, tmp_path)
    assert ModelManager(tmp_path, ExtractiveEngine(lambda texts: None)).folders() == []
    discard(tmp_path, "tiny-llama")
    assert list(tmp_path.iterdir()) == []
    for folder in ("tiny-llama", "../models", ".tiny-llama.partial"):
        with pytest.raises((NotFound, ModelError)):
            discard(tmp_path, folder)


def wait_for(met: Any) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def command(hub: FakeHub, models: Path, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(models), "HF_ENDPOINT": hub.url, "MODELS_DIR": str(models)}
    return subprocess.Popen(
        [sys.executable, "-m", "dbgpt_lite", "download", *arguments],
        cwd=ROOT, env={**environment, **settings}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def halfway(hub: FakeHub, models: Path) -> "subprocess.Popen[str]":
    """The command, with a part of a large file on the disk and no more to come."""
    hub.waits_after = 3_000_000
    running = command(hub, models, NAME)
    part = models / ".tiny-llama.partial" / f"{FIRST}.part"
    wait_for(lambda: part.exists() and part.stat().st_size >= 2_000_000)
    return running


def test_the_command_survives_kill_9(hub: FakeHub, tmp_path: Path) -> None:
    running = halfway(hub, tmp_path)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
    (one,) = interrupted(tmp_path, hub.url)
    assert one.done_bytes >= 2_000_000
    hub.waits_after = -1
    hub.go.set()
    again = command(hub, tmp_path, NAME)
    out, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert f"{NAME} is in {tmp_path}/tiny-llama (7.63 MiB)." in out
    assert hub.fetched(FIRST)[-1].startswith("bytes=")
    assert files_in(tmp_path / "tiny-llama") == {path: hub.repositories[NAME].files[path] for path in TAKEN}


def test_ctrl_c_says_what_is_kept(hub: FakeHub, tmp_path: Path) -> None:
    running = halfway(hub, tmp_path)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "The same command goes on from there." in errors
    assert f"of 7.63 MiB, which are kept in {tmp_path}/.tiny-llama.partial." in errors
    assert "Traceback" not in errors
    assert len(interrupted(tmp_path, hub.url)) == 1


def test_the_command_in_other_ways(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["lantern/quantized"] = FakeRepository({"q.Q4_K_M.gguf": content(5, 999), "q.Q8_0.gguf": b"8"})
    hub.token = "hf_command"
    hub.repositories["lantern/quantized"].gated = True
    options = ("lantern/quantized", "--gguf", "*Q4*", "--as", "small", "--revision", "main")
    refused = command(hub, tmp_path, *options)
    assert "Accept it on the model's page" in refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    done = command(hub, tmp_path, *options, HF_TOKEN="hf_command")
    out, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    assert "hf_command" not in out + errors
    assert files_in(tmp_path / "small") == {"q.Q4_K_M.gguf": content(5, 999)}
    wrong = command(hub, tmp_path, "gpt2")
    assert "owner/name" in wrong.communicate(timeout=60)[1]
