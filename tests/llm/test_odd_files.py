"""Files of strangers: whatever JSON they hold, the app plans, lists, or says which file is wrong; nothing else."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError, UserError
from dbgpt_lite.llm.adapter import base_folder, refuse_unsupported
from dbgpt_lite.llm.chat_choice import format_of_folder
from dbgpt_lite.llm.checkpoint import read_checkpoint, read_facts, read_header
from dbgpt_lite.llm.families import FAMILIES
from dbgpt_lite.llm.layouts import LAYOUTS
from dbgpt_lite.llm.model_json import MOST, check_config
from dbgpt_lite.llm.outline import outline, read_outline
from dbgpt_lite.llm.placement import DISK_FREE, Device
from dbgpt_lite.llm.plan import plan
from dbgpt_lite.llm.shapes import _KEYS
from dbgpt_lite.llm.shards import stored_tensors
from dbgpt_lite.llm.units import GIB
from tests.llm.configs import CONFIGS

DEVICES = (Device("cuda:0", 8 * GIB), Device("cpu", 64 * GIB), Device("disk", DISK_FREE))
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
KEYS = sorted(
    {
        *MOST, "model_type", "text_config", "rope_scaling", "rope_parameters", "quantization_config",
        "quantization_bit", "layer_types", "mlp_only_layers", "sliding_window_pattern", "use_sliding_window",
        "expansion_ratio", "num_ln_in_parallel_attn", "multi_query", "multi_query_attention", "torch_dtype",
        "tie_word_embeddings", "new_decoder_architecture", "parallel_attn", "attention_bias",
    }
)  # fmt: skip
SCALINGS = st.fixed_dictionaries(
    {"type": st.sampled_from(["linear", "dynamic", "yarn", "llama3"])},
    optional={
        "factor": st.one_of(st.floats(), st.integers(-5, 5), st.none(), st.text(max_size=2)),
        "original_max_position_embeddings": st.one_of(st.integers(), st.floats(), st.lists(st.none(), max_size=1)),
    },
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([0, 1, 3, 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
TENSOR = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
ODD = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def folder_with(parent: Path, **files: Any) -> Path:
    """A model folder; `files`: contents of JSON files by stem."""
    folder = parent / "odd"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    header = json.dumps(files.pop("header", {"a": TENSOR})).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    for stem, content in ({"config": LLAMA, "tokenizer": {}} | files).items():
        (folder / f"{stem}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def refused(function: Any, folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        function(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.render("zh")


def reason(function: Callable[[Path], object], folder: Path) -> UserError | None:
    """Why it was refused, in words of both languages; any other exception is the test's failure."""
    try:
        function(folder)
    except UserError as error:
        return error if error.render("en") and error.render("zh") else None
    return None


def planned(folder: Path) -> None:
    found = plan(read_outline(folder), dtype="bfloat16", quantization="none", context=0, devices=DEVICES)
    assert found.need.context > 0
    assert min(found.need.weights, found.need.cache, found.need.working) >= 0
    assert all(row.weights >= 0 for row in found.rows)
    assert found.sentence.render("zh")
    assert format_of_folder(folder, read_checkpoint(folder))


@ODD
@given(
    st.sampled_from([*LAYOUTS, "chatglm2-6b", "chatglm-6b"]),
    st.dictionaries(st.sampled_from(KEYS), ANY, max_size=3),
    SCALINGS | st.just({}),
    st.booleans(),
)
@example("mixtral", {"num_local_experts": 0}, {}, False)
@example("gpt2", {"n_positions": "x"}, {}, False)
@example("qwen3_moe", {"mlp_only_layers": 5}, {}, False)
@example("mpt", {"expansion_ratio": "4"}, {}, False)
@example("gemma2", {"sliding_window": -4, "sliding_window_pattern": "LLG"}, {}, False)
@example("llama", {"hidden_size": float("nan")}, {}, False)
@example("llama", {}, {"type": "linear", "factor": 0}, False)
@example("llama", {}, {"type": "dynamic", "factor": float("inf")}, False)
def test_any_config_gives_a_plan_or_a_reason(
    tmp_path: Path, kind: str, changes: dict[str, Any], scaling: dict[str, Any], inside: bool
) -> None:
    base = CONFIGS.get(kind) or LLAMA | {"model_type": kind}
    odd = changes | ({"rope_scaling": scaling} if scaling else {})
    config = dict(base) | ({"text_config": odd} if inside else odd)
    if config.get("model_type") != base["model_type"]:
        # An unknown kind is asked of transformers, which takes seconds; its own errors have a test below.
        config["model_type"] = config["model_type"] if not isinstance(config["model_type"], str) else "llama"
    reason(planned, folder_with(tmp_path, config=config))


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": "2"}}}, "factor"),
        ({"text_config": [1]}, "text_config"),
        ({"text_config": {"hidden_size": "4096"}}, "hidden_size = 4096"),
        ({"quantization_config": "awq"}, "quantization_config = awq"),
        ({"num_hidden_layers": 1_001}, "num_hidden_layers = 1001"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"vocab_size": 10**15}, "vocab_size"),
        ({"mlp_only_layers": 5}, "mlp_only_layers"),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok = 9"),
        ({"num_local_experts": 8, "num_experts_per_tok": 0}, "num_experts_per_tok = 0"),
        ({"text_config": {"n_routed_experts": 4, "num_experts_per_tok": -1}}, "num_experts_per_tok = -1"),
    ],
)
def test_a_wrong_entry_of_config_is_named(tmp_path: Path, changes: dict[str, Any], entry: str) -> None:
    folder = folder_with(tmp_path, config=LLAMA | changes)
    refused(read_outline, folder, "config.json", entry)
    refused(read_checkpoint, folder, "config.json", entry)
    refused(read_outline, folder / "config.json", "config.json", entry)


def test_published_configs_pass_and_every_size_that_is_read_has_a_bound() -> None:
    for name, config in CONFIGS.items():
        check_config(config, name)
    check_config(LLAMA | {"sliding_window": -1, "rope_scaling": None, "head_dim": None, "text_config": False}, "x")
    check_config(LLAMA | {"num_local_experts": 0, "num_experts_per_tok": 0}, "a mixture's sister without experts")
    check_config(LLAMA | {"intermediate_size": [64, 128], "num_key_value_heads": [1, 2]}, "a size for each layer")
    keys = {key for keys in _KEYS.values() for key in keys}
    for row in FAMILIES.values():
        keys |= {*row.context_keys, *row.layers_keys, *row.heads_keys, *row.kv_heads_keys, *row.hidden_keys}
        keys |= {*row.head_dim_keys, *row.absent} | ({row.window_from} - {""})
    assert keys - {"sliding_window_pattern"} <= set(MOST)


@pytest.mark.parametrize("changes", [{"hidden_size": [1]}, {"num_attention_heads": 0}, {"layer_types": [5]}])
def test_what_transformers_makes_of_a_wrong_config_is_a_reason_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        outline(read_outline(folder_with(tmp_path, config=LLAMA | {"model_type": "olmo2"} | changes)))


@pytest.mark.parametrize(
    ("facts", "entry"),
    [({"tasks": "chat"}, "tasks = chat"), ({"tasks": [1]}, "tasks"), ({"languages": 5}, "languages = 5"),
     ({"chat_format": ["x"]}, "chat_format"), ({"sql_prompt": 1}, "sql_prompt = 1"), ({"base": {}}, "base")],
)  # fmt: skip
def test_a_wrong_fact_is_named(tmp_path: Path, facts: dict[str, Any], entry: str) -> None:
    refused(read_facts, folder_with(tmp_path, dbgpt=facts), "dbgpt.json", entry)


def test_a_fact_that_is_null_is_left_out(tmp_path: Path) -> None:
    none = dict.fromkeys(("tasks", "languages", "sql_prompt", "sql_dialect", "chat_format", "base"))
    assert read_facts(folder_with(tmp_path, dbgpt=none)) == read_facts(tmp_path)


@pytest.mark.parametrize(
    ("stem", "content"),
    [
        ("tokenizer", {"added_tokens": [{}]}),
        ("tokenizer", {"added_tokens": {"a": 1}}),
        ("tokenizer_config", {"added_tokens_decoder": [1]}),
        ("tokenizer_config", {"added_tokens_decoder": {"1": "x"}}),
        ("tokenizer_config", "[" * 100_000),
        ("tokenizer_config", '{"a":' * 200 + "1" + "}" * 200),
        ("added_tokens", [1]),
    ],
)
def test_wrong_tokens_are_named(tmp_path: Path, stem: str, content: Any) -> None:
    folder = folder_with(tmp_path, **{stem: content})
    checkpoint = read_checkpoint(folder)
    refused(lambda one: format_of_folder(one, checkpoint), folder, f"{stem}.json in odd is cut short or damaged")


@ODD
@given(st.sampled_from(["dbgpt", "tokenizer", "tokenizer_config", "added_tokens", "adapter_config"]), st.data())
def test_any_json_beside_the_model_is_taken_or_refused(tmp_path: Path, stem: str, data: st.DataObject) -> None:
    keys = ("tasks", "languages", "sql_prompt", "chat_format", "base", "added_tokens", "added_tokens_decoder", "r",
            "chat_template", "base_model_name_or_path", "rank_pattern", "alpha_pattern", "bias", "peft_type",
            "lora_alpha", "init_lora_weights", "use_dora")  # fmt: skip
    content = data.draw(st.dictionaries(st.sampled_from(keys), ANY, max_size=4) | ANY)
    folder = folder_with(tmp_path, **{stem: json.dumps(content)})
    if stem == "adapter_config":
        (folder / "adapter_model.safetensors").write_bytes(b"")
        (folder / "config.json").unlink()
    for read in (base_folder, read_facts, lambda one: format_of_folder(one, read_checkpoint(one)), refuse_unsupported):
        reason(read, folder)


HEADERS = st.dictionaries(
    st.text(max_size=3),
    ANY | st.fixed_dictionaries({
        "dtype": st.sampled_from(["F32", "U8", "??"]) | ANY,
        "shape": st.lists(st.integers(-2, 9), max_size=2) | ANY,
        "data_offsets": st.tuples(st.integers(-9, 64), st.sampled_from([64, 32])) | ANY,
    }),
    max_size=3,
)  # fmt: skip


@ODD
@given(HEADERS)
@example({"a": TENSOR | {"data_offsets": ["0", "64"]}})
@example({"a": TENSOR | {"data_offsets": [-64, 0]}, "b": TENSOR})
@example({"a": TENSOR | {"shape": [-4, -4]}})
@example({"a": TENSOR | {"shape": "44"}})
@example({"a": TENSOR | {"dtype": None}})
@example({"a": [1, 2]})
def test_any_header_is_read_or_damaged(tmp_path: Path, header: dict[str, Any]) -> None:
    folder = folder_with(tmp_path, header=header)

    def inside(folder: Path) -> None:
        size = (folder / "model.safetensors").stat().st_size
        places = stored_tensors(read_checkpoint(folder))
        assert all(place.start >= 8 and place.start + place.bytes <= size for place in places)

    why = reason(inside, folder)
    assert why is None or why.key in ("llm.damaged_file", "llm.unknown_type")


def test_a_deep_header_and_a_strange_index_are_damaged(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    raw = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    refused(read_header, folder / "model.safetensors", "model.safetensors")
    for named in (5, ["model.safetensors"], "../model.safetensors", "a\0b", "x" * 5000):
        folder = folder_with(tmp_path, **{"model.safetensors.index": {"weight_map": {"a": named}}})
        refused(read_checkpoint, folder, "model.safetensors.index.json")
