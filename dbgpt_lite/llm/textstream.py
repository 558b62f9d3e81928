"""Tokens -> text as it may be shown: whole characters only, and nothing of a stop string."""

from collections.abc import Callable, Sequence

_HALF = "\ufffd"
_MAX_PENDING = 8


class Detokenizer:
    """Decodes a growing list of token ids piece by piece; half a character waits for its other half.

    The decoder needs the tokens just before the new ones to place spaces right, so each step decodes a short tail
    twice and returns the difference.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = 0
        self._read = 0

    def push(self, token: int) -> str:
        """The text that this token completes, "" while a character is incomplete."""
        self._ids.append(token)
        text = self._pending()
        if text.endswith(_HALF) and len(self._ids) - self._read < _MAX_PENDING:
            return ""
        return self._take(text)

    def flush(self) -> str:
        """What is left, half characters shown as U+FFFD."""
        return self._take(self._pending())

    def _pending(self) -> str:
        known = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(known) :]

    def _take(self, text: str) -> str:
        self._start, self._read = self._read, len(self._ids)
        return text


class StopScanner:
    """Passes text through up to the first stop string; holds back an end that could be the start of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(word for word in stop if word)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Text that can be shown now. Once `stopped` is true nothing more comes."""
        if self.stopped:
            return ""
        text = self._held + piece
        found = [at for word in self._stop if (at := text.find(word)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((self._overlap(text, word) for word in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The held-back end, when the answer is over without a stop string."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, word: str) -> int:
        """Length of the longest end of `text` that begins `word`."""
        longest = min(len(text), len(word) - 1)
        return next((size for size in range(longest, 0, -1) if text.endswith(word[:size])), 0)
