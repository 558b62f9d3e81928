"""Numbers and words on the axes of a chart: even steps, short forms, widths of text. Pure."""

import math
import unicodedata

from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say

# Widths of an average sans-serif letter and of a Chinese character, in sizes of the font.
_NARROW, _WIDE = 0.56, 1.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
# Numbers below are short enough as they are; years are among them.
_PLAIN_BELOW = 10_000
# Beyond it no unit has a name that everybody knows.
_TOO_LONG = 1e15
# Below it the steps of an axis cannot be told apart in floats.
_NOTHING = 1e-300


def ticks(low: float, high: float, count: int, whole: bool = False) -> tuple[float, ...]:
    """About `count` round numbers, evenly apart, the first at or below `low`, the last at or above `high`.

    `whole`: only whole numbers, for axes that count things.
    """
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, _NOTHING):
        around = size * 0.5 if size > _NOTHING else 1.0
        low, high = low - around, high + around
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in _STEPS if factor * power >= rough * 0.999), 10 * power)
    if whole and step < 1:
        step = 1.0
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(number * step for number in range(first, max(last, first + 1) + 1))


def short(value: float, language: Language) -> str:
    """A number in few characters: 12.5K in English, 1.25万 in Chinese."""
    if abs(value) >= _TOO_LONG:
        return f"{value:.3g}".replace("e+", "e")
    if abs(value) >= _PLAIN_BELOW:
        # From the largest unit down, as "size:sign" in the language's own steps.
        for unit in reversed(say("chart_units", language).split()):
            size, _, sign = unit.partition(":")
            if abs(value) >= float(size):
                return f"{_digits(value / float(size))}{sign}"
    return _digits(value)


def exact(value: object) -> str:
    """A cell's number with all its digits and separators of thousands."""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else _grouped(repr(value))
    return _grouped(str(value))


def text_width(text: str, size: float) -> float:
    """About how wide `text` is drawn, in the unit of `size`, the font's size."""
    return size * sum(_WIDE if unicodedata.east_asian_width(letter) in "WF" else _NARROW for letter in text)


def cut(text: str, width: float, size: float) -> str:
    """One line of `text` that fits into `width`, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    if text_width(line, size) <= width:
        return line
    room, kept = width - text_width("…", size), ""
    for letter in line:
        room -= text_width(letter, size)
        if room < 0:
            break
        kept += letter
    return f"{kept.rstrip()}…"


def _digits(value: float) -> str:
    return f"{value:.4g}" if 1e-4 <= abs(value) < 1e15 or value == 0 else f"{value:.2e}"


def _grouped(digits: str) -> str:
    """Separators in the whole part of a decimal, whose digits stay as they are."""
    whole, dot, fraction = digits.partition(".")
    return f"{int(whole):,}{dot}{fraction}" if whole.lstrip("-").isdigit() and not whole.startswith("-0") else digits
