"""Will it fit, and where? Worked out from config.json before anything is loaded; no torch for families with a row.

All sizes are bytes; GiB appears only in the texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dbgpt_lite.errors import ConfigError, ModelError, OutOfMemory, UserError
from dbgpt_lite.llm.case import Case, Row, Verdict
from dbgpt_lite.llm.checkpoint import Checkpoint
from dbgpt_lite.llm.device_map import fixed_places, single_device
from dbgpt_lite.llm.families import shape
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.llm.placement import STRATEGIES, Device
from dbgpt_lite.llm.remedies import LEAST_WINDOW, Remedy, largest_context, remedies
from dbgpt_lite.llm.sizes import Numbers
from dbgpt_lite.llm.speed import Speed, speed
from dbgpt_lite.llm.units import gib

# A window that the model's own is cut down to when nobody asked for one; below that, chats break off too early.
SHORTEST_WINDOW = 2048
# The longest window that is worth streaming layers for: a longer one takes the room of layers that could compute
# without being streamed, at every token.
OFFLOAD_WINDOW = 8192


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes: its weights, the key/value caches of `users` full windows, and room to work."""

    weights: int
    cache: int
    working: int
    context: int
    users: int = 1

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.working


@dataclass(frozen=True, slots=True)
class Plan:
    """Whether and how a model fits these devices, worked out from `case`.

    `device_map` is complete over all parameters by prefix ("model.layers.0"): "cuda:0", "cpu" or "disk"; empty when it
    does not fit. `remedies` would make it fit, or fast, best first. `speed` is None for devices of unknown bandwidth.
    `unquantized`: bytes of experts that stay as they are where the other layers are quantized. `stepped`: whether the
    GPU's own kernels shall compute it, which takes more room; `fast_window`: the window that would leave it that room.
    """

    case: Case
    name: str
    count: int
    need: Need
    rows: tuple[Row, ...]
    verdict: Verdict
    numbers: Numbers
    dtype: str
    device_map: Mapping[str, str]
    remedies: tuple[Remedy, ...] = ()
    speed: Speed | None = None
    unquantized: int = 0
    stepped: bool = False
    fast_window: int = 0

    @property
    def fits(self) -> bool:
        """Whether it can be loaded, however slow."""
        return self.verdict != "too_large"

    @property
    def head(self) -> Mapping[str, object]:
        """Facts for the line that says what was asked."""
        return {
            "name": self.name,
            "count": f"{self.count:,}",
            "numbers": self.dtype if self.numbers == "none" else self.numbers,
            "context": f"{self.need.context:,}",
            "users": self.need.users,
        }

    @property
    def sentence(self) -> UserError:
        """The verdict in words."""
        facts = {"total": gib(self.need.total), "free": gib(self.available), "away": gib(self._away)}
        return UserError(f"llm.verdict_{self.verdict}", **facts)

    @property
    def speed_sentence(self) -> UserError:
        """Tokens a second in words."""
        if self.speed is None:
            return UserError("llm.plan_speed_unknown")
        return UserError("llm.plan_speed", first=_rate(self.speed.first), full=_rate(self.speed.full))

    @property
    def notes(self) -> tuple[UserError, ...]:
        """What else should be known, in words."""
        found: list[UserError] = []
        if self.unquantized:
            found.append(UserError("llm.plan_experts", experts=gib(self.unquantized), dtype=self.dtype))
        if self.fast_window:
            found.append(UserError("llm.plan_fast_window", context=self.fast_window))
        return tuple(found)

    @property
    def _away(self) -> int:
        """Bytes of weights that are kept where nothing computes."""
        return sum(row.weights for row in self.rows if not row.working)

    @property
    def available(self) -> int:
        """Free bytes over the devices it would use."""
        return sum(row.device.free for row in self.rows if row.device.kind != "disk")

    def check(self) -> None:
        """Raise OutOfMemory with the numbers and what to change, unless it fits."""
        if self.fits:
            return
        raise OutOfMemory(
            "llm.too_large",
            name=self.name,
            weights=gib(self.need.weights),
            cache=gib(self.need.cache),
            context=self.need.context,
            users=self.need.users,
            total=gib(self.need.total),
            free=gib(self.available),
            devices=", ".join(f"{row.device.name} {gib(row.device.free)} GiB" for row in self.rows),
            remedy=self.remedies[0].text,
        )


def plan(
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: str,
    context: int,
    devices: tuple[Device, ...],
    strategy: str = "auto",
    users: int = 1,
) -> Plan:
    """Place a model on devices. `strategy`: auto, balanced, balanced_low_0, sequential, a device, or a map in JSON.

    `context` 0: the model's own window, or the largest one from 2,048 tokens that fits without offloading; with it,
    8,192 tokens at most. Up to half of it is given up for captured steps. Weights that are stored quantized stay so.
    bitsandbytes keeps quantized layers where they were made, so with GPUs the memory beside them does not count for
    int8 and nf4. Raises ConfigError for a map that does not match the model, and ModelError for a quantization of a
    GGUF file.
    """
    drawn = outline(checkpoint)
    if drawn.unpacked and quantization != "none":
        raise ModelError("llm.gguf_quantized", name=drawn.name, quantization=quantization)
    numbers: Numbers = drawn.stored if drawn.stored != "none" else quantization  # type: ignore[assignment]
    own = shape(checkpoint.config).context_length
    case = Case(drawn, dtype, numbers, min(context or own, own), max(1, users), devices, strategy)
    if strategy.lstrip().startswith("{"):
        case = case.changed(strategy="auto", fixed=fixed_places(case.blocks, strategy, devices, drawn.beside))
        if not case.allowed:
            raise ConfigError("llm.map_quantized", quantization=case.numbers)
        if drawn.unpacked and "disk" in case.fixed:
            raise ConfigError("llm.gguf_on_disk", name=drawn.name)
    elif strategy not in STRATEGIES:
        alone = single_device(strategy, devices)
        case = case.changed(strategy="auto", devices=alone, others=devices if len(devices) > 1 else ())
    case = case if context else _own_window(case)
    return _plan(case)


def without_steps(place: Plan) -> Plan:
    """The same for a model that lies where it is planned and cannot be computed by captured steps after all.

    Where that leaves no room for the window, it is shorter; what has room for none does not fit.
    """
    case = place.case.changed(plain=True, devices=place.case.compute)
    if case.verdict != "fits":
        least = min(case.context, LEAST_WINDOW)
        case = case.changed(context=largest_context(case, least) or least)
    return _plan(case)


def _rate(tokens: float) -> str:
    return f"{tokens:.0f}" if tokens >= 10 else f"{tokens:.2g}"


def _stepped(case: Case) -> bool:
    return case.stepped


def _own_window(case: Case) -> Case:
    """The longest window that leaves room for captured steps, which are several times as fast; where plain steps have
    more than twice as long a one, that."""
    long = _longest_window(case)
    if long.stepped:
        return long
    least = max(min(case.context, SHORTEST_WINDOW), (long.context + 1) // 2)
    return case.changed(context=largest_context(case, least, _stepped) or long.context)


def _longest_window(case: Case) -> Case:
    """The model's own window, or a shorter one when that keeps every layer where it computes.

    Where it cannot, a moderate one, or the shortest when only that leaves room for a layer.
    """
    if case.verdict == "fits":
        return case
    least = min(case.context, SHORTEST_WINDOW)
    if room := largest_context(case, least):
        return case.changed(context=room)
    moderate = case.changed(context=min(case.context, OFFLOAD_WINDOW))
    room = largest_context(moderate, least, lambda shorter: shorter.verdict != "too_large")
    if not room:
        # The least that would do is named.
        return case.changed(context=least) if case.verdict == "too_large" else case
    found, shortest = case.changed(context=room), case.changed(context=least)
    return shortest if shortest.resident and not found.resident else found


def _plan(case: Case) -> Plan:
    rows, verdict = case.rows, case.verdict
    need = Need(
        sum(row.weights for row in rows),
        sum(row.cache for row in rows),
        sum(row.working + row.overhead for row in rows),
        case.context,
        case.users,
    )
    return Plan(
        case,
        case.outline.name,
        case.outline.count,
        need,
        rows,
        verdict,
        case.numbers,
        case.dtype,
        case.device_map if verdict != "too_large" else {},
        remedies(case) if verdict != "fits" else (),
        speed(case),
        case.outline.joined_experts(case.dtype) if case.numbers != "none" else 0,
        case.stepped,
        _fast_window(case) if verdict == "fits" else 0,
    )


def _fast_window(case: Case) -> int:
    """A shorter window that leaves room for captured steps, 0 without one or with no need of one."""
    return 0 if case.stepped else largest_context(case, min(case.context, SHORTEST_WINDOW), _stepped)
