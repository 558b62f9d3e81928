"""The header of a GGUF file: its facts, and its tensors' names, types and places. No torch, nothing to install.

Layout by https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. The gguf
package has a reader too; this one is here because folders are listed and planned without that package, because it
keeps a vocabulary of 128,000 words as its count, and because every count and length is held against the file before
anything is read, so that a damaged or hostile file is refused by its name and never reaches other readers.
"""

import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ModelError

# Types that the gguf package unpacks: number -> (name, values in a block, bytes of a block).
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip
# What ``general.file_type`` calls a mixture of types (llama.cpp's llama_ftype).
_MIXTURES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
# The largest vocabularies make headers of some 20 MB; the longest chat templates have some 20 kB.
_MAX_HEADER = 100_000_000
_MAX_ENTRIES = 65_536
_MAX_NAME = 65_535
_MAX_KEPT = 1024
_MAX_DIMENSIONS = 4
_TOKENS, _TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` rows first, as torch has it; `bytes` from `start` of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself. `values`: numbers, texts, and arrays of up to 1,024 numbers; `lengths`: how many
    entries every array has; `marks`: the special and added tokens of the vocabulary."""

    file: Path
    values: Mapping[str, Any]
    lengths: Mapping[str, int]
    marks: frozenset[str]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, "" without one."""
        return str(self.values.get("general.architecture", ""))

    @property
    def mixture(self) -> str:
        """How the weights are packed, as files are named: "Q4_K_M". The type of most bytes where it is not said."""
        said = self.values.get("general.file_type")
        if isinstance(said, int) and said in _MIXTURES:
            return _MIXTURES[said]
        sizes = Counter[str]()
        for tensor in self.tensors:
            sizes[tensor.kind] += tensor.bytes
        return max(sizes, key=lambda kind: sizes[kind], default="")


def read_gguf(file: Path) -> GgufHeader:
    """The header of a file. Raises ModelError for one that is cut short, damaged, or of another version."""
    try:
        facts = file.stat()
    except OSError:
        raise _damaged(file) from None
    return _read(file, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=16)
def _read(file: Path, size: int, _changed: int) -> GgufHeader:
    """Kept as long as the file stays the same: a page that lists the models asks for it every time."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(file, _Cursor(data, min(size, _MAX_HEADER)), size)
    except (OSError, ValueError, struct.error, OverflowError):
        raise _damaged(file) from None


def _damaged(file: Path) -> ModelError:
    return ModelError("llm.damaged_file", file=file.name, name=file.parent.name)


class _Cursor:
    """Reads one thing after the other from the first `end` bytes. Raises ValueError and struct.error beyond them."""

    def __init__(self, data: mmap.mmap, end: int) -> None:
        self._data, self._end, self.at = data, end, 0

    def number(self, code: str) -> Any:
        """One number of a type of the struct module."""
        return self.numbers(code, 1)[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        """`count` numbers."""
        start = self._skip(count * struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self._data, start)

    def text(self, most: int = _MAX_HEADER) -> str:
        """A length, and as many bytes of UTF-8."""
        length = self._length(most)
        start = self._skip(length)
        return self._data[start : start + length].decode("utf-8")

    def texts(self, count: int) -> list[bytes]:
        """`count` texts, not decoded: words of a vocabulary need not be UTF-8."""
        found = []
        for _ in range(count):
            length = self._length(_MAX_HEADER)
            start = self._skip(length)
            found.append(self._data[start : start + length])
        return found

    def count(self, most: int, least_bytes: int) -> int:
        """A number of entries of at least so many bytes each, which the rest of the header must have room for."""
        count = int(self.number("Q"))
        if count > most or count * least_bytes > self._end - self.at:
            raise ValueError("more entries than the file has room for")
        return count

    def _length(self, most: int) -> int:
        length = int(self.number("Q"))
        if length > most:
            raise ValueError("a text that is too long")
        return length

    def _skip(self, size: int) -> int:
        start, self.at = self.at, self.at + size
        if self.at > self._end:
            raise ValueError("the header ends early")
        return start


def _parse(file: Path, cursor: _Cursor, size: int) -> GgufHeader:
    if cursor.numbers("c", 4) != (b"G", b"G", b"U", b"F"):
        raise _damaged(file)
    version = cursor.number("I")
    if version not in _VERSIONS:
        # Big endian files have their version in the upper bytes.
        raise ModelError("llm.gguf_version", file=file.name, name=file.parent.name, version=version)
    tensors, entries = cursor.count(_MAX_ENTRIES, 24), cursor.count(_MAX_ENTRIES, 13)
    values: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    words: list[bytes] = []
    types: tuple[int, ...] = ()
    for _ in range(entries):
        key, kind = cursor.text(_MAX_NAME), cursor.number("I")
        if not key or key in values or key in lengths:
            raise ValueError("a key that is there twice, or none")
        if kind != _ARRAY:
            values[key] = _value(cursor, kind)
            continue
        inner = cursor.number("I")
        lengths[key], found = _array(cursor, inner)
        if key == _TOKENS and inner == _STRING:
            words = found
        elif key == _TOKEN_TYPES and inner != _STRING:
            types = found
        if inner != _STRING and lengths[key] <= _MAX_KEPT:
            values[key] = found
    marks = (word for word, kind in zip(words, types, strict=False) if kind in (_CONTROL, _USER_DEFINED))
    return GgufHeader(
        file,
        values,
        lengths,
        frozenset(word.decode("utf-8", "replace") for word in marks),
        _tensors(file, cursor, tensors, values.get("general.alignment", 32), size),
    )


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == _STRING:
        return cursor.text()
    return cursor.number(_code(kind))


def _array(cursor: _Cursor, kind: int) -> tuple[int, Any]:
    """Length and entries. Arrays of arrays are in the format but in no model's file."""
    if kind == _STRING:
        count = cursor.count(_MAX_HEADER, 8)
        return count, cursor.texts(count)
    code = _code(kind)
    count = cursor.count(_MAX_HEADER, struct.calcsize(f"<{code}"))
    return count, cursor.numbers(code, count)


def _code(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError("a type of value that does not exist")
    return _NUMBERS[kind]


def _tensors(file: Path, cursor: _Cursor, count: int, alignment: Any, size: int) -> tuple[GgufTensor, ...]:
    if not isinstance(alignment, int) or not 8 <= alignment <= 65_536 or alignment % 8:
        raise ValueError("an alignment that does not exist")
    rows = [_row(file, cursor) for _ in range(count)]
    data = -(-cursor.at // alignment) * alignment
    tensors = tuple(GgufTensor(name, kind, shape, data + offset, length) for name, kind, shape, offset, length in rows)
    if len({tensor.name for tensor in tensors}) != count:
        raise ValueError("a tensor that is there twice")
    end = data
    for tensor in sorted(tensors, key=lambda one: one.start):
        if tensor.start < end or (tensor.start - data) % alignment or tensor.start + tensor.bytes > size:
            raise ValueError("a tensor outside of the file or inside of another")
        end = tensor.start + tensor.bytes
    return tensors


def _row(file: Path, cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int, int]:
    """Name, type, shape, place behind the header, and bytes of one tensor."""
    name, dimensions = cursor.text(_MAX_NAME), cursor.number("I")
    if not name or not 1 <= dimensions <= _MAX_DIMENSIONS:
        raise ValueError("a tensor without a name, or of so many dimensions")
    shape: tuple[int, ...] = cursor.numbers("Q", dimensions)[::-1]
    number, offset = cursor.number("I"), cursor.number("Q")
    if number not in TYPES:
        raise ModelError("llm.unknown_type", tensor=name, dtype=f"ggml {number}", name=file.parent.name)
    kind, block, block_bytes = TYPES[number]
    if not all(shape) or shape[-1] % block:
        raise ValueError("a row that is no whole number of blocks")
    return name, kind, shape, offset, prod(shape) // block * block_bytes
