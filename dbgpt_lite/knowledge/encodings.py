"""Bytes of a text file -> text and its encoding. Chinese encodings are told apart by their common characters."""

import codecs
import re
from dataclasses import dataclass

from dbgpt_lite.errors import DocumentError

SAMPLE = 200_000
# Share of two-byte pairs that have to be common characters. Right guesses lie above 0.9, wrong ones below 0.6.
COMMON_SHARE = 0.7
# Encodings charset-normalizer may choose from when the text is neither Unicode nor Chinese.
OTHERS = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "shift_jis", "euc_jp", "cp949", "koi8_r")

_PRINTERS_SIGNS = "€£§©®°±²³·½«»‘’“”–—…•™¿¡\u00a0"

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PAIR = re.compile(rb"[\x00-\x7f]+|[\x81-\xfe][\x40-\xfe]|.", re.DOTALL)
# Letters, signs and characters of the languages this reads; a wrong byte order scatters them over all of Unicode.
_KNOWN = re.compile(r"[\s\x20-\x7e\u00a0-\u024f\u2010-\u2027\u3000-\u30ff\u4e00-\u9fff\uff00-\uff65]")
# GB 2312: rows 01-09 are signs, rows 16-55 the 3,755 common characters. Big5: A1-A3 signs, A4-C6 the common ones.
_GB_COMMON = re.compile(rb"[\xa1-\xa9\xb0-\xd7][\xa1-\xfe]")
_BIG5_COMMON = re.compile(rb"[\xa1-\xc6][\x40-\x7e\xa1-\xfe]")


@dataclass(frozen=True, slots=True)
class DecodedText:
    """Text and the encoding it was read with."""

    text: str
    encoding: str


def decode(content: bytes, declared: str = "") -> DecodedText:
    """Decode a text file: byte order mark, UTF-8, the encoding it declares, UTF-16, GB18030 or Big5, then others.

    Raises DocumentError (knowledge.undecodable) rather than drop or replace a single character.
    """
    for encoding in _candidates(content, declared):
        try:
            text = content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        if "\x00" not in text:
            return DecodedText(text, encoding.removesuffix("-sig"))
    raise DocumentError("knowledge.undecodable")


def _candidates(content: bytes, declared: str) -> list[str]:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return [encoding]
    candidates = ["utf-8", *([_widened(declared)] if declared else []), *_utf16(content), *_chinese(content)]
    return candidates + _other(content)


def _widened(declared: str) -> str:
    """Pages that say gb2312 or gbk use characters of GB18030, which contains both."""
    name = declared.strip().lower()
    return "gb18030" if name in ("gb2312", "gbk", "gb_2312-80") else name


def _utf16(content: bytes) -> list[str]:
    """UTF-16 without a mark has zero bytes (in line breaks); its byte order is the one that gives known letters."""
    sample = content[: SAMPLE - SAMPLE % 2]
    if b"\x00" not in sample:
        return []
    shares = {}
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample.decode(encoding, errors="replace")
        shares[encoding] = len(_KNOWN.findall(text)) / max(len(text), 1)
    best = max(shares, key=lambda encoding: shares[encoding])
    return [best] if shares[best] >= COMMON_SHARE else []


def _chinese(content: bytes) -> list[str]:
    pairs = [pair for pair in _PAIR.findall(content[:SAMPLE]) if pair[0] >= 0x80]
    if not pairs:
        return []
    shares = {
        "gb18030": sum(_GB_COMMON.fullmatch(pair) is not None for pair in pairs) / len(pairs),
        "big5": sum(_BIG5_COMMON.fullmatch(pair) is not None for pair in pairs) / len(pairs),
    }
    likely = sorted((name for name, share in shares.items() if share >= COMMON_SHARE), key=lambda name: -shares[name])
    # Hong Kong's superset reads what plain Big5 cannot.
    return [encoding for name in likely for encoding in ((name, "big5hkscs") if name == "big5" else (name,))]


def _other(content: bytes) -> list[str]:
    from charset_normalizer import from_bytes

    if b"\x00" in content:
        return []
    best = from_bytes(content[:SAMPLE], cp_isolation=list(OTHERS), enable_fallback=False).best()
    return [best.encoding] if best is not None else _western(content)


def _western(content: bytes) -> list[str]:
    """Windows-1252 when the bytes above ASCII are letters and printer's signs: too few for statistics, but clear."""
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return []
    special = [character for character in text if character > "\x7f"]
    clear = all(character.isalpha() or character in _PRINTERS_SIGNS for character in special)
    return ["cp1252"] if clear and len(special) < 0.3 * len(text) else []
