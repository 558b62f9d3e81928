"""Products with NF4 weights on a GPU, for few rows: ours, bitsandbytes', torch's and gemlite's int4, bf16, the floor.

    python benchmarks/gpu_kernels.py [--write FILE]

The seven matrices of a layer of LLaMA-30B (Guanaco-33B), each timed as replays of a CUDA graph over several copies, so
that none is in the cache. The floor is the time in which the memory delivers the weights at the speed of a copy.
gemlite (Apache 2.0, `pip install gemlite`) is left out where it is not installed; it tries its kernels' settings for
each shape before it is timed, which takes minutes.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_models import NF4_BITS, bandwidth, median_ms, nf4_linear  # noqa: E402
from dbgpt_lite.llm.kernels import nf4  # noqa: E402

HIDDEN, INNER = 6656, 17920
ROWS = (1, 2, 4, 8, 16, 32, 64)
COPIES = 4
INT4_GROUP = 128
INT4_BITS = 4 + 32 / INT4_GROUP
# (output features, input features, how many of them in a layer)
SHAPES = ((HIDDEN, HIDDEN, 4), (INNER, HIDDEN, 2), (HIDDEN, INNER, 1))
Make = Callable[[int, int], Callable[[Tensor], Tensor]]


def replayed_ms(runs: Sequence[Callable[[], object]]) -> float:
    """Milliseconds of one of `runs`, recorded one after the other and replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for run in runs:
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(3):
            for run in runs:
                run()
    return median_ms(graph.replay) / (3 * len(runs))


def layer_ms(make: Make, rows: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Milliseconds of the seven products of a layer with inputs of `dtype`, each a kernel of its own."""
    total = 0.0
    for out, columns, count in SHAPES:
        x = torch.randn(rows, columns, dtype=dtype, device="cuda")
        products = [make(out, columns) for _ in range(COPIES)]
        total += count * replayed_ms([lambda one=one, x=x: one(x) for one in products])
        del products
        torch.cuda.empty_cache()
    return total


def fused_ms(rows: int) -> float:
    """The same by our kernels as a step has them: q, k and v in one, gate and up in one."""
    total = 0.0
    for out, columns, pair in ((3 * HIDDEN, HIDDEN, False), (HIDDEN, HIDDEN, False), (2 * INNER, HIDDEN, True),
                               (HIDDEN, INNER, False)):  # fmt: skip
        x = torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda")
        weights = [nf4.tiled([nf4_linear(out, columns)]) for _ in range(COPIES)]
        total += replayed_ms([lambda one=one, x=x, pair=pair: nf4.matmul(x, one, pair=pair) for one in weights])
        del weights
        torch.cuda.empty_cache()
    return total


def ours(out: int, columns: int) -> Callable[[Tensor], Tensor]:
    """nf4.cu."""
    weight = nf4.tiled([nf4_linear(out, columns)])
    return lambda x: nf4.matmul(x, weight)


def bitsandbytes(out: int, columns: int) -> Callable[[Tensor], Tensor]:
    """The layer that a checkpoint is loaded into."""
    layer = nf4_linear(out, columns)
    return lambda x: layer(x)  # type: ignore[no-any-return]


def torch_int4(out: int, columns: int) -> Callable[[Tensor], Tensor]:
    """Uniform int4 in groups of 128, other values than NF4's: the speed is what is compared."""
    packed = torch.ops.aten._convert_weight_to_int4pack(
        torch.randint(0, 255, (out, columns // 2), device="cuda", dtype=torch.uint8), 8
    )
    scales = torch.rand(columns // INT4_GROUP, out, 2, device="cuda", dtype=torch.bfloat16)
    return lambda x: torch.ops.aten._weight_int4pack_mm(x, packed, INT4_GROUP, scales)  # type: ignore[no-any-return]


def uniform(out: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random levels (out, columns), of which 7.5 is zero, and scales (out, groups)."""
    levels = torch.randint(0, 16, (out, columns), device="cuda", dtype=torch.uint8)
    return levels, torch.rand(out, columns // INT4_GROUP, device="cuda", dtype=dtype) * 0.01


def gemlite(levels: Tensor, scales: Tensor) -> Any:
    """Its layer of such weights: uniform int4 in groups of 128, with a scale and a zero each."""
    from gemlite.helper import A16Wn  # type: ignore[import-not-found]

    zeros = torch.full_like(scales, 7.5)
    return A16Wn(device="cuda:0", dtype=scales.dtype).from_weights(levels, scales, zeros, 4, INT4_GROUP)


def gemlite_ms(rows: int) -> float:
    """Its fastest: in bf16 or fp16, by the kernel that it chooses or, for few rows, by the one it chooses for more."""

    def ms(dtype: torch.dtype, split: bool) -> float:
        def make(out: int, columns: int) -> Callable[[Tensor], Tensor]:
            layer = gemlite(*uniform(out, columns, dtype))
            return (lambda x: layer.forward_manual(x, "GEMM_SPLITK")) if split else (lambda x: layer(x))

        return layer_ms(make, rows, dtype)

    return min(ms(dtype, split) for dtype in (torch.bfloat16, torch.float16) for split in {False, 1 < rows < 8})


def gemlite_error(dtype: torch.dtype) -> str:
    """Its largest relative error against float64."""
    levels, scales = uniform(HIDDEN, HIDDEN, dtype)
    weight = ((levels.double() - 7.5).view(HIDDEN, -1, INT4_GROUP) * scales.double()[..., None]).flatten(1)
    layer, worst = gemlite(levels, scales), 0.0
    for rows in ROWS:
        x = torch.randn(rows, HIDDEN, dtype=dtype, device="cuda")
        truth = x.double() @ weight.T
        worst = max(worst, float((layer(x).double() - truth).norm() / truth.norm()))
    return f"{worst:.1e}"


def plain(out: int, columns: int) -> Callable[[Tensor], Tensor]:
    """bf16."""
    weight = torch.randn(out, columns, dtype=torch.bfloat16, device="cuda")
    return lambda x: linear(x, weight)


def errors() -> str:
    """The largest relative errors against float64, of ours and of bitsandbytes."""
    worst: dict[str, float] = {"ours": 0.0, "gated": 0.0, "bitsandbytes": 0.0}
    for out, columns in ((HIDDEN, HIDDEN), (48, 192), (4096, 13696)):
        layers = [nf4_linear(out, columns) for _ in range(2)]
        one, both = nf4.tiled(layers[:1]), nf4.tiled(layers)
        for rows in (1, 3, 8, 9, 16, 17, 32, 33, 64):
            x = torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda")
            wide = x.double() @ nf4.reference(both).T
            found = {
                "ours": (nf4.matmul(x, one), wide[:, :out]),
                "bitsandbytes": (layers[0](x), wide[:, :out]),
                "gated": (
                    nf4.matmul(x, both, pair=True), torch.nn.functional.silu(wide[:, :out]) * wide[:, out:]
                ),
            }  # fmt: skip
            for name, (value, truth) in found.items():
                worst[name] = max(worst[name], float((value.double() - truth).norm() / truth.norm()))
    return ", ".join(f"{name} {value:.1e}" for name, value in worst.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    others = find_spec("gemlite") is not None
    speed = bandwidth()
    values = sum(out * columns * count for out, columns, count in SHAPES)
    floor = values * NF4_BITS / 8 / speed * 1e3
    gemlite_errors = ""
    if others:
        gemlite_errors = f", gemlite {gemlite_error(torch.bfloat16)} in bf16, {gemlite_error(torch.float16)} in fp16"
    lines = [
        f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}; a copy moves {speed / 1e12:.2f} TB/s. "
        f"Floor of a layer in NF4: {floor:.4f} ms.",
        f"Largest relative errors against float64: {errors()}{gemlite_errors}.",
        "",
        "| rows | ours, fused as in a step | ours, seven products | bitsandbytes | torch int4 | gemlite int4 | bf16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    for rows in ROWS:
        cells = [f"{ms:.3f} ms ({floor / ms:.0%})" for ms in (fused_ms(rows), layer_ms(ours, rows))]
        cells.append(f"{(ms := layer_ms(bitsandbytes, rows)):.3f} ms ({floor / ms:.0%})")
        cells.append(f"{(ms := layer_ms(torch_int4, rows)):.3f} ms ({floor / ms * INT4_BITS / NF4_BITS:.0%})")
        ms = gemlite_ms(rows) if others else 0.0
        cells.append(f"{ms:.3f} ms ({floor / ms * INT4_BITS / NF4_BITS:.0%})" if others else "not installed")
        cells.append(f"{(ms := layer_ms(plain, rows)):.3f} ms ({floor / ms * 16 / NF4_BITS:.0%})")
        lines.append(f"| {rows} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
