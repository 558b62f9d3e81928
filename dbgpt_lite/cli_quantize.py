"""The command line's `quantize`: a copy of a model in fewer bits."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dbgpt_lite.cli_knowledge import Add

if TYPE_CHECKING:
    from dbgpt_lite.llm.loading import LoadState


def add_quantize(add: Add) -> None:
    """Register `quantize`."""
    from dbgpt_lite.llm.quantize import Quantization

    kinds = [kind for kind in get_args(Quantization) if kind != "none"]
    quantize = add("quantize", _quantize, "save a quantized copy of a model, which loads without the original")
    quantize.add_argument("name", help="a folder of MODELS_DIR, or the path of a model folder")
    quantize.add_argument("--quantization", choices=kinds, default="nf4", help="default: nf4")
    quantize.add_argument(
        "--output", default="", help="name of the new folder in MODELS_DIR; default: NAME-QUANTIZATION"
    )


def _quantize(options: argparse.Namespace) -> int:
    from dbgpt_lite.config import load_settings, prepare_process
    from dbgpt_lite.errors import ModelError

    prepare_process()
    models = load_settings().models_dir
    source = models / options.name if Path(options.name).name == options.name else Path(options.name).resolve()
    output = options.output or f"{source.name}-{options.quantization}"
    if Path(output).name != output:
        raise ModelError("llm.bad_copy_name", name=output)
    from dbgpt_lite.llm.quantized_copy import quantize_copy
    from dbgpt_lite.llm.units import gib

    note = quantize_copy(source, models / output, options.quantization, _show if sys.stderr.isatty() else _quiet)
    print(f"{models / output}: {gib(note.bytes)} GiB (the original: {gib(note.source_bytes)} GiB), {note.method}")
    return 0


def _show(state: "LoadState") -> None:
    """One line that is written again and again, and removed at the end."""
    from dbgpt_lite.llm.units import gib

    line = ""
    if state.total and state.done < state.total:
        line = f"{state.share:.0%}  {gib(state.done)} of {gib(state.total)} GiB, {gib(int(state.rate))} GiB/s"
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _quiet(_state: "LoadState") -> None:
    """Nobody watches."""
