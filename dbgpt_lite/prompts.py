"""Task prompts kept as text files: ``prompts/<task>.<language>.txt`` with ``[system]`` and ``[user]`` sections.

Variables are written ``{name}``. A variable that nobody fills is an error that names it and the file.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.messages import Message
from dbgpt_lite.texts import Language, variables

_SECTION = re.compile(r"^\[(system|user)\][ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class PromptTemplate:
    """One prompt file."""

    file: str
    system: str
    user: str

    @cached_property
    def variables(self) -> frozenset[str]:
        """Every variable the file names."""
        return frozenset(variables(self.system) | variables(self.user))

    def render(self, **values: str) -> tuple[Message, ...]:
        """The system message (unless empty) and the user message. Raises ConfigError for a missing variable."""
        if missing := sorted(self.variables - values.keys()):
            raise ConfigError("app.prompt_variable", file=self.file, name=missing[0])
        system, user = self.system.format_map(values), self.user.format_map(values)
        return (*([Message("system", system)] if system else []), Message("user", user))

    def common(self, names: Collection[str] = (), **values: str) -> str:
        """The beginning of the system message that is the same for everybody: up to a variable that is none of these
        `names`."""
        beginning = ""
        for literal, name, _, _ in Formatter().parse(self.system):
            beginning += literal
            if name and name not in names:
                break
            beginning += values[name] if name else ""
        return beginning


class Prompts:
    """The prompt files of one folder, read on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, PromptTemplate] = {}

    def has(self, task: str) -> bool:
        """Whether a prompt for `task` exists in any language."""
        return any(self._folder.glob(f"{task}.*.txt"))

    def get(self, task: str, language: Language) -> PromptTemplate:
        """The prompt in `language`, or in English where only that exists."""
        wanted = f"{task}.{language}.txt"
        name = wanted if (self._folder / wanted).is_file() else f"{task}.en.txt"
        if name not in self._loaded:
            self._loaded[name] = _read(self._folder / name)
        return self._loaded[name]


def _read(file: Path) -> PromptTemplate:
    try:
        parts = _SECTION.split(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ConfigError("app.prompt_missing", file=file.name) from None
    sections = {name: body.strip("\n") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    if "user" not in sections:
        raise ConfigError("app.prompt_section", file=file.name)
    return PromptTemplate(file.name, sections.get("system", ""), sections["user"])
