"""An embedder without a model: words hashed into a vector. Texts that share words are near, and it takes no time."""

import threading
import zlib
from collections.abc import Sequence

import numpy as np

from dbgpt_lite.knowledge.embeddings import Embedder, Kind, Vectors
from dbgpt_lite.knowledge.words import tokens

DIMENSION = 32


class FakeEmbedder(Embedder):
    """Counts what it is asked to embed. name tells two of them apart; gate: embedding a passage waits for it."""

    def __init__(self, name: str = "fake", gate: threading.Event | None = None) -> None:
        super().__init__("", "cpu")
        self._name = name
        self._gate = gate
        self.embedded: list[str] = []
        self.batches: list[int] = []
        self.waiting = threading.Event()

    @property
    def identity(self) -> str:  # type: ignore[override]
        return f"{self._name}@1"

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return DIMENSION

    @property
    def batch(self) -> int:  # type: ignore[override]
        return 8

    def count(self, text: str) -> int:
        return len(text) // 4

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        if kind == "passage":
            self.waiting.set()
            if self._gate is not None:
                self._gate.wait()
            self.embedded.extend(texts)
            self.batches.append(len(texts))
        return np.array([_vector(text) for text in texts], dtype=np.float32).reshape(len(texts), DIMENSION)


def _vector(text: str) -> Vectors:
    vector = np.full(DIMENSION, 0.01, dtype=np.float32)
    for token in tokens(text):
        vector[zlib.crc32(token.encode()) % DIMENSION] += 1
    return vector / np.linalg.norm(vector)
