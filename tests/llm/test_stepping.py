"""Which step model a loaded model gets; what runs on a GPU is replaced by its name."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dbgpt_lite.errors import OutOfMemory
from dbgpt_lite.llm import gpu_step, parts, slotted
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.stepping import settled, step_model
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS


def planned(
    *gib: float, context: int = 2048, name: str = "llama-7b", quantization: str = "nf4", users: int = 1
) -> Plan:
    found = Checkpoint(Path(name), CONFIGS[name], TaskFacts(), "bin", (), (), 0)
    cards = (Device(f"cuda:{place}", int(size * GIB), "RTX 4090") for place, size in enumerate(gib))
    devices = (*cards, Device("cpu", 64 * GIB))
    return plan(found, dtype="bfloat16", quantization=quantization, context=context, devices=devices, users=users)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A model that lies on the card `index`, where kernels run if `runs`; calls of the step models in `made`, and what
    they may spend on wider weights in `wide`."""
    told = SimpleNamespace(index=0, runs=True, made=[], wide=[])

    def made(name: str) -> object:
        def make(parts: object, slots: int, window: int, wide: int = 0) -> SimpleNamespace:
            told.made.append((name, slots, window))
            told.wide.append(wide)
            return SimpleNamespace(widened=wide)

        return make

    device = property(lambda self: torch.device("cuda", told.index))
    monkeypatch.setattr(parts, "take_apart", lambda model: type("Parts", (), {"device": device})())
    monkeypatch.setattr(gpu_step, "runs_here", lambda parts: told.runs)
    monkeypatch.setattr(gpu_step, "most_slots", lambda parts: 64)
    monkeypatch.setattr(gpu_step, "GpuStepModel", made("captured"))
    monkeypatch.setattr(slotted, "PlainStepModel", made("plain"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 24 * GIB))
    return told


@pytest.mark.parametrize(
    ("cards", "index", "name"),
    [((24,), 0, "captured"), ((24, 24), 0, "captured"), ((8, 24), 1, "captured"), ((6,), 0, "plain")],
)
def test_captured_steps_where_one_card_has_room_for_them(
    gpu: SimpleNamespace, cards: tuple[float, ...], index: int, name: str
) -> None:
    place = planned(*cards)
    assert (place.verdict, set(place.device_map.values())) == ("fits", {f"cuda:{index}"})
    gpu.index = index
    assert step_model(None, place, 1, 0) is not None
    assert gpu.made == [(name, 1, 2048)]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [(0, 0.0), (2 * GIB, 2.0), (None, 13.04), (90 * GIB, 16.04)],
    ids=["none", "some", "usual", "all"],
)
def test_what_is_left_over_keeps_weights_wider(
    gpu: SimpleNamespace, wanted: int | None, taken: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert step_model(None, planned(24), 1, wanted) is not None
    assert gpu.wide[0] / GIB == pytest.approx(taken, abs=0.05)
    assert ("GiB keep weights in 16 bits too" in caplog.text) == bool(taken)


def test_a_plan_is_kept_where_the_kernels_run(gpu: SimpleNamespace) -> None:
    stepped, plain = planned(24), planned(6)
    assert settled(None, stepped) is stepped
    assert settled(None, plain) is plain


@pytest.mark.parametrize("cards", [(24,), (24, 24), (6.5,)])
def test_kernels_that_do_not_run_after_all_are_planned_without(gpu: SimpleNamespace, cards: tuple[float, ...]) -> None:
    place = planned(*cards)
    gpu.runs = False
    plain = settled(None, place)
    assert (plain.verdict, plain.stepped, plain.need.context) == ("fits", False, 2048)
    assert plain.device_map == place.device_map
    assert step_model(None, plain, 1, 0) is not None
    assert gpu.made == [("plain", 1, 2048)]


def test_a_window_that_only_captured_steps_have_room_for_is_shortened(
    gpu: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain steps repeat grouped keys for every head."""
    place = planned(10, name="chatglm2-6b", context=32768, users=4)
    assert place.stepped
    gpu.runs = False
    plain = settled(None, place)
    assert plain.verdict == "fits"
    assert 16384 < plain.need.context < 32768
    assert f"a window of {plain.need.context} tokens" in caplog.text


def test_no_room_at_all_is_said_before_anyone_asks(gpu: SimpleNamespace) -> None:
    place = planned(139, quantization="none", name="llama-33b")
    tight = replace(place, case=place.case.changed(devices=(Device("cuda:0", place.need.weights, "H200"),)))
    gpu.runs = False
    with pytest.raises(OutOfMemory, match=r"needs 62 GiB.* window of 512 tokens"):
        settled(None, tight)


def test_a_model_in_memory_has_no_step_model(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "take_apart", lambda model: None)
    assert step_model(None, planned(24), 1, 0) is None
