"""Which step model (slotted.py) computes a loaded model."""

import logging
from typing import TYPE_CHECKING, Any

from dbgpt_lite.llm.batch_room import USUAL_SLOTS, slot_count, wide_room
from dbgpt_lite.llm.plan import Plan, without_steps
from dbgpt_lite.llm.shapes import Config
from dbgpt_lite.llm.sizes import geometry
from dbgpt_lite.texts import memory_size

if TYPE_CHECKING:
    from dbgpt_lite.llm.slotted import StepModel


log = logging.getLogger(__name__)


def compile_ahead(place: Plan, config: Config, users: int) -> None:
    """Begin to compile what a model will need, in the background: half a second a kernel where CUDA does not have it in
    its cache. Nothing for a model without kernels of its own. `users`: as in LoadOptions."""
    if not place.stepped:
        return
    import torch

    from dbgpt_lite.llm.kernels import ahead, decode, nf4

    sizes, half = geometry(config), place.dtype == "float16"
    device = next(iter(place.device_map.values()))
    small = nf4.programs(users or USUAL_SLOTS, half, int(device[5:])) if place.numbers != "none" else []
    others = decode.programs(sizes.head_dim, sizes.heads // sizes.kv_heads, half)
    ahead.compile_ahead([*small, *others], torch.cuda.get_device_capability(device))


def settled(model: Any, place: Plan) -> Plan:
    """The plan of a loaded model, or one without captured steps where they turn out not to run: a compiler is missing,
    say. Plain steps may have room for a shorter window only. Raises OutOfMemory when they have none.
    """
    if not place.stepped:
        return place
    from dbgpt_lite.llm.gpu_step import runs_here
    from dbgpt_lite.llm.parts import take_apart

    parts = take_apart(model)
    if parts is not None and runs_here(parts):
        return place
    plain = without_steps(place)
    plain.check()
    log.warning("%s is computed without captured steps, with a window of %d tokens", place.name, plain.need.context)
    return plain


def step_model(model: Any, place: Plan, users: int, wide_bytes: int | None) -> "StepModel | None":
    """What answers many users at once, for a model that lies on one GPU and can be taken apart; None for any other.

    `place`: a plan that is `settled`. `users`, `wide_bytes`: as in LoadOptions.
    """
    import torch

    from dbgpt_lite.llm.gpu_step import GpuStepModel, most_slots
    from dbgpt_lite.llm.parts import take_apart
    from dbgpt_lite.llm.slotted import PlainStepModel

    parts = take_apart(model)
    if parts is None or parts.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(parts.device)
    slots = slot_count(place, str(parts.device), free, users)
    # Where the plan has no room for captured steps, it has room for plain ones.
    if not place.stepped:
        return PlainStepModel(parts, slots, place.need.context)
    slots = min(slots, most_slots(parts))
    wide = wide_room(place, str(parts.device), free, slots, wide_bytes)
    steps = GpuStepModel(parts, slots, place.need.context, wide=wide)
    if steps.widened:
        log.info("%s: %s keep weights in 16 bits too (LLM_WIDE_MEMORY)", place.name, memory_size(steps.widened))
    return steps
