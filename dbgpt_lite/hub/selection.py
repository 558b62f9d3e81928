"""Which files of a repository make a model folder: one set of weights, the small files beside it, no code. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dbgpt_lite.errors import ModelError
from dbgpt_lite.hub.names import is_safe_path, shown

_SMALL = (".json", ".txt", ".model", ".tiktoken", ".jinja", ".md", ".spm", ".bpe")
_LEGAL = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY")
# Modules of sentence-transformers (1_Pooling/config.json) and transformers' further chat templates.
_FOLDERS = re.compile(r"(\d+_[A-Za-z]\w*|additional_chat_templates)/[^/]+", re.ASCII)
_INDEX = re.compile(r"(?P<weights>.+\.(safetensors|bin))\.index\.json")
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}\.(safetensors|bin)")
_STEMS = {"safetensors": ("model", "adapter_model"), "bin": ("pytorch_model", "adapter_model")}
# What trainers leave beside weights, and Mistral's second copy of them.
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.bin|consolidated.*\.safetensors")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. `size` -1: not told. `sha256` or `git_sha1` (of git's blob) as far as the hub tells."""

    path: str
    size: int = -1
    sha256: str = ""
    git_sha1: str = ""


def chosen_files(name: str, files: Sequence[RemoteFile], gguf: str = "") -> tuple[RemoteFile, ...]:
    """The files to download, by name. `gguf`: a pattern of GGUF files to take in place of the weights.

    Raises ModelError for a repository with a file name that would leave the folder, or without weights to take.
    """
    for file in files:
        if not is_safe_path(file.path):
            raise ModelError("hub.bad_file_name", name=name, file=shown(file.path))
    paths = [file.path for file in files]
    weights = _gguf(name, paths, gguf) if gguf else _weights(name, paths)
    wanted = {*weights, *(path for path in paths if _beside(path, weights))}
    return tuple(sorted((file for file in files if file.path in wanted), key=lambda file: file.path))


def _gguf(name: str, paths: Sequence[str], pattern: str) -> set[str]:
    there = [path for path in paths if path.lower().endswith(".gguf")]
    found = {path for path in there if fnmatchcase(path, pattern)}
    if not found:
        raise ModelError("hub.no_such_gguf", name=name, pattern=pattern, files=", ".join(there[:20]) or "-")
    return found


def _weights(name: str, paths: Sequence[str]) -> set[str]:
    for kind in ("safetensors", "bin"):
        if found := _weights_of(kind, [path for path in paths if path.endswith(f".{kind}")], set(paths)):
            return found
    gguf = any(path.lower().endswith(".gguf") for path in paths)
    raise ModelError("hub.only_gguf" if gguf else "hub.no_weights", name=name)


def _weights_of(kind: str, paths: Sequence[str], everything: set[str]) -> set[str]:
    """One complete set: what the index names, else the single file, else whatever else there is of this kind."""
    found: set[str] = set()
    for stem in _STEMS[kind]:
        single = f"{stem}.{kind}"
        shards = {path for path in paths if (match := _SHARD.fullmatch(path)) and match["stem"] == stem}
        if single in paths and not (shards and f"{single}.index.json" in everything):
            shards = {single}
        found |= shards
    own = [path for path in paths if "/" not in path]
    found = found or {path for path in own if not _NO_WEIGHTS.fullmatch(path)}
    return found or {path for path in own if path.startswith("consolidated")}


def _beside(path: str, weights: set[str]) -> bool:
    """Whether a file goes with these weights."""
    name = path.rpartition("/")[2]
    if name.startswith(".") or ("/" in path and not _FOLDERS.fullmatch(path)):
        return False
    if match := _INDEX.fullmatch(path):
        stem, _, kind = match["weights"].rpartition(".")
        return any(other.startswith(f"{stem}-") and other.endswith(f".{kind}") for other in weights)
    if name.endswith((".safetensors", ".bin")) and "/" in path:
        # A layer of its own (2_Dense/) comes in the form the others have.
        return name.rpartition(".")[2] in {other.rpartition(".")[2] for other in weights}
    return name.lower().endswith(_SMALL) or name.upper().startswith(_LEGAL)
