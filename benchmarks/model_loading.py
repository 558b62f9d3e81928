"""Planned against measured, in true shapes on a GPU: memory, loading time, tokens a second, placements, load cycles.

    python benchmarks/model_loading.py [CASE ...] [--folder DIR] [--write FILE]

Cases: chatglm2 int4 llama13 guanaco33 context offload balanced cycles. Checkpoints with random weights are written to
--folder first (up to 40 GB at a time) and read through the app's own loader, each in a process of its own, after they
were put out of the page cache. The same bytes are read plainly, in the same state, for comparison.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
PIECE = 16 * 2**20
GOLDEN = ROOT / "tests" / "fixtures" / "golden"


def worker(job: Mapping[str, Any]) -> dict[str, Any]:
    """Plan, load, answer and unload one folder in this process; everything in bytes, seconds and tokens."""
    import torch

    from dbgpt_lite.llm.checkpoint import read_checkpoint
    from dbgpt_lite.llm.devices import usable_devices
    from dbgpt_lite.llm.loader import LoadOptions, load
    from dbgpt_lite.llm.plan import plan
    from dbgpt_lite.messages import Message, Prompt, Sampling, Usage

    torch.set_grad_enabled(False)
    folder = Path(job["folder"])
    gpus = range(torch.cuda.device_count())
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in gpus]
    max_memory, strategy = job.get("max_memory", {}), job.get("device_map", "auto")
    context, users = job.get("context", 0), job.get("users", 1)
    devices = usable_devices("auto", max_memory)
    started = time.monotonic()
    place = plan(
        read_checkpoint(folder), dtype=job["dtype"], quantization=job["quantization"], context=context,
        devices=devices, strategy=strategy, users=users,
    )  # fmt: skip
    planned_s = time.monotonic() - started
    options = LoadOptions(
        quantization=job["quantization"], dtype=job["dtype"], device_map=strategy, max_memory=max_memory,
        context=context, users=users,
    )  # fmt: skip
    # The libraries and CUDA take ten seconds to start, once a process; that is no part of reading a model.
    load(
        folder.parent / "tiny", LoadOptions(quantization=job["quantization"], dtype=job["dtype"], device_map="cuda:0")
    ).close()
    torch.cuda.empty_cache()
    evict(folder)
    before, stages = _host_peak(), []
    started = time.monotonic()
    engine = load(folder, options, lambda state: stages.append((state.stage, time.monotonic() - started)))
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
    load_s = time.monotonic() - started
    steps = getattr(getattr(engine, "_batch", None), "_model", None)
    beside = sum(one.nbytes for one in (steps._cache, *steps._rooms)) if hasattr(steps, "_rooms") else 0
    held = [torch.cuda.memory_allocated(gpu) - (0 if gpu else beside) for gpu in gpus]
    host = _host_peak() - before
    words = job.get("prompt_words", 950)
    answers: list[tuple[str, Usage]] = []
    for word in ("fox ", "dog "):
        prompt = Prompt("chat", (Message("user", word * words),), "q")
        sampling = Sampling(temperature=0, max_tokens=job.get("tokens", 64))
        *pieces, usage = engine.stream(prompt, sampling, threading.Event())
        assert isinstance(usage, Usage)
        answers.append(("".join(str(piece) for piece in pieces), usage))
    batch = _batch(engine, job["batch"]) if job.get("batch") else {}
    while hasattr(engine, "_batch") and engine._batch._unprepared:
        time.sleep(0.1)  # what is recorded while nobody asks counts too
    used = [free[gpu] - torch.cuda.mem_get_info(gpu)[0] for gpu in gpus]
    rows = {row.device.name: row for row in place.rows}
    engine.close()
    return {
        "card": torch.cuda.get_device_name(0),
        "verdict": place.verdict,
        "planned_s": planned_s,
        "weights": {
            name: [row.weights, held[int(name[5:])]] for name, row in rows.items() if name != "cpu" and "cuda" in name
        },
        "used": {name: [row.total, used[int(name[5:])]] for name, row in rows.items() if "cuda" in name},
        "speed": [place.speed.first if place.speed else 0, answers[-1][1].tokens_per_second or 0],
        "load_s": load_s,
        "checks_s": next((at for stage, at in stages if stage == "loading"), 0.0),
        "read_s": max((at for stage, at in stages if stage == "loading"), default=0.0),
        "host": host,
        "prompt_tokens": answers[-1][1].prompt_tokens,
        "first_token_s": answers[-1][1].first_token_s,
        "device": engine.info.device,
        "text": answers[-1][0],
        **batch,
    }


def _batch(engine: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Several users' long prompts at once through the engine's worker, and what it writes after them, greedily."""
    import torch

    from dbgpt_lite.llm.batch_jobs import AnswerJob, Began, Drawn
    from dbgpt_lite.llm.decoding import Sampler
    from dbgpt_lite.messages import Sampling

    prompts = torch.randint(10, 250, (sizes["users"], sizes["tokens"])).tolist()
    made = sizes["window"] - sizes["tokens"]
    jobs = [
        AnswerJob(str(user), ids, threading.Event(), made, (), Sampler(Sampling(temperature=0)))
        for user, ids in enumerate(prompts)
    ]
    started, first, tokens = time.monotonic(), 0.0, 0
    for job in jobs:
        engine._batch.submit(job)
    for job in jobs:
        while isinstance(event := job.take(), Began | Drawn):
            tokens += isinstance(event, Drawn)
            first = first or (time.monotonic() - started if tokens else 0.0)
        engine._batch.leave(job)
    return {"batch_tokens": tokens, "batch_s": time.monotonic() - started, "batch_read_s": first}


def cycles(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load, answer and unload through the manager, again and again: GPU and host memory after each."""
    import torch

    from dbgpt_lite.llm.loader import LoadOptions
    from dbgpt_lite.llm.manager import ModelManager
    from dbgpt_lite.messages import Message, Prompt, Sampling

    folder = Path(job["folder"])
    torch.zeros(1, device="cuda")
    free, kept, host = torch.cuda.mem_get_info()[0], [], []
    models = ModelManager(
        folder.parent,
        _NoModel(),  # type: ignore[arg-type]
        LoadOptions(quantization=job["quantization"]),
    )
    for _ in range(job["count"]):
        models.load(folder.name)
        status = models.wait()
        assert status.state == "ready", status
        list(
            models.engine.stream(
                Prompt("chat", (Message("user", "fox"),), "q"), Sampling(max_tokens=8), threading.Event()
            )
        )
        models.unload()
        kept.append(free - torch.cuda.mem_get_info()[0])
        host.append(_now("VmRSS"))
    return {"card": torch.cuda.get_device_name(0), "kept": kept, "rss": host}


class _NoModel:
    """What answers while no model is loaded: nothing is asked of it here."""

    def close(self) -> None:
        """Nothing is held."""


def _host_peak() -> int:
    return _now("VmHWM")


def _now(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])


def evict(folder: Path) -> None:
    """Put a folder's files out of the page cache."""
    os.sync()
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(folder: Path) -> tuple[int, float]:
    """Bytes and seconds of reading the weight files one after the other into one buffer, from the disk."""
    evict(folder)
    buffer = bytearray(PIECE)
    total, started = 0, time.monotonic()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with file.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                total += count
    return total, time.monotonic() - started


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job in a process of its own."""
    arguments = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        print(done.stderr[-3000:], flush=True)
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "?"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    """The allocator as the app sets it, and this project first among the packages."""
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    return {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ, "PYTHONPATH": path}


class Report:
    """Rows of the table, printed as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)

    def row(self, label: str, found: Mapping[str, Any], size: int = 0, read_s: float = 0.0) -> None:
        """One load."""
        if "failed" in found:
            self.say(f"| {label} | failed: {found['failed']} |")
            return
        weights = "; ".join(_against(*pair) for pair in found["weights"].values())
        used = "; ".join(_against(*pair) for pair in found["used"].values())
        share = f"{read_s / found['load_s']:.2f} ({size / GIB / read_s:.1f} GiB/s)" if read_s else ""
        planned, measured = found["speed"]
        prompt = f"{found['prompt_tokens']:,} in {found['first_token_s']:.2f} s"
        load = f"{found['load_s']:.1f} s (checks {found['checks_s']:.1f}, read {found['read_s']:.1f})"
        self.say(
            f"| {label} | {weights} | {used} | {found['host'] / GIB:.2f} | {load} | {share} | "
            f"{planned:.1f} / {measured:.1f} | {prompt} | {found['verdict']} |"
        )


def _against(planned: int, measured: int) -> str:
    apart = (measured - planned) / planned if planned else 0.0
    return f"{planned / GIB:.2f} / {measured / GIB:.2f} ({apart:+.1%})"


HEAD = (
    "| load | weights planned / held, GiB | all planned / used, GiB | host peak, GiB | load | plain read / load | "
    "tokens/s planned / measured | prompt | verdict |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def case_chatglm2(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import chatglm2

    chatglm2(folder / "chatglm2-6b", packed=False)
    size, read_s = plain_read(folder / "chatglm2-6b")
    for quantization in ("none", "int8", "nf4", "int4"):
        job = {"folder": str(folder / "chatglm2-6b"), "dtype": "float16", "quantization": quantization, "context": 2048}
        report.row(f"ChatGLM2-6B, fp16 .bin -> {quantization}", run(job), size, read_s)


def case_int4(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import chatglm2

    chatglm2(folder / "chatglm2-6b-int4", packed=True)
    size, read_s = plain_read(folder / "chatglm2-6b-int4")
    job = {"folder": str(folder / "chatglm2-6b-int4"), "dtype": "float16", "quantization": "none", "context": 2048}
    report.row("ChatGLM2-6B, packed int4 .bin", run(job), size, read_s)
    shutil.rmtree(folder / "chatglm2-6b-int4")


def case_context(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import chatglm2

    if not (folder / "chatglm2-6b").exists():
        chatglm2(folder / "chatglm2-6b", packed=False)
    base = {"folder": str(folder / "chatglm2-6b"), "dtype": "float16", "quantization": "nf4"}
    found = run({**base, "context": 32768, "prompt_words": 16250})
    report.row("ChatGLM2-6B NF4, window of 32,768 tokens", found)
    found = run(
        {
            **base,
            "context": 8192,
            "users": 4,
            "prompt_words": 450,
            "batch": {"users": 4, "tokens": 8064, "window": 8192},
        }
    )
    report.row("ChatGLM2-6B NF4, 4 users of 8,192 tokens", found)
    if "batch_s" in found:
        report.say(
            f"4 prompts of 8,064 tokens at once: first token of the first after {found['batch_read_s']:.2f} s, "
            f"{found['batch_tokens']} tokens after {found['batch_s']:.1f} s"
        )
    shutil.rmtree(folder / "chatglm2-6b")


def case_llama13(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import LLAMA_13B, llama

    if not (folder / "llama-13b").exists():
        llama(folder / "llama-13b", LLAMA_13B)
    size, read_s = plain_read(folder / "llama-13b")
    job = {"folder": str(folder / "llama-13b"), "dtype": "bfloat16", "context": 2048, "prompt_words": 1440}
    for quantization in ("nf4", "none"):
        found = run({**job, "quantization": quantization})
        report.row(f"Llama 13B, bf16 -> {quantization}", found, size, read_s)


def case_guanaco33(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import LLAMA_33B, llama_nf4

    llama_nf4(folder / "guanaco-33b-nf4", LLAMA_33B)
    size, read_s = plain_read(folder / "guanaco-33b-nf4")
    job = {"folder": str(folder / "guanaco-33b-nf4"), "dtype": "bfloat16", "quantization": "none", "context": 2048}
    job |= {"prompt_words": 1440}
    report.row("Guanaco-33B, saved NF4 copy", run(job), size, read_s)
    shutil.rmtree(folder / "guanaco-33b-nf4")


def _same_tokens(folder: Path, report: Report, name: str, changes: Mapping[str, Any]) -> None:
    job = {
        "folder": str(folder),
        # Greedy tokens of random weights are near ties, which the roundings of bfloat16 turn over: a whole model is
        # computed by other kernels than one in parts.
        "dtype": "float16",
        "quantization": "none",
        "context": 2048,
        "tokens": 8,
        "prompt_words": 20,
    }
    whole, parted = run({**job, "device_map": "cuda:0"}), run({**job, **changes})
    report.row(f"{folder.name} on one device", whole)
    report.row(f"{folder.name}, {name}", parted)
    texts = [found.get("text", "") for found in (whole, parted)]
    same = texts[0] == texts[1] != ""
    report.say(f"greedy tokens the same: {same} ({texts[0]!r}, {texts[1]!r}; {parted.get('device', '')})")


def case_offload(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import LLAMA_13B, llama

    if not (folder / "llama-13b").exists():
        llama(folder / "llama-13b", LLAMA_13B)
    limits = {"max_memory": {"0": "8GiB", "cpu": "10GiB"}}
    _same_tokens(folder / "llama-13b", report, "8 GiB of GPU, 10 GiB of memory, rest on disk", limits)
    shutil.rmtree(folder / "llama-13b")


def case_balanced(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import LLAMA_13B, llama

    if not (folder / "llama-13b").exists():
        llama(folder / "llama-13b", LLAMA_13B)
    _same_tokens(folder / "llama-13b", report, "balanced over two", {"device_map": "balanced"})


def case_cycles(folder: Path, report: Report) -> None:
    from benchmarks.true_shapes import LLAMA_7B, llama

    small = {**LLAMA_7B, "num_hidden_layers": 8}
    llama(folder / "llama-8-layers", small)
    for quantization in ("none", "nf4"):
        found = run(
            {"what": "cycles", "folder": str(folder / "llama-8-layers"), "quantization": quantization, "count": 20}
        )
        if "failed" in found:
            report.say(f"20 cycles, {quantization}: failed: {found['failed']}")
            continue
        kept, rss = found["kept"], found["rss"]
        report.say(
            f"20 load/unload cycles, {quantization}: GPU memory kept, MiB: first {kept[0] / 2**20:.0f}, last "
            f"{kept[-1] / 2**20:.0f}, most {max(kept) / 2**20:.0f}; host memory after cycle 2 and 20, GiB: "
            f"{rss[1] / GIB:.2f}, {rss[-1] / GIB:.2f}; all: {', '.join(f'{one / 2**20:.0f}' for one in kept)}"
        )
    shutil.rmtree(folder / "llama-8-layers")


CASES: Mapping[str, Callable[[Path, Report], None]] = {
    "chatglm2": case_chatglm2, "int4": case_int4, "context": case_context, "llama13": case_llama13,
    "offload": case_offload, "guanaco33": case_guanaco33, "balanced": case_balanced, "cycles": case_cycles,
}  # fmt: skip


def main() -> None:
    """Run the cases that are asked for, in this order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--job", type=json.loads)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(cycles(options.job) if options.job.get("what") == "cycles" else worker(options.job)))
        return
    sys.path.insert(0, str(ROOT))
    import torch

    report = Report()
    report.say(f"{torch.cuda.get_device_name(0)} x{torch.cuda.device_count()}, torch {torch.__version__}\n\n{HEAD}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="shapes-"))
    if not (folder / "tiny").exists():
        shutil.copytree(GOLDEN / "chatglm2-tiny", folder / "tiny")
        shutil.copy(GOLDEN / "chatglm2-tokenizer" / "tokenizer.model", folder / "tiny")
    for name in options.cases:
        started = time.monotonic()
        try:
            CASES[name](folder, report)
        except Exception as error:
            report.say(f"{name} failed: {type(error).__name__}: {error}")
        report.say(f"<!-- {name}: {time.monotonic() - started:.0f} s -->")
        if options.write:
            options.write.write_text("\n".join(report.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
