"""Which parameters of the transformers model a stored tensor becomes. Pure: names and shapes, no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `start` to `start + rows` of a stored tensor become the parameter `name`; `rows` 0: the whole tensor."""

    name: str
    start: int = 0
    rows: int = 0


def parts(config: Mapping[str, Any], stored: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
    """Parameters that the tensor `stored` of a checkpoint with this config.json becomes; () when none needs it."""
    return (Part(stored),)
