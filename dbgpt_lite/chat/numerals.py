"""The figures of a text in one form: 1,000 and 1000, 45 and forty-five, 30 and 三十, March and 3. Pure."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_SMALL = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen""".split()
    )
}
_TENS = {
    word: 10 * value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_BIG = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_VALUES = {**_SMALL, **_TENS, **_BIG}
_ANY = "|".join(sorted(_VALUES, key=len, reverse=True))
_WORDS = re.compile(rf"(?<![\d.] )\b(?:{_ANY})(?:(?:[\s-]+(?:and\s+)?)(?:{_ANY}))*\b", re.IGNORECASE)
_SCALED = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)\s*(hundred\b|thousand\b|million\b|billion\b|[万亿千])", re.IGNORECASE)
_SCALES = {**_BIG, "万": 10_000, "亿": 100_000_000, "千": 1000}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = re.compile(
    r"\b(?:(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?(?=\s+\d)"
    r"|(?<=\d\s)(?:of\s+)?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*)",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"^\s*\d{1,2}[.)、]\s", re.MULTILINE)

_HAN_DIGIT = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_PLACE = {"十": 10, "百": 100, "千": 1000}
_HAN = re.compile(r"(?<!第)[零〇一二两三四五六七八九十百千万亿]+")
_PER_CENT = re.compile(r"百分之([零〇一二两三四五六七八九十百\d]+)")
# Chinese numerals are figures only before a unit: 一起, 统一 and 十分 are none.
_COUNTED = re.compile(
    r"\s*(?:个?工作日|天|日|年|个?月|周|个?星期|个?小时|分钟|秒|元|块|人|名|次|台|件|倍|成|折|岁|公里|米|克|千克|公斤|瓦|级|层|楼"
    r"|号|条|项|页|款|种|个|%)"
)

# One name a unit, whatever the language. A figure with one of them must have the same one in the passage.
_UNIT_NAMES = {
    "day": "day days 天 日 个工作日 工作日",
    "week": "week weeks 周 星期 个星期",
    "month": "month months 个月",
    "year": "year years 年",
    "hour": "hour hours h hrs 小时 个小时",
    "minute": "minute minutes min mins 分钟",
    "second": "second seconds 秒",
    "euro": "euro euros eur €",
    "dollar": "dollar dollars usd $ 美元",
    "pound": "£ gbp",
    "yuan": "yuan rmb cny ¥ 元 块",
    "cent": "cent cents",
    "percent": "percent % 百分点",
    "watt": "watt watts w 瓦",
    "kilogram": "kilogram kilograms kg kgs 公斤 千克",
    "litre": "litre litres liter liters l 升",
    "metre": "metre metres meter meters m 米",
    "times": "times times 倍",
}
_UNITS = {name: unit for unit, names in _UNIT_NAMES.items() for name in names.split()}
_UNIT = "|".join(
    sorted((re.escape(name) for name in _UNITS if not name.isascii() or not name.isalpha()), key=len)[::-1]
)
_FIGURE = re.compile(r"(?<![A-Za-z_\d.])(?<![A-Za-z]-)(?P<sign>[€$£¥]\s?)?(?P<figure>\d+(?:,\d{3})*(?:\.\d+)?)(?!\d)")
_AFTER = re.compile(rf"[\s-]*(?:(?P<unit>{_UNIT})|(?P<word>[A-Za-z]+))")
_LOOKED_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in plain form and its unit; "" when none that is known follows. `alone`: no word follows at all."""

    value: str
    unit: str = ""
    alone: bool = False


@lru_cache(maxsize=4096)
def figures(text: str, generous: bool = False) -> tuple[Figure, ...]:
    """The figures of `text`, in order.

    generous: for what a claim may rest on, every Chinese numeral and the word "one" count; otherwise only numerals
    before a unit, and English words from two on.
    """
    text = _LIST_MARK.sub("", unicodedata.normalize("NFKC", text))
    return tuple(_found(_in_digits(text, generous)))


def numbers(text: str, generous: bool = False) -> frozenset[str]:
    """The values of the figures of `text`."""
    return frozenset(figure.value for figure in figures(text, generous))


def is_figure(term: str) -> bool:
    """Whether a word is a number, in digits or in words."""
    return term[:1].isdigit() or term in _VALUES or term in ("twice", "once") or bool(_HAN.fullmatch(term))


def _found(text: str) -> Iterator[Figure]:
    for match in _FIGURE.finditer(text):
        unit, alone = _unit(text, match)
        yield Figure(_plain(match["figure"]), unit, alone)


def _unit(text: str, match: "re.Match[str]") -> tuple[str, bool]:
    if match["sign"]:
        return _UNITS[match["sign"].strip()], False
    place, alone = match.end(), True
    for _ in range(_LOOKED_AHEAD):
        after = _AFTER.match(text, place)
        if after is None:
            break
        unit = _UNITS.get((after["unit"] or after["word"]).lower(), "")
        alone = False
        if unit:
            return unit, False
        place = after.end()
    return "", alone and not text[place : place + 1].strip(" \t|,.;:()，。；：（）、!?！？")


def _in_digits(text: str, generous: bool) -> str:
    """`text` with the numbers in words as digits."""
    text = re.sub(r"\btwice\b", "2 times", text, flags=re.IGNORECASE)
    text = _PER_CENT.sub(lambda match: f"{_han(match[1]) if not match[1].isdigit() else match[1]}%", text)
    text = _SCALED.sub(_scaled, text)
    text = _WORDS.sub(lambda match: _worded(match.group(), generous), text)
    text = _MONTH.sub(lambda match: f" {_MONTHS.index((match[1] or match[2]).lower()) + 1} ", text)

    def han(match: "re.Match[str]") -> str:
        counted = _COUNTED.match(text, match.end())
        if not generous and (not counted or match.group() == "一"):
            return match.group()
        return str(_han(match.group()))

    return _HAN.sub(han, text)


def _scaled(match: "re.Match[str]") -> str:
    return f"{float(match[1].replace(',', '')) * _SCALES[match[2].lower()]:.4f} "


def _worded(run: str, generous: bool) -> str:
    value = _value(run.lower())
    return str(value) if value > 1 or generous else run


def _value(run: str) -> int:
    """Value of English number words: "two hundred and five" -> 205."""
    total = current = 0
    for word in re.findall(r"[a-z]+", run):
        value = _VALUES.get(word)
        if value is None:
            continue
        if value == 100:
            current = max(current, 1) * 100
        elif value > 100:
            total, current = total + max(current, 1) * value, 0
        else:
            current += value
    return total + current


def _han(run: str) -> int:
    """Value of Chinese numerals: 三十五 -> 35, 二〇二三 -> 2023, 十五万 -> 150000."""
    if len(run) > 1 and not set(run) & {"十", "百", "千", "万", "亿"}:
        return int("".join(str(_HAN_DIGIT[digit]) for digit in run))
    total = section = digit = 0
    for letter in run:
        if letter in _HAN_DIGIT:
            digit = _HAN_DIGIT[letter]
        elif letter in _HAN_PLACE:
            section += (digit or 1) * _HAN_PLACE[letter]
            digit = 0
        else:
            total = (total + section + digit or 1) * (10_000 if letter == "万" else 100_000_000)
            section = digit = 0
    return total + section + digit


def _plain(figure: str) -> str:
    """1,000.50 -> 1000.5; 007 -> 7."""
    whole, _, part = figure.replace(",", "").partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")
