"""Frozen facts about spaces, documents and the progress of an upload."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dbgpt_lite.errors import UserError
from dbgpt_lite.messages import Passage

# pending: being indexed, or interrupted and resumable; ready: searchable; failed: `error` says why.
DocumentStatus = Literal["pending", "ready", "failed"]
IngestState = Literal["reading", "embedding", "done", "failed", "duplicate"]
JobKind = Literal["ingest", "resume", "reembed"]
# waiting: another job of the same space is at work; running jobs become done, cancelled or failed and stay so.
JobState = Literal["waiting", "running", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Space:
    """A collection of documents. `documents` and `chunks` count the searchable ones, `pending` the unfinished ones.

    A temporary space holds the files thrown into one conversation; only its owner sees it.
    """

    id: str
    name: str
    documents: int = 0
    chunks: int = 0
    readonly: bool = False
    hidden: bool = False
    temporary: bool = False
    owner: str = ""
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A file of a space. size in bytes; pages is 0 where the format has none; added in seconds since 1970 (UTC).

    source is the URL it was fetched from, "" for a file.
    """

    id: str
    name: str
    size: int
    pages: int = 0
    chunks: int = 0
    status: DocumentStatus = "pending"
    error: UserError | None = None
    encoding: str = ""
    added: float = 0.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to take in: where it lies now and what its owner calls it.

    encoding is the one its owner chose, "" to detect it; source the URL it came from, if any.
    """

    path: Path
    name: str
    encoding: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Where an upload stands. file_number counts from 1; chunks_total is 0 until the file has been split.

    seconds_left is for all the files of the job, None until there is a rate to go by. replaced: a finished file took
    the place of an older one of the same name.
    """

    file: str
    file_number: int
    files: int
    chunks_done: int = 0
    chunks_total: int = 0
    state: IngestState = "reading"
    error: UserError | None = None
    seconds_left: float | None = None
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A background job as it stood a moment ago.

    files: the last word about each file begun, in the order in which they were begun; files_done counts those that
    have come to an end (done, failed or duplicate) out of files_total. chunks_total counts only what is known: chunks
    of files already split. A failed job carries its error; a file's own failure is in its entry and fails no job.
    """

    id: str
    space_id: str
    kind: JobKind
    state: JobState = "waiting"
    files: tuple[IngestProgress, ...] = ()
    file: str = ""
    files_done: int = 0
    files_total: int = 0
    chunks_done: int = 0
    chunks_total: int = 0
    seconds_left: float | None = None
    error: UserError | None = None

    @property
    def over(self) -> bool:
        """Whether the job has come to its end, whichever."""
        return self.state in ("done", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class TextPreview:
    """The beginning of a text file read in `encoding`, for its owner to judge.

    certain: the bytes say so themselves or leave no doubt. undecodable: how many places of the whole file do not
    decode. choices: the encodings to offer, the likeliest first.
    """

    name: str
    encoding: str
    certain: bool
    text: str
    undecodable: int
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for a question, and whether it covers the question.

    best is the score of the best passage, needed the score from which passages count as covering the question.
    covered=False: passages is empty, and near_misses holds the best few all the same.
    """

    passages: tuple[Passage, ...]
    near_misses: tuple[Passage, ...]
    best: float
    needed: float
    covered: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document ready to be stored: offsets in the extracted text, and the tokens for BM25."""

    text: str
    start: int
    end: int
    page: int | None = None
    heading: str = ""
    words: str = ""
