"""Load a 7B-shaped Llama through the real loader on a GPU: bf16, int8, NF4. Stream, stop, and compare with the plan.

Weights are random (speed and memory do not depend on them), written to disk once and loaded from there.

    python benchmarks/gpu_load.py [--layers 32] [--folder DIR]
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import torch
import transformers

from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.messages import Message, Prompt, Sampling, Usage

LINES = ["The quick brown fox jumps over the lazy dog.", "SELECT name FROM readers WHERE town = 'Leeds'"]


def make_checkpoint(folder: Path, layers: int) -> int:
    """A random Llama of 7B width in bf16; returns its bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=layers,
        num_attention_heads=32, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="4GB")
    del model
    torch.cuda.empty_cache()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, vocab_size=400)
    tokenizer.train_from_iterator(LINES, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    (folder / "dbgpt.json").write_text(json.dumps({"chat_format": "vicuna"}))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def measure(folder: Path, quantization: str) -> None:
    """One row of the table."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    started = time.monotonic()
    engine = load(folder, LoadOptions(quantization=quantization))  # type: ignore[arg-type]
    took = time.monotonic() - started
    held = torch.cuda.memory_allocated() - before
    prompt = Prompt("chat", (Message("user", "fox " * 500),), "q")
    sampling = Sampling(temperature=0, max_tokens=128)
    list(engine.stream(prompt, sampling, threading.Event()))
    warm = Prompt("chat", (Message("user", "dog " * 500),), "q")
    usage = next(item for item in engine.stream(warm, sampling, threading.Event()) if isinstance(item, Usage))
    freed = stop_seconds(engine)
    print(
        f"{quantization:>5}: load {took:5.1f} s, weights held {held / 2**30:5.2f} GiB, "
        f"prompt {usage.prompt_tokens} tokens in {usage.first_token_s:.2f} s, {usage.tokens_per_second:5.1f} tokens/s, "
        f"stop to free {freed * 1000:.0f} ms, device {engine.info.device}",
        flush=True,
    )
    engine.close()
    torch.cuda.empty_cache()
    print(f"       after unload: {(torch.cuda.memory_allocated() - before) / 2**20:.0f} MiB left", flush=True)


def stop_seconds(engine: object) -> float:
    """From setting the stop event to a free place, worst of five."""
    worst = 0.0
    for _ in range(5):
        cancel = threading.Event()
        stream = engine.stream(Prompt("chat", (Message("user", "stop"),), "q"), Sampling(0, 1, 2000), cancel)  # type: ignore[attr-defined]
        next(stream)
        cancel.set()
        started = time.monotonic()
        for _item in stream:
            pass
        worst = max(worst, time.monotonic() - started)
    return worst


def main() -> None:
    """Make the checkpoint and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "transformers", transformers.__version__)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name) / "llama-7b-shape"
        folder.mkdir()
        size = make_checkpoint(folder, options.layers)
        print(f"checkpoint {size / 2**30:.2f} GiB, {options.layers} layers", flush=True)
        for quantization in ("none", "int8", "nf4"):
            measure(folder, quantization)


if __name__ == "__main__":
    main()
