"""Files on their way into a knowledge space, with a line of progress for each."""

import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dbgpt_lite.knowledge.records import IngestProgress, Space, Upload
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import icon

if TYPE_CHECKING:
    from dbgpt_lite.knowledge.base import KnowledgeBase

SHOW_EVERY_S = 0.1
MAX_NAME = 60
FINISHED = ("done", "failed", "duplicate")


def received(files: list[dict[str, Any]] | None) -> "UploadBatch":
    """What an upload button has received, under the names their owner gave them.

    For events with ``preprocess=False``: Gradio would hand over shortened names and leave an empty file for each.
    """
    named = [(Path(file["path"]), own_name(file.get("orig_name") or file["path"])) for file in files or []]
    return UploadBatch(tuple(Upload(_own_copy(path), name) for path, name in named))


def _own_copy(path: Path) -> Path:
    """A second name for a received file. Gradio keeps one file for all who upload the same bytes at a time."""
    folder = path.parent.parent / "received" / secrets.token_hex(16)
    folder.mkdir(parents=True)
    try:
        (folder / "file").hardlink_to(path)
    except OSError:
        shutil.copyfile(path, folder / "file")
    return folder / "file"


@dataclass(frozen=True, slots=True)
class UploadBatch:
    """Files that have been received."""

    uploads: tuple[Upload, ...]

    def space(self, knowledge: "KnowledgeBase", chosen: str) -> Space:
        """The chosen space, unless none is or it is read-only: then a new one, named from the first file."""
        if chosen and not (space := knowledge.space(chosen)).readonly:
            return space
        stem = (Path(self.uploads[0].name).stem if self.uploads else "")[:MAX_NAME].strip() or "documents"
        taken = {space.name for space in knowledge.spaces()}
        names = (stem if number == 1 else f"{stem} {number}" for number in range(1, len(taken) + 2))
        return knowledge.create(next(name for name in names if name not in taken))

    def discard(self) -> None:
        """Remove our copies; Gradio's own go within the hour, and no route hands them out."""
        for upload in self.uploads:
            with suppress(OSError):
                upload.path.unlink(missing_ok=True)
                upload.path.parent.rmdir()


def own_name(path: str) -> str:
    """The last part of a name as a browser sends it, whatever its system's separators."""
    return path.replace("\\", "/").rsplit("/", 1)[-1] or "file"


def uploading(knowledge: "KnowledgeBase", space: str, batch: UploadBatch, language: Language) -> Iterator[Markup]:
    """Take the files in, yielding the lines to show; leaving early stops the work."""
    cancel = threading.Event()
    count = len(batch.uploads)
    lines = {number: IngestProgress(file.name, number, count) for number, file in enumerate(batch.uploads, 1)}
    told = 0.0
    try:
        yield progress_lines(list(lines.values()), language, started=0)
        for progress in knowledge.ingest(space, batch.uploads, cancel):
            lines[progress.file_number] = progress
            if progress.state in FINISHED or time.monotonic() - told >= SHOW_EVERY_S:
                told = time.monotonic()
                yield progress_lines(list(lines.values()), language, started=progress.file_number)
        yield progress_lines(list(lines.values()), language, started=count)
    finally:
        cancel.set()
        batch.discard()


def progress_lines(lines: list[IngestProgress], language: Language, started: int) -> Markup:
    """One line a file; those after number `started` wait."""
    busy = "busy" if any(line.state not in FINISHED for line in lines) else "finished"
    rows = Markup("").join(_line(line, language, waiting=line.file_number > started) for line in lines)
    return Markup('<ul class="uploads {}">{}</ul>').format(busy, rows)


def _line(line: IngestProgress, language: Language, waiting: bool) -> Markup:
    share = 100 * line.chunks_done / line.chunks_total if line.chunks_total else 0
    share = 100 if line.state in ("done", "duplicate") else share
    return Markup(
        '<li class="upload" data-state="{}">{}<span class="file">{}</span><span class="state">{}</span>'
        '<i class="bar"><i style="width:{}%"></i></i></li>'
    ).format(
        "waiting" if waiting else line.state, icon("file"), line.file, _state(line, language, waiting), f"{share:.0f}"
    )


def _state(line: IngestProgress, language: Language, waiting: bool) -> str:
    if waiting:
        return say("upload_waiting", language)
    if line.error is not None:
        return line.error.render(language)
    return say(f"upload_{line.state}", language, done=line.chunks_done, total=line.chunks_total)
