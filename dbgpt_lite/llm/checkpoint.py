"""A checkpoint folder, read without torch: its config, its task facts, its tensors' names, types and sizes.

Safetensors files begin with the header's length (8 bytes, little endian) and a JSON header
(https://huggingface.co/docs/safetensors). Reading headers costs milliseconds for any size of model. A GGUF file holds
config and tokenizer as well (gguf_header.py, gguf_config.py).
"""

import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.gguf_config import config_of
from dbgpt_lite.llm.gguf_header import read_gguf
from dbgpt_lite.llm.model_json import check_config, damaged, read_json, read_json_if_there, strings, wrong_entry
from dbgpt_lite.texts import LANGUAGES, Language

TYPE_BYTES: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "ice_text.model")
FACTS_FILE = "dbgpt.json"
_MAX_HEADER = 100_000_000
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_STEMS: Mapping["WeightFormat", str] = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
# File systems allow no longer names.
LONGEST_NAME = 255
WeightFormat = Literal["safetensors", "bin", "gguf"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as stored. `shape` is () for a scalar."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a folder's ``dbgpt.json`` says of its model; every entry may be left out. `base`: of an adapter."""

    tasks: tuple[str, ...] = ("chat", "sql")
    languages: tuple[Language, ...] = ("en", "zh")
    sql_prompt: str = "sql"
    sql_dialect: str = ""
    chat_format: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that passed the checks. `tensors` is empty for ``.bin`` files, whose sizes only `file_bytes` tells."""

    folder: Path
    config: Mapping[str, Any]
    facts: TaskFacts
    format: WeightFormat
    files: tuple[Path, ...]
    tensors: tuple[TensorInfo, ...]
    file_bytes: int

    @property
    def model_type(self) -> str:
        """config.json's ``model_type``."""
        return str(self.config.get("model_type", ""))

    @property
    def packed_int4(self) -> bool:
        """Whether the matrices are packed to 4 bits as in the ChatGLM int4 checkpoints."""
        return self.config.get("quantization_bit") == 4


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check a model folder and read its headers. Raises ModelError that says which file is wrong and what to do."""
    if file := gguf_file(folder):
        return read_gguf_checkpoint(file)
    config = read_config(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError("llm.no_tokenizer", name=folder.name)
    kind, files = _weight_files(folder)
    tensors: list[TensorInfo] = []
    for file in files:
        if kind == "safetensors":
            tensors += read_header(file)
        elif not zipfile.is_zipfile(file):
            raise _no_zip(file)
    _refuse_missing(folder, kind, tensors)
    size = sum(file.stat().st_size for file in files)
    return Checkpoint(folder, config, read_facts(folder), kind, files, tuple(tensors), size)


def read_gguf_checkpoint(file: Path) -> Checkpoint:
    """A GGUF file as a checkpoint; its tensors have llama.cpp's names. Raises ModelError like read_checkpoint."""
    header = read_gguf(file)
    tensors = tuple(TensorInfo(tensor.name, tensor.kind, tensor.shape) for tensor in header.tensors)
    facts = read_facts(file.parent)
    return Checkpoint(file.parent, config_of(header), facts, "gguf", (file,), tensors, file.stat().st_size)


def gguf_file(folder: Path) -> Path | None:
    """The GGUF file of a folder without other weights, None when it has none.

    Raises ModelError when there are several: transformers reads one file, so parts of a split one do not do either.
    """
    if not folder.is_dir() or has_weights(folder):
        return None
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".gguf" and file.name[0] != ".")
    split = next((file for file in found if _SPLIT.search(file.stem)), None)
    if split:
        raise ModelError("llm.gguf_split", name=folder.name, file=split.name)
    if len(found) > 1:
        raise ModelError("llm.gguf_several", name=folder.name, files=", ".join(file.name for file in found[:5]))
    return found[0] if found else None


def has_weights(folder: Path) -> bool:
    """Whether a folder has safetensors or ``.bin`` weights, or an index of them."""
    return any((folder / name).is_file() for stem in _STEMS.values() for name in (stem, f"{stem}.index.json"))


def read_config(folder: Path) -> Mapping[str, Any]:
    """config.json of a model folder, or what its GGUF file says in place of one.

    Raises ModelError when the folder or a sound config.json is missing.
    """
    if not folder.is_dir():
        raise ModelError("llm.no_folder", name=folder.name)
    if file := gguf_file(folder):
        return config_of(read_gguf(file))
    if not (folder / "config.json").is_file():
        raise ModelError("llm.no_config", name=folder.name)
    config = read_json(folder / "config.json")
    check_config(config, folder.name)
    return config


def read_facts(folder: Path) -> TaskFacts:
    """The folder's ``dbgpt.json``; without one, the defaults. null is as good as left out.

    Raises ModelError for one that cannot be read, or with an entry of the wrong type.
    """
    written = read_json_if_there(folder / FACTS_FILE)
    given = {key: value for key, value in written.items() if value is not None}
    for entry, right in _FACTS.items():
        if entry in given and not right(given[entry]):
            raise wrong_entry(FACTS_FILE, folder.name, entry, given[entry])
    default = TaskFacts()
    languages = tuple(language for language in LANGUAGES if language in given.get("languages", LANGUAGES))
    return TaskFacts(
        tasks=tuple(given.get("tasks", default.tasks)),
        languages=languages or default.languages,
        sql_prompt=given.get("sql_prompt", default.sql_prompt),
        sql_dialect=given.get("sql_dialect", ""),
        chat_format=given.get("chat_format", ""),
        base=given.get("base", ""),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# What the entries of dbgpt.json must be.
_FACTS: Mapping[str, Callable[[Any], bool]] = {
    "tasks": strings,
    "languages": strings,
    "sql_prompt": _is_text,
    "sql_dialect": _is_text,
    "chat_format": _is_text,
    "base": _is_text,
}


def read_tokenizer_config(folder: Path) -> Mapping[str, Any]:
    """The folder's tokenizer_config.json, empty without one. Raises ModelError for one that cannot be read."""
    return read_json_if_there(folder / "tokenizer_config.json")


def read_header(file: Path) -> list[TensorInfo]:
    """Tensors of a safetensors file. Raises ModelError when the file is cut short or is no such file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise damaged(file)
        raw = stream.read(length)
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = [_tensor(name, entry) for name, entry in header.items()]
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged(file) from None
    if size != 8 + length + end:
        raise damaged(file)
    return tensors


def _tensor(name: str, entry: Mapping[str, Any]) -> TensorInfo:
    """One entry of a header. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = (start, end, *shape)
    if not isinstance(dtype, str) or not all(type(number) is int and number >= 0 for number in numbers) or start > end:
        raise ValueError(name)
    return TensorInfo(name, dtype, tuple(shape))


def _no_zip(file: Path) -> ModelError:
    """What is wrong with a ``.bin`` file that is no zip archive: it is older than those, or damaged."""
    with file.open("rb") as stream:
        old = stream.read(15)[2:] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    return ModelError("llm.legacy_bin" if old else "llm.damaged_file", file=file.name, name=file.parent.name)


def _weight_files(folder: Path) -> tuple[WeightFormat, tuple[Path, ...]]:
    for kind, stem in _STEMS.items():
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return kind, _shards(index)
        if (folder / stem).is_file():
            return kind, (folder / stem,)
    raise ModelError("llm.no_weights", name=folder.name)


def _shards(index: Path) -> tuple[Path, ...]:
    """Files that an index names. A name that leaves the folder is refused."""
    folder = index.parent
    names = sorted(set(weight_map(index).values()))
    if any(Path(name).name != name or "\0" in name or len(name.encode()) > LONGEST_NAME for name in names):
        raise damaged(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise ModelError("llm.missing_shards", files=", ".join(missing[:5]), count=len(missing), name=folder.name)
    return tuple(folder / name for name in names)


def _refuse_missing(folder: Path, kind: WeightFormat, tensors: list[TensorInfo]) -> None:
    """Every tensor that the index promises must be in a shard's header."""
    index = folder / "model.safetensors.index.json"
    if kind != "safetensors" or not index.is_file():
        return
    missing = sorted(set(weight_map(index)) - {tensor.name for tensor in tensors})
    if missing:
        raise ModelError("llm.missing_tensors", names=", ".join(missing[:5]), count=len(missing), name=folder.name)


def weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor. Raises ModelError for an unreadable index."""
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict) or not strings([*entries.values()]):
        raise damaged(index)
    return entries
