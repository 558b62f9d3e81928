"""What loads leave in memory: nothing of one that failed, before anything else is loaded, and nothing once unloaded.

bitsandbytes' layers and weights refer to each other, so only a collection frees them, and only once nothing else holds
them. Python's own collections are off here: they would come at some time or other, which is too late for a GPU.
"""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dbgpt_lite.errors import ModelError, OutOfMemory
from dbgpt_lite.llm import loader
from dbgpt_lite.llm.filler import Filler
from dbgpt_lite.llm.loader import LoadOptions
from dbgpt_lite.llm.manager import ModelManager
from tests.llm.test_manager import SHORT, Canned
from tests.llm.tiny_models import ask

OPTIONS = LoadOptions(dtype="float32", device_map="cpu", quantization="nf4")
AT = "model.layers.2.self_attn.q_proj.weight"
Raise = Callable[[ModelManager], None]


class Watched:
    """Watches every load: weak references to its model and its tensors, and `before`, what was alive of earlier loads
    when its first tensor came. `fail` is called when a layer's weight comes, in loads whose number is in `failing`, and
    `check` while a load is checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[list[weakref.ref[Any]]] = []
        self.before: list[int] = []
        self.failing: tuple[int, ...] = ()
        self.fail: Callable[[], None] = lambda: None
        self.check: Callable[[], None] = lambda: None
        fitted, put = loader.fitted, Filler.put
        watched: Any = None

        def noted(*args: Any) -> Any:
            model, fit = fitted(*args)
            self.loads.append([weakref.ref(model)])
            self.check()
            return model, fit

        def spied(filler: Any, name: str, tensor: Any, device: str) -> None:
            nonlocal watched
            if watched is None or watched() is not filler:
                watched = weakref.ref(filler)
                self.before.append(self.alive(len(self.loads) - 1))
            if name == AT and len(self.before) in self.failing:
                self.fail()
            put(filler, name, tensor, device)
            value = filler._model.get_parameter(name)
            state = getattr(value, "quant_state", None)
            self.loads[-1] += [weakref.ref(one) for one in (value, *([state.absmax, state.code] if state else []))]

        monkeypatch.setattr(loader, "fitted", noted)
        monkeypatch.setattr(Filler, "put", spied)

    def alive(self, until: int | None = None) -> int:
        """Models and tensors of the loads before number `until` that are still there."""
        return sum(one() is not None for load in self.loads[:until] for one in load)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    gc.collect()
    gc.disable()
    yield Watched(monkeypatch)
    gc.enable()


@pytest.fixture
def manager(copy_of: Callable[..., Path]) -> Iterator[ModelManager]:
    made = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    copy_of("new")
    yield made
    made.close()


def raise_memory(manager: ModelManager) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def raise_damaged(manager: ModelManager) -> None:
    raise ModelError("llm.damaged_file", file="model.safetensors", name="new")


def loaded(manager: ModelManager, name: str) -> None:
    manager.load(name)
    assert manager.wait().state == "ready"


@pytest.mark.parametrize("fail", [ModelManager.cancel, raise_memory, raise_damaged])
def test_a_failed_load_is_gone_before_the_old_model_comes_back(
    manager: ModelManager, watched: Watched, fail: Raise
) -> None:
    loaded(manager, "old")
    assert any(type(module).__name__ == "Linear4bit" for module in watched.loads[0][0]().modules())
    watched.failing, watched.fail = (2,), lambda: fail(manager)
    manager.load("new")
    manager.wait()
    assert manager.engine.info.name == "old"
    assert [len(load) > 20 for load in watched.loads] == [True] * 3
    assert watched.before == [0, 0, 0]
    manager.unload()
    assert watched.alive() == 0


@pytest.mark.parametrize("fail", [ModelManager.cancel, raise_memory])
def test_nothing_is_left_when_the_old_model_fails_as_well(manager: ModelManager, watched: Watched, fail: Raise) -> None:
    loaded(manager, "old")
    watched.failing, watched.fail = (2, 3), lambda: fail(manager)
    manager.load("new")
    manager.wait()
    assert manager.engine.info.name == "canned"
    assert (watched.before, watched.alive()) == ([0, 0, 0], 0)


def test_swaps_and_checks_without_a_load_leave_nothing(manager: ModelManager, watched: Watched) -> None:
    loaded(manager, "old")
    loaded(manager, "new")
    watched.check = manager.cancel
    manager.load("old")
    assert manager.wait().name == "new"
    manager.unload()
    # `unload` collects.
    assert (watched.before, watched.alive()) == ([0, 0], 0)


def test_the_error_of_a_model_that_does_not_wake_holds_nothing(
    copy_of: Callable[..., Path], watched: Watched, never: threading.Event
) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS, idle_unload_s=0.05)
    loaded(manager, "old")
    deadline = time.monotonic() + 20
    while manager.status.state != "asleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert watched.alive() == 0
    watched.failing, watched.fail = (2,), lambda: raise_memory(manager)
    with pytest.raises(OutOfMemory) as shown:
        list(manager.engine.stream(ask("fox"), SHORT, never))
    assert shown.value.__traceback__ is not None
    assert (len(watched.before), watched.alive()) == (2, 0)
    manager.close()
