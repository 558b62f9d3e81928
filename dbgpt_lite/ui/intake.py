"""What is on its way into spaces and belongs to no page: encodings to confirm, addresses being fetched, jobs.

One object a process. A page may be closed and opened again, or be open twice; it shows what is here.
"""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dbgpt_lite.errors import Cancelled, NotFound, UserError
from dbgpt_lite.knowledge.ingest import distinct
from dbgpt_lite.knowledge.records import Job, Space, TextPreview, Upload
from dbgpt_lite.ui.jobs_view import Fetching, Held
from dbgpt_lite.ui.uploads import discarding, fresh_folder, remove_left_behind

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

log = logging.getLogger(__name__)

# A file that waits for its encoding longer than this has been forgotten.
HELD_S = 3600
PLAIN = ("utf-8", "ascii")


@dataclass(frozen=True, slots=True)
class _HeldFile:
    owner: str
    space_id: str
    upload: Upload
    preview: TextPreview
    since: float


@dataclass(frozen=True, slots=True)
class _Fetch:
    shown: Fetching
    cancel: threading.Event


class Intake:
    """Safe for many threads. Space ids are checked by the caller."""

    def __init__(self, services: "Services") -> None:
        self._services = services
        self._held: dict[str, _HeldFile] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._dismissed: set[str] = set()
        self._guard = threading.Lock()
        remove_left_behind()

    # --- Files

    def add(self, owner: str, space_id: str, uploads: Sequence[Upload]) -> None:
        """Start indexing; text files whose encoding is not beyond doubt wait until their owner has looked at them."""
        self._forget_old()
        sure: list[Upload] = []
        for upload in distinct(uploads):
            preview = None if upload.encoding else self._preview(upload)
            if preview is None or (preview.certain and preview.encoding.lower() in PLAIN):
                sure.append(upload)
                continue
            with self._guard:
                held = _HeldFile(owner, space_id, upload, preview, time.monotonic())
                self._held[secrets.token_hex(8)] = held
        self.start(space_id, sure)

    def start(self, space_id: str, uploads: Sequence[Upload]) -> None:
        """Index files as background work, as many at a time as one job may have."""
        most, uploads = self._services.settings.upload_max_files, distinct(uploads)
        for first in range(0, len(uploads), most):
            part = uploads[first : first + most]
            self._services.knowledge.jobs.start(space_id, part, discarding(part))

    def held(self, owner: str, space_id: str) -> list[Held]:
        """The files of a reader that wait for their encoding."""
        return [Held(token, file.preview) for token, file in self._waiting(owner, space_id)]

    def choose(self, owner: str, token: str, encoding: str) -> None:
        """Read a waiting file in another encoding. Raises NotFound, UserError for an encoding that is not offered."""
        with self._guard:
            file = self._held.get(token)
        if file is None or file.owner != owner or encoding not in file.preview.choices:
            raise NotFound("knowledge.no_document")
        preview = self._services.knowledge.preview(file.upload.path, file.upload.name, encoding)
        if preview is not None:
            changed = replace(file, preview=replace(preview, choices=file.preview.choices))
            with self._guard:
                self._held[token] = changed

    def release(self, owner: str, space_id: str, index: bool) -> None:
        """Index the waiting files of a reader in the chosen encodings, or leave them out."""
        files = self._waiting(owner, space_id)
        with self._guard:
            taken = [file for token, file in files if self._held.pop(token, None)]
        uploads = [replace(file.upload, encoding=file.preview.encoding) for file in taken]
        self.start(space_id, uploads) if index else discarding(uploads)()

    # --- Addresses

    def fetch(self, space_id: str, address: str) -> None:
        """Fetch an address in the background and index what comes."""
        shown = Fetching(secrets.token_hex(8), space_id, shown_address(address))
        fetch = _Fetch(shown, threading.Event())
        with self._guard:
            self._fetches[shown.id] = fetch
        threading.Thread(target=self._fetch, args=(fetch, address), name="fetch", daemon=True).start()

    def fetches(self, space_id: str) -> list[Fetching]:
        """Addresses on their way, and those that failed until they are dismissed."""
        with self._guard:
            return [fetch.shown for fetch in self._fetches.values() if fetch.shown.space_id == space_id]

    # --- Jobs

    def jobs(self, space_id: str, ended: bool = False) -> list[Job]:
        """What is to be told of a space's jobs: those at work or with failures; `ended`: also those just done."""
        jobs = [job for job in self._services.knowledge.jobs.of_space(space_id) if job.id not in self._dismissed]
        telling = [job for job in jobs if not job.over or job.error or any(line.error for line in job.files)]
        last = [job for job in jobs[-1:] if ended and job not in telling]
        return telling + last

    def running(self, spaces: Sequence[Space]) -> tuple[list[Job], list[Fetching]]:
        """What is at work on some spaces."""
        visible = {space.id for space in spaces}
        jobs = [job for job in self._services.knowledge.jobs.running() if job.space_id in visible]
        with self._guard:
            fetches = [fetch.shown for fetch in self._fetches.values() if fetch.shown.error is None]
        return jobs, [fetch for fetch in fetches if fetch.space_id in visible]

    def space_of(self, identity: str) -> str:
        """The space that a job, at work or over, or a fetch belongs to. Raises NotFound."""
        with self._guard:
            if fetch := self._fetches.get(identity):
                return fetch.shown.space_id
        return self._services.knowledge.jobs.wait(identity, 0).space_id

    def stop(self, identity: str) -> None:
        """Stop a job or a fetch."""
        with self._guard:
            fetch = self._fetches.pop(identity, None)
        if fetch:
            fetch.cancel.set()
        else:
            self._services.knowledge.jobs.cancel(identity)

    def dismiss(self, identity: str) -> None:
        """Tell nothing more of a job or a fetch that is over."""
        with self._guard:
            self._fetches.pop(identity, None)
            self._dismissed.add(identity)

    # --- Inside

    def _preview(self, upload: Upload) -> TextPreview | None:
        try:
            return self._services.knowledge.preview(upload.path, upload.name)
        except UserError:
            # The job says what is wrong with the file.
            return None

    def _waiting(self, owner: str, space_id: str) -> list[tuple[str, _HeldFile]]:
        with self._guard:
            files = list(self._held.items())
        return [(token, file) for token, file in files if file.owner == owner and file.space_id == space_id]

    def _forget_old(self) -> None:
        with self._guard:
            old = [token for token, file in self._held.items() if time.monotonic() - file.since > HELD_S]
            uploads = [self._held.pop(token).upload for token in old]
        discarding(uploads)()

    def _fetch(self, fetch: _Fetch, address: str) -> None:
        folder, started = fresh_folder(), False
        error: UserError | None = None
        try:
            upload = self._fetched(address, folder, fetch.cancel)
            if not fetch.cancel.is_set():
                self.start(fetch.shown.space_id, [upload])
                started = True
        except Cancelled:
            pass
        except UserError as known:
            error = known
        except Exception:
            log.exception("an address could not be fetched")
            error = UserError("ui.failed")
        if not started:
            shutil.rmtree(folder, ignore_errors=True)
        self._fetch_ended(fetch, error)

    def _fetched(self, address: str, folder: Path, cancel: threading.Event) -> Upload:
        from dbgpt_lite.knowledge.fetch import FetchLimits, fetch

        return fetch(address, folder, FetchLimits(), cancel)

    def _fetch_ended(self, fetch: _Fetch, error: UserError | None) -> None:
        with self._guard:
            if error is None:
                self._fetches.pop(fetch.shown.id, None)
            elif fetch.shown.id in self._fetches:
                self._fetches[fetch.shown.id] = replace(fetch, shown=replace(fetch.shown, error=error))


def shown_address(address: str) -> str:
    """Host and path of an address: what follows may hold a secret, and a name and password before it do."""
    try:
        parts = urlsplit(address.strip() if "://" in address else f"https://{address.strip()}")
        host = parts.hostname or ""
    except ValueError:
        return address.strip()[:80]
    return f"{host}{parts.path.rstrip('/')}"[:80] or address.strip()[:80]
