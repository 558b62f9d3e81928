"""Fakes with the real interfaces, scripted by the test and recording what they were asked."""

import threading
from collections.abc import Iterator, Sequence

from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage


class ScriptedEngine:
    """An Engine that says what it is told to. A reply may be an exception, which is raised."""

    def __init__(self, *replies: str | Exception, beams: Sequence[str] = (), **info: object) -> None:
        facts = {"name": "scripted", "kind": "local", "context_length": 4096, **info}
        self.info = EngineInfo(**facts)  # type: ignore[arg-type]
        self.waiting = 0
        self.replies = list(replies)
        self.beams = list(beams)
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self.hold = threading.Event()
        """Set: the engine pauses after its first piece until it is cancelled."""
        self.started = threading.Event()
        self.closed = 0

    def count(self, messages: Sequence[Message]) -> int:
        return sum(self.count_text(message.content) for message in messages)

    def count_text(self, text: str) -> int:
        return len(text.split())

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Usage]:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        reply = self.replies.pop(0) if self.replies else "ok"
        if isinstance(reply, Exception):
            raise reply
        pieces = reply.split(" ")
        try:
            for n, piece in enumerate(pieces):
                if cancel.is_set():
                    yield Usage(10, n, finish_reason="cancelled")
                    return
                yield piece if n == 0 else " " + piece
                self.started.set()
                if self.hold.is_set():
                    cancel.wait(30)
            yield Usage(10, len(pieces))
        finally:
            self.closed += 1

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        self.prompts.append(prompt)
        return self.beams[:count]

    def close(self) -> None: ...
