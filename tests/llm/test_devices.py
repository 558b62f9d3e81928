"""Devices that are there, or supposed; the driver's libraries by stand-ins that write as the real ones do."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm import devices as devices_module
from dbgpt_lite.llm.devices import all_devices, best_cpu_dtype, chosen, free_ram, memory_bandwidth, usable_devices
from dbgpt_lite.llm.forecast import cpu_dtype, described_dtype, number_type, supposed
from dbgpt_lite.llm.gpus import DriverError, Gpu, driver_gpus
from dbgpt_lite.llm.placement import DISK_FREE, Device
from dbgpt_lite.llm.units import GIB

UUIDS = [bytes(range(16)), bytes(range(16, 32))]
NAMES = [b"NVIDIA H100 80GB HBM3", b"Tesla T4"]
CAPABILITIES = [(9, 0), (7, 5)]
FREE = {
    b"GPU-00010203-0405-0607-0809-0a0b0c0d0e0f": 79 * GIB,
    b"GPU-10111213-1415-1617-1819-1a1b1c1d1e1f": 14 * GIB,
}


class Cuda:
    """libcuda with two GPUs; `status` is what cuInit returns."""

    def __init__(self, status: int = 0) -> None:
        self._status = status

    def cuInit(self, flags: int) -> int:
        return self._status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(UUIDS)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = NAMES[device.value]
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, device: Any) -> int:
        value._obj.value = CAPABILITIES[device.value][{75: 0, 76: 1}[number]]
        return 0

    def cuDeviceGetUuid(self, uuid: Any, device: Any) -> int:
        ctypes.memmove(uuid._obj.bytes, UUIDS[device.value], 16)
        return 0


class Nvml:
    """libnvidia-ml, which lists the GPUs in another order and knows them by UUID."""

    def __init__(self, status: int = 0) -> None:
        self._status = status
        self.closed = False

    def nvmlInit_v2(self) -> int:
        return self._status

    def nvmlShutdown(self) -> int:
        self.closed = True
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        handle._obj.value = 1 + list(FREE).index(uuid)
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        memory._obj.free = list(FREE.values())[handle.value - 1]
        return 0


def libraries(cuda: Any, nvml: Any) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        library = {"libcuda.so.1": cuda, "libnvidia-ml.so.1": nvml}[name]
        if library is None:
            raise OSError(name)
        return library

    return load


def test_gpus_in_cudas_order_with_what_is_free() -> None:
    nvml = Nvml()
    assert driver_gpus(libraries(Cuda(), nvml)) == (
        Gpu("NVIDIA H100 80GB HBM3", 79 * GIB, (9, 0)),
        Gpu("Tesla T4", 14 * GIB, (7, 5)),
    )
    assert nvml.closed


def test_no_driver_and_no_device_are_no_gpus() -> None:
    assert driver_gpus(libraries(None, None)) == ()
    assert driver_gpus(libraries(Cuda(100), Nvml())) == ()


@pytest.mark.parametrize(("cuda", "nvml"), [(Cuda(), None), (Cuda(), Nvml(999)), (object(), Nvml())])
def test_a_driver_that_cannot_say_is_an_error(cuda: Any, nvml: Any) -> None:
    with pytest.raises(DriverError):
        driver_gpus(libraries(cuda, nvml))


def test_torch_knows_what_this_process_has_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, given in {
        "is_initialized": lambda: True,
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": lambda index: (79 * GIB, 80 * GIB),
        "get_device_name": lambda index: "H100",
        "get_device_capability": lambda index: (9, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, given)
    monkeypatch.setattr(devices_module, "warmed", lambda: {"cuda:1"})
    first, second, *_ = all_devices()
    assert (first.started, first.warm, first.capability) == (True, False, (9, 0))
    assert (second.started, second.warm) == (True, True)


def test_this_machine_has_memory_and_a_disk() -> None:
    devices = {device.name: device for device in all_devices()}
    assert devices["cpu"].free > 0
    assert devices["disk"].free == DISK_FREE
    assert 1e8 < memory_bandwidth() < 1e13


def test_max_memory_caps_a_device() -> None:
    assert usable_devices("cpu", {"cpu": "100MB"}) == (Device("cpu", 100_000_000),)


ALL = (Device("cuda:0", 24 * GIB), Device("cuda:1", 12 * GIB), Device("cpu", 64 * GIB), Device("disk", DISK_FREE))


def test_what_a_placement_may_use() -> None:
    assert chosen("balanced", {"1": "8GiB", "cpu": "1TiB"}, ALL) == (ALL[0], Device("cuda:1", 8 * GIB), *ALL[2:])
    assert chosen("cuda", {}, ALL) == (ALL[0],)
    assert chosen("1", {}, ALL) == (ALL[1],)
    assert chosen('{"": 1, "lm_head": "disk"}', {}, ALL) == ALL[1:]


@pytest.mark.parametrize("name", ["gpu0", "ram", "cuda:7", "2"])
def test_memory_for_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"LLM_MAX_MEMORY .*{name}\. Known names: 0, 1, cpu, disk"):
        chosen("auto", {"cpu": "1GiB", name: "6GiB"}, ALL)


@pytest.mark.parametrize("wrong", ["cuda:77", "disk", "everywhere"])
def test_unknown_device_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        chosen(wrong, {}, ALL)


def test_cards_to_suppose() -> None:
    assert supposed((), ALL) == ALL
    made = supposed(("24GiB", "RTX 3060"), ALL)
    assert [(device.name, device.model) for device in made] == [
        ("cuda:0", ""), ("cuda:1", "RTX 3060"), ("cpu", ""), ("disk", ""),
    ]  # fmt: skip


def test_number_type_is_what_the_loader_takes() -> None:
    config = {"torch_dtype": "float16"}
    assert number_type(config, "float32", "none", ALL) == "float32"
    assert number_type(config, "auto", "none", ALL) == "float16"
    assert number_type({}, "auto", "none", ALL) == "bfloat16"
    assert number_type(config, "auto", "nf4", ALL[2:]) == "bfloat16"


def test_the_processors_words_agree_with_torch() -> None:
    assert described_dtype() in (best_cpu_dtype(), None)
    assert cpu_dtype() == best_cpu_dtype()


def test_files_that_the_kernel_keeps_at_hand_are_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "_CGROUP", tmp_path)
    plain = free_ram()
    assert plain > 0
    (tmp_path / "memory.max").write_text("8000000\n")
    (tmp_path / "memory.current").write_text("6000000\n")
    assert free_ram() == 2_000_000
    (tmp_path / "memory.stat").write_text("anon 900000\nfile 5000000\ninactive_file 3500000\nactive_file 1500000\n")
    assert free_ram() == 5_500_000
    (tmp_path / "memory.stat").write_text("inactive_file\n")
    assert free_ram() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_ram() > 5_500_000
