"""Models filled tensor by tensor, against transformers' own loading of the same checkpoints."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.architecture import empty_model
from dbgpt_lite.llm.filler import Filler
from dbgpt_lite.llm.quantize import bitsandbytes_config
from tests.llm.tiny_models import make_model


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose attention has biases, in shards."""
    folder = tmp_path_factory.mktemp("models") / "biased"
    make_model(folder, attention_bias=True, intermediate_size=192)
    return folder


def tensors_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def empty(folder: Path, dtype: Any) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return empty_model(config, dtype)


def filled(folder: Path, dtype: Any, tensors: Any = None, **how: Any) -> Any:
    """The model of `folder`, filled with its tensors in an order of no meaning, each through a buffer used again."""
    import torch

    model = empty(folder, dtype)
    filler = Filler(model, dtype, **how)
    items = list((tensors or tensors_of(folder)).items())
    random.Random(3).shuffle(items)
    for name, tensor in items:
        buffer = tensor.clone()
        filler.put(name, buffer, "cpu")
        buffer.zero_() if buffer.dtype != torch.bool else None
    filler.finish()
    rotary(model)
    return model


def rotary(model: Any) -> None:
    """Buffers that no checkpoint holds."""
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([[1, 5, 9, 200, 17, 3]])).logits


def reference(folder: Path, dtype: Any, quantization: Any = "none") -> Any:
    from transformers import AutoModelForCausalLM

    given = {"quantization_config": bitsandbytes_config(quantization)} if quantization != "none" else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cpu", **given).eval()


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_logits_as_transformers(biased: Path, quantization: Any, dtype: str) -> None:
    import torch

    kind = getattr(torch, dtype)
    expected = logits(reference(biased, kind, quantization))
    assert torch.equal(logits(filled(biased, kind, quantization=quantization)), expected)
    if quantization != "none":
        assert not torch.equal(expected, logits(reference(biased, kind)))


@pytest.mark.parametrize(("quantization", "double"), [("nf4", True), ("nf4", False), ("fp4", True), ("int8", True)])
def test_a_copy_saved_by_transformers(biased: Path, tmp_path: Path, quantization: Any, double: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = bitsandbytes_config("int8" if quantization == "int8" else "nf4")
    if quantization != "int8":
        config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant = quantization, double
    saved = AutoModelForCausalLM.from_pretrained(
        biased, dtype=torch.bfloat16, device_map="cpu", quantization_config=config
    )
    saved.save_pretrained(tmp_path / "copy")
    expected = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "copy", device_map="cpu").eval())
    assert torch.equal(logits(filled(tmp_path / "copy", torch.bfloat16, stored=quantization)), expected)


@pytest.mark.parametrize(("rows", "columns"), [(40, 64), (1, 128), (33, 192), (64, 128)])
def test_rows_that_fill_no_whole_tiles(rows: int, columns: int) -> None:
    """bitsandbytes' fast path on a CPU takes 32 rows at a time only."""
    import torch
    from bitsandbytes.nn import Linear4bit

    from dbgpt_lite.llm.quantized_layers import expanded, fill, quantized

    torch.manual_seed(4)
    weight, x = torch.randn(rows, columns, dtype=torch.bfloat16), torch.randn(3, columns, dtype=torch.bfloat16)
    layer = Linear4bit(columns, rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").eval()
    tensors = quantized("nf4", weight)
    values = expanded("nf4", (rows, columns), tensors, torch.bfloat16)
    fill(layer, "nf4", (rows, columns), tensors)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), x @ values.T, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 140))
def test_4bit_values_are_near_their_weights(kind: str, double: bool, rows: int, columns: int) -> None:
    """Of any shape: bitsandbytes 0.50 unpacks (64, 96) wrongly on a CPU, so such layers are expanded here."""
    import torch
    from bitsandbytes import functional

    from dbgpt_lite.llm.quantized_layers import expanded, must_expand

    torch.manual_seed(rows * 1000 + columns)
    weight = torch.randn(rows, columns)
    numbers, state = functional.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=double)
    tensors = {"weight": numbers} | {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    values = expanded(kind, (rows, columns), tensors, torch.float32)
    widest = {"nf4": 0.153, "fp4": 0.168}[kind]  # half of the widest gap between two levels
    blocks = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64)).reshape(-1, 64)
    room = blocks.abs().amax(dim=1).repeat_interleave(64)[: weight.numel()].reshape(weight.shape)
    assert ((values - weight).abs() <= (widest + 0.05) * room + 0.05 * room.max()).all()
    assert must_expand(kind, (rows, columns), tensors) == (columns % 64 > 0)
    if columns % 64 == 0:
        torch.testing.assert_close(values, functional.dequantize_4bit(numbers, state), rtol=1e-5, atol=1e-5)


def test_the_head_and_what_is_kept_stay_whole(biased: Path) -> None:
    import torch

    model = filled(biased, torch.float32, quantization="int4", keep=("model.layers.1", "down_proj"))
    plain = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    assert "lm_head" in plain
    assert {f"model.layers.{layer}.mlp.down_proj" for layer in range(3)} <= plain
    assert "model.layers.1.self_attn.q_proj" in plain
    assert "model.layers.0.self_attn.q_proj" not in plain


def packed(tensors: dict[str, Any], bits: int) -> Iterator[tuple[str, Any]]:
    """Linear layers and the embedding as ChatGLM checkpoints pack them."""
    import torch

    from dbgpt_lite.llm.int4 import quantize_rows

    for name, tensor in tensors.items():
        if ("_proj" not in name and "embed" not in name) or tensor.ndim != 2:
            yield name, tensor
        elif bits == 4:
            numbers, scale = quantize_rows(tensor)
            yield from ((name, numbers), (f"{name}_scale", scale))
        else:
            scale = (tensor.abs().amax(dim=1) / 127).half()
            yield name, (tensor / scale.float()[:, None]).round().to(torch.int8)
            yield f"{name}_scale", scale


@pytest.mark.parametrize(("stored", "bits"), [("int4", 4), ("row8", 8)])
def test_packed_checkpoints_stay_packed(biased: Path, stored: str, bits: Any) -> None:
    """The same logits as a model of the unpacked weights, in a part of its memory."""
    import torch

    from dbgpt_lite.llm.int4 import PackedLinear, unpack

    tensors = dict(packed(tensors_of(biased), bits))
    whole = {
        name: unpack(tensor, tensors[f"{name}_scale"], bits, torch.float32) if f"{name}_scale" in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith("_scale")
    }
    model = filled(biased, torch.float32, tensors, stored=stored)
    torch.testing.assert_close(logits(model), logits(filled(biased, torch.float32, whole)), rtol=1e-5, atol=1e-4)
    layer = model.model.layers[0].mlp.down_proj
    assert isinstance(layer, PackedLinear)
    assert layer.weight.numel() == 64 * 192 * bits // 8
    assert type(model.model.embed_tokens.weight.data) is torch.Tensor


def test_packed_while_loading(biased: Path) -> None:
    import torch

    tensors = dict(packed({k: v for k, v in tensors_of(biased).items() if "embed" not in k}, 4))
    tensors["model.embed_tokens.weight"] = tensors_of(biased)["model.embed_tokens.weight"]
    stored = filled(biased, torch.float32, tensors, stored="int4")
    assert torch.equal(logits(filled(biased, torch.float32, quantization="int4")), logits(stored))


@pytest.mark.parametrize("quantization", ["nf4", "int8", "int4"])
def test_layers_that_keep_their_weight_transposed(tmp_path: Path, quantization: Any) -> None:
    """GPT-2's Conv1D: the same logits as the model with the quantized values written back."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(5)
    config = GPT2Config(vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = empty_model(config, torch.float32)
    filler = Filler(model, torch.float32, quantization)
    for name, tensor in tensors_of(tmp_path).items():
        filler.put(f"transformer.{name}" if not name.startswith(("transformer.", "lm_head")) else name, tensor, "cpu")
    filler.finish()
    ids = torch.tensor([[1, 5, 9, 20]])
    with torch.inference_mode():
        got = model(ids).logits
    if quantization == "int4":
        expected = reference(tmp_path, torch.float32)
        for name, module in expected.named_modules():
            if hasattr(module, "nf"):
                layer = model.get_submodule(name)
                from dbgpt_lite.llm.int4 import unpack_int4

                module.weight.data = unpack_int4(layer.weight, layer.weight_scale, torch.float32).T.contiguous()
    else:
        expected = reference(tmp_path, torch.float32, quantization)
    with torch.inference_mode():
        torch.testing.assert_close(got, expected(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", ["lm_head.weight", "model.embed_tokens.weight"])
def test_tied_weights_in_either_order(tmp_path: Path, first: str) -> None:
    import torch

    make_model(tmp_path, tie_word_embeddings=True)
    tensors = tensors_of(tmp_path)
    table = tensors.pop("model.embed_tokens.weight")
    both = ["lm_head.weight", "model.embed_tokens.weight"]
    model = empty(tmp_path, torch.float32)
    filler = Filler(model, torch.float32, "int4")
    for name in sorted(both, key=lambda name: name != first):
        filler.put(name, table, "cpu")
    for name, tensor in tensors.items():
        filler.put(name, tensor, "cpu")
    filler.finish()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, table)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int4"])
def test_what_no_shard_held_is_named(biased: Path, quantization: Any) -> None:
    import torch

    tensors = tensors_of(biased)
    del tensors["model.layers.1.self_attn.q_proj.bias"], tensors["model.layers.2.mlp.up_proj.weight"]
    with pytest.raises(ModelError, match=r"lack 2 .*layers\.1\.self_attn\.q_proj\.bias, .*layers\.2\.mlp\.up_proj"):
        filled(biased, torch.float32, tensors, quantization=quantization)


@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_wrong_names_shapes_and_types_are_refused(biased: Path, quantization: Any) -> None:
    import torch

    filler = Filler(empty(biased, torch.float32), torch.float32, quantization)
    name = "model.layers.0.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=r"does not describe: .*layers\.9\.mlp"):
        filler.put("model.layers.9.mlp.up_proj.weight", torch.zeros(192, 64), "cpu")
    for wrong in (torch.zeros(64, 192), torch.zeros(192, 64, dtype=torch.int8)):
        with pytest.raises(ModelError, match=r"another shape .*layers\.0\.mlp\.up_proj\.weight"):
            filler.put(name, wrong, "cpu")
    filler.put(name, torch.zeros(192, 64), "cpu")
    with pytest.raises(ModelError, match=r"does not describe: .*layers\.0\.mlp"):
        filler.put(name, torch.zeros(192, 64), "cpu")


Q = "model.layers.0.self_attn.q_proj"


def four_bit(shape: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    import torch

    from dbgpt_lite.llm.quantized_layers import quantized

    torch.manual_seed(1)
    return quantized("nf4", torch.randn(shape))


def test_a_quantized_layer_with_a_missing_part_is_named(biased: Path) -> None:
    import torch

    filler = Filler(empty(biased, torch.float32), torch.float32, stored="nf4")
    for own, tensor in four_bit().items():
        if own != "weight.nested_absmax":
            filler.put(f"{Q}.{own}", tensor, "cpu")
    with pytest.raises(ModelError, match=rf"{Q}\.weight\.nested_absmax"):
        Filler.finish(only(filler, Q))


def only(filler: Filler, layer: str) -> Filler:
    """The filler as if all but one layer were there."""
    filler._open = {name for name in filler._open if name.startswith(layer) and not name.endswith("bias")}
    return filler


@pytest.mark.parametrize(
    ("own", "shape"),
    [
        ("weight", (2047, 1)),
        ("weight.absmax", (63,)),
        ("weight.quant_map", (15,)),
        ("weight.nested_absmax", (0,)),
        ("weight.nested_quant_map", (255,)),
        ("weight.quant_state.bitsandbytes__nf4", (20,)),
    ],
)
def test_parts_of_the_wrong_size_never_reach_a_kernel(biased: Path, own: str, shape: tuple[int, ...]) -> None:
    import torch

    filler = Filler(empty(biased, torch.float32), torch.float32, stored="nf4")
    tensors = four_bit()
    tensors[own] = torch.zeros(shape, dtype=tensors[own].dtype)

    def put_all() -> None:
        for name, tensor in tensors.items():
            filler.put(f"{Q}.{name}", tensor, "cpu")

    with pytest.raises(ModelError, match=own.replace(".", r"\.")):
        put_all()


def test_a_state_of_another_shape_is_refused(biased: Path) -> None:
    import torch

    filler = Filler(empty(biased, torch.float32), torch.float32, stored="nf4")
    tensors = four_bit((32, 128))
    state = "weight.quant_state.bitsandbytes__nf4"
    for name in tensors.keys() - {state}:
        filler.put(f"{Q}.{name}", tensors[name], "cpu")
    with pytest.raises(ModelError, match=r"q_proj\.weight\.quant_state"):
        filler.put(f"{Q}.{state}", tensors[state], "cpu")


@pytest.mark.parametrize("wrong", ["scale", "weight", "layout"])
def test_int8_parts_that_do_not_fit(biased: Path, wrong: str) -> None:
    import torch

    filler = Filler(empty(biased, torch.float32), torch.float32, stored="int8")
    tensors = {
        "weight": torch.zeros(64, 32 if wrong == "weight" else 64, dtype=torch.int8),
        "SCB": torch.ones(63 if wrong == "scale" else 64),
        "weight_format": torch.tensor(int(wrong == "layout"), dtype=torch.uint8),
    }

    def put_all() -> None:
        for name, tensor in tensors.items():
            filler.put(f"{Q}.{name}", tensor, "cpu")

    with pytest.raises(ModelError, match={"scale": "SCB", "weight": "weight", "layout": "weight_format"}[wrong]):
        put_all()
