"""Sizes of memory as people write and read them."""

from dbgpt_lite.errors import ConfigError

GIB = 1024**3
KIB = 1024
MIB = 1024**2
_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": MIB,
    "GIB": GIB,
    "TIB": 2**40,
    "B": 1,
}


def gib(size: int) -> str:
    """Bytes in GiB with three digits: 0.0625, 1.23, 12.3, 640."""
    value = size / GIB
    return f"{value:.3g}" if value < 999 else f"{value:.0f}"


def parse_size(text: str) -> int:
    """ "20GiB", "800MB" or "0.5GB" in bytes. Raises ConfigError for anything else."""
    cleaned = text.strip().upper()
    unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if cleaned.endswith(unit)), "")
    try:
        size = int(float(cleaned.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = -1
    if size < 0:
        raise ConfigError("llm.bad_size", value=text)
    return size
