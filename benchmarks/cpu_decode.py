"""One user on a CPU: reading a prompt and writing an answer, against transformers' generate() in float32.

The plain recipe is AutoModelForCausalLM.from_pretrained(folder, dtype=float32).generate(greedy) over the unpacked
weights of the built-in model. Ours is LocalEngine's Runner with Sampler, greedy, from the same weights. Both take
turns, and each figure is the best of the rounds, since other programs on the machine only make it worse. The limit is
what is read from memory for a token, weights and cache, at the speed at which torch sums a large tensor.

    python benchmarks/cpu_decode.py [--rounds 5] [--tokens 64]
"""

import argparse
import copy
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbgpt_lite.config import ROOT, prepare_process

prepare_process()

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM  # noqa: E402

from dbgpt_lite.llm.decoding import Sampler  # noqa: E402
from dbgpt_lite.llm.generation import Runner  # noqa: E402
from dbgpt_lite.llm.int4 import PackedLinear, unpack  # noqa: E402
from dbgpt_lite.llm.loader import LoadOptions, load  # noqa: E402
from dbgpt_lite.messages import Sampling  # noqa: E402

PROMPTS = (256, 1024)


class Times:
    """The best seconds so far, by the prompt's length, to read a prompt and to read it and write an answer."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._best: dict[tuple[str, int], float] = {}

    def add(self, prompt: int, read: float, answered: float) -> None:
        """One more measurement of each."""
        for key, seconds in ((("read", prompt), read), (("answered", prompt), answered)):
            self._best[key] = min(seconds, self._best.get(key, seconds))

    def read(self, prompt: int) -> float:
        """Seconds to the first token."""
        return self._best["read", prompt]

    def write(self, prompt: int) -> float:
        """Seconds a token after it."""
        return (self._best["answered", prompt] - self.read(prompt)) / self._tokens


def bandwidth() -> float:
    """Bytes a second that torch reads from memory."""
    numbers = torch.ones(2**28)
    return max(numbers.nbytes / timed(numbers.sum) for _ in range(5))


def timed(action: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def unpacked(model: Any) -> Any:
    """The same model in float32 with plain layers."""
    plain = copy.deepcopy(model).float()
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, PackedLinear):
            new = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            packed = model.get_submodule(name)
            new.weight = torch.nn.Parameter(unpack(packed.weight, packed.weight_scale, 4, torch.float32), False)
            plain.set_submodule(name, new)
    return plain


def recipe(model: Any, times: Times, ids: list[int], tokens: int) -> None:
    """Measure generate()."""
    prompt = torch.tensor([ids])
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "use_cache": True}

    def generate(count: int) -> Any:
        return model.generate(prompt, max_new_tokens=count, min_new_tokens=count, **options)

    times.add(len(ids), timed(lambda: generate(1)), timed(lambda: generate(1 + tokens)))


def ours(runner: Runner, times: Times, ids: list[int], tokens: int) -> None:
    """Measure the engine's loop."""
    sampler = Sampler(Sampling(temperature=0))
    runner.forget()
    started = time.perf_counter()
    token = sampler.pick(runner.read(ids)[0])
    read = time.perf_counter() - started
    for _ in range(tokens):
        token = sampler.pick(runner.step(token))
    times.add(len(ids), read, time.perf_counter() - started)


def compare(name: str, plain: Any, models: dict[str, Any], rounds: int, tokens: int, speed: float) -> None:
    """Print a table: the recipe and ours, with the share of the limit that each reaches."""
    runners = {kind: Runner(model, 2048) for kind, model in models.items()}
    reference, measured = Times(tokens), {kind: Times(tokens) for kind in models}
    torch.manual_seed(1)
    for _ in range(rounds):
        for length in PROMPTS:
            ids = torch.randint(10, plain.config.vocab_size - 10, (length,)).tolist()
            recipe(plain, reference, ids, tokens)
            for kind, runner in runners.items():
                ours(runner, measured[kind], ids, tokens)
    print(f"\n{name}\n")
    print("| | " + " | ".join(f"read {n}, tokens/s | write after {n}, tokens/s | of the limit" for n in PROMPTS) + " |")
    print("| --- " * (1 + 3 * len(PROMPTS)) + "|")
    held = {"generate(), float32": (reference, plain), **{k: (measured[k], models[k]) for k in models}}
    for kind, (times, model) in held.items():
        print(f"| {kind} | " + " | ".join(cells(times, reference, model, n, tokens, speed) for n in PROMPTS) + " |")


def cells(times: Times, reference: Times, model: Any, prompt: int, tokens: int, speed: float) -> str:
    """A row's figures for one length of prompt."""
    read, write = times.read(prompt), times.write(prompt)
    config = model.config
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = model.get_input_embeddings().weight.element_size()
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * dim * width * (prompt + tokens / 2)
    limit = (sum(each.nbytes for each in model.parameters()) + cache) / speed
    ratios = reference.read(prompt) / read, reference.write(prompt) / write
    return f"{prompt / read:,.0f} ({ratios[0]:.1f} x) | {1 / write:.0f} ({ratios[1]:.1f} x) | {limit / write:.0%}"


def starter(rounds: int, tokens: int, speed: float) -> None:
    """The built-in model as it is loaded by default, and from its unpacked weights."""
    engine = load(ROOT / "models" / "starter-sql", LoadOptions(device_map="cpu", dtype="bfloat16"))
    packed = engine._runner._model
    whole = unpacked(packed)
    with tempfile.TemporaryDirectory() as folder:
        del whole.config.quantization_bit
        whole.save_pretrained(folder)
        plain = AutoModelForCausalLM.from_pretrained(Path(folder), dtype=torch.float32)
    half = copy.deepcopy(whole).bfloat16()
    models: dict[str, Any] = {"ours, int4 as stored": packed, "ours, bfloat16": half, "ours, float32": whole}
    compare("The built-in model (44.8 M parameters)", plain, models, rounds, tokens, speed)


def half_a_billion(rounds: int, tokens: int, speed: float) -> None:
    """Qwen2-0.5B's shape with random weights."""
    sizes = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151936}
    heads = {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
    plain = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval().requires_grad_(False)
    plain.generation_config.eos_token_id = None
    models = {"ours, bfloat16": copy.deepcopy(plain).bfloat16()}
    compare("Qwen2-0.5B's shape, random weights", plain, models, rounds, tokens, speed)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    speed = bandwidth()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; memory {speed / 1e9:.1f} GB/s")
    starter(options.rounds, options.tokens, speed)
    gc.collect()
    half_a_billion(options.rounds, options.tokens // 2, speed)


if __name__ == "__main__":
    main()
