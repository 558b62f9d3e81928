"""Frozen facts about spaces, documents and the progress of an upload."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import UserError

# pending: being indexed, or interrupted and resumable; ready: searchable; failed: `error` says why.
DocumentStatus = Literal["pending", "ready", "failed"]
IngestState = Literal["reading", "embedding", "done", "failed", "duplicate"]


@dataclass(frozen=True, slots=True)
class Space:
    """A collection of documents. `documents` and `chunks` count the searchable ones."""

    id: str
    name: str
    documents: int = 0
    chunks: int = 0
    readonly: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A file of a space. size in bytes; pages is 0 where the format has none; added in seconds since 1970 (UTC)."""

    id: str
    name: str
    size: int
    pages: int = 0
    chunks: int = 0
    status: DocumentStatus = "pending"
    error: UserError | None = None
    encoding: str = ""
    added: float = 0.0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to take in: where it lies now and what its owner calls it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Where an upload stands. file_number counts from 1; chunks_total is 0 until the file has been split."""

    file: str
    file_number: int
    files: int
    chunks_done: int = 0
    chunks_total: int = 0
    state: IngestState = "reading"
    error: UserError | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document ready to be stored: offsets in the extracted text, and the tokens for BM25."""

    text: str
    start: int
    end: int
    page: int | None = None
    heading: str = ""
    words: str = ""
