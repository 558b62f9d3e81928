"""What would make a model fit: each remedy is worked out as a case of its own; they are ranked by what they cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dbgpt_lite.errors import UserError
from dbgpt_lite.llm.case import Case
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.quantize import Quantization
from dbgpt_lite.llm.sizes import Numbers
from dbgpt_lite.llm.units import gib

# A window shorter than this holds no question with its documents.
LEAST_WINDOW = 512
# Of these, the first that fits costs the least quality.
_BY_QUALITY: tuple[Numbers, ...] = ("int8", "nf4", "int4")
_STEP = 256
# Numbers of worse quality are worth naming when they take this share of the memory at most.
_WORTH = 0.99


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change. `total`: GiB that the model then takes; `extra`: bytes to add to the first device, or a card of
    `total` bytes; the other facts are what to set."""

    kind: Literal["context", "users", "quantize", "quantize_context", "spread", "cpu", "memory"]
    numbers: str = ""
    context: int = 0
    users: int = 0
    total: int = 0
    extra: int = 0

    @property
    def text(self) -> UserError:
        """The sentence to show, with the setting to change."""
        return self._said(self.kind)

    @property
    def text_here(self) -> UserError:
        """The sentence beside a choice of how to quantize: what to choose there."""
        return self._said(f"{self.kind}_here" if self.numbers else self.kind)

    def _said(self, name: str) -> UserError:
        return UserError(
            f"llm.remedy_{name}",
            quantization=self.numbers,
            context=self.context,
            users=self.users,
            total=gib(self.total),
            extra=gib(self.extra),
        )


def remedies(case: Case) -> tuple[Remedy, ...]:
    """What would keep every layer where it computes, best first; the last is always more memory.

    Fewer users and a shorter window change no answer, so they come first where they leave a useful window; then fewer
    bits, then fewer bits with a shorter window, then the slow ways, then buying memory.
    """
    mild = [*_users(case), *_context(case, case.context // 4)]
    bits = list(_quantized(case))
    harsh = [] if mild or bits else [*_context(case, LEAST_WINDOW), *_quantized_shorter(case)]
    return (*mild, *bits, *harsh, *_slow(case), *_memory(case))


def fits(case: Case) -> bool:
    """Whether every layer is where it computes."""
    return case.verdict == "fits"


def largest_context(case: Case, least: int, good: Callable[[Case], bool] = fits) -> int:
    """The longest window from `least` tokens up to the case's own that is good, in steps of 256; 0 when none is.

    `good`: something that a longer window only ends.
    """
    if least > case.context or not good(case.changed(context=least)):
        return 0
    steps = (case.context - least) // _STEP
    best = _last(steps, lambda step: good(case.changed(context=least + step * _STEP)))
    return least + best * _STEP


def _last(high: int, good: Callable[[int], bool]) -> int:
    """The largest number from 0 to `high` that is good, when 0 is and badness never ends."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if good(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _total(case: Case) -> int:
    return sum(row.total for row in case.rows)


def _users(case: Case) -> Iterator[Remedy]:
    if case.users == 1 or case.changed(users=1).verdict != "fits":
        return
    users = 1 + _last(case.users - 1, lambda more: case.changed(users=1 + more).verdict == "fits")
    yield Remedy("users", users=users, total=_total(case.changed(users=users)))


def _context(case: Case, least: int) -> Iterator[Remedy]:
    least = max(LEAST_WINDOW, least // _STEP * _STEP)
    if (window := largest_context(case, least)) and window < case.context:
        yield Remedy("context", context=window, total=_total(case.changed(context=window)))


def _fewer_bits(case: Case) -> Iterator[Case]:
    """The same model in the numbers that take less; weights stored quantized stay as they are."""
    offered = [numbers for numbers in _BY_QUALITY if numbers in get_args(Quantization)]
    if case.outline.unpacked or case.outline.stored != "none" or case.numbers not in ("none", *offered):
        return
    start = offered.index(case.numbers) + 1 if case.numbers in offered else 0
    smaller = (case.changed(numbers=numbers) for numbers in offered[start:])
    yield from (one for one in smaller if one.allowed)


def _quantized(case: Case) -> Iterator[Remedy]:
    """Fewer bits, without those that save next to nothing more than the ones before."""
    least = 0
    for smaller in _fewer_bits(case):
        total = _total(smaller)
        if smaller.verdict == "fits" and (not least or total < _WORTH * least):
            least = total
            yield Remedy("quantize", smaller.numbers, total=total)


def _quantized_shorter(case: Case) -> Iterator[Remedy]:
    for smaller in _fewer_bits(case):
        if window := largest_context(smaller, LEAST_WINDOW):
            total = _total(smaller.changed(context=window))
            yield Remedy("quantize_context", smaller.numbers, window, total=total)
            return


def _slow(case: Case) -> Iterator[Remedy]:
    """Over all devices instead of one; on the processor instead of the GPUs."""
    if case.verdict != "too_large" and not case.fixed:
        return
    everywhere = case.changed(devices=case.others or case.devices, fixed=(), strategy="auto")
    better = ("fits", "offload") if case.verdict == "too_large" else ("fits",)
    if (case.others or case.fixed) and everywhere.verdict in better:
        yield Remedy("spread", total=_total(everywhere))
        return
    alone = tuple(device for device in case.devices if device.kind == "cpu")
    if alone and alone[0] not in case.compute and not case.fixed:
        slow = case.changed(devices=alone)
        if slow.verdict == "fits":
            yield Remedy("cpu", total=_total(slow))


def _memory(case: Case) -> Iterator[Remedy]:
    """The least to add to the first device, and how large one device would have to be that holds everything."""
    first = case.compute[0]
    alone = case.changed(devices=(_with(first, 2**60),), fixed=(), strategy="auto")
    total = _total(alone)

    def short_of(extra: int) -> bool:
        devices = tuple(_with(one, one.free + extra) if one == first else one for one in case.devices)
        return case.changed(devices=devices).verdict != "fits"

    most = total + first.free
    # A map may hold too much on another device than the first.
    extra = max(row.over for row in case.rows) if case.fixed else _last(most, short_of) + 1
    if extra:
        yield Remedy("memory", total=total, extra=extra)


def _with(device: Device, free: int) -> Device:
    return replace(device, free=free)
