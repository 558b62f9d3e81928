"""Bytes of a text file -> text and its encoding. No byte is dropped in silence: it decodes, is counted, or fails."""

import codecs
import re
from dataclasses import dataclass

from dbgpt_lite.errors import DocumentError
from dbgpt_lite.knowledge.charsets import CHARSETS, Charset

# What is looked at: the beginning, and as much again from where plain ASCII ends.
SAMPLE = 65_536
# Score (see charsets.py) below which nothing is chosen; from which, with this lead over the next, there is no doubt.
GOOD_ENOUGH = 0.5
CERTAIN = 0.7
LEAD = 0.15
# Fewer characters above ASCII than this leave a doubt whatever their score.
CERTAIN_CHARACTERS = 8
# Bytes that UTF-8 has more than characters; two pairs of another encoding can pass for UTF-8 by accident.
UTF8_SURPLUS = 3
UTF16_WITHOUT_ZEROS = 0.7
# Share of broken characters up to which a text still counts as damaged UTF-8.
DAMAGED = 0.2

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNICODE = (
    Charset("utf-8", ("utf-8-sig",), lambda _: 1.0),
    Charset("utf-16", ("utf-16",), lambda _: 1.0),
    Charset("utf-32", ("utf-32",), lambda _: 1.0),
)
_BY_NAME = {charset.name: charset for charset in (*_UNICODE, *CHARSETS)}
# Codecs that texts and headers name -> the encoding here that contains them. What is missing is no encoding to read:
# utf-7 and the escapes turn plain text into something else.
_CONTAINED = {
    "ascii": "windows-1252", "iso8859-1": "windows-1252", "gb2312": "gb18030", "gbk": "gb18030", "cp950": "big5",
    "big5hkscs": "big5", "cp932": "shift_jis", "cp949": "euc_kr", "utf-8-sig": "utf-8", "iso8859-9": "windows-1254",
    "iso8859-7": "windows-1253",
}  # fmt: skip
# Read when named, never guessed.
_NAMED_ONLY = (
    "iso2022_jp", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-8", "iso8859-13", "iso8859-15", "koi8-u", "cp866",
    "cp874", "cp1255", "cp1256", "cp1257", "cp1258",
)  # fmt: skip
OFFERED = ("utf-8", "gb18030", "big5", "utf-16-le", "shift_jis", "euc_kr", "windows-1252", "windows-1251")

_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_REPLACED = "\ufffd"


@dataclass(frozen=True, slots=True)
class DecodedText:
    """Text and the encoding it was read with; undecodable counts the U+FFFD that stand for bytes it does not have."""

    text: str
    encoding: str
    undecodable: int = 0


@dataclass(frozen=True, slots=True)
class Guess:
    """The likely encodings of some bytes, best first; certain: the bytes say so or leave no doubt."""

    encodings: tuple[str, ...]
    certain: bool


def canonical(name: str) -> str:
    """The name used here for what a header, a page or a person calls an encoding; "" for one that is not read."""
    try:
        known = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return ""
    if known in _NAMED_ONLY or known in _BY_NAME:
        return known
    by_codec = {codecs.lookup(charset.codecs[0]).name: charset.name for charset in _BY_NAME.values()}
    return _CONTAINED.get(known) or by_codec.get(known, "")


def decode(content: bytes, declared: str = "", encoding: str = "") -> DecodedText:
    """Decode a text file: as `encoding` when one is chosen, else as what its bytes or `declared` say it is.

    A chosen encoding is kept: what does not decode becomes U+FFFD and is counted. Else raises DocumentError
    (knowledge.undecodable, knowledge.undecodable_bytes) rather than lose a character; knowledge.unknown_encoding for a
    name that is none.
    """
    if encoding:
        return _decode_as(content, encoding)
    found = guess(sample(content), declared, whole=len(content) <= SAMPLE)
    for name in found.encodings:
        text = _strict(content, name)
        if text is not None:
            return DecodedText(text, name)
    if found.encodings:
        places = _replacing(content, found.encodings[0]).count(_REPLACED)
        raise DocumentError("knowledge.undecodable_bytes", encoding=found.encodings[0], places=f"{places:,}")
    raise DocumentError("knowledge.undecodable")


def _decode_as(content: bytes, encoding: str) -> DecodedText:
    name = canonical(encoding)
    if not name:
        raise DocumentError("knowledge.unknown_encoding", encoding=encoding[:40], known=", ".join(OFFERED))
    text = _strict(content, name)
    if text is not None:
        return DecodedText(text, name)
    text = _replacing(content, name).replace("\x00", _REPLACED)
    return DecodedText(text, name, text.count(_REPLACED))


def readers(name: str) -> tuple[str, ...]:
    """The codecs of an encoding; the first that can read the bytes is used."""
    return _BY_NAME[name].codecs if name in _BY_NAME else (name,)


def is_strictly(content: bytes, name: str) -> bool:
    """Whether all of `content` is text in the encoding."""
    return _strict(content, name) is not None


def _strict(content: bytes, name: str) -> str | None:
    """The text, None when a byte does not decode or the bytes are no text."""
    for codec in readers(name):
        try:
            text = content.decode(codec)
        except UnicodeError:
            continue
        if "\x00" not in text:
            return text.removeprefix("\ufeff")
    return None


def _replacing(content: bytes, name: str) -> str:
    return content.decode(readers(name)[0], errors="replace")


def sample(content: bytes) -> bytes:
    """The beginning, and when that is plain ASCII also the first lines that are not."""
    head = content[:SAMPLE]
    if len(content) <= SAMPLE or not head.isascii():
        return head
    found = _HIGH_BYTE.search(content, SAMPLE)
    if found is None:
        return head
    start = max(content.rfind(b"\n", found.start() - 4096, found.start()) + 1, SAMPLE)
    return head + content[start : start + SAMPLE]


def guess(sample: bytes, declared: str = "", whole: bool = True) -> Guess:
    """Judge bytes by mark, by the rules of UTF-8, by what they declare, then by how their characters are used.

    whole: the sample is the whole file, so it may not end inside a character.
    """
    for bom, encoding in _BOMS:
        if sample.startswith(bom):
            return Guess((encoding,), True)
    if b"\x1b$" in sample and sample.isascii():
        return Guess(("iso2022_jp",), True)
    if b"\x00" not in sample and _REPLACED not in (text := _partial(sample, "utf-8", whole)):
        return Guess(("utf-8",), sample.isascii() or len(sample) - len(text) > UTF8_SURPLUS)
    ranked = _ranked(sample, whole)
    named = canonical(declared) if declared else ""
    if named and _REPLACED not in _partial(sample, readers(named)[-1], whole):
        return Guess(tuple(dict.fromkeys((named, *(name for _, name in ranked)))), True)
    return Guess(tuple(name for _, name in ranked), _is_certain(sample, ranked))


def _is_certain(sample: bytes, ranked: list[tuple[float, str]]) -> bool:
    if not ranked or ranked[0][1] == "utf-8":
        return False
    (best, name), rest = ranked[0], ranked[1:]
    text = sample.decode(readers(name)[0], errors="replace")
    high = sum(letter > "\x7f" for letter in text)
    rivals = (score for score, other in rest if sample.decode(readers(other)[0], errors="replace") != text)
    return best >= CERTAIN and high >= CERTAIN_CHARACTERS and best - max(rivals, default=0.0) >= LEAD


def _ranked(sample: bytes, whole: bool) -> list[tuple[float, str]]:
    """The encodings whose text is good enough, best first."""
    zeros = b"\x00" in sample
    scores = [(1.0, "utf-8")] if not zeros and _is_damaged_utf8(sample, whole) else []
    for charset in CHARSETS:
        wide = charset.name.startswith("utf-16")
        if zeros and not wide:
            continue
        score = max(charset.rate(_partial(sample, codec, whole)) for codec in charset.codecs)
        if score >= (UTF16_WITHOUT_ZEROS if wide and not zeros else GOOD_ENOUGH):
            scores.append((score, charset.name))
    return sorted(scores, key=lambda entry: -entry[0])


def _is_damaged_utf8(sample: bytes, whole: bool) -> bool:
    text = _partial(sample, "utf-8", whole)
    good = sum(letter > "\x7f" for letter in text) - text.count(_REPLACED)
    return text.count(_REPLACED) <= DAMAGED * good


def _partial(sample: bytes, codec: str, whole: bool) -> str:
    """The text with U+FFFD for what does not decode; a character cut off by the end of a sample is left out."""
    return codecs.getincrementaldecoder(codec)("replace").decode(sample, final=whole)
