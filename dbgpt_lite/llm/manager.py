"""Which model answers now: loading in the background, unloading, and the built-in assistant whenever none is loaded."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import Busy, ModelError, UserError
from dbgpt_lite.llm.chat_choice import FormatChoice, format_of_folder, remember_format
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.checkpoint import Checkpoint, read_checkpoint, read_config
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.llm.families import family
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.quantize import Quantization
from dbgpt_lite.llm.remote import RemoteEngine

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What the model is doing. `progress` from 0 to 1 while loading; `detail` says why the last load failed."""

    state: Literal["builtin", "loading", "ready", "failed"]
    name: str = ""
    detail: UserError | None = None
    progress: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder of the models directory. `problem` is None when it looks loadable; `tasks`: what it is for.

    `chat_format`: how conversations are written for it; None when there is nothing to choose.
    """

    name: str
    family: str
    size_bytes: int
    problem: UserError | None = None
    tasks: tuple[str, ...] = ()
    quantization: str = ""
    chat_format: FormatChoice | None = None


class ModelManager:
    """Holds the engine that answers. `fallback` answers while none is loaded, and after a load failed.

    `configured` is the administrator's LLM_MODEL: the one folder outside `models_dir` that may be loaded.
    """

    def __init__(
        self, models_dir: Path, fallback: Engine, options: LoadOptions | None = None, configured: str = ""
    ) -> None:
        self._models_dir = models_dir
        self._fallback = fallback
        self._options = options or LoadOptions()
        self._configured = configured
        self._engine: Engine = fallback
        self._status = ModelStatus("builtin")
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    @property
    def engine(self) -> Engine:
        """The engine that answers now."""
        return self._engine

    @property
    def status(self) -> ModelStatus:
        """What the model is doing."""
        return self._status

    def folders(self) -> list[ModelFolder]:
        """Model folders by name, and what is wrong with each. Reads headers only."""
        if not self._models_dir.is_dir():
            return []
        found = (entry for entry in sorted(self._models_dir.iterdir()) if not entry.name.startswith("."))
        return [describe(entry) for entry in found if entry.is_dir()]

    def load(self, name: str, quantization: Quantization | None = None, chat_format: str = "") -> None:
        """Start loading a folder in the background; `status` tells how it goes. Raises Busy and ModelError.

        A `chat_format` that someone chose for a folder whose files show none is remembered in the folder.
        """
        folder = self._resolve(name)
        options = replace(
            self._options,
            quantization=quantization or self._options.quantization,
            chat_format=self._chosen_format(folder, chat_format),
        )
        self._start(folder.name, lambda progress: load(folder, options, progress))

    def connect(self, endpoint: str, model: str = "", api_key: str = "") -> None:
        """Start using a server in the background. Raises Busy."""
        context = self._options.context
        self._start(model or "remote", lambda _: RemoteEngine(endpoint, model, api_key, context))

    def unload(self) -> None:
        """Back to the fallback; the model's memory is freed. Raises Busy while one loads."""
        with self._lock:
            self._refuse_busy()
            self._status = ModelStatus("builtin")
            old, self._engine = self._engine, self._fallback
        self._free(old)

    def wait(self, timeout_s: float | None = None) -> ModelStatus:
        """Wait until the load under way is over."""
        if self._worker is not None:
            self._worker.join(timeout_s)
        return self._status

    def close(self) -> None:
        """Free the model; for the end of the app."""
        old, self._engine = self._engine, self._fallback
        self._free(old)

    def _start(self, name: str, make: Callable[[Progress], Engine]) -> None:
        with self._lock:
            self._refuse_busy()
            self._status = ModelStatus("loading", name)
            self._worker = threading.Thread(target=self._run, args=(name, make), name="model-load", daemon=True)
            self._worker.start()

    def _run(self, name: str, make: Callable[[Progress], Engine]) -> None:
        """The old model goes first: both at once would need the memory of both."""
        old, self._engine = self._engine, self._fallback
        self._free(old)
        try:
            engine = make(lambda stage, share: self._report(name, share))
        except UserError as error:
            self._status = ModelStatus("failed", name, error)
        except Exception as error:
            log.exception("loading %s failed", name)
            self._status = ModelStatus(
                "failed", name, ModelError("llm.load_failed", name=name, reason=type(error).__name__)
            )
        else:
            self._engine = engine
            self._status = ModelStatus("ready", engine.info.name, progress=1.0)

    def _report(self, name: str, share: float) -> None:
        self._status = ModelStatus("loading", name, progress=share)

    def _refuse_busy(self) -> None:
        if self._status.state == "loading":
            raise Busy("llm.loading_already")

    def _free(self, engine: Engine) -> None:
        if engine is not self._fallback:
            engine.close()

    def _resolve(self, name: str) -> Path:
        """The folder a name means: the configured LLM_MODEL, or a folder right inside the models directory."""
        if name and name == self._configured:
            return configured_folder(name, self._models_dir)
        if name not in self._names():
            raise ModelError("llm.bad_folder_name", name=name)
        return self._models_dir / name

    def _chosen_format(self, folder: Path, wanted: str) -> str:
        """The format to load a folder with where its dbgpt.json names none. LLM_CHAT_FORMAT is for LLM_MODEL alone."""
        set_for = configured_folder(self._configured, self._models_dir) if self._configured else None
        setting = self._options.chat_format if set_for and set_for.resolve() == folder.resolve() else ""
        choice = describe(folder).chat_format if wanted else None
        if choice is None or choice.name == wanted:
            return setting
        try:
            remember_format(folder, wanted)
        except OSError as error:
            log.warning("the chat format of %s is not remembered: %s", folder.name, error.strerror)
        return wanted

    def _names(self) -> Sequence[str]:
        return (
            [entry.name for entry in self._models_dir.iterdir() if entry.is_dir()] if self._models_dir.is_dir() else []
        )


def configured_folder(setting: str, models_dir: Path) -> Path:
    """LLM_MODEL and SQL_MODEL as folders: absolute, a name in the models directory, or relative to its parent."""
    path = Path(setting)
    if path.is_absolute():
        return path
    inside = models_dir / path
    return inside if inside.is_dir() else models_dir.parent / path


def describe(folder: Path) -> ModelFolder:
    """One folder as the Models page lists it."""
    try:
        checkpoint = read_checkpoint(folder)
    except UserError as error:
        return ModelFolder(folder.name, _family_name(folder), 0, error)
    return ModelFolder(
        folder.name,
        family(checkpoint.model_type).name,
        checkpoint.file_bytes,
        tasks=checkpoint.facts.tasks,
        chat_format=_open_choice(checkpoint),
        quantization=_stored_quantization(checkpoint),
    )


def _open_choice(checkpoint: Checkpoint) -> FormatChoice | None:
    """The format in use where a person may choose another: nothing in the files shows one."""
    choice = format_of_folder(checkpoint.folder, checkpoint.facts, checkpoint.model_type)
    return choice if choice.source in ("folder", "family") and choice.name in CHAT_FORMATS else None


def _stored_quantization(checkpoint: Checkpoint) -> str:
    if checkpoint.packed_int4:
        return "int4"
    return str((checkpoint.config.get("quantization_config") or {}).get("quant_method", ""))


def _family_name(folder: Path) -> str:
    try:
        return family(str(read_config(folder)["model_type"])).name
    except UserError:
        return ""
