"""The index file: a cache that is checked, brought up to date and rebuilt, and never a pickle."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import IngestProgress

TakeIn = Callable[..., list[IngestProgress]]
TEXTS = {
    f"{number}.txt": f"Report number {number} is about {topic}." for number, topic in enumerate(["cats", "rain", "tax"])
}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def saved(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> tuple[str, Path]:
    """A space with three documents, closed; its index file."""
    space = base.create("s")
    take_in(space.id, TEXTS)
    base.close()
    return space.id, tmp_path / "knowledge" / "indexes" / f"{space.id}.faiss"


def reopened_answer(tmp_path: Path, embedder: Embedder, space_id: str) -> str:
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    found = base.search(space_id, "When does it pour?", 3)
    base.close()
    assert len(found) == 3
    return found[0].document


def test_a_saved_index_is_read_again(
    saved: tuple[str, Path], tmp_path: Path, embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    space_id, file = saved
    manifest = json.loads(file.with_suffix(".json").read_text())
    assert (manifest["embedder"], manifest["dimension"], manifest["count"]) == (embedder.identity, 384, 3)
    assert reopened_answer(tmp_path, embedder, space_id) == "1.txt"
    assert "rebuilt" not in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "missing", "flipped", "manifest", "other"])
def test_a_damaged_index_is_rebuilt(saved: tuple[str, Path], tmp_path: Path, embedder: Embedder, damage: str) -> None:
    space_id, file = saved
    content = file.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 255]) + content[-8:]
    contents = {"truncated": content[:100], "garbage": b"IxM2" + b"\xff" * 500, "empty": b"", "flipped": flipped}
    if damage in contents:
        file.write_bytes(contents[damage])
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        file.with_suffix(".json").write_text("{broken")
    else:
        manifest = json.loads(file.with_suffix(".json").read_text())
        file.with_suffix(".json").write_text(json.dumps(manifest | {"embedder": "other@0"}))
    assert reopened_answer(tmp_path, embedder, space_id) == "1.txt"


def test_a_stale_index_is_brought_up_to_date(
    saved: tuple[str, Path], tmp_path: Path, embedder: Embedder, take_in: TakeIn
) -> None:
    space_id, file = saved
    old = {path: path.read_bytes() for path in (file, file.with_suffix(".json"))}
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    base.delete_document(space_id, next(d.id for d in base.documents(space_id) if d.name == "0.txt"))
    base.close()
    for path, content in old.items():
        path.write_bytes(content)
    base = KnowledgeBase(tmp_path / "knowledge", embedder)
    assert {found.document for found in base.search(space_id, "cats", 9)} == {"1.txt", "2.txt"}
    base.close()


def test_a_planted_pickle_is_never_opened(saved: tuple[str, Path], tmp_path: Path, embedder: Embedder) -> None:
    space_id, file = saved
    struck = tmp_path / "struck"
    bomb = pickle.dumps(Bomb(struck))
    for path in (file.parent / "index.pkl", file.with_suffix(".pkl"), file, file.with_suffix(".json")):
        path.write_bytes(bomb)
    assert reopened_answer(tmp_path, embedder, space_id) == "1.txt"
    assert not struck.exists()


def test_scores_are_cosines_of_the_stored_vectors(base: KnowledgeBase, take_in: TakeIn, embedder: Embedder) -> None:
    space = base.create("s")
    take_in(space.id, TEXTS)
    question = embedder.embed(["About tax"], "query")[0]
    for found in base.search(space.id, "About tax", 3):
        expected = float(embedder.embed([found.text])[0] @ question)
        assert found.score == pytest.approx(expected, abs=0.02)
        assert np.isfinite(found.score)
