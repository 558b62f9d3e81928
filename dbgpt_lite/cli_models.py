"""The command line's work with model folders: plan."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.cli_arguments import positive
from dbgpt_lite.cli_knowledge import Add
from dbgpt_lite.errors import ConfigError
from dbgpt_lite.texts import Language, text

if TYPE_CHECKING:
    from dbgpt_lite.config import Settings
    from dbgpt_lite.llm.plan import Plan

_SIZES = ("weights", "cache", "working", "overhead", "total")


def add_models(add: Add) -> None:
    """Add `plan`."""
    plan = add("plan", _plan, "say whether a model fits this machine or others, and what would make it fit")
    plan.add_argument("model", help="a folder of MODELS_DIR, a path, a config.json, or a GGUF file")
    plan.add_argument("--context", type=positive, metavar="TOKENS", help="window of a conversation")
    plan.add_argument("--users", type=positive, metavar="N", help="conversations at a time")
    plan.add_argument("--quantization", choices=("none", "int8", "nf4", "int4"))
    plan.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"))
    plan.add_argument("--device-map", metavar="MAP", help="a strategy, a device, or a map in JSON")
    plan.add_argument("--max-memory", metavar="LIST", help="memory to use per device, e.g. 0=20GiB,cpu=60GiB")
    plan.add_argument("--gpu", metavar="LIST", help='cards to suppose, by memory or name: 24GiB,24GiB or "RTX 3090"')
    plan.add_argument("--json", action="store_true", help="everything as one JSON object")


def _plan(options: argparse.Namespace) -> int:
    """0: it fits, with offloading too; 1: it does not."""
    from dbgpt_lite.config import load_settings, prepare_process

    prepare_process()
    from dbgpt_lite.llm.forecast import Wishes, forecast

    settings = load_settings()
    wishes = Wishes(
        quantization=options.quantization or settings.llm_quantization,
        dtype=options.dtype or settings.llm_dtype,
        device_map=options.device_map or settings.llm_device_map,
        max_memory=_max_memory(options, settings),
        context=options.context or settings.llm_context,
        users=options.users or settings.llm_users,
        gpus=tuple(part.strip() for part in options.gpu.split(",")) if options.gpu else (),
    )
    found = forecast(_folder(options.model, settings), wishes)
    language: Language = "zh" if settings.language == "zh" else "en"
    print(json.dumps(facts(found), ensure_ascii=False) if options.json else "\n".join(lines(found, language)))
    return 0 if found.fits else 1


def _folder(name: str, settings: "Settings") -> Path:
    from dbgpt_lite.llm.model_folders import configured_folder

    path = Path(name)
    here = path.is_file() or (path / "config.json").is_file() or any(path.glob("*.gguf"))
    return path.resolve() if here else configured_folder(name, settings.models_dir)


def _max_memory(options: argparse.Namespace, settings: "Settings") -> dict[str, str]:
    """What is asked for, else what the settings say; of supposed cards these say nothing."""
    if options.max_memory:
        return _pairs(options.max_memory)
    known = ("cpu", "disk") if options.gpu else tuple(settings.llm_max_memory)
    return {name: size for name, size in settings.llm_max_memory.items() if name in known}


def _pairs(given: str) -> dict[str, str]:
    """ "0=20GiB,cpu=60GiB" as a mapping. Raises ConfigError."""
    pairs = [part.partition("=") for part in given.split(",")]
    if not all(name and size for name, _, size in pairs):
        raise ConfigError("llm.bad_pairs", value=given)
    return {name.strip(): size.strip() for name, _, size in pairs}


def facts(plan: "Plan") -> dict[str, Any]:
    """A plan as plain data: bytes, names, and the remedies with their sentences."""
    return {
        "model": plan.name,
        "parameters": plan.count,
        "numbers": plan.numbers,
        "dtype": plan.dtype,
        "verdict": plan.verdict,
        "need": asdict(plan.need) | {"total": plan.need.total},
        "devices": [
            {
                "name": row.device.name,
                "card": row.device.model,
                **{name: getattr(row, name) for name in ("layers", "weights", "cache", "working", "overhead", "total")},
                "free": row.device.free,
            }
            for row in plan.rows
        ],
        "tokens_per_second": asdict(plan.speed) if plan.speed else None,
        "unquantized_experts": plan.unquantized,
        "device_map": dict(plan.device_map),
        "remedies": [asdict(remedy) | {"text": str(remedy.text)} for remedy in plan.remedies],
    }


def lines(plan: "Plan", language: Language) -> list[str]:
    """A plan as people read it: what was asked, GiB per device, the verdict, tokens/s, remedies."""
    remedies = [f"  {place}. {remedy.text.render(language)}" for place, remedy in enumerate(plan.remedies, 1)]
    title = "llm.plan_faster" if plan.fits else "llm.plan_remedies"
    return [
        text("llm.plan_head", language, **plan.head),
        "",
        *_table(plan, language),
        "",
        plan.sentence.render(language),
        plan.speed_sentence.render(language),
        *(note.render(language) for note in plan.notes),
        *(["", text(title, language), *remedies] if remedies else []),
    ]


def _table(plan: "Plan", language: Language) -> list[str]:
    from dbgpt_lite.llm.units import gib

    # Without a GPU there is nothing to say of CUDA.
    sizes = [name for name in _SIZES if name != "overhead" or any(row.overhead for row in plan.rows)]
    names = [f"{text(f'llm.plan_{name}', language)} GiB" for name in (*sizes, "free")]
    head = [text("llm.plan_device", language), text("llm.plan_layers", language), *names]
    rows = [head]
    for row in plan.rows:
        free = "" if row.device.kind == "disk" else gib(row.device.free)
        name = f"{row.device.name} {row.device.model}".strip()
        rows.append([name, str(row.layers), *(gib(getattr(row, size)) for size in sizes), free])
    widths = [max(_width(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first column to the left, numbers to the right."""
    spaces = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
    numbers = [space + cell for cell, space in zip(row[1:], spaces[1:], strict=True)]
    return [row[0] + spaces[0], *numbers]


def _width(cell: str) -> int:
    """Columns of a terminal: Chinese letters take two."""
    return sum(2 if ord(letter) > 0x2E7F else 1 for letter in cell)
