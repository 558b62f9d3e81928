"""How much of the bare embedder's speed an ingestion keeps, and LangChain's stock parts on the same files.

    python benchmarks/ingest.py [--chunks 1500] [--repeats 3] [--write FILE]

The files are made from the project's own documents: Markdown, text, Word, PDF, and Chinese in the first three. Compared
in one process, in turns, with one loaded model: the whole pipeline (copy, hash, read, split, embed, segment, store,
publish, write the index), and ``SentenceTransformer.encode`` of the very chunks it made, 32 a batch. A ratio above 1
means that the pipeline is faster than the bare embedder: it sorts by tokens, which wastes less on padding.

The peer needs packages that the project does not: in an environment of its own,
``pip install -c constraints.txt -e .[dev] langchain-community langchain-huggingface pypdf docx2txt``.
It gets the same chunk size, the same model, float32 (its default) and once more the dtype that this project chooses.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import random
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen import canvas

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder, Kind, Vectors
from dbgpt_lite.knowledge.indexing import embedded_text
from dbgpt_lite.knowledge.loaders import load
from dbgpt_lite.knowledge.records import Upload

ROOT = Path(__file__).resolve().parent.parent
CHUNK_TOKENS, OVERLAP_TOKENS = 180, 30
PEER_PACKAGES = ("langchain_community", "langchain_huggingface", "pypdf", "docx2txt")
# Paragraphs of a file, so that short and long ones take part; a paragraph is about 60 tokens.
LENGTHS = (4, 12, 40, 120)
CHUNKS_A_PARAGRAPH = 0.75


class Watched(Embedder):
    """The embedder, with the seconds spent in it."""

    seconds = 0.0

    def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        started = time.perf_counter()
        try:
            return super().embed(texts, kind)
        finally:
            self.seconds += time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Run:
    """One ingestion: all of its seconds, those inside the embedder, and the texts it embedded."""

    seconds: float
    embedding: float
    texts: tuple[str, ...]


def sentences() -> dict[str, list[str]]:
    """Sentences of the project's documents by language."""
    folders = (ROOT / "dbgpt_lite" / "samples" / "documents", ROOT / "docs", ROOT / "dbgpt_lite" / "help")
    found: dict[str, list[str]] = {"en": [], "zh": []}
    for file in sorted(file for folder in folders for file in folder.glob("*.*") if file.is_file()):
        for sentence in re.split(r"(?<=[.。！？])\s*|\n+", load(file, file.name).text):
            if len(sentence) > 20:
                found["zh" if re.search(r"[\u4e00-\u9fff]", sentence) else "en"].append(sentence)
    return found


def paragraphs(known: Sequence[str], count: int, characters: int, draw: random.Random) -> list[str]:
    """New paragraphs of known sentences, of about that many characters, each with a number of its own."""
    made = []
    for _ in range(count):
        parts = [f"{draw.randrange(10**6)}"]
        while sum(map(len, parts)) < characters:
            parts.append(draw.choice(known))
        made.append(" ".join(parts))
    return made


def write_corpus(folder: Path, chunks: int) -> list[Path]:
    """Files of about that many chunks together: kinds and lengths in turn."""
    known, draw, files, left = sentences(), random.Random(1), [], chunks / CHUNKS_A_PARAGRAPH
    kinds = [("md", "en"), ("txt", "en"), ("docx", "en"), ("pdf", "en"), ("md", "zh"), ("docx", "zh"), ("txt", "zh")]
    while left > 0:
        suffix, language = kinds[len(files) % len(kinds)]
        count = min(int(left) + 1, LENGTHS[(len(files) // len(kinds)) % len(LENGTHS)])
        texts = paragraphs(known[language], count, 260 if language == "en" else 70, draw)
        file = folder / f"{len(files):03}-{language}.{suffix}"
        WRITERS[suffix](file, texts)
        files.append(file)
        left -= count
    return files


def write_text(file: Path, texts: Sequence[str]) -> None:
    headed = [
        f"## Part {place}\n\n{text}" if place % 6 == 0 and file.suffix == ".md" else text
        for place, text in enumerate(texts)
    ]
    file.write_text("\n\n".join(headed), encoding="utf-8")


def write_docx(file: Path, texts: Sequence[str]) -> None:
    document = docx.Document()
    for place, text in enumerate(texts):
        if place % 6 == 0:
            document.add_heading(f"Part {place}", 2)
        document.add_paragraph(text)
    document.save(str(file))


def write_pdf(file: Path, texts: Sequence[str]) -> None:
    page = canvas.Canvas(str(file), pagesize=A4)
    lines = [
        line
        for text in texts
        for line in [*re.findall(r".{1,90}(?:\s|$)", text.encode("latin-1", "ignore").decode("latin-1")), ""]
    ]
    for first in range(0, len(lines), 50):
        for row, line in enumerate(lines[first : first + 50]):
            page.drawString(50, 800 - 14 * row, line)
        page.showPage()
    page.save()


WRITERS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "md": write_text,
    "txt": write_text,
    "docx": write_docx,
    "pdf": write_pdf,
}


def pipeline(files: Sequence[Path], embedder: Watched) -> Run:
    """Ingest the files into a new knowledge base."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-"))
    base = KnowledgeBase(
        folder, embedder, chunk_tokens=CHUNK_TOKENS, chunk_overlap=OVERLAP_TOKENS, max_files=len(files)
    )
    space, embedder.seconds = base.create("benchmark").id, 0.0
    started = time.perf_counter()
    for report in base.ingest(space, [Upload(file, file.name) for file in files], threading.Event()):
        if report.error is not None:
            raise SystemExit(f"{report.file}: {report.error}")
    seconds, embedding = time.perf_counter() - started, embedder.seconds
    chunks = [passage for document in base.documents(space) for passage in base.chunks(space, document.id)]
    base.close()
    shutil.rmtree(folder)
    return Run(seconds, embedding, tuple(embedded_text(passage.heading, passage.text) for passage in chunks))


def bare(texts: Sequence[str], embedder: Watched) -> float:
    """Seconds of the embedding library alone."""
    started = time.perf_counter()
    embedder._load().encode(list(texts), batch_size=32, show_progress_bar=False)
    return time.perf_counter() - started


def peer(files: Sequence[Path], folder: Path, model_options: dict[str, Any]) -> tuple[float, int]:
    """Seconds and chunks of LangChain's loaders, splitter, embeddings and FAISS; the model is loaded before."""
    from langchain_community.document_loaders import Docx2txtLoader, PyPDFLoader, TextLoader
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import HuggingFaceEmbeddings
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from transformers import AutoTokenizer

    options = {"device": "cpu", "model_kwargs": model_options}
    model = HuggingFaceEmbeddings(model_name=str(folder), model_kwargs=options, encode_kwargs={"batch_size": 32})
    model.embed_query("warm")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
        tokenizer, chunk_size=CHUNK_TOKENS, chunk_overlap=OVERLAP_TOKENS
    )
    loaders = {".pdf": PyPDFLoader, ".docx": Docx2txtLoader}
    started = time.perf_counter()
    documents = []
    for file in files:
        known = loaders.get(file.suffix)
        documents += (known(str(file)) if known else TextLoader(str(file), encoding="utf-8")).load()
    chunks = splitter.split_documents(documents)
    store = FAISS.from_documents(chunks, model)
    with tempfile.TemporaryDirectory() as target:
        store.save_local(target)
    return time.perf_counter() - started, len(chunks)


def measure(files: Sequence[Path], repeats: int) -> Iterator[str]:
    """Lines of the report."""
    embedder = Watched(device="cpu")
    bare(pipeline(files[: max(1, len(files) // 10)], embedder).texts, embedder)
    texts = pipeline(files, embedder).texts
    runs, alone = [], []
    for turn in range(repeats):
        if turn % 2:
            alone.append(bare(texts, embedder))
        runs.append(pipeline(files, embedder))
        if not turn % 2:
            alone.append(bare(texts, embedder))
    ratios = [one / run.seconds for one, run in zip(alone, runs, strict=True)]
    seconds = statistics.median(run.seconds for run in runs)
    embedding = statistics.median(run.embedding for run in runs)
    bare_seconds, rest = statistics.median(alone), statistics.median(run.seconds - run.embedding for run in runs)

    def rate(name: str, seconds: float, chunks: int = len(texts)) -> str:
        return f"{name:28}{seconds:7.1f} s {chunks / seconds:8.1f} chunks/s"

    yield f"{len(files)} files, {len(texts)} chunks, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
    yield rate("pipeline", seconds)
    yield rate("bare embedder", bare_seconds)
    yield f"ratio {statistics.median(ratios):.2f} (each turn: {', '.join(f'{ratio:.2f}' for ratio in ratios)})"
    shares = f"{rest / bare_seconds:.1%} of the bare embedder's time, {rest / embedding:.1%} of ours"
    yield f"all but embedding {rest:.2f} s: {shares}"
    missing = [name for name in PEER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield f"LangChain was not measured, for lack of {', '.join(missing)} (see --help)"
        return
    dtype = embedder._load().dtype
    for name, options in (("float32", {}), (str(dtype), {"dtype": dtype})):
        yield rate(f"LangChain, {name}", *peer(files, embedder.folder, options))


def machine() -> str:
    """Where and with what this was measured."""
    names = ("sentence-transformers", "transformers", "torch", "faiss-cpu")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    system = f"{platform.machine()}, {platform.system()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"{system}, {versions}; all-MiniLM-L6-v2 on the CPU"


def main() -> None:
    """Measure and print; write the report where asked."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--chunks", type=int, default=1500)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--write", type=Path)
    given = arguments.parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        for line in measure(write_corpus(Path(folder), given.chunks), given.repeats):
            lines.append(line)
            print(line, flush=True)
    if given.write:
        command = f"python benchmarks/ingest.py --chunks {given.chunks} --repeats {given.repeats}"
        text = "\n".join(lines)
        given.write.write_text(f"# Ingestion\n\n`{command}`\n\n{machine()}\n\n```\n{text}\n```\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
