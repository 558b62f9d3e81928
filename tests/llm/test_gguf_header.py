"""The header of a GGUF file: read as the gguf package reads it; whatever is damaged or hostile is refused by name."""

import struct
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.gguf_header import TYPES, read_gguf
from tests.llm.tiny_gguf import write_gguf
from tests.llm.tiny_models import CHATML

ALIGNED = 32


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole file."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("gguf") / "tiny"
    folder.mkdir()
    return write_gguf(folder / "tiny.Q8_0.gguf", LlamaForCausalLM.from_pretrained(tiny), "llama", tiny)


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def row(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def made(
    entries: tuple[bytes, ...] = (),
    rows: tuple[bytes, ...] = (),
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 256,
) -> bytes:
    """A file by hand: `counts` may lie about how many tensors and entries there are."""
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(rows), len(entries)))) + b"".join((*entries, *rows))
    return head + bytes(-len(head) % ALIGNED) + bytes(data)


def test_reads_what_the_gguf_package_reads(file: Path) -> None:
    header, other = read_gguf(file), GGUFReader(file)
    assert [(one.name, one.shape, one.kind, one.start, one.bytes) for one in header.tensors] == [
        (one.name, tuple(reversed(one.shape.tolist())), one.tensor_type.name, one.data_offset, one.n_bytes)
        for one in other.tensors
    ]
    own = {key: value for key, value in header.values.items() if not isinstance(value, tuple)}
    assert own == {key: other.fields[key].contents() for key in own}
    assert own["tokenizer.chat_template"] == CHATML
    assert header.lengths == {
        key: len(found.data) for key, found in other.fields.items() if len(found.types) > 1 and found.types[0] == 9
    }
    assert header.marks == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
    assert (header.architecture, header.mixture) == ("llama", "Q8_0")


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    assert {kind: (name, block, size) for kind, (name, block, size) in TYPES.items()} == {
        kind: (GGMLQuantizationType(kind).name, *GGML_QUANT_SIZES[GGMLQuantizationType(kind)]) for kind in TYPES
    }


def test_a_mixture_that_is_not_stated_is_told_by_most_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(made(rows=(row("a", (8,), 0, 0), row("b", (32, 4), 2, 32))))
    assert read_gguf(path).mixture == "Q4_0"


def test_a_file_cut_short_anywhere_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    path = tmp_path / "cut.gguf"
    header = read_gguf(file).tensors[0].start
    for end in (*range(200), *range(200, header, 97), header, header + 1, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError) as refused:
            read_gguf(path)
        assert (refused.value.key, refused.value.facts["file"]) == ("llm.damaged_file", "cut.gguf")


U32, U64, TEXT, ARRAY = 4, 10, 8, 9
ONE = row("a", (8, 2), 0, 0)
HOSTILE: dict[str, bytes] = {
    "no GGUF": b"GGML" + made()[4:],
    "a milliard tensors": made(counts=(10**9, 0)),
    "2^64 entries": made(counts=(0, 2**64 - 1)),
    "more entries than there are": made((entry("a", U32, bytes(4)),), counts=(0, 2), data=0),
    "a key of 2^63 bytes": made((struct.pack("<Q", 2**63) + b"x" * 100,)),
    "a text beyond the end": made((entry("a", TEXT, struct.pack("<Q", 10**6)),)),
    "a key that is no UTF-8": made((struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<II", U32, 1),)),
    "a type of value that does not exist": made((entry("a", 13, bytes(8)),)),
    "an array of arrays": made((entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(64)),)),
    "an array of 2^61 numbers": made((entry("a", ARRAY, struct.pack("<IQ", U64, 2**61)),)),
    "an array of 2^60 texts": made((entry("a", ARRAY, struct.pack("<IQ", TEXT, 2**60)),)),
    "a key twice": made((entry("a", U32, bytes(4)), entry("a", U32, bytes(4)))),
    "no alignment": made((entry("general.alignment", U32, bytes(4)),), (ONE,)),
    "an odd alignment": made((entry("general.alignment", U32, struct.pack("<I", 7)),), (ONE,)),
    "an alignment that is a text": made((entry("general.alignment", TEXT, text("32")),), (ONE,)),
    "a tensor without dimensions": made(rows=(row("a", (), 0, 0),)),
    "five dimensions": made(rows=(row("a", (1,) * 5, 0, 0),)),
    "2^32 dimensions": made(rows=(text("a") + struct.pack("<I", 2**32 - 1) + bytes(64),)),
    "a dimension of 0": made(rows=(row("a", (8, 0), 0, 0),)),
    "2^126 values": made(rows=(row("a", (2**63, 2**63), 0, 0),)),
    "a row of half a block": made(rows=(row("a", (16, 2), 2, 0),)),
    "a tensor twice": made(rows=(ONE, row("a", (8, 2), 0, 64))),
    "a tensor behind the end": made(rows=(row("a", (8, 2), 0, 256),)),
    "a tensor at 2^64": made(rows=(row("a", (8, 2), 0, 2**64 - 32),)),
    "a tensor between the steps": made(rows=(row("a", (8, 2), 0, 8),)),
    "a tensor in another": made(rows=(row("a", (8, 4), 0, 0), row("b", (8, 2), 0, 64))),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_are_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(ModelError) as refused:
        read_gguf(path)
    assert (refused.value.key, refused.value.facts["file"]) == ("llm.damaged_file", "hostile.gguf")


def test_the_same_file_without_the_fault_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(made((entry("general.alignment", U32, struct.pack("<I", 32)),), (ONE, row("b", (8,), 0, 64))))
    assert [one.shape for one in read_gguf(path).tensors] == [(2, 8), (8,)]


@pytest.mark.parametrize(
    ("content", "key", "fact"),
    [
        (made(version=1), "llm.gguf_version", 1),
        (made(version=3 << 24), "llm.gguf_version", 3 << 24),
        (made(rows=(row("a", (8, 2), 99, 0),)), "llm.unknown_type", "ggml 99"),
    ],
)
def test_what_is_whole_but_not_read_is_named(content: bytes, key: str, fact: object, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        read_gguf(path)
    assert refused.value.key == key
    assert fact in refused.value.facts.values()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(made(rows=(ONE,)))
    assert len(read_gguf(path).tensors) == 1
    path.write_bytes(made())
    assert read_gguf(path).tensors == ()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_is_refused_or_leaves_every_tensor_inside(file: Path, data: st.DataObject) -> None:
    whole = bytearray(file.read_bytes())
    header = read_gguf(file).tensors[0].start
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, header - 1))
        piece = data.draw(st.binary(min_size=1, max_size=9))
        whole[place : place + len(piece)] = piece
    path = file.with_name("damaged.gguf")
    path.write_bytes(whole)
    try:
        found = read_gguf(path)
    except ModelError:
        return
    assert all(one.start + one.bytes <= len(whole) for one in found.tensors)
