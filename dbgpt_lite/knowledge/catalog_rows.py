"""Rows of the catalogue as values, and values as they are stored."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.errors import DocumentError, UserError
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.records import Document, Space

Ids = NDArray[np.int64]

# Rows of vectors that are held beside what is made of them: 15 MB at 384 dimensions.
_BLOCK = 10_000


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Vectors with the ids of their chunks: ids int64 (n,), vectors float32 (n, dimension)."""

    ids: Ids
    vectors: Vectors


def vector_blocks(cursor: sqlite3.Cursor) -> Iterator[VectorRows]:
    """Ids and vectors of a query, a block at a time: the vectors of a large space need never all be held."""
    while rows := cursor.fetchmany(_BLOCK):
        half = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.float16)
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        yield VectorRows(ids, half.reshape(len(rows), -1).astype(np.float32))


def joined(blocks: Sequence[VectorRows]) -> VectorRows:
    """Several blocks as one."""
    if not blocks:
        return VectorRows(np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32))
    return VectorRows(np.concatenate([b.ids for b in blocks]), np.concatenate([b.vectors for b in blocks]))


def space_of(row: tuple[str, str, int, int, int, int, str, int, int]) -> Space:
    """A space from its row."""
    id_, name, readonly, hidden, chunks, temporary, owner, documents, pending = row
    return Space(id_, name, documents, chunks, bool(readonly), bool(hidden), bool(temporary), owner, pending)


def document_of(row: tuple[object, ...]) -> Document:
    """A document from its row."""
    values = list(row)
    values[6] = _error(str(values[6]))
    return Document(*values)  # type: ignore[arg-type]


def error_json(error: UserError) -> str:
    """An error as it is stored: key and facts, so that each reader sees it in their language."""
    facts = {name: value if isinstance(value, int | float) else str(value) for name, value in error.facts.items()}
    return json.dumps({"key": error.key, "facts": facts}, ensure_ascii=False)


def _error(stored: str) -> UserError | None:
    if not stored:
        return None
    content = json.loads(stored)
    return DocumentError(content["key"], **content["facts"])
