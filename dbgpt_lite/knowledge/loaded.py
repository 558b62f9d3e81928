"""The text of a file in sections, with pages and headings."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from dbgpt_lite.errors import TooLarge

# Far above any document people read, far below what fills the memory.
MAX_CHARACTERS = 20_000_000

# A heading is stored and embedded with each of its chunks.
MAX_HEADING = 200

# Lines, rows or paragraphs between two looks at whether the reading was stopped.
WATCH_EVERY = 256

_SECTION_GAP = "\n\n"

T = TypeVar("T")

# Called now and then by a reader; raises (Cancelled) to stop it.
Check = Callable[[], None]


def never() -> None:
    """The check of a reader that nobody stops."""


def watched(items: Iterable[T], check: Check) -> Iterator[T]:
    """The items, with a call of `check` before every WATCH_EVERY of them."""
    for number, item in enumerate(items):
        if number % WATCH_EVERY == 0:
            check()
        yield item


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of text under one heading, on one page (None where the format has no pages)."""

    text: str
    page: int | None = None
    heading: str = ""


@dataclass(frozen=True)
class LoadedDocument:
    """The text of a file. Offsets of chunks count in `text`, the sections joined by blank lines.

    undecodable: places that did not decode in the encoding somebody chose; each is a U+FFFD in the text.
    """

    sections: tuple[Section, ...]
    encoding: str = ""
    pages: int = 0
    undecodable: int = 0

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return _SECTION_GAP.join(section.text for section in self.sections)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each section starts in `text`."""
        starts, position = [], 0
        for section in self.sections:
            starts.append(position)
            position += len(section.text) + len(_SECTION_GAP)
        return tuple(starts)


@dataclass
class Sections:
    """Collects sections, cleaned, and stops a document that grows beyond MAX_CHARACTERS.

    keep_bare: a heading with nothing under it is text of its own; not so for names of sheets and bookmarks.
    """

    keep_bare: bool = True
    sections: list[Section] = field(default_factory=list)
    characters: int = 0
    _path: list[str] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _is_bare: bool = False

    def line(self, text: str) -> None:
        """Add a line (or a block of them) under the current heading."""
        self.characters += len(text) + 1
        if self.characters > MAX_CHARACTERS:
            raise TooLarge("knowledge.too_much_text", limit=f"{MAX_CHARACTERS:,}")
        self._lines.append(text)

    def heading(self, level: int, title: str) -> None:
        """Start a section; level counts from 1. What is too long for a heading is its first line instead."""
        self.end()
        if level <= len(self._path):
            self._end_bare()
        title = " ".join(title.split())
        shown = title if len(title) <= MAX_HEADING else title[: MAX_HEADING - 1] + "…"
        self._path = [*self._path[: level - 1], *[""] * (level - 1 - len(self._path)), shown]
        self._is_bare = bool(title)
        if shown != title:
            self.line(title)

    def end(self, page: int | None = None) -> None:
        """Finish the current section."""
        text, self._lines = _clean("\n".join(self._lines)), []
        if text:
            self.sections.append(Section(text, page, _joined(self._path)))
            self._is_bare = False

    def _end_bare(self) -> None:
        """Keep the words of a heading that has neither text nor another heading under it."""
        if self._is_bare and self.keep_bare:
            title = _clean(self._path[-1])
            if title:
                self.sections.append(Section(title, None, _joined(self._path[:-1])))
        self._is_bare = False

    def is_blank(self) -> bool:
        """Whether the current section has no text yet."""
        return not any(line.strip() for line in self._lines)

    def document(self, encoding: str = "", pages: int = 0, undecodable: int = 0) -> LoadedDocument:
        self.end()
        self._end_bare()
        return LoadedDocument(tuple(self.sections), encoding, pages, undecodable)


def _joined(path: list[str]) -> str:
    return " › ".join(part for part in path if part)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")


def _clean(text: str) -> str:
    """One kind of line break, no control characters, no trailing blanks, at most one blank line in a row."""
    text = re.sub(r"\r\n?|\f|\x85|\u2028|\u2029", "\n", text)
    text = _CONTROL.sub("", text)
    text = re.sub(r"[ \t\u00a0\u3000]{9,}", " " * 8, text)
    text = re.sub(r"(?<![^\S\n])[^\S\n]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
