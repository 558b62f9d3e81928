"""The command line's progress line while a model loads: on stderr, and only where a person looks at it."""

import sys
from typing import TYPE_CHECKING, TextIO

from dbgpt_lite.texts import text

if TYPE_CHECKING:
    from dbgpt_lite.llm.manager import ModelStatus

_CLEAR = "\r\033[K"


class LoadingLine:
    """Call it with each status; it rewrites one line, and removes it when the load is over."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = False

    def __call__(self, status: "ModelStatus") -> None:
        if not self._stream.isatty():
            return
        if status.state == "loading":
            self._stream.write(_CLEAR + loading_text(status))
        elif self._shown:
            self._stream.write(_CLEAR)
        self._stream.flush()
        self._shown = status.state == "loading"


def loading_text(status: "ModelStatus") -> str:
    """Loading guanaco-33b: 25% 3.2 of 12.9 GiB, 1.8 GiB/s."""
    done, total, rate = (f"{count / 2**30:.1f}" for count in (status.done, status.total, status.rate))
    read = text("app.loaded_bytes", "en", done=done, total=total, rate=rate) if status.total else ""
    percent = round(status.progress * 100)
    return text("app.loading_line", "en", name=status.name, percent=percent, bytes=read).rstrip()
