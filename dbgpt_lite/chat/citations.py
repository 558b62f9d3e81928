"""Markers [n] in an answer -> citations with the words they stand for. Pure."""

import re
from collections.abc import Sequence

from dbgpt_lite.knowledge.words import sentences, words
from dbgpt_lite.messages import Citation, Passage

MARKER = re.compile(r"\s?\[(\d{1,2})\]")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_MARKS = ' \t\n"“”「」『』*>-'
_ESCAPED = re.compile(r"\\([\\`*_~<>\[\]$|#])")
_ENOUGH_SHARED = 0.5


def drop_unknown_markers(answer: str, passages: Sequence[Passage]) -> str:
    """Remove markers that point at no passage."""

    def keep(match: re.Match[str]) -> str:
        return match.group() if 1 <= int(match.group(1)) <= len(passages) else ""

    if not passages:
        return answer
    parts = _CODE.split(answer)
    kept = [MARKER.sub(keep, part) for part in parts]
    return "".join(part + code for part, code in zip(kept, [*_CODE.findall(answer), ""], strict=True))


def cite(answer: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """One citation a marker number, in the order of first use, quoting the passage's words that the answer rests on."""
    claims: dict[int, str] = {}
    start = 0
    claim = ""
    answer = _CODE.sub(lambda code: " " * len(code.group()), answer)
    for match in MARKER.finditer(answer):
        between = answer[start : match.start()]
        # Neighbouring markers, [1][2], stand for the same claim.
        claim = between if between.strip(_MARKS + ".。") else claim
        start = match.end()
        number = int(match.group(1))
        if 1 <= number <= len(passages):
            claims[number] = claims.get(number, "") + "\n" + claim
    return tuple(Citation(n, passages[n - 1], _quote(claim, passages[n - 1].text)) for n, claim in claims.items())


def _quote(claim: str, text: str) -> str:
    """The part of `text` the claim repeats word for word, else its sentence that shares most words, else ""."""
    for line in sorted(_parts(claim), key=len, reverse=True):
        if len(line) > 1 and line in text:
            return line
    wanted = set(words(claim))
    if not wanted:
        return ""
    best, share = "", 0.0
    for start, end in sentences(text):
        sentence = text[start:end].strip()
        found = set(words(sentence))
        shared = len(found & wanted) / len(found) if found else 0.0
        if shared > share:
            best, share = sentence, shared
    return best if share >= _ENOUGH_SHARED else ""


def _parts(claim: str) -> list[str]:
    # The built-in assistant escapes Markdown in what it quotes; the passage has the plain characters.
    claim = _ESCAPED.sub(r"\1", claim)
    quoted = re.findall(r"[“\"「『]([^“”\"「」『』]+)[”\"」』]", claim)
    spans = [claim[start:end] for start, end in sentences(claim)]
    return [part.strip(_MARKS) for part in (*quoted, *spans, claim)]
