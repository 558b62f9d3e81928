"""The files of an index: checked, brought up to date, rebuilt; written so that a kill costs nothing; no pickle."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.knowledge import ann, index_files
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import IngestProgress
from dbgpt_lite.knowledge.vector_store import IndexOptions, VectorStore
from tests.knowledge.vector_space import (
    DIMENSION,
    EMBEDDER,
    LARGE,
    VectorSpace,
    agrees,
    ids_found,
    made_vectors,
    manifest_of,
    recall,
    store_of,
)

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


def saved(space: VectorSpace, count: int = 300) -> None:
    space.add(made_vectors(count))
    store = store_of(space)
    store.refresh(EMBEDDER)
    store.settle()
    store.close()


def base_file(space: VectorSpace) -> Path:
    return space.folder / str(manifest_of(space)["base_file"])


def test_the_manifest_says_what_the_file_holds(space: VectorSpace) -> None:
    space.add(made_vectors(LARGE))
    store = store_of(space, IndexOptions(exact_limit=1500, small=100, splitter="180 tokens, 30 shared"))
    store.refresh(EMBEDDER)
    store.settle()
    store.close()
    manifest = manifest_of(space)
    assert manifest["format"] == index_files.FORMAT
    assert (manifest["embedder"], manifest["dimension"], manifest["splitter"]) == (
        EMBEDDER,
        DIMENSION,
        "180 tokens, 30 shared",
    )
    assert (manifest["count"], manifest["base_count"], manifest["trained_on"]) == (LARGE, LARGE, LARGE)
    assert manifest["kind"] == "IVF128,SQ8"
    assert int(str(manifest["effort"])) > 0
    assert float(str(manifest["recall"])) >= 0.99


@pytest.mark.parametrize("count", [300, LARGE])
def test_a_saved_index_is_read_and_not_built(
    space: VectorSpace, count: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saved(space, count)
    monkeypatch.setattr(ann, "trained", None)
    store = store_of(space)
    assert recall(space, lambda query: ids_found(store, query), made_vectors(20, seed=5)) >= 0.95
    assert not caplog.records
    store.close()


def test_a_small_change_of_a_large_index_rewrites_no_base(space: VectorSpace) -> None:
    saved(space, LARGE)
    file, store = base_file(space), store_of(space)
    before = file.stat().st_mtime_ns
    document = space.add(made_vectors(20, seed=1))
    first = int(space.visible()[0][0])
    store.refresh(EMBEDDER)
    store.save()
    assert (base_file(space), file.stat().st_mtime_ns) == (file, before)
    assert (manifest_of(space)["delta_count"], manifest_of(space)["count"]) == (20, LARGE + 20)
    delta = space.folder / str(manifest_of(space)["delta_file"])
    assert delta.stat().st_size < 10_000
    with closing(store_of(space)) as again:
        assert ids_found(again, made_vectors(20, seed=1)[4], 1)[0] > first + LARGE - 1
    space.delete(document)
    store.refresh(EMBEDDER)
    store.save()
    assert manifest_of(space)["delta_file"] == ""
    assert not delta.exists(), "what no manifest names goes"
    store.close()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "missing"])
def test_a_damaged_delta_costs_nothing_but_reading_it_anew(
    space: VectorSpace, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    saved(space, LARGE)
    store = store_of(space)
    space.add(made_vectors(20, seed=1))
    store.refresh(EMBEDDER)
    store.close()
    delta = space.folder / str(manifest_of(space)["delta_file"])
    spoil(delta, damage)
    with closing(store_of(space)) as again:
        assert again.search(made_vectors(20, seed=1)[3], EMBEDDER, 1)[0].score > 0.999
        assert again.snapshot is not None
        assert again.snapshot.base is not None
        assert again.snapshot.base.kind.startswith("IVF")
    assert "read anew" in caplog.text


def spoil(file: Path, damage: str) -> None:
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
        return
    flipped = content[:-9] + bytes([content[-9] ^ 255]) + content[-8:]
    file.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "garbage": b"IxM2" + b"\xff" * 500,
            "empty": b"",
            "flipped": flipped,
        }[damage]
    )


DAMAGES = ("truncated", "garbage", "empty", "missing", "flipped", "manifest", "newer", "other", "outside", "swapped")


@pytest.mark.parametrize("count", [300, LARGE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_rebuilt(space: VectorSpace, damage: str, count: int, tmp_path: Path) -> None:
    saved(space, count)
    for previous in space.folder.glob("*.previous.json"):
        previous.unlink()
    file, manifest = space.folder / f"{space.id}.json", manifest_of(space)
    if damage == "manifest":
        file.write_text("{broken")
    elif damage == "newer":
        file.write_text(json.dumps(manifest | {"format": index_files.FORMAT + 1, "more": 1}))
    elif damage == "other":
        file.write_text(json.dumps(manifest | {"embedder": "other@0"}))
    elif damage == "outside":
        elsewhere = tmp_path / "elsewhere.faiss"
        base_file(space).rename(elsewhere)
        file.write_text(json.dumps(manifest | {"base_file": "../" + elsewhere.name}))
    elif damage == "swapped":
        # A whole and well-formed index of other vectors, with a manifest that fits it: only the probe can tell.
        swap_in_another(space, manifest)
    else:
        spoil(base_file(space), damage)
    store = store_of(space)
    store.refresh(EMBEDDER)
    store.settle()
    assert recall(space, lambda query: ids_found(store, query), made_vectors(10, seed=5)) >= 0.95
    store.close()
    assert manifest_of(space)["count"] == count
    with closing(store_of(space)) as again:
        assert recall(space, lambda query: ids_found(again, query), made_vectors(10, seed=5)) >= 0.95


def swap_in_another(space: VectorSpace, manifest: dict[str, object]) -> None:
    import faiss

    ids, _ = space.visible()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIMENSION))
    index.add_with_ids(made_vectors(len(ids), seed=99), ids)
    faiss.write_index(index, str(base_file(space)))
    changes = {"base_sha256": index_files._sha256(base_file(space)), "kind": "Flat"}
    (space.folder / f"{space.id}.json").write_text(json.dumps(manifest | changes))


def test_the_last_good_base_is_kept_and_used(space: VectorSpace, caplog: pytest.LogCaptureFixture) -> None:
    space.add(made_vectors(LARGE))
    with closing(store_of(space, IndexOptions(exact_limit=1500, small=100, kind="IVF16,SQ8", effort=16))) as store:
        store.refresh(EMBEDDER)
        store.settle()
    old = base_file(space)
    space.add(made_vectors(LARGE + 1500, seed=1))
    with closing(store_of(space, IndexOptions(exact_limit=1500, small=100, kind="IVF16,SQ8", effort=16))) as store:
        store.refresh(EMBEDDER)
        store.settle()
    new = base_file(space)
    assert old != new
    assert old.exists()
    assert old.name in (space.folder / f"{space.id}.previous.json").read_text()
    spoil(new, "truncated")
    store = store_of(space, IndexOptions(exact_limit=1500, small=100, kind="IVF16,SQ8", effort=16))
    assert agrees(store, space), "the old base and, beside it, what came since"
    assert "is not used" in caplog.text
    store.settle()
    store.close()
    assert not new.exists()
    with closing(store_of(space)) as again:
        assert agrees(again, space)


def test_no_more_than_two_bases_are_kept(space: VectorSpace) -> None:
    store = store_of(space)
    for seed in range(6):
        space.add(made_vectors(10, seed=seed))
        store.refresh(EMBEDDER)
        store.save()
    assert len(list(space.folder.glob(f"{space.id}.*.faiss"))) == 2
    store.forget()
    assert not list(space.folder.glob(f"{space.id}.*"))


def test_an_index_that_fails_its_probe_is_not_swapped_in(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saved(space, 50)
    before = manifest_of(space)
    space.add(made_vectors(20, seed=1))
    store = store_of(space)
    store.refresh(EMBEDDER)
    monkeypatch.setattr(
        VectorStore, "_fetch", lambda *_: lambda ids: index_files.VectorRows(ids, made_vectors(len(ids), 9))
    )
    store.save()
    assert "does not find itself" in caplog.text
    assert manifest_of(space) == before


def test_a_disk_that_is_full_costs_the_file_and_nothing_else(
    space: VectorSpace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space.add(made_vectors(50))
    store = store_of(space)
    assert agrees(store, space)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store.save()
    assert "was not saved" in caplog.text
    monkeypatch.undo()
    store.save()
    assert manifest_of(space)["count"] == 50
    assert agrees(store, space)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from dbgpt_lite.knowledge import index_files
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.vector_store import VectorStore
folder, space, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = VectorStore(folder, space, Catalog(folder / "catalog.sqlite3"))
store.refresh("made@1")
steps = iter(range(1000))
def die(really):
    def wrapper(*arguments, **named):
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return really(*arguments, **named)
    return wrapper
os.fsync = die(os.fsync)
Path.replace = die(Path.replace)
Path.unlink = die(Path.unlink)
store.save()
"""


def test_killed_between_any_two_steps_of_a_save_it_opens_again(space: VectorSpace) -> None:
    saved(space)
    space.add(made_vectors(50, seed=1))
    for step in range(40):
        command = [sys.executable, "-c", KILLED, str(space.folder), space.id, str(step)]
        code = subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode
        with closing(store_of(space)) as store:
            assert agrees(store, space)
            # Unsaved again, so that the next one has something to write.
            space.add(made_vectors(5, seed=step))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert 5 < step < 40


def test_two_processes_share_the_files(space: VectorSpace) -> None:
    space.add(made_vectors(300))
    first, second = store_of(space), store_of(space)
    for seed in range(4):
        for number, store in enumerate((first, second)):
            space.add(made_vectors(10, seed=10 * seed + number))
            store.refresh(EMBEDDER)
            store.save()
            assert agrees(first, space)
            assert agrees(second, space)
    with closing(store_of(space)) as third:
        assert agrees(third, space)


# --- pickles


def test_a_planted_pickle_is_never_opened(
    base: KnowledgeBase, take_in: TakeIn, tmp_path: Path, embedder: Embedder
) -> None:
    space_id = base.create("s").id
    take_in(space_id, TEXTS)
    base.close()
    struck, folder = tmp_path / "struck", tmp_path / "knowledge" / "indexes"
    bomb = pickle.dumps(Bomb(struck))
    for path in [*folder.glob(f"{space_id}.*"), folder / "index.pkl", folder / f"{space_id}.pkl"]:
        path.write_bytes(bomb)
    again = KnowledgeBase(tmp_path / "knowledge", embedder)
    assert again.search(space_id, "When does it pour?", 3)[0].document == "1.txt"
    again.close()
    assert not struck.exists()


def test_a_pickle_inside_a_delta_is_never_opened(space: VectorSpace, tmp_path: Path) -> None:
    saved(space, LARGE)
    store, struck = store_of(space), tmp_path / "struck"
    space.add(made_vectors(20, seed=1))
    store.refresh(EMBEDDER)
    store.close()
    delta = space.folder / str(manifest_of(space)["delta_file"])
    with delta.open("wb") as stream:
        np.savez(stream, ids=np.array([Bomb(struck)], dtype=object), vectors=np.zeros(1), gone=np.zeros(0))
    changed = manifest_of(space) | {"delta_sha256": index_files._sha256(delta)}
    (space.folder / f"{space.id}.json").write_text(json.dumps(changed))
    with closing(store_of(space)) as again:
        assert again.search(made_vectors(20, seed=1)[3], EMBEDDER, 1)[0].score > 0.999
    assert not struck.exists()
