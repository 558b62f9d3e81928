"""Model folders: what is known of one without loading it, and which one a setting means."""

from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.errors import UserError
from dbgpt_lite.llm.chat_choice import FormatChoice


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
