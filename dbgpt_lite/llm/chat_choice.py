"""Which chat format a folder's model wants: said by someone, shown by its files, or the guess of its family. No torch.

The first that says anything wins: the folder's dbgpt.json, the setting, an architecture with a format of its own, the
tokenizer's template, its special tokens, the family's row. Only the last is a guess, and the Models page asks there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from dbgpt_lite.llm.architecture import chat_format as chat_format_of
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS, chat_format, format_shown_by
from dbgpt_lite.llm.checkpoint import FACTS_FILE, TOKENIZER_FILES, Checkpoint, read_facts
from dbgpt_lite.llm.families import Family, family
from dbgpt_lite.llm.gguf_header import read_gguf
from dbgpt_lite.llm.model_json import damaged, read_json_if_there, token_texts


@dataclass(frozen=True, slots=True)
class FormatChoice:
    """The chosen format and what chose it. `name` "": the tokenizer's own template."""

    name: str
    source: Literal["folder", "setting", "architecture", "template", "tokens", "family"]

    @property
    def known(self) -> bool:
        """Whether something said it, so that nobody needs to be asked."""
        return self.source != "family"


@dataclass(frozen=True, slots=True)
class FormatClues:
    """What a model's files show: a format that its architecture `implied`, whether the tokenizer has a template, and
    its special and added tokens."""

    implied: str = ""
    template: bool = False
    tokens: frozenset[str] = frozenset()


def choose_format(told: str, setting: str, clues: FormatClues, row: Family) -> FormatChoice:
    """The format of a model. `told`: what its dbgpt.json names."""
    if told:
        return FormatChoice(told, "folder")
    if setting:
        return FormatChoice(setting, "setting")
    if clues.implied:
        return FormatChoice(clues.implied, "architecture")
    if clues.template:
        return FormatChoice("", "template")
    if shown := format_shown_by(clues.tokens):
        return FormatChoice(shown, "tokens")
    return FormatChoice(row.chat_format, "family")


def format_of_folder(folder: Path, checkpoint: Checkpoint) -> FormatChoice:
    """The format of a folder that is not loaded, from its small files. `checkpoint`: the folder's own, or the base that
    its adapter is for; what the adapter's folder holds comes first."""
    facts = read_facts(folder) if (folder / FACTS_FILE).is_file() else checkpoint.facts
    if checkpoint.format == "gguf":
        clues = _gguf_clues(checkpoint)
    else:
        own = any((folder / name).is_file() for name in TOKENIZER_FILES)
        clues = _clues(folder if own else checkpoint.folder, chat_format_of(checkpoint))
    return choose_format(facts.chat_format, "", clues, family(checkpoint.config))


def open_choice(folder: Path, checkpoint: Checkpoint) -> FormatChoice | None:
    """The format in use where a person may choose another: nothing in the files shows one.

    Raises ModelError for a format that does not exist.
    """
    choice = format_of_folder(folder, checkpoint)
    if choice.name:
        chat_format(choice.name)
    return choice if choice.source in ("folder", "family") and choice.name in CHAT_FORMATS else None


def remember_format(folder: Path, name: str) -> None:
    """Write the format into the folder's dbgpt.json, whose other entries stay. Whole or not at all.

    Raises ModelError for an unknown format, OSError where the folder cannot be written.
    """
    chat_format(name)
    file, draft = folder / FACTS_FILE, folder / f".{FACTS_FILE}.{token_hex(4)}"
    text = json.dumps(read_json_if_there(file) | {"chat_format": name}, indent=2, ensure_ascii=False)
    try:
        draft.write_text(f"{text}\n", encoding="utf-8")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _gguf_clues(checkpoint: Checkpoint) -> FormatClues:
    header = read_gguf(checkpoint.files[0])
    return FormatClues("", bool(header.values.get("tokenizer.chat_template")), header.marks)


def _clues(folder: Path, implied: str) -> FormatClues:
    config = read_json_if_there(folder / "tokenizer_config.json")
    names = ("chat_template.jinja", "chat_template.json")
    template = bool(config.get("chat_template")) or any((folder / name).is_file() for name in names)
    return FormatClues(implied, template, frozenset(() if implied or template else _tokens(folder, config)))


def _tokens(folder: Path, config: dict[str, Any]) -> set[str]:
    """Special and added tokens; tokenizer.json, which can be large, is read only where the small files list none.

    Raises ModelError that names the file whose list of tokens is none.
    """
    file, added = folder / "tokenizer_config.json", config.get("added_tokens_decoder") or {}
    if not isinstance(added, dict):
        raise damaged(file)
    found = token_texts([*added.values()], file) | set(read_json_if_there(folder / "added_tokens.json"))
    if not found:
        file = folder / "tokenizer.json"
        found = token_texts(read_json_if_there(file).get("added_tokens") or [], file)
    return found
