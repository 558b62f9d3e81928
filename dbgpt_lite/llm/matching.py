"""Stored tensors against the parameters of the model, by names and shapes, before a byte of data is read. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.renaming import Part, parts
from dbgpt_lite.llm.shards import StoredTensor

Shape = tuple[int, ...]
# What older versions of transformers saved and every model makes by itself: rotary frequencies, positions, masks.
_HARMLESS = re.compile(r"(^|\.)(rotary_(pos_)?emb\.inv_freq|position_ids|att(n|ention)\.(masked_)?bias)$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model needs: shapes by name; `tied`: names that share the tensor of another ({name: that other});
    `prefix` may be left out in the files; `ignored`: patterns of names that the model knows and does not use."""

    shapes: Mapping[str, Shape]
    tied: Mapping[str, str]
    prefix: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One stored tensor and the parameters it becomes."""

    place: StoredTensor
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """How the files fit the model. `missing` and `unknown` are both filled when names differ throughout."""

    routes: tuple[Route, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshaped: tuple[str, ...]

    def check(self, name: str) -> None:
        """Raise ModelError that names the tensors, unless everything fits."""
        for key, names in (
            ("llm.missing_tensors", self.missing),
            ("llm.wrong_shapes", self.misshaped),
            ("llm.unknown_tensors", self.unknown),
        ):
            if names:
                raise ModelError(key, names=", ".join(names[:5]), count=len(names), name=name)


def wanted_of(model: Any) -> Wanted:
    """What a model made on the meta device needs."""
    return Wanted(
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        tied=dict(getattr(model, "all_tied_weights_keys", None) or {}),
        prefix=str(getattr(model, "base_model_prefix", "")),
        ignored=tuple(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()),
    )


def match(
    config: Mapping[str, Any],
    places: Sequence[StoredTensor],
    wanted: Wanted,
    quantized: bool = False,
    rename: Callable[[str], str] | None = None,
) -> Match:
    """Which parameters each stored tensor becomes. `quantized`: the files hold packed matrices and their constants,
    whose shapes only the one who fills the model can judge. `rename`: from a stored name to the model's."""
    routes, unknown, misshaped = [], [], []
    for place in places:
        made = parts(config, rename(place.name) if rename else place.name, place.shape)
        found = tuple(_known(part, wanted) for part in made)
        strange = [part for part in found if part.name not in wanted.shapes]
        if strange and not (quantized and all(_is_constant(part.name, wanted) for part in strange)):
            if not _dropped(place.name, strange, wanted):
                unknown.append(place.name)
            continue
        if found:
            routes.append(Route(place, found))
        if not (quantized and _packed(place)):
            misshaped += [part.name for part in found if not _fits(part, place.shape, wanted)]
    held = {part.name for route in routes for part in route.parts}
    missing = sorted(name for name in set(wanted.shapes) - held if not _shared(name, wanted.tied, held))
    return Match(tuple(routes), tuple(missing), tuple(sorted(unknown)), tuple(sorted(misshaped)))


def _known(part: Part, wanted: Wanted) -> Part:
    """With the prefix that base models leave out."""
    longer = f"{wanted.prefix}.{part.name}"
    if part.name in wanted.shapes or longer not in wanted.shapes:
        return part
    return replace(part, name=longer)


def part_shape(part: Part, stored: Shape) -> Shape | None:
    """Shape of the rows that a part takes of a stored tensor; None when the tensor does not have them."""
    if not part.rows:
        return stored
    rows = stored[0] if stored else 0
    every = part.every or rows
    if not rows or rows % every or part.start + part.rows > every:
        return None
    return (rows // every * part.rows, *stored[1:])


def _packed(place: StoredTensor) -> bool:
    """A quantized matrix: whole numbers, or a column of anything (4-bit weights may be kept in other types)."""
    return place.dtype in ("I8", "U8", "I32") or place.shape[1:] == (1,)


def _dropped(stored: str, strange: Iterable[Part], wanted: Wanted) -> bool:
    names = (stored, *(part.name for part in strange))
    return any(_HARMLESS.search(name) or any(re.search(rule, name) for rule in wanted.ignored) for name in names)


def _is_constant(name: str, wanted: Wanted) -> bool:
    """Whether a name belongs to a quantized matrix: X.SCB, X.weight.absmax or X.weight_scale beside X.weight."""
    words = name.split(".")
    owners = (".".join((*words[:end], "weight")) for end in range(len(words) - 1, 0, -1))
    return any(len(wanted.shapes.get(owner, ())) == 2 for owner in owners)


def _fits(part: Part, stored: Shape, wanted: Wanted) -> bool:
    """Whether a part has its parameter's shape; constants of quantized matrices have no parameter."""
    return part.name not in wanted.shapes or part_shape(part, stored) == wanted.shapes[part.name]


def _shared(name: str, tied: Mapping[str, str], held: set[str]) -> bool:
    """Whether a tensor that shares its values with `name` is held."""
    source = tied.get(name, name)
    group = {source, *(other for other, origin in tied.items() if origin == source)}
    return len(group) > 1 and bool(group & held)
