"""Rows of a table -> lines that read well alone."""

import re
from collections.abc import Iterable, Iterator, Sequence


def table_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """One line a row. Below a header row it reads "header: value; header: value", else "value | value"."""
    filled = (cells for cells in map(_tidy, rows) if any(cells))
    first = next(filled, None)
    if first is None:
        return
    second = next(filled, None)
    if second is None or not _is_header(first):
        yield _plain(first)
        line = _plain
    else:

        def line(cells: list[str]) -> str:
            return _named(first, cells)

    if second is not None:
        yield line(second)
        yield from map(line, filled)


def _tidy(row: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def _plain(cells: list[str]) -> str:
    return " | ".join(cell for cell in cells if cell)


def _named(header: list[str], cells: list[str]) -> str:
    names = header + [""] * (len(cells) - len(header))
    pairs = ((name, cell) for name, cell in zip(names, cells, strict=False) if cell)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs)


def _is_header(cells: list[str]) -> bool:
    """Several different names, none of them a number."""
    names = [cell for cell in cells if cell]
    numbers = any(re.fullmatch(r"[-+]?[\d.,%$€¥ ]+", name) for name in names)
    return len(names) > 1 and len(set(names)) == len(names) and not numbers
