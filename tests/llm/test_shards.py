"""Reading in place: the same bytes as the libraries read, in file order, within a bound, and readable when damaged."""

import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.llm import shards
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.shards import StoredTensor, read, read_one, read_places, stored_tensors

NEVER = threading.Event()
TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def tensors(count: int = 6) -> dict[str, Any]:
    import torch

    torch.manual_seed(count)
    made = {f"{kind}.{n}": torch.randn(n + 1, 33).mul(9).to(getattr(torch, kind)) for n, kind in enumerate(TYPES)}
    made["scalar"] = torch.tensor(3.5)
    made["empty"] = torch.empty(0, 4)
    return dict(list(made.items())[: count + 6])


def save(folder: Path, content: dict[str, Any], kind: str) -> Path:
    import torch
    from safetensors.torch import save_file

    file = folder / ("model.safetensors" if kind == "safetensors" else "pytorch_model.bin")
    save_file(content, file) if kind == "safetensors" else torch.save(content, file)
    return file


def places_of(file: Path) -> tuple[StoredTensor, ...]:
    return read_places([file], file.with_name("none"))


def same(left: Any, right: Any) -> bool:
    import torch

    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_every_type_and_shape_comes_back(tmp_path: Path, kind: str) -> None:
    content = tensors()
    places = places_of(save(tmp_path, content, kind))
    assert [place.start for place in places] == sorted(place.start for place in places)
    found = {place.name: tensor.clone() for place, tensor in read(places, NEVER)}
    assert found.keys() == content.keys()
    assert all(same(found[name], content[name]) for name in content)


def test_views_and_shared_storages_of_bin_files(tmp_path: Path) -> None:
    import torch

    base = torch.arange(60.0).reshape(6, 10)
    content = {"base": base, "same": base, "turned": base.T, "rows": base[2:4], "steps": base[::2, 1::3]}
    file = save(tmp_path, content, "bin")
    found = {place.name: tensor.clone() for place, tensor in read(places_of(file), NEVER)}
    assert all(same(found[name], content[name]) for name in content)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    ahead=st.integers(0, 9000),
    readers=st.integers(1, 4),
    chunk=st.integers(1, 3000),
    pinned=st.booleans(),
)
def test_any_sizes_through_any_buffer(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], ahead: int, readers: int, chunk: int, pinned: bool
) -> None:
    import torch

    data = bytes(n * 7 % 251 for n in range(sum(sizes)))
    file = tmp_path_factory.mktemp("ring") / "data.bin"
    file.write_bytes(data)
    places, at = [], 0
    for number, size in enumerate(sizes):
        places.append(StoredTensor(str(number), "U8", (size,), file, at, size, (1,)))
        at += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHUNK", chunk)
        found = [
            (place.name, tensor.numpy().tobytes())
            for place, tensor in read(places, NEVER, pinned=pinned, ahead=ahead, readers=readers)
        ]
        capacity = shards._capacity(places, ahead)
    assert found == [(p.name, data[p.start : p.start + p.bytes]) for p in places]
    assert capacity <= max(ahead, max(sizes) + 64 + ahead // 2)
    assert torch.equal(
        read_one(places[-1]), torch.frombuffer(bytearray(data + b"0"), dtype=torch.uint8)[at - size : at]
    )


def test_the_disk_delivers_while_the_buffer_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = places_of(save(tmp_path, {f"t{n}": tensors()["float32.1"].repeat(64, 8) for n in range(4)}, "safetensors"))
    capacity = shards._capacity(places, ahead := 5 * places[0].bytes // 2)
    fetch, allocate = shards._fetch, shards._allocate
    fetched: list[tuple[int, int]] = []
    all_there = threading.Event()

    def noted(file: Path, start: int, size: int, cancel: threading.Event) -> None:
        fetch(file, start, size, cancel)
        fetched.append((start, size))
        if sum(size for _, size in fetched) >= capacity:
            all_there.set()

    def slow(size: int, pinned: bool) -> Any:
        assert all_there.wait(20)
        return allocate(size, pinned=False)

    monkeypatch.setattr(shards, "_fetch", noted)
    monkeypatch.setattr(shards, "_allocate", slow)
    found = [(place, tensor.clone()) for place, tensor in read(places, NEVER, pinned=True, ahead=ahead)]
    assert [place for place, _ in found] == list(places)
    assert sorted(fetched)[0][0] == places[0].start
    assert sum(size for _, size in fetched) == capacity


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 90), st.integers(0, 90)), max_size=20),
    st.integers(0, 600),
    st.integers(1, 50),
)
def test_what_is_fetched_early_is_the_beginning_in_few_pieces(
    sizes: list[tuple[int, int, int]], limit: int, chunk: int
) -> None:
    ends, places = [0, 0, 0], []
    for file, gap, size in sorted(sizes, key=lambda one: one[0]):
        start = ends[file] + gap
        places.append(StoredTensor("", "U8", (size,), Path(str(file)), start, size, (1,)))
        ends[file] = start + size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHUNK", chunk)
        patch.setattr(shards, "_PAGE", 40)
        pieces = list(shards._pieces(places, limit))
    fetched = {(file, at) for file, start, size in pieces for at in range(start, start + size)}
    wanted = [(place.file, at) for place in places for at in range(place.start, place.start + place.bytes)][:limit]
    assert fetched >= set(wanted)
    assert sum(size for _, _, size in pieces) == len(fetched) <= len(wanted) + 40 * len(places)
    assert all(0 < size <= chunk for _, _, size in pieces)


def test_thousands_of_small_tensors_are_fetched_at_once() -> None:
    places = [StoredTensor("", "U8", (1000,), Path("one"), 1024 * n, 1000, (1,)) for n in range(20_000)]
    assert len(list(shards._pieces(places, shards.AHEAD))) == 2


def test_memory_held_is_bounded(tmp_path: Path) -> None:
    places = places_of(save(tmp_path, {f"t{n:02}": tensors()["float32.1"].repeat(64, 8) for n in range(32)}, "bin"))
    total, largest = sum(p.bytes for p in places), max(p.bytes for p in places)
    assert shards._capacity(places, 4 * largest) == 4 * largest < total


def test_cancel_stops_between_tensors_and_leaves_no_thread(tmp_path: Path) -> None:
    places = places_of(save(tmp_path, tensors(), "safetensors"))
    cancel = threading.Event()
    stream = read(places, cancel)
    next(stream)
    cancel.set()
    with pytest.raises(Cancelled):
        next(stream)
    closed = read(places, NEVER)
    next(closed)
    closed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shard")]


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    file = save(tmp_path, tensors(), "safetensors")
    places = places_of(file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"model\.safetensors in .* is cut short"):
        list(read(places, NEVER))


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_truncated_bin(tmp_path: Path, keep: float) -> None:
    file = save(tmp_path, tensors(), "bin")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ModelError, match="cut short or damaged"):
        places_of(file)


def test_bin_with_a_record_cut_out_of_the_middle(tmp_path: Path) -> None:
    """The archive is whole, but its records are shorter than the tensors they are for."""
    file = save(tmp_path, tensors(), "bin")
    short = tmp_path / "short.bin"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(short, "w") as new:
        for record in old.infolist():
            data = old.read(record)
            new.writestr(record, data[: len(data) // 2] if "/data/" in record.filename else data)
    with pytest.raises(ModelError, match="cut short or damaged"):
        places_of(short)


def test_compressed_bin_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path, tensors(), "bin")
    packed = tmp_path / "packed.bin"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    with pytest.raises(ModelError, match="cut short or damaged"):
        places_of(packed)


def test_bin_of_an_old_torch_is_refused_by_name(tmp_path: Path, copy_of: Any) -> None:
    import torch

    folder = copy_of()
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(tensors(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"before version 1\.6"):
        read_checkpoint(folder)


def test_bin_that_holds_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="more than weights"):
        places_of(save(tmp_path, {"model": {"a": tensors()["scalar"]}}, "bin"))


def test_unknown_type_is_named(tmp_path: Path) -> None:
    header = json.dumps({"odd.weight": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"00")
    with pytest.raises(ModelError, match=r"odd\.weight of .* is stored as F4"):
        places_of(file)


def test_offsets_that_do_not_fit_the_shape(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"0" * 8)
    with pytest.raises(ModelError, match="damaged"):
        places_of(file)


def rewrite_index(folder: Path, change: Any) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def test_index_that_leaves_tensors_out(copy_of: Any) -> None:
    folder = copy_of()
    rewrite_index(folder, lambda names: names.pop("model.norm.weight"))
    with pytest.raises(ModelError, match=r"index of copy.*model\.norm\.weight"):
        stored_tensors(read_checkpoint(folder))


def test_index_that_names_another_shard(copy_of: Any) -> None:
    folder = copy_of()
    first, last = sorted(folder.glob("model-*"))[0].name, sorted(folder.glob("model-*"))[-1].name

    def move(names: dict[str, str]) -> None:
        names["model.norm.weight"] = first if names["model.norm.weight"] == last else last

    rewrite_index(folder, move)
    with pytest.raises(ModelError, match=r"index of copy.*model\.norm\.weight"):
        stored_tensors(read_checkpoint(folder))
