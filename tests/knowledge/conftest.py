"""Parts the tests of the knowledge package share: the real embedder and an empty knowledge base."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from tests.knowledge.vector_space import VectorSpace


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder(device="cpu")


@pytest.fixture
def base(tmp_path: Path, embedder: Embedder) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase(tmp_path / "knowledge", embedder, max_file_bytes=2_000_000, max_files=20)
    yield base
    base.close()


@pytest.fixture
def take_in(base: KnowledgeBase, tmp_path: Path) -> Callable[..., list[IngestProgress]]:
    """take_in(space_id, {"name.txt": content}) ingests and returns the last report of each file."""

    def run(space_id: str, files: dict[str, bytes | str]) -> list[IngestProgress]:
        uploads = []
        for number, (name, content) in enumerate(files.items()):
            path = tmp_path / f"upload{number}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            uploads.append(Upload(path, name))
        reports = list(base.ingest(space_id, uploads, threading.Event()))
        return [report for report in reports if report.state in ("done", "failed", "duplicate")]

    return run


@pytest.fixture
def space(tmp_path: Path) -> Iterator[VectorSpace]:
    """An empty space for made vectors."""
    space = VectorSpace(tmp_path)
    yield space
    space.catalog.close()
