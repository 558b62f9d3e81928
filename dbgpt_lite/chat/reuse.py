"""A remembered query for a question that is the same but for its values, with the values exchanged.

For models whose prompt takes no examples. "How many orders were placed in 2024?" answers "... in 2023?" when 2024
stands in the query as a value; any other difference between the two questions means another query: nothing is reused.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from dbgpt_lite.chat.recall import SimilarExample

MOST_WORDS = 4
"""Words of a value."""
_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+(?:[-.'_@][^\W_\u3400-\u9fff]+)*")
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


def reused(question: str, examples: Sequence[SimilarExample]) -> str:
    """The first example's query that fits, its values exchanged for those of `question`; "" when none fits."""
    found = (_fitted(question, example.question, example.sql) for example in examples)
    return next((sql for sql in found if sql), "")


def _fitted(question: str, known: str, sql: str) -> str:
    if _signs(question) != _signs(known):
        # "amount < 100" is another question than "amount > 100".
        return ""
    asked, old = _TOKEN.findall(question), _TOKEN.findall(known)
    matcher = SequenceMatcher(None, [word.lower() for word in old], [word.lower() for word in asked], autojunk=False)
    swaps: dict[str, str] = {}
    kept: set[str] = set()
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            kept.update(word.lower() for word in old[start:end])
            continue
        if kind != "replace" or max(end - start, last - first) > MOST_WORDS:
            return ""
        before, after = _joined(old[start:end]), _joined(asked[first:last])
        if swaps.get(before.lower(), after) != after or bool(_NUMBER.fullmatch(before)) != bool(
            _NUMBER.fullmatch(after)
        ):
            return ""
        swaps[before.lower()] = after
    if not swaps:
        return sql
    # In "the top 5 of more than 5 items", nothing tells which 5 of the query is the one that changed.
    return "" if kept & swaps.keys() else _exchanged(sql, swaps)


def _signs(text: str) -> str:
    """What is left of a question beside its words: operators, signs, currencies; the mark at its end does not count."""
    return "".join(_TOKEN.sub(" ", text).split()).rstrip(".?!。？！")


def _joined(words: Sequence[str]) -> str:
    return ("" if any("\u3400" <= word[0] <= "\u9fff" for word in words) else " ").join(words)


def _exchanged(sql: str, swaps: dict[str, str]) -> str:
    """The query with every swapped value exchanged, in texts and as numbers; "" unless each of them stood in it, and
    unless all years change when one does: '>= 2023 AND < 2024' is not carried to 2022 by changing its beginning."""
    met: set[str] = set()
    numbers: list[str] = []
    kept: list[str] = []
    # All at once: one after the other, 2022 would become 2023 and then 2024 with it.
    parts = re.compile(
        "|".join(rf"(?<!\d){re.escape(before)}(?!\d)" for before in swaps if _NUMBER.fullmatch(before)) or r"(?!)"
    )

    def part(match: "re.Match[str]") -> str:
        met.add(match[0])
        return swaps[match[0]]

    def text(match: "re.Match[str]") -> str:
        value = match[1].replace("''", "'")
        if value.lower() in swaps:
            met.add(value.lower())
            value = swaps[value.lower()]
        else:
            # Years or months that begin or end a text such as '2024-%'.
            kept.append(parts.sub("", value))
            value = parts.sub(part, value)
        return "'" + value.replace("'", "''") + "'"

    def number(match: "re.Match[str]") -> str:
        if match[0] not in swaps:
            kept.append(match[0])
            return match[0]
        met.add(match[0])
        numbers.append(match[0])
        return swaps[match[0]]

    pieces = _TEXT.split(sql)
    written = [
        _TEXT.sub(text, f"'{piece}'") if n % 2 else re.sub(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", number, piece)
        for n, piece in enumerate(pieces)
    ]
    if any(_YEAR.search(before) for before in swaps) and any(_YEAR.search(one) for one in kept):
        return ""
    # A number that stands twice in the query may mean two things.
    return "".join(written) if met == set(swaps) and len(numbers) == len(set(numbers)) else ""
