"""KnowledgeBase's interface over spaces in memory, with background jobs a test can hold and let go."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dbgpt_lite.errors import DocumentError, NotFound
from dbgpt_lite.knowledge.records import Document, IngestProgress, Job, JobKind, Space, TextPreview, Upload
from dbgpt_lite.messages import Passage

HOSTILE = '<img src=x onerror="window.crossed=1"><script>window.crossed=1</script>'
PASSAGES = (
    Passage(1, "The Drift lantern runs for 120 hours on its lowest setting.\nOn the highest it runs for 9 hours.", "d1",
            "product-handbook.pdf", 3, "Drift lantern", score=0.81),
    Passage(2, "潮汐电饭煲的快煮程序需要 28 分钟，标准程序需要 45 分钟。", "d2", "产品指南.pdf", 2, "潮汐电饭煲",
            score=0.64),
    Passage(3, f"A passage that holds {HOSTILE} and more.", "d3", f"{HOSTILE}.md", None, HOSTILE, score=0.4),
)  # fmt: skip


class FakeJobs:
    """Jobs in threads. A file named bad.* fails; one named held.* is at work until `go` is set."""

    def __init__(self, knowledge: "FakeKnowledge") -> None:
        self._knowledge = knowledge
        self._jobs: dict[str, Job] = {}
        self._cancelled: set[str] = set()
        self.go = threading.Event()

    def start(self, space_id: str, uploads: Sequence[Upload], discard: Callable[[], None] | None = None) -> str:
        assert all(upload.path.is_file() for upload in uploads)
        for upload in uploads:
            self._knowledge.enter(space_id, upload)
        return self._begin(space_id, "ingest", [upload.name for upload in uploads], discard)

    def resume(self, space_id: str) -> str:
        waiting = [d.name for d in self._knowledge.documents(space_id) if d.status == "pending"]
        return self._begin(space_id, "resume", waiting, None)

    def reembed(self, space_id: str) -> str:
        self._knowledge.changed.discard(space_id)
        return self._begin(space_id, "reembed", [], None)

    def of_space(self, space_id: str) -> tuple[Job, ...]:
        return tuple(job for job in self._jobs.values() if job.space_id == space_id)

    def running(self) -> tuple[Job, ...]:
        return tuple(job for job in self._jobs.values() if not job.over)

    def cancel(self, job_id: str) -> None:
        self._cancelled.add(job_id)

    def wait(self, job_id: str, timeout: float = 10) -> Job:
        if job_id not in self._jobs:
            raise NotFound("knowledge.no_job")
        end = time.monotonic() + timeout
        while not self._jobs[job_id].over and time.monotonic() < end:
            time.sleep(0.01)
        return self._jobs[job_id]

    def _begin(self, space: str, kind: JobKind, names: list[str], discard: Callable[[], None] | None) -> str:
        job = Job(f"j{len(self._jobs)}", space, kind, "running", files_total=len(names), seconds_left=130.0)
        self._jobs[job.id] = job
        threading.Thread(target=self._run, args=(job.id, names, discard), daemon=True).start()
        return job.id

    def _run(self, job_id: str, names: list[str], discard: Callable[[], None] | None) -> None:
        for number, name in enumerate(names, 1):
            if not self._file(job_id, IngestProgress(name, number, len(names))):
                self._tell(job_id, state="cancelled")
                break
        else:
            self._tell(job_id, state="done")
        if discard:
            discard()

    def _file(self, job_id: str, line: IngestProgress) -> bool:
        space_id = self._jobs[job_id].space_id
        self._line(job_id, replace(line, state="embedding", chunks_done=4, chunks_total=12))
        while "held" in line.file and not self.go.is_set() and job_id not in self._cancelled:
            time.sleep(0.01)
        if job_id in self._cancelled:
            return False
        time.sleep(self._knowledge.pause_s)
        if line.file.startswith("bad"):
            self._knowledge.forget(space_id, line.file)
            self._line(job_id, replace(line, state="failed", error=DocumentError("knowledge.no_text")))
        else:
            again = self._knowledge.publish(space_id, line.file)
            self._line(job_id, replace(line, state="done", chunks_done=12, chunks_total=12, replaced=again))
        self._tell(job_id, files_done=line.file_number)
        return True

    def _line(self, job_id: str, line: IngestProgress) -> None:
        others = [one for one in self._jobs[job_id].files if one.file != line.file]
        files = (*others, line)
        done, total = sum(one.chunks_done for one in files), sum(one.chunks_total for one in files)
        self._tell(job_id, files=files, file=line.file, chunks_done=done, chunks_total=total)

    def _tell(self, job_id: str, **facts: object) -> None:
        self._jobs[job_id] = replace(self._jobs[job_id], **facts)  # type: ignore[arg-type]


class FakeKnowledge:
    """Spaces in memory. `changed` holds the ids of those made with another embedder."""

    def __init__(self) -> None:
        self._spaces = {
            "s0": Space("s0", "Lanternfish Goods (sample)", 2, 41, readonly=True),
            "s1": Space("s1", "合同与发票", 1, 3),
        }
        self._documents: dict[str, list[Document]] = {
            "s0": [
                Document("d1", "product-handbook.pdf", 182_400, 12, 30, "ready", added=1_790_000_000),
                Document("d2", "产品指南.pdf", 98_000, 4, 11, "ready", added=1_790_000_000),
            ],
            "s1": [
                Document("d3", f"{HOSTILE}.md", 1200, 0, 3, "ready", added=1_795_000_000),
                Document("d4", "scan.pdf", 5_000_000, 8, status="failed",
                         error=DocumentError("knowledge.scanned_pdf", pages=8), added=1_795_000_000),
            ],
        }  # fmt: skip
        self.pause_s = 0.05
        self.changed: set[str] = set()
        self.jobs = FakeJobs(self)

    # --- Spaces

    def spaces(self, owner: str = "") -> list[Space]:
        return [space for space in self._spaces.values() if not space.temporary or (owner and space.owner == owner)]

    def space(self, space_id: str) -> Space:
        if space_id not in self._spaces:
            raise NotFound("knowledge.no_space")
        return self._spaces[space_id]

    def create(self, name: str) -> Space:
        if any(space.name == name for space in self._spaces.values()):
            raise DocumentError("knowledge.name_taken", name=name)
        return self._add(Space(f"s{len(self._documents) + 10}", name))

    def create_temporary(self, owner: str, name: str) -> Space:
        return self._add(Space(f"t{len(self._documents) + 10}", name, temporary=True, owner=owner))

    def keep(self, space_id: str, name: str) -> Space:
        self._spaces[space_id] = replace(self.space(space_id), name=name, temporary=False, owner="")
        return self._spaces[space_id]

    def rename(self, space_id: str, name: str) -> Space:
        self._spaces[space_id] = replace(self.space(space_id), name=name)
        return self._spaces[space_id]

    def empty(self, space_id: str) -> int:
        count = len(self.documents(space_id))
        self._documents[space_id] = []
        self._count(space_id)
        return count

    def delete(self, space_id: str) -> None:
        self.space(space_id)
        del self._spaces[space_id]

    def needs_reembedding(self, space_id: str) -> bool:
        return space_id in self.changed

    # --- Documents

    def documents(self, space_id: str) -> list[Document]:
        self.space(space_id)
        return list(self._documents[space_id])

    def document(self, space_id: str, document_id: str) -> Document:
        for document in self.documents(space_id):
            if document.id == document_id:
                return document
        raise NotFound("knowledge.no_document")

    def delete_document(self, space_id: str, document_id: str) -> None:
        self.document(space_id, document_id)
        self._documents[space_id] = [d for d in self._documents[space_id] if d.id != document_id]
        self._count(space_id)

    def chunks(self, space_id: str, document_id: str) -> list[Passage]:
        self.document(space_id, document_id)
        return list(PASSAGES)

    def preview(self, path: Path, name: str, encoding: str = "") -> TextPreview | None:
        if not name.endswith((".txt", ".md")):
            return None
        content = path.read_bytes()
        for guess in (encoding,) if encoding else ("utf-8", "gb18030"):
            text = content.decode(guess, errors="replace")
            if "\ufffd" not in text or encoding:
                choices = ("gb18030", "big5", "utf-8")
                return TextPreview(name, guess, guess == "utf-8", text, text.count("\ufffd"), choices)
        raise AssertionError

    # --- What jobs do

    def enter(self, space_id: str, upload: Upload) -> None:
        made = Document(
            f"d{time.monotonic_ns()}",
            upload.name,
            upload.path.stat().st_size,
            status="pending",
            encoding=upload.encoding,
            added=time.time(),
            source=upload.source,
        )
        self._documents[space_id].insert(0, made)
        self._count(space_id)

    def publish(self, space_id: str, name: str) -> bool:
        """Make a pending document searchable in the place of an older one; whether there was one."""
        before = self._documents.get(space_id, [])
        [new] = [d for d in before if d.name == name and d.status == "pending"][:1]
        ready = replace(new, status="ready", pages=2, chunks=12)
        kept = [ready if d is new else d for d in before if d is new or d.name != name]
        self._documents[space_id] = kept
        self._count(space_id)
        return len(kept) < len(before)

    def forget(self, space_id: str, name: str) -> None:
        self._documents[space_id] = [d for d in self._documents[space_id] if d.name != name]
        self._count(space_id)

    def _add(self, made: Space) -> Space:
        self._spaces[made.id] = made
        self._documents[made.id] = []
        return made

    def _count(self, space_id: str) -> None:
        if space_id not in self._spaces:
            return
        documents = self._documents[space_id]
        ready = [d for d in documents if d.status == "ready"]
        pending = sum(d.status == "pending" for d in documents)
        self._spaces[space_id] = replace(
            self._spaces[space_id], documents=len(ready), chunks=sum(d.chunks for d in ready), pending=pending
        )
