"""A device map that a person wrote: read, compared with the model, and refused with the names that are wrong."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.llm.placement import STRATEGIES, Block, Device


def read_map(text: str) -> Mapping[str, str]:
    """{"model.layers.0": 0, "lm_head": "cpu"} from JSON, with devices by name. Raises ConfigError."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not given:
        raise ConfigError("llm.bad_device_map")
    return {str(prefix): device_name(place) for prefix, place in given.items()}


def device_name(place: Any) -> str:
    """0, "0", "cuda" and "cuda:0" are the same GPU."""
    name = str(place)
    return f"cuda:{name}" if name.isdigit() else "cuda:0" if name == "cuda" else name


def single_device(name: str, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The one device that a strategy names. Raises ConfigError."""
    wanted = device_name(name)
    found = tuple(device for device in devices if device.name == wanted)
    if not found:
        known = ", ".join((*STRATEGIES, *(device.name for device in devices)))
        raise ConfigError("llm.bad_device", value=name, known=known)
    return found


def fixed_places(
    blocks: Sequence[Block], text: str, devices: Sequence[Device], beside: Sequence[str] = ()
) -> tuple[str, ...]:
    """The device of each block by a map in JSON. The longest prefix that covers a name decides.

    `beside`: modules without parameters, which a map may name. A tied weight need not be named.

    Raises ConfigError: for unknown devices, for names that no parameter has, for parameters that no name covers, and
    for a map that tears a layer or tied weights apart.
    """
    given = read_map(text)
    known = {device.name for device in devices}
    if strange := sorted(set(given.values()) - known):
        raise ConfigError("llm.bad_device", value=", ".join(strange), known=", ".join(sorted(known)))
    names = [name for block in blocks for name in block.parameters]
    every = [*names, *(name for block in blocks for name in block.tied), *beside]
    if unused := [prefix for prefix in given if not any(covers(prefix, name) for name in every)]:
        raise ConfigError("llm.map_unknown", names=_some(unused), count=len(unused))
    if open_ := [name for name in names if not any(covers(prefix, name) for prefix in given)]:
        raise ConfigError("llm.map_uncovered", names=_some(open_), count=len(open_))
    places = [
        {given[found] for name in (*block.parameters, *block.tied) if (found := _longest(given, name)) is not None}
        for block in blocks
    ]
    if torn := [block.names[0] for block, found in zip(blocks, places, strict=True) if len(found) > 1]:
        raise ConfigError("llm.map_splits", names=_some(torn), count=len(torn))
    return tuple(found.pop() for found in places)


def covers(prefix: str, name: str) -> bool:
    """Whether a key of a device map stands for a parameter."""
    return prefix in ("", name) or name.startswith(f"{prefix}.")


def _longest(given: Mapping[str, str], name: str) -> str | None:
    return max((prefix for prefix in given if covers(prefix, name)), key=len, default=None)


def _some(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:5])
