"""Tokens a second from the bytes that a token reads."""

from pathlib import Path

import pytest

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.case import Case
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.placement import DISK_FREE, Device
from dbgpt_lite.llm.speed import CARDS, FROM_DISK, PACES, TO_GPU, bandwidth, card, hypothetical, speed
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS


def case(name: str, *devices: Device, context: int = 1024, users: int = 1, numbers: str = "none") -> Case:
    drawn = outline(Checkpoint(Path(name), CONFIGS[name], TaskFacts(), "bin", (), (), 0))
    return Case(drawn, "float16", numbers, context, users, devices)  # type: ignore[arg-type]


def test_cards_are_found_by_the_names_that_drivers_report() -> None:
    for name in ("NVIDIA GeForce RTX 3090", "RTX 3090", "Tesla T4", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"):
        assert card(name) is not None
    assert card("NVIDIA GeForce RTX 3090 Ti") == CARDS["rtx 3090 ti"]
    assert card("A100") == CARDS["a100-sxm4-80gb"]
    assert card("Voodoo 2") is None
    assert hypothetical("RTX 4090", 1) == Device("cuda:1", int(23.5 * GIB), "RTX 4090")
    with pytest.raises(ConfigError, match=r"Voodoo 2.*rtx 3090"):
        hypothetical("Voodoo 2", 0)


def test_a_token_reads_all_weights_but_the_embedding() -> None:
    """13.0e9 parameters without the embedding's 164e6, two bytes each, at a share of 936 GB/s, and 40 layers."""
    found = speed(case("llama-13b", Device("cuda:0", 40 * GIB, "RTX 3090")))
    pace = PACES["step", "none"]
    read = 2 * (13_015_864_320 - 32000 * 5120) + 2 * 5120
    assert found is not None
    assert 1 / found.first == pytest.approx(read / (936e9 * pace.share) + 40 * pace.layer_s)
    cache = 2 * 40 * 5120 * 2 * 1024
    assert 1 / found.full == pytest.approx(1 / found.first + cache / 936e9)


def test_users_share_the_weights_but_not_the_cache() -> None:
    card_ = Device("cuda:0", 80 * GIB, "H100 PCIe")
    one, four = (speed(case("llama-13b", card_, users=users)) for users in (1, 4))
    assert one is not None
    assert four is not None
    assert one.full == pytest.approx(four.full)


def test_tied_embeddings_are_read_as_the_head() -> None:
    block = case("qwen2-0.5b", Device("cpu", GIB)).blocks[0]
    assert block.names == ("model.embed_tokens", "lm_head")
    assert block.weights == 151936 * 896 * 2
    assert block.weights <= block.read <= block.weights + 2 * 896


def test_a_token_reads_the_experts_that_are_picked() -> None:
    layer = case("mixtral-8x7b", Device("cpu", GIB)).blocks[1]
    experts = 8 * 3 * 4096 * 14336 * 2
    assert layer.weights - layer.read == experts * 6 // 8


def test_quantized_experts_start_their_products_one_by_one() -> None:
    """Mixtral: two experts of three products in each of 32 layers; in 16 bits all are one product."""
    for numbers, started in (("nf4", 1 + 2 * 3 / 7), ("none", 1)):
        pace = PACES["gpu", numbers]
        found = case("mixtral-8x7b", Device("cuda:0", 200 * GIB, "H200"), numbers=numbers)
        result = speed(found)
        assert result is not None
        read = sum(row.read for row in found.rows) / (4800e9 * pace.share)
        assert 1 / result.first == pytest.approx(read + 32 * pace.layer_s * started)


def test_what_is_kept_elsewhere_crosses_a_slower_link() -> None:
    pace = PACES["gpu", "none"]
    found = case("llama-13b", Device("cuda:0", 12 * GIB, "RTX 3060"), Device("cpu", 9 * GIB), Device("disk", DISK_FREE))
    gpu, cpu, disk = found.rows
    result = speed(found)
    assert result is not None
    seconds = gpu.read / (360e9 * pace.share) + cpu.weights / TO_GPU + disk.weights / FROM_DISK + 40 * pace.layer_s
    assert 1 / result.first == pytest.approx(seconds)


def test_unknown_cards_have_no_estimate() -> None:
    assert speed(case("llama-7b", Device("cuda:0", 24 * GIB))) is None
    assert bandwidth(Device("cpu", 1, bandwidth=3.0)) == 3.0
