"""Rows of a table -> lines that read well alone, so that a chunk from the middle of a table still has its header."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

# Rows with a single entry above the header that are taken for the table's titles.
_MAX_TITLES = 3
_NUMBER = re.compile(r"[-+]?[\d.,%$€¥ ]+")


def table_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """One line a row. Below a header row it reads "header: value; header: value", else "value | value"."""
    filled = (cells for cells in map(_tidy, rows) if any(cells))
    titles, first = _titles(filled)
    yield from (_title(cells) for cells in titles)
    if first is None:
        return
    second = next(filled, None)
    if second is None or not _is_header(first):
        rest = [first] if second is None else [first, second]
        yield from map(_plain, chain(rest, filled))
        return
    yield from (_named(first, cells) for cells in chain([second], filled) if cells != first)


def _titles(filled: Iterator[list[str]]) -> tuple[list[list[str]], list[str] | None]:
    """Leading rows with one entry, as a caption merged over all columns is, and the row below them."""
    titles: list[list[str]] = []
    for cells in filled:
        if len(titles) == _MAX_TITLES or len(set(filter(None, cells))) > 1:
            return titles, cells
        titles.append(cells)
    return titles, None


def _tidy(row: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def _plain(cells: list[str]) -> str:
    return " | ".join(cell for cell in cells if cell)


def _title(cells: list[str]) -> str:
    """The words of a row that is one merged cell, which may come once for each column it covers."""
    words = next(filter(None, cells))
    return _plain(cells) if _NUMBER.fullmatch(words) else words


def _named(header: list[str], cells: list[str]) -> str:
    names = header + [""] * (len(cells) - len(header))
    pairs = ((name, cell) for name, cell in zip(names, cells, strict=False) if cell)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs)


def _is_header(cells: list[str]) -> bool:
    """Several different names, none of them a number."""
    names = [cell for cell in cells if cell]
    numbers = any(_NUMBER.fullmatch(name) for name in names)
    return len(names) > 1 and len(set(names)) == len(names) and not numbers
