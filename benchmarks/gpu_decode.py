"""Tokens a second on a GPU: the plain recipe, ours, and the limit; one user and sixteen; prompts; what is kept.

    python benchmarks/gpu_decode.py [llama33] [chatglm2] [prefix] [--write FILE]

The recipe is bitsandbytes NF4 with double quantization under transformers' generate(), as QLoRA's authors publish it.
Ours is the app's worker (llm/batch.py) over its GPU step model with everything it does for real requests, greedy, and
no token that ends an answer. Random weights in the true shape, both on the same ones, in one run.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_models import bandwidth, chatglm2_6b, llama_33b, median_ms, weight_bytes  # noqa: E402
from dbgpt_lite.llm.batch import Batch  # noqa: E402
from dbgpt_lite.llm.batch_jobs import AnswerJob, Began, Drawn  # noqa: E402
from dbgpt_lite.llm.batch_room import wide_room  # noqa: E402
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts  # noqa: E402
from dbgpt_lite.llm.decoding import Sampler  # noqa: E402
from dbgpt_lite.llm.gpu_step import GpuStepModel  # noqa: E402
from dbgpt_lite.llm.parts import take_apart  # noqa: E402
from dbgpt_lite.llm.placement import Device  # noqa: E402
from dbgpt_lite.llm.plan import plan  # noqa: E402
from dbgpt_lite.messages import Sampling  # noqa: E402

PROMPT, ANSWER, USERS, WINDOW = 512, 128, 16, 1024
LONG = 8000


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of a run, the GPU's work included."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def recipe(model: Any) -> Iterator[str]:
    """generate(): prompt, one user, sixteen."""
    ids = torch.randint(5, 31000, (1, PROMPT), device="cuda")

    def generate(rows: int, tokens: int) -> float:
        batch = ids.repeat(rows, 1)
        usual: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        mask = torch.ones_like(batch)
        return seconds(
            lambda: model.generate(batch, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, **usual)
        )

    generate(1, 2)
    first, more = generate(1, 1), generate(1, 33)
    yield f"| recipe | {first * 1e3:.0f} ms | {32 / (more - first):.1f} |"
    first, more = generate(USERS, 1), generate(USERS, 17)
    yield f" {16 * USERS / (more - first):.0f} |"


class Asked:
    """One request to a batch, read in a thread of its own."""

    def __init__(self, batch: Batch, owner: str, ids: list[int], tokens: int, common: int = 0) -> None:
        self.times: list[float] = []
        self.cached = 0
        self.started = time.perf_counter()
        sampler = Sampler(Sampling(temperature=0))
        self._job = AnswerJob(owner, ids, threading.Event(), tokens, (), sampler, common=common)
        batch.submit(self._job)
        self._batch = batch
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait(self) -> "Asked":
        """Until the answer is complete."""
        self._thread.join()
        return self

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.started

    def _read(self) -> None:
        while isinstance(event := self._job.take(), Began | Drawn):
            if isinstance(event, Began):
                self.cached = event.cached
            else:
                self.times.append(time.perf_counter())
        self._batch.leave(self._job)


def rate(asked: list[Asked]) -> float:
    """Tokens a second of all together, while all of them write."""
    start, end = max(one.times[0] for one in asked), min(one.times[-1] for one in asked)
    return sum(sum(start < at <= end for at in one.times) for one in asked) / (end - start)


def ours(batch: Batch, steps: GpuStepModel, room: int) -> Iterator[str]:
    """The worker: prompt, one user, sixteen. First the prompt alone as it is read where no memory is left over; `room`:
    bytes that may keep weights wider."""
    prompts = [torch.randint(5, 31000, (PROMPT,)).tolist() for _ in range(USERS + 2)]
    Asked(batch, "warm", prompts[-1], 40).wait()
    settled(batch)
    yield f"| ours, `LLM_WIDE_MEMORY=0` | {reading_ms(steps, prompts[0])} | | |\n"
    steps.widened = steps._keep_wide(room)
    kept = f"{steps.widened / 2**30:.1f} GiB of weights in 16 bits too"
    reading = reading_ms(steps, prompts[0])
    alone = Asked(batch, "one", prompts[-2], ANSWER).wait()
    first = f"request to first token {alone.first_s * 1e3:.0f} ms"
    yield f"| ours, by default: {kept} | {reading}; {first} | {rate([alone]):.1f} |"
    settled(batch)
    together = [Asked(batch, str(user), prompts[user], 2 * ANSWER) for user in range(USERS)]
    yield f" {rate([one.wait() for one in together]):.0f} |"


def reading_ms(steps: GpuStepModel, ids: list[int]) -> str:
    """Milliseconds of a prompt: one after the other, and each after a pause, as questions come. The card's power limit
    makes the difference."""
    steps.read(0, 0, ids)
    paused = []
    for _ in range(5):
        time.sleep(0.3)
        paused.append(1e3 * seconds(lambda: steps.read(0, 0, ids)))
    again = median_ms(lambda: steps.read(0, 0, ids), 7, 2)
    return f"{again:.1f} ms, after pauses {sorted(paused)[2]:.1f} ms"


def room_left(name: str, config: Any, free: int) -> int:
    """What the app would take to keep weights wider beside sixteen users, of `free` bytes left beside the weights."""
    found = Checkpoint(Path(name), config.to_dict(), TaskFacts(), "bin", (), (), 0)
    device = Device("cuda:0", torch.cuda.mem_get_info()[1], torch.cuda.get_device_name(0))
    settings: dict[str, Any] = {"dtype": "bfloat16", "quantization": "nf4", "context": WINDOW, "users": USERS}
    return wide_room(plan(found, devices=(device,), **settings), "cuda:0", free, USERS, None)


def settled(batch: Batch) -> None:
    """Until the idle worker has recorded what it wanted to: nothing else may be started on the GPU meanwhile."""
    time.sleep(0.1)
    while batch._unprepared:
        time.sleep(0.05)


def compare(name: str, model: Any, say: Callable[[str], None]) -> None:
    """The table of one shape."""
    speed, size = bandwidth(), weight_bytes(model)
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2 * (PROMPT + ANSWER)
    one, many = speed / (size + cache), USERS * speed / (size + USERS * cache)
    say(
        f"\n**{name}**: {size / 2**30:.2f} GiB of weights a step, {cache / 2**20:.0f} MiB of cache a user at the end.\n"
    )
    say(f"| | prompt of {PROMPT} tokens | tokens/s, one user | tokens/s, {USERS} users |\n| --- | --- | --- | --- |")
    say("".join(recipe(model)))
    parts = take_apart(model)
    assert parts is not None
    started = time.perf_counter()
    torch.cuda.empty_cache()
    room = room_left(name, config, torch.cuda.mem_get_info()[0])
    steps = GpuStepModel(parts, USERS, WINDOW)
    batch = Batch(steps, name)
    torch.cuda.synchronize()
    made = time.perf_counter() - started
    say("".join(ours(batch, steps, room)))
    say(f"| limit | | {speed / size:.0f} (weights alone), {one:.0f} (and cache) | {many:.0f} |")
    held = torch.cuda.max_memory_allocated() / 2**30
    say(f"\nOurs was ready in {made:.1f} s; most memory allocated {held:.1f} GiB, of that {USERS} windows of {WINDOW}.")
    batch.close()


def prefix(say: Callable[[str], None]) -> None:
    """A second question over the same long context, and eight users over the same schema."""
    model = chatglm2_6b()
    parts = take_apart(model)
    assert parts is not None
    steps = GpuStepModel(parts, 10, LONG + 512)
    batch = Batch(steps, "ChatGLM2-6B")
    context = torch.randint(5, 60000, (LONG,)).tolist()

    def question() -> list[int]:
        return torch.randint(5, 60000, (40,)).tolist()

    warm = torch.randint(5, 60000, (LONG,)).tolist()
    for _ in range(2):
        Asked(batch, "warm", warm + question(), 8, LONG).wait()
    for row in [Asked(batch, f"warm {user}", warm + question(), 16, LONG) for user in range(8)]:
        row.wait()
    settled(batch)
    # As a system prompt would be: everybody's.
    first = Asked(batch, "one", context + question(), 8, LONG).wait()
    second = Asked(batch, "one", context + question(), 8, LONG).wait()
    say(
        f"\nChatGLM2-6B NF4, a context of {LONG:,} tokens: first token of the first question after "
        f"{first.first_s * 1e3:.0f} ms, of the second after {second.first_s * 1e3:.0f} ms "
        f"({second.first_s / first.first_s:.1%}; {second.cached:,} tokens kept)."
    )
    settled(batch)
    prompts = [context + question() for _ in range(8)]
    rows = [Asked(batch, f"user {user}", prompt, 64, LONG) for user, prompt in enumerate(prompts)]
    waits = sorted(one.wait().first_s * 1e3 for one in rows)
    say(
        f"Eight users ask over that context at once: first tokens after {waits[0]:.0f} to {waits[-1]:.0f} ms "
        f"({waits[-1] / first.first_s / 1e3:.0%} of the first question's at most)."
    )
    batch.close()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=["llama33", "chatglm2", "prefix"])
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    import bitsandbytes
    import transformers

    say(
        f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"bitsandbytes {bitsandbytes.__version__}; a copy moves {bandwidth() / 1e12:.2f} TB/s."
    )
    for case in options.cases:
        if case == "prefix":
            prefix(say)
        else:
            shape = {"llama33": ("Guanaco-33B", llama_33b), "chatglm2": ("ChatGLM2-6B", chatglm2_6b)}[case]
            compare(shape[0], shape[1](), say)
        torch.cuda.empty_cache()
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
