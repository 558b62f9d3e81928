"""Search latency, recall, memory and build time of the app's own vector store, beside an exact flat scan.

    python benchmarks/search.py --vectors FOLDER [--sizes 10000,100000,1000000] [--kind KIND | --nlist N] [--nprobe N]
                                [--threads N] [--sweep] [--work DIR] [--results DIR]

FOLDER comes from embed_corpus.py. Every size is a space in a real catalogue; its index is built by VectorStore, saved,
and opened by a fresh process, which answers one query at a time on one thread. Queries are not among the vectors.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

EMBEDDER = "benchmark@1"
K = 10
WARM_UP = 50
COLUMNS = (
    "chunks", "kind", "effort", "p50_ms", "p99_ms", "max_ms", "recall_at_10", "rss_mb", "disk_mb", "open_s",
    "train_s", "add_s", "build_s",
)  # fmt: skip

TEXT = """# Vector search: latency, recall, memory, build time

`{command}`

Machine: {machine}. Corpus: {corpus}.

One query at a time on one thread through `VectorStore.search` (k = 10), in a fresh process that opened the saved index;
candidates are ranked anew by their vectors from the catalogue, whose file is in the page cache. Recall is against exact
search over the same vectors. `flat scan` is a bare IndexFlatIP without the app around it. effort is nprobe (IVF) or
efSearch (HNSW); rss_mb is what opening and searching added to the process.
"""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


def loaded(folder: Path, name: str, count: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """The first `count` rows, mapped."""
    return np.load(folder / f"{name}.f16.npy", mmap_mode="r")[:count]


def queries_of(options: argparse.Namespace) -> Vectors:
    """Unit float32 queries."""
    found = loaded(options.vectors, "queries", options.queries).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(options: argparse.Namespace, size: int, folder: Path) -> tuple[str, float]:
    """A catalogue with a space of `size` vectors; its id and the seconds it took."""
    from dbgpt_lite.knowledge.catalog import Catalog
    from dbgpt_lite.knowledge.catalog_documents import Arrival
    from dbgpt_lite.knowledge.records import Chunk

    vectors, started = loaded(options.vectors, "vectors", size), time.monotonic()
    catalog = Catalog(folder / "catalog.sqlite3")
    space = catalog.add_space(f"{size} chunks")
    catalog.enter(space, Arrival(f"document{size}", "corpus.txt", f"{size}", size))
    for first in range(0, size, 10_000):
        block = vectors[first : first + 10_000].astype(np.float32)
        catalog.stage(f"document{size}", [Chunk("passage", 0, 7)] * len(block), block, EMBEDDER)
    catalog.publish(space, f"document{size}", 0, "", EMBEDDER)
    catalog.close()
    return space, time.monotonic() - started


def truth_of(options: argparse.Namespace, size: int) -> Vectors:
    """The K-th best true score of each query: whatever scores as much is a true neighbour."""
    import faiss

    queries, vectors = queries_of(options), loaded(options.vectors, "vectors", size)
    heap = faiss.ResultHeap(len(queries), K, keep_max=True)
    for first in range(0, size, 50_000):
        block = vectors[first : first + 50_000].astype(np.float32)
        scores, ids = faiss.knn(queries, block, K, metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, ids + first)
    heap.finalize()
    return heap.D[:, -1]


def build(options: argparse.Namespace, size: int, folder: Path, space: str, kind: str) -> dict[str, Any]:
    """Build the index as the app does, in this process, and write its files."""
    from dbgpt_lite.knowledge.catalog import Catalog
    from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore

    catalog, started = Catalog(folder / "catalog.sqlite3"), time.monotonic()
    store = VectorStore(folder, space, catalog, IndexOptions(kind=kind, effort=options.nprobe, threads=options.threads))
    store.refresh(EMBEDDER)
    interim = time.monotonic() - started
    store.settle()
    built, saving = time.monotonic() - started, time.monotonic()
    store.close()
    snapshot = store.snapshot
    assert snapshot is not None
    assert snapshot.base is not None
    assert snapshot.count == size
    catalog.close()
    seconds = store.build_seconds
    return {
        "chunks": size, "kind": snapshot.base.kind, "effort": snapshot.base.effort,
        "calibrated_recall": snapshot.base.recall, "build_s": built, "first_answer_after_s": interim,
        "save_s": time.monotonic() - saving, **{f"{part}_s": value for part, value in seconds.items()},
        "build_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": sum(f.stat().st_size for f in folder.glob(f"{space}.*") if f.suffix in (".faiss", ".npz")) / 1e6,
    }  # fmt: skip


def rss_mb() -> float:
    """Memory this process holds now."""
    with Path("/proc/self/statm").open() as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def timed(queries: Vectors, search: Callable[[Vectors], list[float]], truth: Vectors) -> dict[str, float]:
    """Latency of one query after the other, and the share of true neighbours found."""
    for query in queries[:WARM_UP]:
        search(query)
    times, recalls = [], []
    for query, least in zip(queries, truth, strict=True):
        started = time.perf_counter()
        scores = search(query)
        times.append((time.perf_counter() - started) * 1000)
        # Sums in another order differ in the last bits.
        recalls.append(sum(score >= least - 1e-5 for score in scores[:K]) / K)
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(times), "recall_at_10": float(np.mean(recalls)),
        "timed_queries": len(times),
    }  # fmt: skip


def answer_store(options: argparse.Namespace, folder: Path, space: str, kind: str) -> list[dict[str, Any]]:
    """What a fresh process measures: opening, memory, and each effort's latency and recall."""
    import faiss

    from dbgpt_lite.knowledge.catalog import Catalog
    from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore

    catalog, queries, truth = Catalog(folder / "catalog.sqlite3"), queries_of(options), np.load(folder / "truth.npy")
    faiss.omp_set_num_threads(1)
    before, started = rss_mb(), time.monotonic()
    # The kind that was saved, so that nothing is built in the background.
    store = VectorStore(folder, space, catalog, IndexOptions(kind=kind))
    store.refresh(EMBEDDER)
    opened, rows = time.monotonic() - started, []
    snapshot = store.snapshot
    assert snapshot is not None
    assert snapshot.base is not None
    chosen = snapshot.base.effort
    more = [int(effort) for effort in options.efforts.split(",") if effort] if chosen else []
    for effort in [chosen, *(effort for effort in more if effort != chosen)]:
        store._snapshot = replace(snapshot, base=replace(snapshot.base, effort=effort))
        measured = timed(queries, lambda query: [hit.score for hit in store.search(query, EMBEDDER, K)], truth)
        rows.append({"effort": effort, "open_s": opened, "rss_mb": rss_mb() - before, **measured})
    catalog.close()
    return rows


def answer_flat(options: argparse.Namespace, size: int, folder: Path) -> list[dict[str, Any]]:
    """The plain exact scan, IndexFlatIP over float32, and what reading its memory once costs at the least."""
    import faiss

    faiss.omp_set_num_threads(1)
    before, started = rss_mb(), time.monotonic()
    index = faiss.IndexFlatIP(loaded(options.vectors, "vectors", 1).shape[1])
    for first in range(0, size, 50_000):
        index.add(loaded(options.vectors, "vectors", size)[first : first + 50_000].astype(np.float32))
    filled = time.monotonic() - started
    held, size_bytes = rss_mb() - before, size * index.d * 4
    count = max(100, min(options.queries, 100_000_000 // size))
    queries, truth = queries_of(options)[:count], np.load(folder / "truth.npy")[:count]
    measured = timed(queries, lambda query: index.search(query.reshape(1, -1), K)[0][0].tolist(), truth)
    bandwidth = memory_bandwidth()
    return [
        {
            "chunks": size, "kind": "flat scan", "effort": 0, "add_s": filled, "rss_mb": held,
            "disk_mb": size_bytes / 1e6, "memory_gb_s": bandwidth, "memory_limit_ms": size_bytes / bandwidth / 1e6,
            **measured,
        }
    ]  # fmt: skip


def memory_bandwidth() -> float:
    """GB/s that one thread reads: the best of several sums over 512 MB."""
    block, best = np.ones(2**26, dtype=np.uint64), 0.0
    for _ in range(7):
        started = time.perf_counter()
        block.sum()
        best = max(best, block.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def in_fresh_process(options: argparse.Namespace, *arguments: str) -> Any:
    """Run this file again for one measurement; its last line is the result."""
    command = [
        sys.executable, __file__, "--vectors", str(options.vectors), "--queries", str(options.queries),
        "--efforts", options.efforts, "--nprobe", str(options.nprobe), "--threads", str(options.threads), *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(arguments)}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_size(options: argparse.Namespace, size: int, work: Path) -> list[dict[str, Any]]:
    """All rows of one size."""
    folder = work / str(size)
    folder.mkdir()
    space, seconds = fill(options, size, folder)
    print(f"{size}: catalogue filled in {seconds:.0f} s", flush=True)
    np.save(folder / "truth.npy", truth_of(options, size))
    rows = list(in_fresh_process(options, "--inside", "flat", str(size), str(folder)))
    show(rows[0])
    for kind in kinds(options, size):
        for file in folder.glob(f"{space}.*"):
            file.unlink()
        built = in_fresh_process(options, "--inside", "build", str(size), str(folder), space, kind)
        for answered in in_fresh_process(options, "--inside", "answer", str(folder), space, built["kind"]):
            rows.append({**built, **answered, "catalogue_s": seconds})
            show(rows[-1])
    shutil.rmtree(folder)
    return rows


def kinds(options: argparse.Namespace, size: int) -> list[str]:
    """The kinds to build at a size; "" lets the app choose."""
    if options.sweep and size > 100_000:
        lists = 2 ** round(np.log2(4 * np.sqrt(size)))
        return [
            "", f"IVF{lists},SQfp16", f"IVF{lists // 4},SQ8", f"IVF{4 * lists}_HNSW32,SQ8", "HNSW32,SQ8", "SQ8",
        ]  # fmt: skip
    if options.nlist:
        return [f"IVF{options.nlist},SQ8"]
    return options.kind.split(";")


def show(row: dict[str, Any]) -> None:
    """One row as a line."""
    print(" | ".join(f"{name} {_short(row[name])}" for name in COLUMNS if name in row), flush=True)


def _short(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(), "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "python": platform.python_version(), "numpy": np.__version__, "faiss": metadata.version("faiss-cpu"),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The results as JSON and as a table."""
    corpus = options.vectors / "corpus.json"
    facts = {
        "command": "python benchmarks/search.py " + " ".join(sys.argv[1:]), "machine": machine(),
        "corpus": json.loads(corpus.read_text()) if corpus.is_file() else {}, "rows": rows,
    }  # fmt: skip
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "search.json").write_text(json.dumps(facts, indent=1) + "\n")
    limits = [
        f"Reading the float32 vectors of {row['chunks']} chunks once, summed by one thread of numpy at "
        f"{row['memory_gb_s']:.1f} GB/s, takes {row['memory_limit_ms']:.1f} ms; small sets stay in its cache."
        for row in rows
        if "memory_limit_ms" in row
    ]
    lines = [
        TEXT.format(command=facts["command"], machine=_facts(facts["machine"]), corpus=_facts(facts["corpus"])),
        _row(COLUMNS),
        _row(["---"] * len(COLUMNS)),
        *(_row([_short(row.get(name, "")) for name in COLUMNS]) for row in rows),
        "",
        *limits,
    ]
    (options.results / "search.md").write_text("\n".join(lines) + "\n")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def inside(options: argparse.Namespace) -> Any:
    """The part of a measurement that needs a process of its own."""
    what, *rest = options.inside
    if what == "flat":
        return answer_flat(options, int(rest[0]), Path(rest[1]))
    if what == "build":
        return build(options, int(rest[0]), Path(rest[1]), rest[2], rest[3])
    return answer_store(options, Path(rest[0]), rest[1], rest[2])


def main() -> None:
    """Measure every size and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--kind", default="", help="FAISS factory strings separated by ';'; empty: the app's choice")
    parser.add_argument("--nlist", type=int, default=0, help="short for --kind IVF<nlist>,SQ8")
    parser.add_argument("--nprobe", type=int, default=0, help="0: calibrated, as in the app")
    parser.add_argument("--efforts", default="", help="measure these nprobe/efSearch values as well, e.g. 8,16,32")
    parser.add_argument("--threads", type=int, default=0, help="for training; 0: as in the app, half the cores")
    parser.add_argument("--sweep", action="store_true", help="alternatives to the app's choice, above 100,000")
    parser.add_argument("--work", type=Path, help="folder for catalogues, 1.3 GB at 1,000,000")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(inside(options)))
        return
    have, rows = len(np.load(options.vectors / "vectors.f16.npy", mmap_mode="r")), []
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        for size in (int(size) for size in options.sizes.split(",")):
            if size > have:
                print(f"{size}: left out, the folder holds {have} vectors")
                continue
            rows += measure_size(options, size, Path(work))
            write(options, rows)


if __name__ == "__main__":
    main()
