"""Plans of whole models: properties over random small ones, remedies that hold, maps that people write."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ConfigError, ModelError, OutOfMemory
from dbgpt_lite.llm.case import Case
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.device_map import covers
from dbgpt_lite.llm.outline import outline, read_outline
from dbgpt_lite.llm.placement import DISK_FREE, STRATEGIES, Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.remedies import Remedy
from dbgpt_lite.llm.sizes import CUDA_CONTEXT, cache_bytes
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS

SMALL = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "max_position_embeddings": 4096,
}
CPU, DISK = Device("cpu", 64 * GIB), Device("disk", DISK_FREE)


def checkpoint(config: dict[str, Any], name: str = "some-model") -> Checkpoint:
    return Checkpoint(Path(name), config, TaskFacts(), "bin", (), (), 0)


def planned(config: dict[str, Any], *devices: Device, **facts: Any) -> Plan:
    asked = {"dtype": "bfloat16", "quantization": "none", "context": 0} | facts
    return plan(checkpoint(config), devices=devices, **asked)


def gpu(size: float, place: int = 0) -> Device:
    return Device(f"cuda:{place}", int(size * GIB), "NVIDIA GeForce RTX 3090")


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 4]))
    return SMALL | {
        "model_type": draw(st.sampled_from(["llama", "qwen2", "gemma", "phi", "gpt_neox"])),
        "hidden_size": 16 * draw(st.integers(4, 16)),
        "intermediate_size": draw(st.integers(64, 512)),
        "num_hidden_layers": draw(st.integers(1, 7)),
        "num_attention_heads": 4,
        "num_key_value_heads": heads,
        "vocab_size": draw(st.integers(10, 500)),
        "tie_word_embeddings": draw(st.booleans()),
        "head_dim": 4,
    }


@st.composite
def machines(draw: st.DrawFn) -> tuple[Device, ...]:
    """Up to three GPUs already in use by this process, so that small models feel their limits."""
    sizes = draw(st.lists(st.integers(500_000, 6_000_000), max_size=3))
    gpus = [Device(f"cuda:{place}", 64 * 2**20 + size, "T4", started=True) for place, size in enumerate(sizes)]
    rest = [Device("cpu", draw(st.integers(500_000, 12_000_000))), *([DISK] if draw(st.booleans()) else [])]
    return (*gpus, *rest)


@given(
    models(),
    machines(),
    st.sampled_from(STRATEGIES),
    st.sampled_from(["none", "int8", "nf4"]),
    st.integers(1, 200),
    st.integers(1, 3),
)
@settings(max_examples=300, deadline=None)
def test_every_parameter_has_one_device_and_none_is_too_full(
    config: dict[str, Any], devices: tuple[Device, ...], strategy: str, quantization: str, context: int, users: int
) -> None:
    found = planned(
        config, *devices, strategy=strategy, quantization=quantization, context=context, users=users, dtype="float32"
    )
    drawn = outline(checkpoint(config))
    sizes = drawn.geometry
    per_layer = cache_bytes(sizes, 0, "float32", context, users)
    assert found.need.cache == per_layer * config["num_hidden_layers"]
    assert found.need.weights == sum(block.weights for block in drawn.blocks("float32", found.numbers, 1, 1))
    assert found.need.total == sum(row.total for row in found.rows)
    if not found.fits:
        assert not found.device_map
        assert found.remedies
        return
    assert all(row.total <= row.device.free for row in found.rows)
    for one in drawn.parameters:
        owners = {found.device_map[prefix] for prefix in found.device_map if covers(prefix, one.name)}
        assert len(owners) == 1
        if one.tied:
            assert owners == {found.device_map[prefix] for prefix in found.device_map if covers(prefix, one.tied)}
    offloads = any(not row.working for row in found.rows)
    assert found.verdict == ("offload" if offloads else "fits")
    # A cache lives where its layer computes: with nothing offloaded, where the layer is.
    if found.verdict == "fits":
        assert all(row.cache == per_layer * row.layers for row in found.rows)


@given(models(), machines(), st.integers(300, 2000), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_remedies_hold(config: dict[str, Any], devices: tuple[Device, ...], context: int, users: int) -> None:
    asked: dict[str, Any] = {"dtype": "float32", "context": context, "users": users, "quantization": "none"}
    found = planned(config, *devices, **asked)
    for remedy in found.remedies:
        changes: dict[str, Any] = {
            "context": {"context": remedy.context},
            "users": {"users": remedy.users},
            "quantize": {"quantization": remedy.numbers},
            "quantize_context": {"quantization": remedy.numbers, "context": remedy.context},
        }.get(remedy.kind, {})
        if remedy.kind == "memory":
            first = next((one for one in devices if one.kind == "gpu"), devices[0])
            more = Device(first.name, first.free + remedy.extra, first.model, first.bandwidth, first.started)
            assert planned(config, *(more if one is first else one for one in devices), **asked).verdict == "fits"
            alone = Device(first.name, remedy.total, first.model, first.bandwidth, first.started)
            assert planned(config, alone, **asked).verdict == "fits"
        elif remedy.kind == "cpu":
            assert planned(config, *devices, **asked, strategy="cpu").fits
        else:
            after = planned(config, *devices, **(asked | changes))
            assert after.verdict == "fits"
            assert after.need.total == remedy.total
    largest = [remedy.context for remedy in found.remedies if remedy.kind == "context"]
    if largest and largest[0] + 256 < context:
        assert planned(config, *devices, **(asked | {"context": largest[0] + 256})).verdict != "fits"


def test_one_card_or_two_or_offload() -> None:
    config = CONFIGS["llama-33b"]
    assert planned(config, gpu(24), CPU, DISK, quantization="nf4").verdict == "fits"
    assert planned(config, *(gpu(24, place) for place in range(4)), CPU).verdict == "fits"
    slow = planned(config, gpu(24), CPU, DISK)
    assert slow.verdict == "offload"
    assert {row.device.name for row in slow.rows} == {"cuda:0", "cpu"}
    assert slow.speed is not None
    assert slow.speed.first < 1
    assert next((remedy.kind, remedy.numbers) for remedy in slow.remedies) == ("quantize", "nf4")
    assert slow.remedies[-1].kind == "memory"
    assert not planned(config, gpu(24), Device("cpu", GIB)).fits


def test_the_first_use_of_a_gpu_takes_memory() -> None:
    new, used = gpu(24), Device("cuda:0", 24 * GIB, started=True)
    difference = planned(SMALL, new).need.total - planned(SMALL, used).need.total
    assert difference == CUDA_CONTEXT


def test_window_shrinks_to_what_fits_unless_it_was_asked_for() -> None:
    whole = planned(SMALL, CPU)
    assert whole.need.context == 4096
    tight = Device("cpu", whole.need.total - whole.need.total // 8)
    shrunk = planned(SMALL, tight)
    assert shrunk.fits
    assert 2048 <= shrunk.need.context < 4096
    assert not planned(SMALL, tight, context=shrunk.need.context + 256).fits
    with pytest.raises(OutOfMemory, match=f"LLM_CONTEXT={shrunk.need.context}"):
        planned(SMALL, tight, context=4096).check()


def test_what_does_not_fit_is_told_by_the_least_that_would() -> None:
    """Nobody asked for a window: with as much memory as is said to be missing, the shortest one fits."""
    config = CONFIGS["llama-7b"] | {"max_position_embeddings": 32768}
    found = planned(config, gpu(8))
    assert (found.verdict, found.need.context) == ("too_large", 2048)
    memory = found.remedies[-1]
    after = planned(config, Device("cuda:0", 8 * GIB + memory.extra))
    assert (after.verdict, after.need.context) == ("fits", 2048)
    assert planned(config, Device("cuda:0", 8 * GIB + memory.extra - 1)).verdict == "too_large"
    assert planned(config, gpu(8), context=32768).need.context == 32768


def resident(config: dict[str, Any], *devices: Device, context: int = 0) -> int:
    return sum(row.layers for row in planned(config, *devices, context=context).rows if row.working)


@pytest.mark.parametrize(("name", "card"), [("mistral-7b", 8), ("glm-4-9b", 12), ("mixtral-8x7b", 24)])
def test_a_window_that_nobody_asked_for_leaves_room_for_layers(name: str, card: int) -> None:
    config, devices = CONFIGS[name], (gpu(card), CPU, DISK)
    found = planned(config, *devices)
    assert (found.verdict, found.need.context) == ("offload", 8192)
    assert resident(config, *devices) > resident(config, *devices, context=32768)
    assert planned(config, *devices, context=32768).need.context == 32768


def test_the_shortest_window_where_only_that_leaves_room_for_a_layer() -> None:
    config, devices = CONFIGS["gemma-7b"], (gpu(6), CPU, DISK)
    assert resident(config, *devices, context=8192) == 0
    assert planned(config, *devices).need.context == 2048
    assert resident(config, *devices) > 0


def test_fits_or_says_what_to_change() -> None:
    planned(SMALL, CPU).check()
    small = planned(SMALL, Device("cpu", 1000))
    with pytest.raises(OutOfMemory, match=r"needs 0\.00\d+ GiB.*cpu 9\.31e-07 GiB.*It lacks"):
        small.check()
    config = CONFIGS["llama-13b"]
    with pytest.raises(OutOfMemory, match=r"Quantized to nf4 it fits.*LLM_QUANTIZATION=nf4"):
        planned(config, gpu(12)).check()


def test_quantized_layers_are_not_offloaded() -> None:
    found = planned(CONFIGS["llama-33b"], gpu(12), CPU, DISK, quantization="nf4")
    assert found.verdict == "too_large"
    assert [remedy.kind for remedy in found.remedies] == ["cpu", "memory"]


def test_weights_stored_quantized_stay_so() -> None:
    config = CONFIGS["chatglm2-6b"] | {"quantization_bit": 4}
    found = planned(config, gpu(6), CPU)
    assert (found.numbers, found.verdict) == ("int4", "fits")
    assert not any(remedy.kind == "quantize" for remedy in planned(config, gpu(3)).remedies)


@pytest.mark.parametrize("given", [{"quantization_config": {"quant_method": "gptq"}}, {"quantization_bit": 3}])
def test_what_loading_refuses_is_not_planned(given: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"some-model are quantized with .* does not read"):
        planned(SMALL | given, CPU)


def test_a_single_device_says_that_others_would_help() -> None:
    found = planned(CONFIGS["llama-7b"], gpu(8), CPU, DISK, strategy="cuda:0")
    assert not found.fits
    assert "spread" in {remedy.kind for remedy in found.remedies}
    with pytest.raises(ConfigError, match="cuda:7"):
        planned(SMALL, CPU, strategy="cuda:7")


EVERY = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.layers.2": "cpu", "model.norm": 1}


def test_a_map_is_obeyed() -> None:
    devices = (gpu(2), gpu(2, 1), CPU, DISK)
    found = planned(SMALL, *devices, strategy=json.dumps(EVERY | {"lm_head": "disk", "model.rotary_emb": 0}))
    assert found.verdict == "offload"
    assert found.device_map["model.layers.1"] == "cuda:1"
    assert found.device_map["model.layers.2"] == "cpu"
    assert found.device_map["lm_head"] == "disk"
    # The cache of the layer kept in memory is where it computes.
    assert [row.layers for row in found.rows] == [1, 1, 1, 0]
    assert found.rows[0].cache == 2 * found.rows[1].cache
    assert planned(SMALL, *devices, strategy='{"": "cuda:1"}').verdict == "fits"
    assert planned(SMALL, *devices, strategy='{"": "cpu"}').verdict == "fits"
    finer = {"": 1, "model.layers.0.mlp": 1, "model.layers.0.self_attn": 1}
    assert set(planned(SMALL, *devices, strategy=json.dumps(finer)).device_map.values()) == {"cuda:1"}


@pytest.mark.parametrize(
    ("given", "tied", "message"),
    [
        (EVERY, False, r"1 parameters: lm_head\.weight"),
        (EVERY | {"lm_head": 0, "model.layers.3": 0}, False, r"does not have: model\.layers\.3"),
        (EVERY | {"lm_head": 0, "model.layers.1.mlp": 0}, False, r"tears apart .*model\.layers\.1"),
        (EVERY | {"lm_head": 1}, True, r"tears apart .*model\.embed_tokens"),
        ({"": 5}, False, "cuda:5"),
        ([1, 2], False, "as JSON in one line"),
    ],
)
def test_a_wrong_map_is_refused_with_the_names(given: Any, tied: bool, message: str) -> None:
    config = SMALL | {"tie_word_embeddings": tied}
    text = json.dumps(given) if isinstance(given, dict) else "{oops"
    with pytest.raises(ConfigError, match=message):
        planned(config, gpu(2), gpu(2, 1), CPU, strategy=text)


def test_a_map_with_tied_weights_need_not_name_the_head() -> None:
    found = planned(SMALL | {"tie_word_embeddings": True}, gpu(2), gpu(2, 1), CPU, strategy=json.dumps(EVERY))
    assert found.device_map["lm_head"] == found.device_map["model.embed_tokens"] == "cuda:0"


@pytest.mark.parametrize(
    ("quantization", "away", "allowed"),
    [
        ("nf4", "cpu", False),
        ("int8", "disk", False),
        ("int4", "disk", False),
        ("int4", "cpu", True),
        ("none", "disk", True),
    ],
)
def test_a_map_leaves_quantized_layers_where_they_can_be(quantization: str, away: str, allowed: bool) -> None:
    text = json.dumps({"": 0, "model.layers.2": away})
    if allowed:
        assert planned(SMALL, gpu(2), CPU, DISK, strategy=text, quantization=quantization).verdict == "offload"
        return
    with pytest.raises(ConfigError, match=f"quantized to {quantization}"):
        planned(SMALL, gpu(2), CPU, DISK, strategy=text, quantization=quantization)


def test_packed_layers_are_offloaded_to_memory_but_not_to_disk() -> None:
    config = CONFIGS["llama-13b"]
    assert planned(config, gpu(6), CPU, DISK, quantization="int4").verdict == "offload"
    assert planned(config, gpu(6), Device("cpu", GIB // 2), DISK, quantization="int4").verdict == "too_large"


def test_a_map_that_does_not_fit_says_where() -> None:
    found = planned(CONFIGS["llama-7b"], gpu(8), gpu(24, 1), CPU, strategy='{"": 0}')
    assert [bool(row.over) for row in found.rows] == [True]
    assert found.remedies[0].kind == "quantize"
    assert {"spread", "memory"} <= {remedy.kind for remedy in found.remedies}


def test_config_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["chatglm2-6b"]))
    index = {"metadata": {"total_size": 12_487_168_064}, "weight_map": {"a": "pytorch_model-00001-of-00007.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    read = read_outline(tmp_path)
    assert (read.format, read.file_bytes) == ("bin", 12_487_168_064)
    # The index also counts 32 rotary frequencies, which are no parameters.
    assert outline(read).count * 2 == pytest.approx(read.file_bytes, rel=1e-6)
    assert outline(read_outline(tmp_path / "config.json")).count == 6_243_584_000
    # A file beside a folder of the same name is not that folder's model.
    (tmp_path / "olmo").mkdir()
    (tmp_path / "olmo" / "config.json").write_text('{"model_type": "olmo", "hidden_size": 64}')
    (tmp_path / "olmo.json").write_text(
        '{"model_type": "olmo2", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1}'
    )
    assert outline(read_outline(tmp_path / "olmo.json")).geometry.hidden == 32


def test_a_config_without_sizes_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="does not state the sizes"):
        outline(read_outline(tmp_path))


def test_a_case_without_a_device_that_computes_is_too_large() -> None:
    case = Case(outline(checkpoint(SMALL)), "bfloat16", "none", 16, 1, (DISK,))
    assert case.verdict == "too_large"


def test_fewer_bits_that_save_nothing_are_not_offered() -> None:
    whole = planned(CONFIGS["llama-33b"], gpu(48), context=2048)
    offered = [remedy for remedy in whole.remedies if remedy.kind == "quantize"]
    # In captured steps, int4 takes what nf4 does.
    assert [remedy.numbers for remedy in offered] == ["int8", "nf4"]
    assert offered[0].total > offered[1].total


def test_beside_a_choice_remedies_say_what_to_choose_there() -> None:
    for remedy in (Remedy("quantize", "nf4", total=2**30), Remedy("quantize_context", "nf4", 1024, total=2**30)):
        for language, said in (("en", "choose nf4 here"), ("zh", "请在此处选择 nf4")):
            assert said in remedy.text_here.render(language)
            assert "LLM_QUANTIZATION" not in remedy.text_here.render(language)
            assert "LLM_QUANTIZATION=nf4" in remedy.text.render(language)
