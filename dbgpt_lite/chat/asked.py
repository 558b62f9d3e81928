"""Asking a model for a text that is needed on the way to an answer: its query, or the question made whole."""

from collections.abc import Generator, Iterator

from dbgpt_lite.messages import Spent, Usage, Waiting

Asked = Generator[Waiting | Spent, None, str]
"""Tells how the waiting stands and what was spent; returns the text."""


def asked(stream: Iterator[str | Waiting | Usage]) -> Asked:
    """The whole text of an engine's stream; "" when its time was over, for half of it may say something else."""
    pieces: list[str] = []
    for item in stream:
        if isinstance(item, str):
            pieces.append(item)
        elif isinstance(item, Usage):
            if item.finish_reason == "time":
                pieces.clear()
            yield Spent(item)
        else:
            yield item
    return "".join(pieces)
