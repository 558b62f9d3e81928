"""The GPU step model against the plain one, on a GPU: right answers, not speed. Ends with 1 when something is wrong.

    python benchmarks/gpu_check.py [Llama] [Glm] ...

Tiny models of every kind that parts.py takes apart, with random weights; prompts in pieces, of several slots at once,
rows of many lengths, slots used again and copied. Both compute in 16 bits with other roundings, so their logits are
compared by relative error.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_models import int4_of, nf4_of  # noqa: E402
from dbgpt_lite.llm import gpu_reading  # noqa: E402
from dbgpt_lite.llm.gpu_step import GpuStepModel, runs_here  # noqa: E402
from dbgpt_lite.llm.kernels import nf4  # noqa: E402
from dbgpt_lite.llm.parts import take_apart  # noqa: E402
from dbgpt_lite.llm.slotted import Piece, PlainStepModel  # noqa: E402

WINDOW, WORST = 1600, 0.06
SIZES: Mapping[str, Any] = {
    "vocab_size": 320, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "pad_token_id": 0,
}  # fmt: skip
# name of the transformers classes, what differs, numbers of the linear layers, type
MODELS: tuple[tuple[str, Mapping[str, Any], str, torch.dtype], ...] = (
    ("Llama", {}, "nf4", torch.bfloat16),
    ("Llama", {"num_key_value_heads": 8, "head_dim": 128}, "nf4", torch.bfloat16),
    ("Llama", {"attention_bias": True, "mlp_bias": True}, "none", torch.bfloat16),
    ("Llama", {"hidden_size": 896, "num_attention_heads": 14, "head_dim": 64}, "nf4", torch.float16),
    ("Mistral", {"sliding_window": None}, "nf4", torch.bfloat16),
    ("Qwen2", {}, "nf4", torch.bfloat16),
    ("Qwen3", {"head_dim": 256}, "nf4", torch.bfloat16),
    ("Glm", {"attention_bias": True, "num_attention_heads": 32, "head_dim": 128}, "nf4", torch.float16),
    ("Glm", {"attention_bias": True, "num_attention_heads": 32, "head_dim": 128}, "int4", torch.float16),
    ("Llama", {}, "int4", torch.bfloat16),
)


def made(name: str, changes: Mapping[str, Any], numbers: str, dtype: torch.dtype) -> Any:
    """A tiny model on the GPU."""
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes})
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    for parameter in model.parameters():  # not the buffers: rotary frequencies are float32
        spread = torch.randn_like(parameter) * (0.08 if parameter.ndim > 1 else 0.1)
        parameter.data = (spread if parameter.ndim > 1 else 1 + spread).to(dtype)
    model = model.to("cuda").eval()
    for module in list(model.modules()) if numbers != "none" else []:
        for child_name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and child_name != "lm_head":
                small = nf4_of(child.weight.data, dtype) if numbers == "nf4" else int4_of(child.weight.data)
                small.bias = child.bias
                setattr(module, child_name, small)
    return model


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative error of the worst row."""
    apart = (found.double() - wanted.double()).norm(dim=-1) / wanted.double().norm(dim=-1)
    return float(apart.max())


def compared(model: Any, slots: int = 40, wide: int = 0) -> float:
    """The worst relative error of everything that is asked of both. `wide`: bytes to keep weights in 16 bits too."""
    parts = take_apart(model)
    assert parts is not None
    assert runs_here(parts)
    # The plain one computes first: the other takes the weights over.
    plain = PlainStepModel(parts, slots, WINDOW)
    scenes = _answers(plain, slots)
    fast = GpuStepModel(parts, slots, WINDOW, wide=wide)
    assert bool(wide) == bool(fast.widened)
    fast.warm_up()
    worst, apart = 0.0, gpu_reading._APART
    # Before steps for short pieces are recorded, with some, with all that are wished for; then with several pieces
    # attended to one after the other, as in long conversations.
    for attended in (apart, apart, apart, 0):
        gpu_reading._APART = attended
        worst = max(worst, *(error(found, wanted) for found, wanted in zip(_answers(fast, slots), scenes, strict=True)))
        while fast.prepare():
            pass
    gpu_reading._APART = apart
    fast.close()
    return worst


def _answers(steps: Any, slots: int) -> list[Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(1, 319, (slots, WINDOW)).tolist()
    lengths = [(1, 63, 64, 255, 256, 300, 1023, 1024, 1100, 17)[slot % 10] for slot in range(slots)]
    found = []
    for slot, length in enumerate(lengths):
        middle = length // 3
        if middle:
            steps.read(slot, 0, ids[slot][:middle])
        found.append(steps.read(slot, middle, ids[slot][middle:length])[None].clone())
    for count, used in ((1, range(5)), (5, range(8)), (7, range(3, 20)), (40, range(12, 14)), (40, range(20, 28))):
        # Slots come in any order.
        pieces = [
            Piece(slot, lengths[slot], ids[slot][lengths[slot] : lengths[slot] + count])
            for slot in sorted(used, key=lambda slot: slot * 7 % 10)
        ]
        found.append(steps.read_together(pieces).clone())
        for slot in used:
            lengths[slot] += count
    # Some begin while others go on.
    lengths[30] = lengths[33] = 0
    pieces = [Piece(30 + at, lengths[30 + at], ids[30 + at][lengths[30 + at] :][:count]) for at, count in enumerate(
        (200, 1, 50, 33)
    )]  # fmt: skip
    found.append(steps.read_together(pieces).clone())
    for piece in pieces:
        lengths[piece.slot] = piece.end
    for rows in (1, 3, 8, 9, 17, 33, slots):
        used = list(range(slots - rows, slots))
        tokens: Any = [ids[slot][lengths[slot]] for slot in used]
        if steps.queues and rows % 2:
            tokens = torch.tensor(tokens, device="cuda")
        found.append(steps.step(used, [lengths[slot] for slot in used], tokens).clone())
        for slot in used:
            lengths[slot] += 1
    # The next question, at places where attention is cut into parts and steps over longer caches are recorded.
    for end in (60, 130, 300, 1010, 1030, WINDOW - 5):
        for count in (5, 20, 40):
            steps.copy(9, 1, 0, end - count)
            found.append(steps.read(1, end - count, ids[9][end - count : end])[None].clone())
    steps.copy(8, 0, 0, lengths[8])
    found.append(steps.step([0, 8], [lengths[8]] * 2, [ids[8][lengths[8]]] * 2).clone())
    return found


def products(numbers: str) -> float:
    """The worst relative error against float64 of products in nf4 or int4, with and without bias, residual and gate,
    and of their weights as numbers."""
    worst = 0.0
    for rows, columns in ((256, 256), (48, 192), (4096, 1088), (6656, 6656)):
        for dtype in (torch.bfloat16, torch.float16):
            weights = [torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") * 0.02 for _ in range(2)]
            layers = [nf4_of(one) if numbers == "nf4" else int4_of(one) for one in weights]
            one, both = nf4.tiled(layers[:1]), nf4.tiled(layers)
            true_both = nf4.reference(both)
            room = torch.full((2 * rows, columns), torch.nan, device="cuda", dtype=dtype)
            worst = max(worst, error(nf4.widen(both, room), true_both))
            for count in (1, 2, 7, 8, 9, 16, 17, 32, 33, 64):
                x, residual = (torch.randn(count, size, device="cuda", dtype=dtype) for size in (columns, rows))
                bias = torch.randn(rows, device="cuda", dtype=dtype)
                wide = x.double() @ true_both.T
                plain = wide[:, :rows] + bias.double() + residual.double()
                gated = torch.nn.functional.silu(wide[:, :rows]) * wide[:, rows:]
                worst = max(
                    worst, error(nf4.matmul(x, one), wide[:, :rows]), error(nf4.matmul(x, both, pair=True), gated),
                    error(nf4.matmul(x, one, bias=bias, residual=residual), plain),
                )  # fmt: skip
    return worst


def main() -> int:
    """Compare everything."""
    torch.set_grad_enabled(False)
    found = {f"products {numbers}": (products(numbers), 0.012) for numbers in ("nf4", "int4")}
    for name, changes, numbers, dtype in MODELS:
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        label = f"{name} {numbers} {dict(changes)} {str(dtype).removeprefix('torch.')}"
        found[label] = (compared(made(name, changes, numbers, dtype)), WORST)
    # Some of the weights kept in 16 bits too, and all of them.
    for wide in (2_000_000, 2**30):
        model = made("Llama", {}, "nf4", torch.bfloat16)
        found[f"Llama nf4, up to {wide} bytes for wider weights"] = (compared(model, wide=wide), WORST)
    for label, (value, limit) in found.items():
        print(f"{'right' if value <= limit else 'WRONG'} {value:.1e} {label}")
    return int(any(not value <= limit for value, limit in found.values()))


if __name__ == "__main__":
    sys.exit(main())
