"""Rows of the catalogue as values, and values as they are stored."""

import json
import sqlite3
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dbgpt_lite.errors import DocumentError, UserError
from dbgpt_lite.knowledge.embeddings import Vectors
from dbgpt_lite.knowledge.records import Document, Space

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class VectorRows:
    """Vectors with the ids of their chunks: ids int64 (n,), vectors float32 (n, dimension)."""

    ids: Ids
    vectors: Vectors


def vector_rows(cursor: sqlite3.Cursor) -> VectorRows:
    """Ids and vectors of a query, in blocks: the bytes of a large space are never all held beside its vectors."""
    ids: list[int] = []
    blocks: list[Vectors] = []
    while rows := cursor.fetchmany(10_000):
        ids.extend(row[0] for row in rows)
        half = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.float16)
        blocks.append(half.reshape(len(rows), -1).astype(np.float32))
    vectors = np.concatenate(blocks) if blocks else np.zeros((0, 0), dtype=np.float32)
    return VectorRows(np.array(ids, dtype=np.int64), vectors)


def space_of(row: tuple[str, str, int, int, int, int]) -> Space:
    """A space from its row."""
    id_, name, readonly, hidden, chunks, documents = row
    return Space(id_, name, documents, chunks, bool(readonly), bool(hidden))


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
