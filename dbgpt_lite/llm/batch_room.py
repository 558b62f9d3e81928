"""How many conversations a model has slots for. Pure."""

from dbgpt_lite.llm.case import Row
from dbgpt_lite.llm.plan import Plan
from dbgpt_lite.llm.units import GIB

# Slots where LLM_USERS leaves it open: a search for alternative queries takes several, and what is free is of no
# other use.
USUAL_SLOTS = 8
_SHARE = 0.5
# What stays for a model that embeds, one that ranks, and whatever else comes to the GPU later.
_FOR_OTHERS = 3 * GIB


def slot_count(place: Plan, device: str, free: int, users: int = 0) -> int:
    """Slots for a model that lies on `device` alone, of which `free` bytes are free beside its weights.

    `users` of them; where that is 0, up to eight of those that half of what is left over holds. No more than fit, at
    least one.
    """
    row = _row(place, device)
    if row is None or not row.cache:
        return 1
    one, room = row.cache // place.need.users, _room(row, free)
    if users:
        return max(1, min(users, room // one))
    return max(1, min(USUAL_SLOTS, 1 + int((room - one) * _SHARE) // one))


def spare_bytes(place: Plan, device: str, free: int, slots: int) -> int:
    """What may be spent of what is left over beside `slots` slots: not all of it, since a plan is an estimate."""
    row = _row(place, device)
    return 0 if row is None else max(0, int(0.9 * (_room(row, free) - slots * (row.cache // place.need.users))))


def wide_room(place: Plan, device: str, free: int, slots: int, wanted: int | None) -> int:
    """Bytes that may keep 4-bit weights in 16 bits too: as many as `wanted`, of what is spared beside `slots` slots.

    None wanted: all of that but an eighth of what was free for the model, 3 GiB at least, for whatever else is to run
    there. Memory that nobody uses is of no use, and with all weights kept so a 33B model's prompts are read in three
    quarters of the time.
    """
    row = _row(place, device)
    if row is None:
        return 0
    spare = spare_bytes(place, device, free, slots)
    return max(0, spare - max(row.device.free // 8, _FOR_OTHERS)) if wanted is None else min(wanted, spare)


def _row(place: Plan, device: str) -> Row | None:
    return next((row for row in place.rows if row.device.name == device), None)


def _room(row: Row, free: int) -> int:
    """Bytes for caches. A limit in LLM_MAX_MEMORY may leave less than there is."""
    return min(free, row.device.free - row.weights - row.overhead) - row.working
