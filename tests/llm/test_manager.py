"""Loading in the background, and the fallback whenever there is no model."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import Busy, Cancelled, ModelError, OutOfMemory
from dbgpt_lite.llm import manager as manager_module
from dbgpt_lite.llm import model_folders
from dbgpt_lite.llm.engine import Engine
from dbgpt_lite.llm.filler import Filler
from dbgpt_lite.llm.lazy import lazy_engine
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.manager import ModelManager, ModelStatus
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage
from tests.llm.fake_server import FakeServer
from tests.llm.tiny_models import answer_of, ask

OPTIONS = LoadOptions(dtype="float32", device_map="cpu")
SHORT = Sampling(0, 1, 4)


class Canned:
    """An engine that always answers the same; stands in for the built-in assistant."""

    info = EngineInfo("canned", "builtin", 100)
    waiting = 0
    closed = False

    def count(self, messages: Sequence[Message]) -> int:
        return 1

    def count_text(self, text: str) -> int:
        return 1

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Usage]:
        yield "canned"
        yield Usage()

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def manager(tiny: Path) -> Iterator[ModelManager]:
    made = ModelManager(tiny.parent, Canned(), OPTIONS)
    yield made
    made.close()


def test_starts_with_the_fallback(manager: ModelManager) -> None:
    assert manager.status.state == "builtin"
    assert manager.engine.info.name == "canned"


def test_load_answer_unload(manager: ModelManager, never: threading.Event) -> None:
    manager.load("tiny-llama")
    status = manager.wait()
    assert (status.state, status.name, status.progress) == ("ready", "tiny-llama", 1.0)
    engine = manager.engine
    assert answer_of(engine.stream(ask("fox"), SHORT, never))[1].completion_tokens
    manager.unload()
    assert manager.status.state == "builtin"
    assert manager.engine.info.name == "canned"
    with pytest.raises(ModelError):
        list(engine.stream(ask("fox"), SHORT, never))


def test_quantization_is_chosen_per_load(manager: ModelManager) -> None:
    manager.load("tiny-llama", "nf4")
    manager.wait()
    assert manager.engine.info.quantization == "nf4"


def test_failed_load_keeps_the_fallback_and_says_why(tiny: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of("broken")
    sorted(folder.glob("model-*"))[0].unlink()
    manager = ModelManager(folder.parent, Canned(), OPTIONS)
    manager.load("broken")
    status = manager.wait()
    assert status.state == "failed"
    assert isinstance(status.detail, ModelError)
    assert "model-00001" in str(status.detail)
    assert "请重新下载" in status.detail.render("zh")
    assert manager.engine.info.name == "canned"


def loaded(manager: ModelManager, name: str = "tiny-llama") -> None:
    manager.load(name)
    assert manager.wait().state == "ready"


def test_what_the_checks_refuse_leaves_the_old_model_in_place(copy_of: Callable[..., Path]) -> None:
    good, bad = copy_of("good"), copy_of("bad", num_hidden_layers=5)
    manager = ModelManager(good.parent, Canned(), OPTIONS)
    loaded(manager, "good")
    engine = manager.engine
    for name in (bad.name, "good"):
        manager.load(name, "none" if name == "bad" else None)
        status = manager.wait()
        if name == "bad":
            assert (status.state, status.name, status.kept) == ("failed", "bad", "good")
            assert manager.engine is engine
            assert "layers.3." in str(status.detail)
    manager.close()


@pytest.mark.parametrize(
    ("file", "content"),
    [("dbgpt.json", '{"chat_format": "guanacoo"}'), ("generation_config.json", "[1"), ("dbgpt.json", "[1")],
)
def test_damaged_small_files_leave_the_old_model_in_place(
    copy_of: Callable[..., Path], file: str, content: str
) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    (copy_of("new") / file).write_text(content)
    loaded(manager, "old")
    engine = manager.engine
    manager.load("new")
    status = manager.wait()
    assert (status.state, status.name, status.kept) == ("failed", "new", "old")
    assert manager.engine is engine
    manager.close()


def test_a_reader_that_pauses_holds_nothing_up(copy_of: Callable[..., Path], never: threading.Event) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    copy_of("new")
    loaded(manager, "old")
    model = weakref.ref(manager.engine._runner._model)  # type: ignore[attr-defined]
    paused = manager.engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(paused)
    manager.load("new")
    assert manager.wait(60).state == "ready"
    assert manager.engine.info.name == "new"
    assert model() is None
    with pytest.raises(ModelError, match="old was unloaded"):
        list(paused)
    again = manager.engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(again)
    manager.unload()
    manager.close()
    assert manager.engine.info.name == "canned"


class Breaks:
    """Makes reading fail after some tensors; `error` is raised then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException], times: int = 1) -> None:
        self.left = times
        self.error = error
        put = Filler.put

        def failing(filler: Any, name: str, tensor: Any, device: str) -> None:
            if self.left and name == "model.norm.weight":
                self.left -= 1
                raise self.error()
            put(filler, name, tensor, device)

        monkeypatch.setattr(Filler, "put", failing)


def test_out_of_memory_while_loading_brings_the_old_model_back(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, never: threading.Event
) -> None:
    import torch

    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    copy_of("new")
    loaded(manager, "old")
    before = answer_of(manager.engine.stream(ask("fox"), SHORT, never))[0]
    Breaks(monkeypatch, lambda: torch.OutOfMemoryError("CUDA out of memory"))
    manager.load("new")
    status = manager.wait()
    assert (status.state, status.name, status.kept) == ("failed", "new", "old")
    assert isinstance(status.detail, OutOfMemory)
    assert status.detail.__traceback__ is None
    assert answer_of(manager.engine.stream(ask("fox"), SHORT, never))[0] == before
    loaded(manager, "new")
    manager.close()


def test_builtin_answers_when_the_old_model_does_not_come_back(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    copy_of("new")
    loaded(manager, "old")
    Breaks(monkeypatch, MemoryError, times=2)
    manager.load("new")
    status = manager.wait()
    assert (status.state, status.name, status.kept) == ("failed", "new", "")
    assert manager.engine.info.name == "canned"


def test_cancel_brings_the_old_model_back(copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    copy_of("new")

    def cancelled() -> BaseException:
        manager.cancel()
        return Cancelled()

    Breaks(monkeypatch, cancelled)
    manager.load("new")
    assert manager.wait() == ModelStatus("builtin")
    loaded(manager, "old")
    Breaks(monkeypatch, cancelled)
    manager.load("new")
    status = manager.wait()
    assert (status.state, status.name, status.detail) == ("ready", "old", None)
    assert manager.engine.info.name == "old"
    manager.close()


def test_close_stops_a_load(copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS)
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> BaseException:
        reached.set()
        go_on.wait(10)
        return Cancelled()

    Breaks(monkeypatch, wait)
    manager.load("old")
    assert reached.wait(10)
    threading.Timer(0.05, go_on.set).start()
    manager.close()
    assert manager.engine.info.name == "canned"
    assert not [thread for thread in threading.enumerate() if thread.name in ("model-load", "model-idle")]


def test_status_carries_bytes_and_rate(manager: ModelManager, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ModelStatus] = []
    report = ModelManager._report

    def spy(one: ModelManager, name: str, state: Any) -> None:
        report(one, name, state)
        seen.append(one.status)

    monkeypatch.setattr(ModelManager, "_report", spy)
    told: list[ModelStatus] = []
    manager.load("tiny-llama")
    manager.wait(watch=told.append)
    last = seen[-2]
    assert last.total == last.done > 100_000
    assert last.rate > 0
    assert told[-1].state == "ready"


def test_unloaded_when_nobody_asks_and_loaded_by_the_next_question(tiny: Path, never: threading.Event) -> None:
    others = len(weights())
    manager = ModelManager(tiny.parent, Canned(), OPTIONS, idle_unload_s=0.2)
    loaded(manager)
    before = answer_of(manager.engine.stream(ask("fox"), SHORT, never))[0]
    deadline = time.monotonic() + 20
    while manager.status.state != "asleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    sleeping = manager.engine
    assert (manager.status.state, sleeping.info.name, sleeping.info.kind) == ("asleep", "tiny-llama", "local")
    assert len(weights()) == others
    assert answer_of(sleeping.stream(ask("fox"), SHORT, never))[0] == before
    assert manager.engine is not sleeping
    while manager.status.state != "asleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    sleeping = manager.engine
    manager.unload()
    assert manager.status.state == "builtin"
    with pytest.raises(ModelError, match="unloaded"):
        sleeping.count_text("x")
    manager.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "model-idle"]


def test_asleep_stays_asleep_when_another_load_fails(copy_of: Callable[..., Path], never: threading.Event) -> None:
    manager = ModelManager(copy_of("old").parent, Canned(), OPTIONS, idle_unload_s=0.1)
    copy_of("bad", num_hidden_layers=5)
    loaded(manager, "old")
    deadline = time.monotonic() + 20
    while manager.status.state != "asleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    manager.load("bad")
    assert manager.wait().kept == "old"
    assert answer_of(manager.engine.stream(ask("fox"), SHORT, never))[1].completion_tokens
    manager.close()


def test_a_sleeper_that_cannot_wake_says_why(copy_of: Callable[..., Path], never: threading.Event) -> None:
    folder = copy_of("old")
    manager = ModelManager(folder.parent, Canned(), OPTIONS, idle_unload_s=0.1)
    loaded(manager, "old")
    deadline = time.monotonic() + 20
    while manager.status.state != "asleep" and time.monotonic() < deadline:
        time.sleep(0.02)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        list(manager.engine.stream(ask("fox"), SHORT, never))
    assert (manager.status.state, manager.engine.info.name) == ("failed", "canned")
    manager.close()


def weights() -> list[tuple[int, ...]]:
    """Shapes of the live matrices of this size of model, wherever they are referenced."""
    import torch

    gc.collect()
    return [tuple(o.shape) for o in gc.get_objects() if type(o) is torch.nn.Parameter and o.shape == (128, 64)]


def test_twenty_cycles_leave_nothing_behind(tiny: Path, never: threading.Event) -> None:
    import torch

    manager = ModelManager(tiny.parent, Canned(), OPTIONS)
    counts: list[tuple[int, int, int, int]] = []
    gc.collect()
    gc.freeze()  # what was there before is not looked at again and again
    try:
        for _ in range(20):
            loaded(manager)
            list(manager.engine.stream(ask("fox"), SHORT, never))
            manager.unload()
            gc.collect()
            kinds = [type(one) for one in gc.get_objects()]
            tensors = sum(issubclass(kind, torch.Tensor) for kind in kinds)
            modules = sum(issubclass(kind, torch.nn.Module) for kind in kinds)
            counts.append((tensors, modules, len(weights()), threading.active_count()))
    finally:
        gc.unfreeze()
    assert len(set(counts[2:])) == 1, counts
    assert counts[-1][2] == 0


def test_one_load_at_a_time(manager: ModelManager) -> None:
    manager.load("tiny-llama")
    with pytest.raises(Busy):
        manager.load("tiny-llama")
    with pytest.raises(Busy):
        manager.unload()
    manager.wait()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../models", "/etc", "tiny-llama/..", "tiny-llama/", "x\0y", "nothing"]
)
def test_names_stay_in_the_models_directory(manager: ModelManager, name: str) -> None:
    with pytest.raises(ModelError):
        manager.load(name)
    assert manager.status.state == "builtin"


def test_configured_folder_outside(tiny: Path, tmp_path: Path) -> None:
    manager = ModelManager(tmp_path, Canned(), OPTIONS, configured=str(tiny))
    manager.load(str(tiny))
    assert manager.wait().state == "ready"
    manager.close()
    with pytest.raises(ModelError):
        manager.load(str(tiny.parent))


def test_configured_folder_that_is_missing_is_reported(tmp_path: Path) -> None:
    manager = ModelManager(tmp_path / "models", Canned(), OPTIONS, configured="models/guanaco-33b-merged")
    manager.load("models/guanaco-33b-merged")
    status = manager.wait()
    assert status.state == "failed"
    assert "guanaco-33b-merged" in str(status.detail)


def test_folders(copy_of: Callable[..., Path]) -> None:
    good = copy_of("good")
    broken = copy_of("broken")
    (broken / "config.json").unlink()
    (good.parent / "README.md").write_text("x")
    found = {folder.name: folder for folder in ModelManager(good.parent, Canned()).folders()}
    assert set(found) == {"good", "broken"}
    assert (found["good"].family, found["good"].problem) == ("Llama", None)
    assert found["good"].size_bytes > 100_000
    assert "config.json" in str(found["broken"].problem)
    assert ModelManager(good.parent / "none", Canned()).folders() == []


ODD_CONFIGS: dict[str, dict[str, Any]] = {
    "quantization": {"quantization_config": "gptq"},
    "rope": {"rope_scaling": "yes"},
    "parameters": {"rope_parameters": ["x"]},
    "type": {"model_type": ["llama"]},
    "architectures": {"architectures": "LlamaForCausalLM"},
    "text": {"text_config": 7},
}


def test_a_bad_folder_costs_only_its_own_row(copy_of: Callable[..., Path]) -> None:
    good = copy_of("good")
    for name, entries in ODD_CONFIGS.items():
        copy_of(name, **entries)
    for name, file, content in (
        ("list", "tokenizer_config.json", "[]"),
        ("tokens", "tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
        ("added", "tokenizer_config.json", '{"added_tokens_decoder": {"1": "x"}}'),
        ("adapter", "adapter_config.json", "[]"),
    ):
        folder = copy_of(name)
        (folder / file).write_text(content)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    (good.parent / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    manager = ModelManager(good.parent, Canned(), OPTIONS)
    problems = {folder.name: folder.problem for folder in manager.folders()}
    assert problems.pop("good") is None
    assert set(problems) == {*ODD_CONFIGS, "list", "tokens", "added", "adapter"}
    for name, problem in problems.items():
        assert isinstance(problem, ModelError)
        assert problem.key in ("llm.wrong_entry", "llm.damaged_file", "llm.no_model_type")
        assert ".json" in problem.render("en")
        assert name in problem.render("zh")
    for name in ODD_CONFIGS:
        with pytest.raises(ModelError):
            manager.plan(name, "none")
    assert manager.plan("good", "none").fits


def test_what_no_check_foresaw_costs_one_row_and_is_logged(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of("odd")
    copy_of("good")
    read, outline = model_folders.read_checkpoint, manager_module.forecast

    def trips(where: Path, *more: Any) -> Any:
        if where.name == "odd":
            raise AttributeError("'str' object has no attribute 'get'")
        return outline(where, *more) if more else read(where)

    monkeypatch.setattr(model_folders, "read_checkpoint", trips)
    monkeypatch.setattr(manager_module, "forecast", trips)
    manager = ModelManager(folder.parent, Canned(), OPTIONS)
    good, odd = manager.folders()
    assert (good.problem, odd.family) == (None, "Llama")
    assert odd.problem is not None
    assert odd.problem.key == "llm.unreadable"
    assert "odd" in odd.problem.render("zh")
    with pytest.raises(ModelError, match="AttributeError"):
        manager.plan("odd", "none")
    assert "has no attribute" in caplog.text
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_connect(manager: ModelManager, never: threading.Event) -> None:
    server = FakeServer()
    manager.connect(server.url)
    assert manager.wait().name == "big-model"
    assert answer_of(manager.engine.stream(ask("Hi"), SHORT, never))[0] == "Hello 世界"
    server.stop()
    manager.connect(server.url)
    assert manager.wait().state == "failed"
    assert (manager.status.kept, manager.engine.info.name) == ("big-model", "big-model")


def test_lazy_engine_loads_once_for_all_threads(tiny: Path, never: threading.Event) -> None:
    made: list[Engine] = []

    def make() -> Engine:
        time.sleep(0.02)
        made.append(load(tiny, OPTIONS))
        return made[0]

    lazy = lazy_engine(tiny, make)
    assert not lazy.loaded
    assert lazy.info.context_length == 512
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(answer_of(lazy.stream(ask("fox"), SHORT, never))[0]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(results)) == 1
    assert lazy.loaded
    assert lazy.count_text("fox") == made[0].count_text("fox")
    lazy.close()
    with pytest.raises(ModelError, match="unloaded"):
        lazy.candidates(ask("fox"), 2, 4, never)


def test_lazy_engine_tries_again_after_a_failure(tiny: Path, never: threading.Event) -> None:
    tries: list[int] = []

    def make() -> Engine:
        tries.append(1)
        if len(tries) < 3:
            raise ModelError("llm.no_weights", name="tiny-llama")
        return load(tiny, OPTIONS)

    lazy = lazy_engine(tiny, make)
    lazy.warm().join()
    with pytest.raises(ModelError, match="no weights"):
        lazy.count_text("x")
    assert answer_of(lazy.stream(ask("fox"), SHORT, never))[1].completion_tokens


def test_lazy_engine_over_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        lazy_engine(tmp_path / "nowhere", Canned)
