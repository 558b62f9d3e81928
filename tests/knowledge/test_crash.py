"""kill -9 in the middle of an upload: what was finished is there, what was not goes on where it stopped."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import Upload

CHILD = """
import os, signal, sys, threading
from pathlib import Path
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import Upload
folder = Path(sys.argv[1])
base = KnowledgeBase(folder / "knowledge", Embedder(device="cpu"))
space = base.create("s")
uploads = [Upload(folder / "short", "short.txt"), Upload(folder / "long", "long.txt")]
for report in base.ingest(space.id, uploads, threading.Event()):
    if report.file == "long.txt" and report.chunks_done:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_while_embedding(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "short").write_text("The warranty lasts two years.")
    (tmp_path / "long").write_text("\n\n".join(f"Paragraph {n} tells of topic {n * 7}. " * 24 for n in range(40)))
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL

    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    [space] = base.spaces()
    assert (space.documents, space.chunks) == (1, 1)
    assert {found.document for found in base.search(space.id, "warranty topic paragraph", 9)} == {"short.txt"}
    assert {d.name: d.status for d in base.documents(space.id)} == {"short.txt": "ready", "long.txt": "pending"}

    reports = list(base.resume(space.id, threading.Event()))
    first = next(report for report in reports if report.state == "embedding")
    assert first.chunks_done > 0
    assert reports[-1].state == "done"
    long = next(document for document in base.documents(space.id) if document.name == "long.txt")
    assert (long.status, long.chunks) == ("ready", reports[-1].chunks_total)
    assert base.search(space.id, "Paragraph 39 topic 273", 1)[0].document == "long.txt"
    assert list(base.resume(space.id, threading.Event())) == []
    again = list(base.ingest(space.id, [Upload(tmp_path / "long", "long.txt")], threading.Event()))
    assert again[-1].state == "duplicate"
    base.close()
