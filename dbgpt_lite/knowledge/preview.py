"""The beginning of a text file under its likely or a chosen encoding, to be judged before it is indexed."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from dbgpt_lite.errors import DocumentError
from dbgpt_lite.knowledge.encodings import OFFERED, canonical, guess, readers, sample
from dbgpt_lite.knowledge.loaders import TEXT_READERS, suffix
from dbgpt_lite.knowledge.markup import declared_encoding
from dbgpt_lite.knowledge.records import TextPreview

SHOWN = 2000
# The encoding is told from this much; a longer file is only counted through, block by block.
_JUDGED = 4_000_000
_BLOCK = 1 << 20
_HTML = (".html", ".htm")


def preview_text(path: Path, name: str, encoding: str = "") -> TextPreview | None:
    """How the file at `path` reads in `encoding`, "" for the likeliest; None for types that carry their encoding.

    Takes bounded memory whatever the size. Raises DocumentError (knowledge.unknown_encoding) for a name that is none.
    """
    if suffix(name) not in TEXT_READERS:
        return None
    with path.open("rb") as file:
        head = file.read(_JUDGED)
    found = guess(sample(head), declared_encoding(head) if suffix(name) in _HTML else "", whole=len(head) < _JUDGED)
    shown = canonical(encoding) if encoding else next(iter(found.encodings), OFFERED[0])
    if not shown:
        raise DocumentError("knowledge.unknown_encoding", encoding=encoding[:40], known=", ".join(OFFERED))
    codec = next((codec for codec in readers(shown) if _is_clean(path, codec)), "")
    undecodable = 0 if codec else _replaced(path, codec := readers(shown)[0])
    certain = found.certain and not undecodable and shown == next(iter(found.encodings), "")
    text = codecs.getincrementaldecoder(codec)("replace").decode(head[: 4 * SHOWN], final=len(head) <= 4 * SHOWN)
    choices = tuple(dict.fromkeys((shown, *found.encodings, *OFFERED)))
    return TextPreview(name, shown, certain, text.removeprefix("\ufeff")[:SHOWN], undecodable, choices)


def _is_clean(path: Path, codec: str) -> bool:
    try:
        return not any("\x00" in text for text in _texts(path, codec, "strict"))
    except UnicodeError:
        return False


def _replaced(path: Path, codec: str) -> int:
    """Places that do not decode or are no text."""
    return sum(text.count("\ufffd") + text.count("\x00") for text in _texts(path, codec, "replace"))


def _texts(path: Path, codec: str, errors: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(codec)(errors)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)
