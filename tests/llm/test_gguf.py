"""GGUF folders: every row against the model its file was made of, and what is refused before anything is loaded."""

import importlib.util
import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from dbgpt_lite.errors import Cancelled, ConfigError, ModelError, OutOfMemory, UserError
from dbgpt_lite.llm import loader
from dbgpt_lite.llm.chat_choice import FormatChoice, format_of_folder
from dbgpt_lite.llm.checkpoint import Checkpoint, read_checkpoint
from dbgpt_lite.llm.forecast import Wishes, forecast
from dbgpt_lite.llm.gguf_config import ROWS, llama3_factor
from dbgpt_lite.llm.loader import LoadOptions, load, prepare
from dbgpt_lite.llm.loading import LoadState
from dbgpt_lite.llm.manager import ModelManager
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.quantized_copy import quantize_copy
from dbgpt_lite.llm.shards import stored_tensors
from dbgpt_lite.llm.sizes import CUDA_CONTEXT, CUDA_WORKSPACE
from dbgpt_lite.messages import Sampling
from tests.llm.test_manager import Canned
from tests.llm.tiny_gguf import rounded, stored, write_gguf
from tests.llm.tiny_models import LINES, answer_of, ask, make_tokenizer

CPU = LoadOptions(dtype="float32", device_map="cpu")
GREEDY = Sampling(temperature=0, max_tokens=12)
SIZES = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.3,
}  # fmt: skip
_GEMMA = {**SIZES, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8}
# Of every row a model whose numbers differ wherever mixing two up would show.
TINY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", SIZES),
    "qwen2": ("qwen2", SIZES),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 32}),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": ("gemma3_text", {**_GEMMA, "num_hidden_layers": 7}),
    "phi3": ("phi3", SIZES),
}
IDS = torch.arange(48)[None] * 7 % 500


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return folder


def random_model(model_type: str, sizes: Mapping[str, Any]) -> Any:
    """A model whose normalizations and biases are random too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes), dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture
def written(tmp_path: Path, tokenizer: Path) -> Callable[..., Path]:
    """A folder with the file of a model, a Llama unless another is given."""

    def write(model: Any = None, architecture: str = "llama", name: str = "packed", **more: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        file = folder / f"m.{more.get('kind', 'Q8_0')}.gguf"
        write_gguf(file, model or random_model("llama", SIZES), architecture, more.pop("words", tokenizer), **more)
        return folder

    return write


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(IDS).logits)


def loaded(folder: Path) -> Any:
    return load(folder, CPU)._runner._model


def key_of(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as refused:
        act()
    return refused.value.key


def test_every_row_has_a_tiny_model() -> None:
    assert TINY.keys() == ROWS.keys()


@pytest.mark.parametrize("architecture", ROWS)
def test_a_row_computes_what_its_model_computes(
    architecture: str, written: Callable[..., Path], tokenizer: Path, never: threading.Event
) -> None:
    """Exactly, once the model has the weights that packing leaves; and the plan counts them unpacked."""
    from transformers import AutoTokenizer

    model = random_model(*TINY[architecture])
    rounded(model, "Q8_0")
    folder = written(model, architecture)
    engine = load(folder, CPU)
    assert torch.equal(logits(model), logits(engine._runner._model))
    own = AutoTokenizer.from_pretrained(tokenizer)
    words = "".join(f"<|im_start|>{line}<|im_end|>  1234\n" for line in LINES)
    assert engine._tokenizer(words)["input_ids"] == own(words)["input_ids"]
    assert engine._template.render(ask("hi").messages) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    said, usage = answer_of(engine.stream(ask("Who?"), GREEDY, never))
    assert usage.completion_tokens
    assert said == greedy(model, engine, "Who?")

    found = forecast(folder, Wishes(dtype="float32", device_map="cpu"))
    assert found.count == sum(parameter.numel() for parameter in model.parameters())
    assert found.need.weights == 4 * found.count
    assert found.need.context == 512


def greedy(model: Any, engine: Any, question: str) -> str:
    """The answer of transformers' own loop."""
    ids = torch.tensor([engine._template.encode(ask(question).messages)])
    ends = sorted(engine._end)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=ends
    )
    return str(engine._tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def test_error_is_that_of_the_packing(written: Callable[..., Path], tokenizer: Path, tmp_path: Path) -> None:
    """The same weights from safetensors: the more bits, the nearer. Random weights suffer more than trained ones."""
    model = random_model("llama", SIZES)
    plain = tmp_path / "plain"
    model.save_pretrained(plain)
    make_tokenizer(plain)
    exact = logits(loaded(plain))
    errors = {
        kind: float((logits(loaded(written(model, name=kind, kind=kind))) - exact).norm() / exact.norm())
        for kind in ("F32", "F16", "Q8_0", "Q4_0")
    }
    assert errors["F32"] == 0 < errors["F16"] < 0.005 < errors["Q8_0"] < 0.1 < errors["Q4_0"]


ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 128,
        },
    ),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {},
    ),
}


@pytest.mark.parametrize("kind", ROPES)
def test_stretched_positions(kind: str, written: Callable[..., Path]) -> None:
    rope, facts = ROPES[kind]
    usual = random_model("llama", SIZES)
    sizes = {**SIZES, "max_position_embeddings": 32768, "rope_parameters": {"rope_theta": 500000.0, **rope}}
    model = random_model("llama", sizes)
    rounded(model, "Q8_0")
    factors = {}
    if kind == "llama3":
        own = model.model.rotary_emb.inv_freq
        plain = 500000.0 ** (-torch.arange(0, 16, 2) / 16)
        factors = {"rope_freqs.weight": (plain / own).numpy().astype("float32")}
    folder = written(model, facts=facts, tensors=factors)
    assert torch.equal(logits(model), logits(loaded(folder)))
    rounded(usual, "Q8_0")
    assert not torch.equal(logits(model), logits(usual))


def test_llama3_factor_is_the_published_one() -> None:
    """Meta's own rule, by wavelength (models/llama3 in meta-llama/llama-models)."""
    for place in range(64):
        wave = 500000.0 ** (place / 64)
        length = 2 * math.pi * wave
        if length < 8192 / 4:
            expected = 1.0
        elif length > 8192:
            expected = 8.0
        else:
            smooth = (8192 / length - 1) / 3
            expected = 1 / ((1 - smooth) / 8 + smooth)
        assert llama3_factor(wave, 8.0) == pytest.approx(expected)


def test_sentencepiece_words(written: Callable[..., Path], tmp_path: Path) -> None:
    """The tokens that SentencePiece itself finds, with the start token that Llamas expect."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    text, prefix = tmp_path / "lines.txt", tmp_path / "words"
    text.write_text("\n".join(LINES * 4), encoding="utf-8")
    SentencePieceTrainer.train(
        input=str(text), model_prefix=str(prefix), vocab_size=420, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    file = tmp_path / "words.model"
    folder = written(random_model("llama", {**SIZES, "vocab_size": 420}), words=file, chat_template="")
    engine = load(folder, CPU)
    words = SentencePieceProcessor(model_file=str(file))
    for line in (*LINES, "two  spaces\n\nand 龘 é", "a"):
        assert engine._tokenizer(line)["input_ids"] == [1, *words.encode(line)]
        assert engine._tokenizer.decode(words.encode(line)) == line
    assert format_of_folder(folder, read_checkpoint(folder)) == FormatChoice("guanaco", "family")
    assert engine._template.render(ask("hi").messages).endswith("### Human: hi\n### Assistant:")


def test_chat_format_is_told_by_the_file(written: Callable[..., Path]) -> None:
    with_template, without = written(name="one"), written(name="two", chat_template="")
    assert format_of_folder(with_template, read_checkpoint(with_template)) == FormatChoice("", "template")
    assert format_of_folder(without, read_checkpoint(without)) == FormatChoice("chatml", "tokens")
    (without / "dbgpt.json").write_text(json.dumps({"chat_format": "vicuna"}))
    assert format_of_folder(without, read_checkpoint(without)) == FormatChoice("vicuna", "folder")


def test_models_page_and_manager(written: Callable[..., Path], never: threading.Event) -> None:
    folder = written()
    (folder / "config.json").write_text("{}")  # hubs have one beside the file; the file itself is believed
    manager = ModelManager(folder.parent, Canned(), CPU)
    (row,) = manager.folders()
    assert (row.name, row.family, row.quantization, row.problem) == ("packed", "Llama", "GGUF, Q8_0", None)
    assert row.size_bytes == (folder / "m.Q8_0.gguf").stat().st_size
    assert manager.plan("packed", "none").fits
    assert key_of(lambda: manager.plan("packed", "nf4")) == "llm.gguf_quantized"
    manager.load("packed", "int8")
    refused = manager.wait().detail
    assert refused is not None
    assert (refused.key, refused.facts) == ("llm.gguf_quantized", {"name": "packed", "quantization": "int8"})
    manager.load("packed", "none")
    assert manager.wait().state == "ready"
    assert answer_of(manager.engine.stream(ask("hi"), GREEDY, never))[1].completion_tokens
    manager.close()


def test_progress_grows_and_a_stop_is_obeyed(written: Callable[..., Path]) -> None:
    ready = prepare(written(), CPU)
    shares: list[float] = []
    stop = threading.Event()

    def watch(state: LoadState) -> None:
        shares.append(state.share)
        if 0.3 < state.share < 0.9:
            stop.set()

    with pytest.raises(Cancelled):
        ready.load(watch, stop)
    assert 0.3 < max(shares) < 0.9
    shares.clear()
    ready.load(lambda state: shares.append(state.share))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    from tqdm.auto import tqdm
    from transformers import modeling_gguf_pytorch_utils

    assert modeling_gguf_pytorch_utils.tqdm is tqdm


def test_wrong_tensors_are_named_before_loading(written: Callable[..., Path]) -> None:
    model = random_model("llama", SIZES)
    whole = stored(model, "llama")

    def refused(name: str, key: str, names: str, **changes: Any) -> None:
        folder = written(model, name=name, tensors=changes)
        with pytest.raises(ModelError) as error:
            prepare(folder, CPU)
        assert (error.value.key, error.value.facts["names"]) == (key, names)

    short = {"blk.1.ffn_up.weight": numpy.ascontiguousarray(whole["blk.1.ffn_up.weight"][:64])}
    refused("shape", "llm.wrong_shapes", "model.layers.1.mlp.up_proj.weight", **short)
    more = {"blk.1.ffn_gate_inp.weight": whole["blk.1.ffn_up.weight"]}
    refused("more", "llm.unknown_tensors", "blk.1.ffn_gate_inp.weight", **more)
    del model.model.norm.weight
    refused("less", "llm.missing_tensors", "model.norm.weight")


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"block_count": 2}, "block_count 2"),
        ({"block_count": 10**9}, "block_count 1000000000"),
        ({"embedding_length": 32}, "embedding_length 32"),
        ({"attention.head_count_kv": None}, "attention.head_count_kv None"),
        ({"attention.head_count_kv": [2, 2, 1]}, "attention.head_count_kv (2, 2, 1)"),
        ({"attention.value_length": 8}, "attention.value_length"),
        ({"rope.dimension_count": 8}, "rope.dimension_count"),
        ({"rope.scaling.type": "longrope"}, "rope.scaling.type longrope"),
        ({"rope.freq_base": -1.0}, "rope.freq_base -1.0"),
        ({"context_length": 0}, "context_length 0"),
    ],
)
def test_what_the_table_cannot_express_is_refused(
    facts: dict[str, Any], what: str, written: Callable[..., Path]
) -> None:
    folder = written(facts=facts)
    with pytest.raises(ModelError) as refused:
        read_checkpoint(folder)
    assert refused.value.key == "llm.gguf_fact"
    assert what in str(refused.value.facts["what"])


def test_factors_of_another_kind_are_refused(written: Callable[..., Path]) -> None:
    folder = written(tensors={"rope_freqs.weight": numpy.linspace(1, 3, 8, dtype="float32")})
    with pytest.raises(ModelError, match=r"rope_freqs\.weight"):
        read_checkpoint(folder)


def test_other_architectures_are_named(written: Callable[..., Path]) -> None:
    folder = written()
    file = folder / "m.Q8_0.gguf"
    file.write_bytes(file.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
    with pytest.raises(ModelError, match=r"mamba.*llama, qwen2"):
        read_checkpoint(folder)
    (row,) = ModelManager(folder.parent, Canned(), CPU).folders()
    assert row.problem is not None
    assert row.problem.key == "llm.gguf_architecture"


def test_one_whole_file_a_folder(written: Callable[..., Path]) -> None:
    folder = written()
    file = folder / "m.Q8_0.gguf"
    (folder / "._m.gguf").write_bytes(b"what macOS leaves")
    assert read_checkpoint(folder).format == "gguf"
    (folder / "m.Q4_K_M.gguf").write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"m\.Q4_K_M\.gguf, m\.Q8_0\.gguf"):
        read_checkpoint(folder)
    (folder / "m.Q4_K_M.gguf").unlink()
    file.rename(folder / "m-00001-of-00003.gguf")
    assert key_of(lambda: read_checkpoint(folder)) == "llm.gguf_split"
    assert key_of(lambda: forecast(folder, Wishes())) == "llm.gguf_split"


def test_other_weights_come_first(written: Callable[..., Path], tiny: Path, tmp_path: Path) -> None:
    import shutil

    both = Path(shutil.copytree(tiny, tmp_path / "both"))
    shutil.copy(written() / "m.Q8_0.gguf", both)
    assert read_checkpoint(both).format == "safetensors"


def test_missing_package_is_named(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is listed and planned all the same."""
    folder, find = written(), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    assert forecast(folder, Wishes()).fits
    with pytest.raises(ModelError, match=r"pip install -e \.\[gguf\]"):
        prepare(folder, CPU)


def test_memory_to_unpack_in_is_asked_for(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written()
    weights = forecast(folder, Wishes(dtype="float32", device_map="cpu")).need.weights
    largest = 512 * 64
    monkeypatch.setattr(loader, "free_ram", lambda: weights + 8 * largest)
    prepare(folder, CPU)
    monkeypatch.setattr(loader, "free_ram", lambda: weights + 8 * largest - 1)
    with pytest.raises(OutOfMemory, match="GGUF"):
        prepare(folder, CPU)


def test_plan_offers_neither_bits_nor_disk(written: Callable[..., Path]) -> None:
    folder = written()
    checkpoint = read_checkpoint(folder)
    devices = (Device("cuda:0", CUDA_CONTEXT + CUDA_WORKSPACE + 4 * 2**20), Device("cpu", 1024), Device("disk", 2**62))

    def found(checkpoint: Checkpoint) -> Plan:
        return plan(checkpoint, dtype="float32", quantization="none", context=512, devices=devices)

    assert found(checkpoint).verdict == "too_large"
    assert {remedy.kind for remedy in found(checkpoint).remedies} == {"memory"}
    plain = found(replace(checkpoint, format="safetensors"))
    assert plain.verdict == "offload"
    assert "disk" in plain.device_map.values()
    disk = json.dumps({"": "cpu", "model.layers.1": "disk"})
    with pytest.raises(ConfigError, match="disk"):
        forecast(folder, Wishes(device_map=disk))


def test_no_copy_and_no_adapter(written: Callable[..., Path], tmp_path: Path) -> None:
    folder = written()
    assert key_of(lambda: quantize_copy(folder, tmp_path / "copy", "nf4")) == "llm.gguf_copy"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    pair = {f"{module}.lora_A.weight": torch.ones(8, 64), f"{module}.lora_B.weight": torch.ones(64, 8)}
    save_file(pair, adapter / "adapter_model.safetensors")
    entries = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "base_model_name_or_path": "someone/packed"}
    (adapter / "adapter_config.json").write_text(json.dumps(entries))
    assert key_of(lambda: prepare(adapter, CPU)) == "llm.adapter_base"


def test_tensors_have_transformers_names(written: Callable[..., Path]) -> None:
    model = random_model("llama", SIZES)
    found = {place.name: place.shape for place in stored_tensors(read_checkpoint(written(model)))}
    assert found == {name: tuple(value.shape) for name, value in model.state_dict().items()}
