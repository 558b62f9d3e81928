"""Asking a model for a text that is needed on the way to an answer: its query, or the question made whole."""

from collections.abc import Generator, Iterator

from dbgpt_lite.messages import Spent, Usage, Waiting

Asked = Generator[Waiting | Spent, None, str]
"""Tells how the waiting stands and what was spent; returns the text."""


def asked(stream: Iterator[str | Waiting | Usage]) -> Asked:
    """The whole text of an engine's stream."""
    pieces: list[str] = []
    for item in stream:
        if isinstance(item, str):
            pieces.append(item)
        else:
            yield Spent(item) if isinstance(item, Usage) else item
    return "".join(pieces)
