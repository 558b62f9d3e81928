"""The line on the terminal while a model loads."""

import io

from dbgpt_lite.cli_progress import LoadingLine, loading_text
from dbgpt_lite.llm.manager import ModelStatus

HALF = ModelStatus("loading", "guanaco-33b", progress=0.25, done=int(3.2 * 2**30), total=int(12.9 * 2**30), rate=2e9)


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


def test_bytes_and_rate() -> None:
    assert loading_text(HALF) == "Loading guanaco-33b: 25% 3.2 of 12.9 GiB, 1.9 GiB/s"
    assert loading_text(ModelStatus("loading", "mixtral", progress=0.5)) == "Loading mixtral: 50%"


def test_one_line_that_goes_when_the_load_is_over() -> None:
    terminal = Terminal()
    line = LoadingLine(terminal)
    line(HALF)
    line(HALF)
    line(ModelStatus("ready", "guanaco-33b", progress=1.0))
    line(ModelStatus("ready", "guanaco-33b", progress=1.0))
    written = terminal.getvalue()
    assert "\n" not in written
    assert written.split("\r\033[K")[1:] == [loading_text(HALF), loading_text(HALF), ""]


def test_nothing_in_a_log_file() -> None:
    file = io.StringIO()
    LoadingLine(file)(HALF)
    assert file.getvalue() == ""
