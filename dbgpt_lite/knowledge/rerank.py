"""A cross-encoder that orders the best passages again, reading each together with the question. Off by default.

It costs a pass of a model a passage: some 20 ms each on a CPU for a small one. `evaluate retrieval --reranker FOLDER`
tells whether it is worth it for the documents at hand.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dbgpt_lite.errors import ModelError
from dbgpt_lite.knowledge.embeddings import quiet_progress_bars, resolve_device, weights_dtype
from dbgpt_lite.model_loading import ONE_AT_A_TIME

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

BATCH = 16

logger = logging.getLogger(__name__)


class CrossEncoderReranker:
    """A sentence-transformers CrossEncoder in a local folder (safetensors), loaded at its first use.

    device: "auto", "cpu", "cuda" or "cuda:0". Safe for many threads; they take turns.
    """

    def __init__(self, model_folder: str | Path, device: str = "auto") -> None:
        self._folder = Path(model_folder)
        self._device = device
        self._turn = threading.Lock()
        self._model: CrossEncoder | None = None

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._folder.name

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """A number a text, higher for a better answer; a text longer than the model reads is cut at its end.

        Raises ModelError when the folder holds no such model or the computation fails.
        """
        if not texts:
            return []
        with self._turn:
            model = self._loaded()
            try:
                raw = model.predict([(question, text) for text in texts], batch_size=BATCH, show_progress_bar=False)
            except RuntimeError as error:
                # Out of memory is one of torch's RuntimeErrors.
                logger.error("reranking failed: %s", type(error).__name__)
                raise ModelError("knowledge.reranking_failed", name=self.name) from error
        found = np.asarray(raw, dtype=np.float32)
        if found.shape != (len(texts),):
            raise ModelError("knowledge.reranker_not_a_model", name=self.name)
        return [float(score) for score in found]

    def _loaded(self) -> "CrossEncoder":
        if self._model is None:
            self._model = self._load()
        return self._model

    def _load(self) -> "CrossEncoder":
        if not self._folder.is_dir():
            raise ModelError("knowledge.reranker_missing", name=self.name)
        if not (self._folder / "config.json").is_file():
            raise ModelError("knowledge.reranker_not_a_model", name=self.name)
        from sentence_transformers import CrossEncoder

        device = resolve_device(self._device)
        try:
            with ONE_AT_A_TIME, quiet_progress_bars():
                return CrossEncoder(
                    str(self._folder),
                    device=device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": weights_dtype(device), "use_safetensors": True},
                )
        except Exception as error:
            logger.warning("reranker %s did not load: %s", self.name, type(error).__name__)
            raise ModelError("knowledge.reranker_broken", name=self.name, reason=type(error).__name__) from error
