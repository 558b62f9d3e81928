"""Names and shapes against a model, before anything is read."""

from pathlib import Path

import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.matching import Wanted, match, part_shape
from dbgpt_lite.llm.renaming import Part
from dbgpt_lite.llm.shards import StoredTensor

WANTED = Wanted({"model.a.weight": (4, 8), "model.norm.weight": (8,), "head.weight": (4, 8)}, {}, "model")


def stored(name: str, *shape: int, dtype: str = "F16") -> StoredTensor:
    return StoredTensor(name, dtype, shape, Path("model.safetensors"), 0, 0, ())


FULL = (stored("model.a.weight", 4, 8), stored("model.norm.weight", 8), stored("head.weight", 4, 8))


def test_everything_fits() -> None:
    found = match({}, FULL, WANTED)
    found.check("tiny")
    assert [route.parts[0].name for route in found.routes] == list(WANTED.shapes)


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (FULL[:2], r"tiny lack 1 tensors: head\.weight"),
        ((*FULL[:2], stored("head.weight", 8, 4)), r"1 tensors of tiny have another shape.*: head\.weight"),
        ((*FULL, stored("head.bias", 4)), r"hold 1 tensors .*: head\.bias"),
        ((*FULL, stored("model.a.weight_scale", 4)), r"hold 1 tensors .*: model\.a\.weight_scale"),
    ],
)
def test_what_does_not_fit_is_named(places: tuple[StoredTensor, ...], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        match({}, places, WANTED).check("tiny")


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "h.0.attn.bias", "h.1.attn.masked_bias", "position_ids"]
)
def test_what_older_versions_saved_is_left_alone(name: str) -> None:
    match({}, (*FULL, stored(name, 4)), WANTED).check("tiny")


def test_names_that_the_model_ignores_itself() -> None:
    wanted = Wanted(WANTED.shapes, {}, "model", (r"model\.layers\.92.*",))
    match({}, (*FULL, stored("model.layers.92.a.weight", 3)), wanted).check("tiny")


def test_a_base_model_leaves_its_prefix_out() -> None:
    found = match({}, (stored("a.weight", 4, 8), *FULL[1:]), WANTED)
    found.check("tiny")
    assert found.routes[0].parts == (Part("model.a.weight"),)


@pytest.mark.parametrize("held", ["model.a.weight", "head.weight"])
def test_either_name_of_a_tied_tensor_will_do(held: str) -> None:
    wanted = Wanted(WANTED.shapes, {"head.weight": "model.a.weight"}, "model")
    match({}, (stored(held, 4, 8), FULL[1]), wanted).check("tiny")
    with pytest.raises(ModelError, match="lack 2"):
        match({}, FULL[1:2], wanted).check("tiny")


def test_constants_of_quantized_matrices_belong_to_them() -> None:
    places = (
        stored("model.a.weight", 16, 1, dtype="U8"),
        stored("model.a.weight.absmax", 1, dtype="U8"),
        stored("model.norm.weight", 8),
        stored("head.weight", 4, 8, dtype="I8"),
        stored("head.SCB", 4, dtype="F32"),
    )
    match({}, places, WANTED, quantized=True).check("tiny")
    with pytest.raises(ModelError, match="does not describe"):
        match({}, (*places, stored("other.SCB", 4)), WANTED, quantized=True).check("tiny")
    with pytest.raises(ModelError, match=r"another shape.*model\.norm\.weight"):
        match({}, (*places[:2], stored("model.norm.weight", 9), *places[3:]), WANTED, quantized=True).check("tiny")


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (Part("x"), (12, 5)),
        (Part("x", 4, 8), (8, 5)),
        (Part("x", 8, 8), None),
        (Part("x", 1, 2, 3), (8, 5)),
        (Part("x", 0, 5, 5), None),
        (Part("x", 2, 2, 3), None),
    ],
)
def test_rows_of_a_part(part: Part, shape: tuple[int, ...] | None) -> None:
    import torch

    assert part_shape(part, (12, 5)) == shape
    if shape:
        assert tuple(part.take(torch.zeros(12, 5)).shape) == shape
