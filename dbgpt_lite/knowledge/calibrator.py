"""Keeps each space's calibration: in memory, as JSON beside the catalogue, and learned again in the background."""

import atexit
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dbgpt_lite.errors import Cancelled, NotFound, UserError
from dbgpt_lite.knowledge.calibration import FORMAT, Calibration
from dbgpt_lite.knowledge.catalog import Version
from dbgpt_lite.knowledge.index_files import write_durably

logger = logging.getLogger(__name__)


class Calibrator:
    """Calibrations of the spaces of one knowledge base; `folder` holds ``<space>.json``. Safe for many threads.

    learn(space_id) asks a space and takes up to some seconds; raises UserError when the space cannot be searched.
    """

    def __init__(self, folder: Path, learn: Callable[[str], Calibration]) -> None:
        self._folder = folder
        self._learn = learn
        self._guard = threading.Lock()
        self._known: dict[str, Calibration] = {}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._queued: set[str] = set()
        self._closing = threading.Event()
        self._worker: threading.Thread | None = None

    def of(self, space_id: str, version: Version, refresh: bool = True) -> Calibration:
        """What is known of a space at once. refresh: one that changed materially is learned anew in the background."""
        with self._guard:
            known = self._known.get(space_id)
        if known is None:
            known = self._read(space_id)
            with self._guard:
                self._known[space_id] = known
        if refresh and version.chunks and not known.fits(version):
            self.refresh(space_id)
        # Of another embedder nothing holds; after a change of documents the old cut is the best guess.
        return known if known.embedder == version.embedder else Calibration()

    def refresh(self, space_id: str) -> None:
        """Learn a space in the background; returns at once."""
        with self._guard:
            if space_id in self._queued or self._closing.is_set():
                return
            self._queued.add(space_id)
            self._waiting.put(space_id)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="calibration", daemon=True)
                self._worker.start()
                # A thread that still computes when the interpreter ends takes the process down.
                atexit.register(self.close)

    def calibrate(self, space_id: str) -> Calibration:
        """Learn a space now. Raises NotFound, KnowledgeIndexError, ModelError."""
        learned = self._learn(space_id)
        with self._guard:
            self._known[space_id] = learned
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(self._file(space_id), json.dumps(asdict(learned), indent=1).encode())
        except OSError as error:
            logger.warning("the calibration of space %s was not saved: %s", space_id, type(error).__name__)
        return learned

    def forget(self, space_id: str) -> None:
        """Drop what is known of a space that was deleted."""
        with self._guard:
            self._known.pop(space_id, None)
        self._file(space_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Stop the background work; waits for the question being asked."""
        self._closing.set()
        with self._guard:
            worker, self._worker = self._worker, None
        if worker is not None:
            atexit.unregister(self.close)
            self._waiting.put("")
            worker.join()

    @property
    def closing(self) -> bool:
        """Whether the work shall end."""
        return self._closing.is_set()

    def _work(self) -> None:
        while (space_id := self._waiting.get()) and not self._closing.is_set():
            with self._guard:
                self._queued.discard(space_id)
            try:
                self.calibrate(space_id)
            except Cancelled:
                return
            except NotFound:
                self.forget(space_id)
            except (UserError, sqlite3.Error) as error:
                logger.info("space %s was not calibrated: %s", space_id, type(error).__name__)
            except Exception:
                # One space that cannot be learned must not keep all others from it.
                logger.exception("space %s was not calibrated", space_id)

    def _file(self, space_id: str) -> Path:
        return self._folder / f"{space_id}.json"

    def _read(self, space_id: str) -> Calibration:
        try:
            return _checked(json.loads(self._file(space_id).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Calibration()
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("the calibration of space %s is learned anew: %s", space_id, type(error).__name__)
            return Calibration()


def _checked(content: dict[str, object]) -> Calibration:
    """A calibration from its file. Raises ValueError, TypeError or KeyError for anything else."""
    found = Calibration(**content)  # type: ignore[arg-type]
    numbers = [*found.floor.values(), *found.needed.values()]
    if found.format != FORMAT or not all(isinstance(one, float) and -1 < one < 1 for one in numbers):
        raise ValueError("not a calibration of this version")
    if not isinstance(found.embedder, str) or not isinstance(found.chunks, int):
        raise ValueError("not a calibration")
    return found
