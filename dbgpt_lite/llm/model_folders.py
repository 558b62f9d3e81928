"""Model folders: what is known of one without loading it, and which one a setting means."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.errors import ModelError, UserError
from dbgpt_lite.llm.adapter import base_folder, base_name, is_adapter, refuse_unsupported
from dbgpt_lite.llm.chat_choice import FormatChoice, open_choice
from dbgpt_lite.llm.checkpoint import read_checkpoint, read_config
from dbgpt_lite.llm.families import family
from dbgpt_lite.llm.gguf_header import read_gguf
from dbgpt_lite.llm.quantize import stored_quantization

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder of the models directory. `problem` is None when it looks loadable; `tasks`: what it is for.

    `adapter_for`: the folder of the base model, when this one holds a LoRA adapter.
    `chat_format`: how conversations are written for it; None when there is nothing to choose.
    """

    name: str
    family: str
    size_bytes: int
    problem: UserError | None = None
    tasks: tuple[str, ...] = ()
    quantization: str = ""
    chat_format: FormatChoice | None = None
    adapter_for: str = ""


def configured_folder(setting: str, models_dir: Path) -> Path:
    """LLM_MODEL and SQL_MODEL as folders: absolute, a name in the models directory, or relative to its parent."""
    path = Path(setting)
    if path.is_absolute():
        return path
    inside = models_dir / path
    return inside if inside.is_dir() else models_dir.parent / path


def describe(folder: Path) -> ModelFolder:
    """One folder as the Models page lists it, with its `problem` if it has one: it costs no other folder its row."""
    try:
        return _described(folder)
    except Exception as error:
        adapter_for = _or_nothing(lambda: base_name(folder) if is_adapter(folder) else "")
        name = _or_nothing(lambda: family(read_config(folder)).name)
        return ModelFolder(folder.name, name, 0, unreadable(error, folder.name), adapter_for=adapter_for)


def _described(folder: Path) -> ModelFolder:
    adapter_for = base_name(folder) if is_adapter(folder) else ""
    base = base_folder(folder)
    checkpoint = read_checkpoint(base)
    stored = stored_quantization(checkpoint.config, base.name)
    if is_adapter(folder):
        refuse_unsupported(folder)
    own = 0 if base == folder else sum(file.stat().st_size for file in folder.glob("adapter_model.*"))
    return ModelFolder(
        folder.name,
        family(checkpoint.config).name,
        checkpoint.file_bytes + own,
        tasks=checkpoint.facts.tasks,
        chat_format=open_choice(folder, checkpoint),
        quantization=f"GGUF, {read_gguf(checkpoint.files[0]).mixture}" if checkpoint.format == "gguf" else stored,
        adapter_for=adapter_for if base != folder else "",
    )


def unreadable(error: Exception, name: str) -> UserError:
    """What is wrong with a folder. Files come from anywhere: what no check foresaw is logged and told as well."""
    if isinstance(error, UserError):
        return error
    log.error("the model folder %s cannot be read", name, exc_info=error)
    return ModelError("llm.unreadable", name=name, reason=type(error).__name__)


def _or_nothing(fact: Callable[[], str]) -> str:
    """A fact of a folder with a problem, as far as it can be had."""
    try:
        return fact()
    except Exception:
        return ""
