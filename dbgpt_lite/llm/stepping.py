"""Which step model (slotted.py) computes a loaded model."""

from typing import TYPE_CHECKING, Any

from dbgpt_lite.llm.batch_room import slot_count, spare_bytes
from dbgpt_lite.llm.devices import warmed
from dbgpt_lite.llm.plan import Plan

if TYPE_CHECKING:
    from dbgpt_lite.llm.slotted import StepModel


def step_model(model: Any, place: Plan, users: int, wide_bytes: int) -> "StepModel | None":
    """What answers many users at once, for a model that lies on one GPU and can be taken apart; None for any other.

    `users`, `wide_bytes`: as in LoadOptions.
    """
    import torch

    from dbgpt_lite.llm.gpu_step import GpuStepModel, most_slots, runs_here
    from dbgpt_lite.llm.parts import take_apart
    from dbgpt_lite.llm.slotted import PlainStepModel

    parts = take_apart(model)
    if parts is None or parts.device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(parts.device)
    slots = slot_count(place, str(parts.device), free, users)
    # Where the plan has no room for captured steps, it has room for plain ones.
    if not place.stepped or not runs_here(parts):
        return PlainStepModel(parts, slots, place.need.context)
    slots = min(slots, most_slots(parts))
    left = spare_bytes(place, str(parts.device), free, slots)
    made = GpuStepModel(parts, slots, place.need.context, wide=min(wide_bytes, left))
    warmed().add(str(parts.device))
    return made
