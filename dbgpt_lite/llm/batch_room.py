"""How many conversations a model has slots for. Pure."""

from dbgpt_lite.llm.plan import Plan

# Slots beyond LLM_USERS: a search for alternative queries takes several, and what is free is of no other use.
_USUAL = 8
_SHARE = 0.5


def slot_count(place: Plan, device: str, free: int) -> int:
    """Slots for a model that lies on `device` alone, of which `free` bytes are free beside its weights.

    As many as the plan has users, and up to eight when half of what is left over holds them. At least one.
    """
    row = next((row for row in place.rows if row.device.name == device), None)
    if row is None or not row.cache:
        return 1
    users = place.need.users
    one = row.cache // users
    # A limit in LLM_MAX_MEMORY may leave less than there is.
    room = min(free, row.device.free - row.weights - row.overhead) - row.working
    fit = room // one
    if fit <= users:
        return max(1, fit)
    return max(users, min(_USUAL, users + int((room - users * one) * _SHARE) // one))
