"""A checkpoint folder, read without torch: its config, its task facts, its tensors' names, types and sizes.

Safetensors files begin with the header's length (8 bytes, little endian) and a JSON header
(https://huggingface.co/docs/safetensors). Reading headers costs milliseconds for any size of model. A GGUF file holds
config and tokenizer as well (gguf_header.py, gguf_config.py).
"""

import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.gguf_config import config_of
from dbgpt_lite.llm.gguf_header import read_gguf
from dbgpt_lite.texts import LANGUAGES, Language

TYPE_BYTES: Mapping[str, float] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "ice_text.model")
_MAX_HEADER = 100_000_000
# Entries of config.json that lead to others, or decide how the rest is read; each may be left out or null.
_ENTRIES: Mapping[str, type] = {
    "model_type": str, "architectures": list, "quantization_config": dict, "compression_config": dict,
    "rope_scaling": dict, "rope_parameters": dict, "text_config": dict, "auto_map": dict,
}  # fmt: skip
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_STEMS: Mapping["WeightFormat", str] = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
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
    """What a folder's ``dbgpt.json`` says of its model; every entry may be left out."""

    tasks: tuple[str, ...] = ("chat", "sql")
    languages: tuple[Language, ...] = ("en", "zh")
    sql_prompt: str = "sql"
    sql_dialect: str = ""
    chat_format: str = ""


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

    Raises ModelError when the folder or a readable config.json is missing.
    """
    if not folder.is_dir():
        raise ModelError("llm.no_folder", name=folder.name)
    if file := gguf_file(folder):
        return config_of(read_gguf(file))
    if not (folder / "config.json").is_file():
        raise ModelError("llm.no_config", name=folder.name)
    config = read_json(folder / "config.json")
    if not config.get("model_type"):
        raise ModelError("llm.no_model_type", name=folder.name)
    for entry, kind in _ENTRIES.items():
        if not isinstance(config.get(entry), kind | None):
            raise ModelError("llm.bad_entry", entry=entry, file="config.json", name=folder.name)
    return config


def read_facts(folder: Path) -> TaskFacts:
    """The folder's ``dbgpt.json``; without one, the defaults. Raises ModelError for one that cannot be read."""
    if not (folder / "dbgpt.json").is_file():
        return TaskFacts()
    given = read_json(folder / "dbgpt.json")
    default = TaskFacts()
    languages = tuple(language for language in LANGUAGES if language in given.get("languages", LANGUAGES))
    return TaskFacts(
        tasks=tuple(str(task) for task in given.get("tasks", default.tasks)),
        languages=languages or default.languages,
        sql_prompt=str(given.get("sql_prompt", default.sql_prompt)),
        sql_dialect=str(given.get("sql_dialect", "")),
        chat_format=str(given.get("chat_format", "")),
    )


def read_tokenizer_config(folder: Path) -> Mapping[str, Any]:
    """The folder's tokenizer_config.json, empty without one. Raises ModelError for one that cannot be read."""
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


def read_header(file: Path) -> list[TensorInfo]:
    """Tensors of a safetensors file. Raises ModelError when the file is cut short or is no such file."""
    damaged = ModelError("llm.damaged_file", file=file.name, name=file.parent.name)
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise damaged
        raw = stream.read(length)
    try:
        header: dict[str, Any] = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = [TensorInfo(name, entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()]
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise damaged from None
    if size != 8 + length + end:
        raise damaged
    return tensors


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
    names = sorted({str(name) for name in weight_map(index).values()})
    if any(Path(name).name != name for name in names):
        raise ModelError("llm.damaged_file", file=index.name, name=folder.name)
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
    if not isinstance(entries, dict):
        raise ModelError("llm.damaged_file", file=index.name, name=index.parent.name)
    return entries


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError for anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise ModelError("llm.damaged_file", file=file.name, name=file.parent.name)
    return content
