"""Runs steps of an ingestion in forked children and kills them: everything is imported once, so a run is short.

Reads one JSON object a line: {"folder", "space", "uploads": [[path, name], ...], "delete": [names], "delay": seconds or
null}. Answers one a line: {"killed": bool, "finished": [names reported as finished, in order]}.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import docx  # noqa: F401
import faiss  # noqa: F401
import langchain_text_splitters.character  # noqa: F401
import pypdfium2  # noqa: F401

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.knowledge.words import tokens
from tests.knowledge.fake_embedder import FakeEmbedder


def work(step: dict[str, Any], report: int) -> None:
    """One child: resume what is pending, take files in, delete; every finished name goes to the pipe at once."""
    base = KnowledgeBase(Path(step["folder"]), FakeEmbedder())
    space = step["space"]
    uploads = [Upload(Path(path), name) for path, name in step["uploads"]]
    for steps in (base.resume(space, threading.Event()), base.ingest(space, uploads, threading.Event())):
        for progress in steps:
            if progress.state in ("done", "duplicate"):
                os.write(report, f"{progress.file}\n".encode())
            assert progress.error is None, progress.error
    names = {document.name: document.id for document in base.documents(space)}
    for name in step["delete"]:
        if name in names:
            base.delete_document(space, names[name])
        os.write(report, f"{name}\n".encode())
    base.close()


def run(step: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(step, writing)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    if step["delay"] is not None:
        time.sleep(step["delay"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        finished = pipe.read().splitlines()
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        raise SystemExit("a child failed")
    return {"killed": killed, "finished": finished}


if __name__ == "__main__":
    tokens("准备")
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()
