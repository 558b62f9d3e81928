"""Where every tensor of a checkpoint lies on disk, and reading them in that order, some way ahead of who takes them.

Both formats keep a tensor's bytes in one piece: safetensors behind its header, ``.bin`` as an uncompressed record of
a zip archive. So both are read alike: several threads fill pieces of a buffer that is used again and again (pinned
when a GPU is there: copying from pinned memory is several times faster). A memory map would hold as much as the file
and wait for every page.
"""

import json
import struct
import threading
import zipfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import Cancelled, ModelError
from dbgpt_lite.llm.checkpoint import TYPE_BYTES, Checkpoint, read_header, weight_map
from dbgpt_lite.llm.gguf_config import parameter
from dbgpt_lite.llm.gguf_header import read_gguf

if TYPE_CHECKING:
    import torch

READERS = 4
CHUNK = 16 * 2**20
AHEAD = 256 * 2**20
LONGEST_NAME = 500  # characters of a tensor's name: several times any model's
_ALIGN = 64
_PAGE = 4096
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODES = {name: code for code, name in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's place: `bytes` from `start` of `file`. `dtype` as safetensors writes it; `strides` in values."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    bytes: int
    strides: tuple[int, ...]


def stored_tensors(checkpoint: Checkpoint) -> tuple[StoredTensor, ...]:
    """Every tensor of a checkpoint in file order. Raises ModelError for a damaged file, an index that names other
    tensors than a shard holds, and a type that is not read.

    Those of a GGUF file have transformers' names and their shapes unpacked, for a comparison with the model; `read`
    does not unpack them.
    """
    if checkpoint.format == "gguf":
        header = read_gguf(checkpoint.files[0])
        named = ((parameter(header, one), one) for one in header.tensors)
        return tuple(
            StoredTensor(name, one.kind, one.shape, header.file, one.start, one.bytes, _contiguous(one.shape))
            for name, one in named
            if name
        )
    stem = "model.safetensors" if checkpoint.format == "safetensors" else "pytorch_model.bin"
    return read_places(checkpoint.files, checkpoint.folder / f"{stem}.index.json")


def read_places(files: Sequence[Path], index: Path) -> tuple[StoredTensor, ...]:
    """Tensors of safetensors or ``.bin`` files of one folder; `index` may not exist. See stored_tensors; a file with a
    name longer than LONGEST_NAME counts as damaged."""
    found = [place for file in files for place in (_safetensors if file.suffix == ".safetensors" else _bin)(file)]
    strange = next((place for place in found if place.dtype not in _TYPES), None)
    if strange:
        raise ModelError("llm.unknown_type", tensor=strange.name, dtype=strange.dtype, name=index.parent.name)
    if endless := next((place for place in found if len(place.name) > LONGEST_NAME), None):
        raise _damaged(endless.file)
    if index.is_file():
        _check_index(index, found)
    return tuple(sorted(found, key=lambda place: (place.file.name, place.start)))


def _check_index(index: Path, found: Sequence[StoredTensor]) -> None:
    """Shards and index must name the same tensors in the same files."""
    promised = set(weight_map(index).items())
    held = {(place.name, place.file.name) for place in found}
    if missing := sorted({name for name, _ in promised} - {name for name, _ in held}):
        raise ModelError("llm.missing_tensors", names=_some(missing), count=len(missing), name=index.parent.name)
    if wrong := sorted({name for name, _ in promised ^ held}):
        raise ModelError("llm.wrong_index", names=_some(wrong), count=len(wrong), name=index.parent.name)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5])


def _safetensors(file: Path) -> Iterator[StoredTensor]:
    """read_header checked that the file is as long as its header says."""
    read_header(file)
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        strides = _contiguous(shape)
        if end - start != _span(shape, strides) * TYPE_BYTES.get(entry["dtype"], 0) and entry["dtype"] in _TYPES:
            raise _damaged(file)
        yield StoredTensor(name, entry["dtype"], shape, file, 8 + length + start, end - start, strides)


def _bin(file: Path) -> Iterator[StoredTensor]:
    """Names, types and places of a ``.bin`` file without reading its data: weights only, never the objects in it."""
    records = _records(file)
    for name, tensor in _described(file).items():
        offset = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
        size = tensor.element_size()
        strides = tuple(tensor.stride())
        first, count = tensor.storage_offset() * size, _span(tuple(tensor.shape), strides) * size
        if offset is None or first + count > records.get(offset, 0):
            raise _damaged(file)
        code = _CODES.get(str(tensor.dtype).removeprefix("torch."), str(tensor.dtype))
        yield StoredTensor(name, code, tuple(tensor.shape), file, offset + first, count, strides)


def _described(file: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a ``.bin`` file on the meta device, which know where their data lies."""
    import torch

    try:
        content = torch.load(file, map_location="meta", weights_only=True)
        if _unplaced(content):
            from torch._subclasses.fake_tensor import FakeTensorMode

            # Before torch 2.12 only fake tensors know their place.
            with FakeTensorMode():
                content = torch.load(file, weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise _damaged(file) from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise ModelError("llm.unsafe_bin", name=file.parent.name)
    return content


def _unplaced(content: Any) -> bool:
    tensors = content.values() if isinstance(content, dict) else ()
    return any(not hasattr(t.untyped_storage(), "_checkpoint_offset") for t in tensors if hasattr(t, "untyped_storage"))


def _records(file: Path) -> dict[int, int]:
    """{where a record's data begins: its bytes} of a zip archive; a compressed one could not be read in place."""
    found: dict[int, int] = {}
    try:
        with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
            for record in archive.infolist():
                stream.seek(record.header_offset)
                header = stream.read(30)
                name, extra = struct.unpack("<HH", header[26:30])
                if record.compress_type != zipfile.ZIP_STORED or header[:4] != b"PK\3\4":
                    raise _damaged(file)
                found[record.header_offset + 30 + name + extra] = record.file_size
                if record.filename.endswith("/byteorder") and archive.read(record) != b"little":
                    raise _damaged(file)
    except (zipfile.BadZipFile, struct.error, OSError) as error:
        raise _damaged(file) from error
    return found


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Values from the first to the last of a strided tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _damaged(file: Path) -> ModelError:
    return ModelError("llm.damaged_file", file=file.name, name=file.parent.name)


def read(
    places: Sequence[StoredTensor],
    cancel: threading.Event,
    *,
    pinned: bool = False,
    ahead: int = AHEAD,
    readers: int = READERS,
) -> "Generator[tuple[StoredTensor, torch.Tensor]]":
    """Each tensor on the CPU, valid until the next one is taken. At most `ahead` bytes, or the largest tensor and
    half of `ahead` when that is more, are held. Raises Cancelled, and ModelError for a file that ends early."""
    if not places:
        return
    waiting = deque(places)
    under_way: deque[tuple[StoredTensor, int, list[Future[None]]]] = deque()
    pool = ThreadPoolExecutor(readers, thread_name_prefix="shard")
    try:
        room = _room(places, ahead, pinned, pool, cancel)
        while waiting or under_way:
            while waiting and (at := room.take(waiting[0].bytes)) is not None:
                place = waiting.popleft()
                under_way.append((place, at, [pool.submit(_fill, *job, cancel) for job in _jobs(place, room, at)]))
            place, at, jobs = under_way.popleft()
            for job in jobs:
                job.result()
            if cancel.is_set():
                raise Cancelled
            yield place, room.tensor(place, at)
            room.give_back()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _room(
    places: Sequence[StoredTensor], ahead: int, pinned: bool, pool: ThreadPoolExecutor, cancel: threading.Event
) -> "_Room":
    """The buffer. Pinning it takes a third of a second, in which the disk delivers as much as it holds: into the page
    cache meanwhile."""
    capacity = _capacity(places, ahead)
    early = [pool.submit(_fetch, *piece, cancel) for piece in _pieces(places, capacity if pinned else 0)]
    room = _Room(capacity, pinned)
    for job in early:
        job.cancel()
    return room


def _pieces(places: Sequence[StoredTensor], limit: int) -> Iterator[tuple[Path, int, int]]:
    """(file, start, bytes) of the first `limit` bytes of tensors, a CHUNK at most each.

    Those that follow each other go together: a job for each of thousands of small ones takes longer than reading them.
    """
    runs: list[tuple[Path, int, int]] = []
    for place in places:
        if limit <= 0:
            break
        start, end = place.start, place.start + min(limit, place.bytes)
        limit -= place.bytes
        if runs and runs[-1][0] == place.file and runs[-1][1] <= start <= runs[-1][2] + _PAGE:
            _, start, before = runs.pop()
            end = max(before, end)
        runs.append((place.file, start, end))
    for file, start, end in runs:
        for at in range(start, end, CHUNK):
            yield file, at, min(CHUNK, end - at)


def _fetch(file: Path, start: int, size: int, cancel: threading.Event) -> None:
    """Read `size` bytes for the page cache only; what is wrong with the file shows when it is read for good."""
    piece = memoryview(bytearray(2**20))
    with suppress(OSError), file.open("rb", buffering=0) as stream:
        stream.seek(start)
        while size > 0 and not cancel.is_set() and (count := stream.readinto(piece[:size])):
            size -= count


def read_one(place: StoredTensor) -> "torch.Tensor":
    """One tensor, in memory of its own."""
    with closing(read([place], threading.Event(), ahead=0, readers=1)) as tensors:
        return next(tensors)[1].clone()


def _capacity(places: Sequence[StoredTensor], ahead: int) -> int:
    total = sum(_rounded(place.bytes) for place in places)
    return min(total, max(ahead, max(_rounded(place.bytes) for place in places) + ahead // 2))


def _rounded(size: int) -> int:
    return -(-max(1, size) // _ALIGN) * _ALIGN


def _jobs(place: StoredTensor, room: "_Room", at: int) -> Iterator[tuple[Path, int, memoryview]]:
    for start in range(0, place.bytes, CHUNK):
        end = min(place.bytes, start + CHUNK)
        yield place.file, place.start + start, room.view[at + start : at + end]


def _fill(file: Path, start: int, view: memoryview, cancel: threading.Event) -> None:
    if cancel.is_set():
        return
    try:
        with file.open("rb", buffering=0) as stream:
            stream.seek(start)
            _read_into(stream, view)
    except OSError as error:
        raise _damaged(file) from error


def _read_into(stream: Any, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])
        if not count:
            raise OSError("the file ends early")
        done += count


class _Room:
    """A buffer whose pieces are given out and come back in the same order."""

    def __init__(self, capacity: int, pinned: bool) -> None:
        self._bytes = _allocate(capacity, pinned)
        array: Any = self._bytes.numpy()
        self.view = memoryview(array)
        self._capacity = capacity
        self._used: deque[tuple[int, int]] = deque()

    def take(self, size: int) -> int | None:
        """Where a piece of `size` bytes begins, or None while there is no room."""
        size = _rounded(size)
        if not self._used:
            at = 0
        else:
            first, last = self._used[0][0], self._used[-1][1]
            if last > first and self._capacity - last < size:
                last, limit = 0, first
            else:
                limit = self._capacity if last > first else first
            if limit - last < size:
                return None
            at = last
        self._used.append((at, at + size))
        return at

    def give_back(self) -> None:
        """The oldest piece is free again."""
        self._used.popleft()

    def tensor(self, place: StoredTensor, at: int) -> "torch.Tensor":
        """The tensor that lies at `at`."""
        import torch

        dtype: torch.dtype = getattr(torch, _TYPES[place.dtype])
        return self._bytes[at : at + place.bytes].view(dtype).as_strided(place.shape, place.strides)


def _allocate(capacity: int, pinned: bool) -> "torch.Tensor":
    import torch

    try:
        return torch.empty(capacity, dtype=torch.uint8, pin_memory=pinned)
    except RuntimeError:
        # The system may allow less pinned memory than there is.
        return torch.empty(capacity, dtype=torch.uint8)
