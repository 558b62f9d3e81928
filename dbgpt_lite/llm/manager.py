"""Which model answers now: loading in the background, unloading, and the built-in assistant whenever none is loaded.

A load that fails or is cancelled leaves what was there before: everything that can be checked is checked while the
old model still answers, and one that had to go for its memory is loaded again.
"""

import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import Busy, Cancelled, ModelError, UserError
from dbgpt_lite.llm.chat_choice import remember_format
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.llm.forecast import Wishes, forecast
from dbgpt_lite.llm.lazy import LazyEngine
from dbgpt_lite.llm.loaded import LoadedEngine, empty_gpu_cache
from dbgpt_lite.llm.loader import LoadOptions, prepare
from dbgpt_lite.llm.loading import LoadState, Progress
from dbgpt_lite.llm.model_folders import ModelFolder, configured_folder, describe, unreadable
from dbgpt_lite.llm.plan import Plan
from dbgpt_lite.llm.quantize import Quantization
from dbgpt_lite.llm.remote import RemoteEngine
from dbgpt_lite.messages import EngineInfo

log = logging.getLogger(__name__)

_WATCH_S = 0.2
Load = Callable[[Progress, threading.Event], Engine]


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What the model is doing. asleep: unloaded because nobody asked, loaded again by the next question.

    While loading: `progress` from 0 to 1, and `done` of `total` bytes at `rate` bytes a second where they are counted.
    `detail` says why the last load failed, `kept` which model answers all the same.
    """

    state: Literal["builtin", "loading", "ready", "failed", "asleep"]
    name: str = ""
    detail: UserError | None = None
    progress: float = 0.0
    done: int = 0
    total: int = 0
    rate: float = 0.0
    kept: str = ""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How to make an engine. `check` does all that can fail without much memory, given the bytes by device that will
    be free besides, and returns the rest of the work."""

    name: str
    check: Callable[[Progress, Mapping[str, int]], Load]


@dataclass(slots=True)
class _Checked:
    """What the checks left to do, or what they found wrong. `load` holds the model that it fills: it is taken once."""

    load: Load | None = None
    problem: Exception | None = None


class ModelManager:
    """Holds the engine that answers. `fallback` answers while none is loaded, and after a load failed for good.

    `configured` is the administrator's LLM_MODEL: the one folder outside `models_dir` that may be loaded.
    `idle_unload_s`: unload after so many seconds without a request; 0: never.
    """

    def __init__(
        self,
        models_dir: Path,
        fallback: Engine,
        options: LoadOptions | None = None,
        configured: str = "",
        idle_unload_s: float = 0,
    ) -> None:
        self._models_dir = models_dir
        self._fallback = fallback
        self._options = options or LoadOptions()
        self._configured = configured
        self._engine: Engine = fallback
        self._recipe: _Recipe | None = None
        self._status = ModelStatus("builtin")
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._worker: threading.Thread | None = None
        self._cancel = threading.Event()
        self._closing = threading.Event()
        self._idle_unload_s = idle_unload_s
        self._idle_watch = threading.Thread(target=self._watch_idle, name="model-idle", daemon=True)
        if idle_unload_s:
            self._idle_watch.start()

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
        self._start(_Recipe(folder.name, lambda progress, freed: prepare(folder, options, progress, freed).load))

    def plan(self, name: str, quantization: str) -> Plan:
        """Whether a folder would fit what is free once the current model is gone. Loads nothing.

        Raises ModelError and ConfigError.
        """
        options = self._options
        wishes = Wishes(
            quantization, options.dtype, options.device_map, options.max_memory, options.context, options.users
        )
        freed = self._engine.memory if isinstance(self._engine, LoadedEngine) else {}
        folder = self._resolve(name)
        try:
            return forecast(folder, wishes, freed)
        except Exception as error:
            raise unreadable(error, folder.name) from None

    def connect(self, endpoint: str, model: str = "", api_key: str = "") -> None:
        """Start using a server in the background. Raises Busy."""
        context = self._options.context

        def check(progress: Progress, freed: Mapping[str, int]) -> Load:
            engine = RemoteEngine(endpoint, model, api_key, context)
            return lambda progress, cancel: engine

        self._start(_Recipe(model or "remote", check))

    def cancel(self) -> None:
        """Stop the load under way; what was there before comes back."""
        self._cancel.set()

    def unload(self) -> None:
        """Back to the fallback; the model's memory is freed. Raises Busy while one loads."""
        with self._lock:
            self._refuse_busy()
            self._status = ModelStatus("builtin")
            old = self._drop()
        self._free(old)

    def wait(self, timeout_s: float | None = None, watch: Callable[[ModelStatus], None] | None = None) -> ModelStatus:
        """Wait until the load under way is over. `watch` is told the status several times a second meanwhile."""
        if self._worker is not None and watch is None:
            self._worker.join(timeout_s)
        while watch is not None and self._worker is not None and self._worker.is_alive():
            self._worker.join(_WATCH_S)
            watch(self._status)
        return self._status

    def close(self) -> None:
        """Stop a load and free the model; for the end of the app."""
        self._closing.set()
        self._cancel.set()
        for thread in (self._worker, self._idle_watch):
            if thread is not None and thread.is_alive():
                thread.join()
        with self._lock:
            old = self._drop()
        self._free(old)

    def _start(self, recipe: _Recipe) -> None:
        with self._lock:
            self._refuse_busy()
            self._begin(recipe)
            self._worker = threading.Thread(target=self._run, args=(recipe,), name="model-load", daemon=True)
            self._worker.start()

    def _begin(self, recipe: _Recipe) -> None:
        self._cancel = threading.Event()
        self._status = ModelStatus("loading", recipe.name)

    def _run(self, recipe: _Recipe) -> None:
        """Check beside the old model, then without it: both at once would need the memory of both."""
        with self._changing:
            old, old_recipe = self._engine, self._recipe
            checked = self._checked(recipe, old)
            if checked.load is None:
                kept, problem = self._name_of(old), checked.problem
            else:
                self._free(self._drop())
                problem = self._finish(recipe, checked)
                if problem is None:
                    return
                kept = self._bring_back(old_recipe, old)
            self._settle(recipe, problem, kept, "asleep" if isinstance(old, LazyEngine) else "ready")

    def _checked(self, recipe: _Recipe, old: Engine) -> _Checked:
        freed = old.memory if isinstance(old, LoadedEngine) else {}
        try:
            load = recipe.check(lambda state: self._report(recipe.name, state), freed)
            return _Checked(problem=Cancelled()) if self._cancel.is_set() else _Checked(load)
        except Exception as error:
            return _Checked(problem=_bare(error, recipe.name))

    def _finish(self, recipe: _Recipe, checked: _Checked) -> Exception | None:
        """Load and take over; what went wrong, if anything did. Nothing of a load that failed is left in memory."""
        if checked.load is None:
            return checked.problem
        engine = None
        try:
            engine = checked.load(lambda state: self._report(recipe.name, state), self._cancel)
        except Exception as error:
            checked.problem = _bare(error, recipe.name)
        checked.load = None
        if engine is None:
            # Its layers and weights refer to each other (bitsandbytes'), and only now nothing else does to them.
            gc.collect()
            empty_gpu_cache()
            return checked.problem
        with self._lock:
            self._engine, self._recipe = engine, recipe
            self._status = ModelStatus("ready", engine.info.name, progress=1.0)
        return None

    def _bring_back(self, recipe: _Recipe | None, old: Engine) -> str:
        """Load again what had to go; its name, "" when there was nothing or it fails as well."""
        if recipe is None or self._closing.is_set():
            return ""
        if isinstance(old, LazyEngine):
            self._engine, self._recipe = self._sleeper(old.info, recipe), recipe
            return recipe.name
        with self._lock:
            self._begin(recipe)
        problem = self._finish(recipe, self._checked(recipe, self._fallback))
        if problem is not None:
            log.warning("%s could not be loaded again: %s", recipe.name, problem)
            return ""
        return self._engine.info.name

    def _settle(self, recipe: _Recipe, problem: Exception | None, kept: str, state: Literal["ready", "asleep"]) -> None:
        """Say how a load ended that brought no new model."""
        if isinstance(problem, UserError):
            self._status = ModelStatus("failed", recipe.name, problem, kept=kept)
        else:
            self._status = ModelStatus(state, kept, progress=1.0) if kept else ModelStatus("builtin")

    def _report(self, name: str, state: LoadState) -> None:
        self._status = ModelStatus(
            "loading", name, progress=state.share, done=state.done, total=state.total, rate=state.rate
        )

    def _watch_idle(self) -> None:
        """Unload what nobody asked for a while. The next question loads it again."""
        while not self._closing.wait(min(5.0, self._idle_unload_s / 4)):
            engine = self._engine
            if isinstance(engine, LoadedEngine) and engine.idle_s >= self._idle_unload_s:
                self._fall_asleep(engine)

    def _fall_asleep(self, engine: LoadedEngine) -> None:
        with self._changing:
            with self._lock:
                awake = self._status.state == "loading" or self._engine is not engine or self._closing.is_set()
                if awake or engine.waiting or engine.idle_s < self._idle_unload_s:
                    return
                if self._recipe is None:
                    return
                self._engine = self._sleeper(engine.info, self._recipe)
                self._status = ModelStatus("asleep", engine.info.name)
            engine.close()

    def _sleeper(self, info: EngineInfo, recipe: _Recipe) -> LazyEngine:
        return LazyEngine(info, lambda: self._wake(recipe))

    def _wake(self, recipe: _Recipe) -> Engine:
        """Load again for a question. Raises ModelError when that fails; the fallback answers from then on."""
        with self._changing:
            with self._lock:
                if self._recipe is not recipe or self._closing.is_set():
                    raise ModelError("llm.closed", name=recipe.name)
                self._begin(recipe)
            problem = self._finish(recipe, self._checked(recipe, self._fallback))
            if problem is None:
                return self._engine
            if isinstance(problem, UserError):
                self._drop()
                self._settle(recipe, problem, "", "ready")
                raise problem
            self._settle(recipe, problem, recipe.name, "asleep")
            raise ModelError("llm.load_stopped", name=recipe.name)

    def _refuse_busy(self) -> None:
        if self._status.state == "loading":
            raise Busy("llm.loading_already")

    def _drop(self) -> Engine:
        """The fallback takes over; returns the engine that answered."""
        old, self._engine, self._recipe = self._engine, self._fallback, None
        return old

    def _free(self, engine: Engine) -> None:
        """A sleeping engine holds nothing, and who waits for it to wake holds its lock."""
        if engine is not self._fallback and not isinstance(engine, LazyEngine):
            engine.close()

    def _name_of(self, engine: Engine) -> str:
        return "" if engine is self._fallback else engine.info.name

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


def _bare(error: Exception, name: str) -> Exception:
    """The error without its traceback, whose frames would keep the half-loaded model in memory."""
    if isinstance(error, UserError):
        return type(error)(error.key, **error.facts)
    if isinstance(error, Cancelled):
        return Cancelled()
    log.exception("loading %s failed", name)
    return ModelError("llm.load_failed", name=name, reason=type(error).__name__)
