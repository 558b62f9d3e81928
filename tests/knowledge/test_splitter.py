"""Chunks: exact offsets, token limits, pages, nothing lost."""

import subprocess
import sys

from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.loaded import LoadedDocument, Section
from dbgpt_lite.knowledge.splitter import CHARACTERS_PER_TOKEN, split

PIECES = st.sampled_from(
    [
        "The leave is long. ",
        "员工每年享有年假。",
        "\n\n",
        "\n",
        "a",
        "x" * 50,
        "！",
        "; ",
        " ",
        "same same ",
        "3.5",
        "\u3000",
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=80).map("".join)


def count_words(text: str) -> int:
    """Latin words and single other characters, near to what WordPiece counts."""
    return len(text.split()) + sum(ord(character) > 0x2E80 for character in text)


def squeezed(text: str) -> str:
    return "".join(text.split())


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(4, 40), st.integers(0, 30))
@example(["a" + "x" * 50 + "; \u3000The leave is long. "], 4, 0)
def test_offsets_are_exact_and_nothing_is_lost(texts: list[str], size: int, overlap: int) -> None:
    sections = tuple(Section(text, page, f"h{page}") for page, text in enumerate(texts, start=1))
    document = LoadedDocument(sections)
    chunks = split(document, count_words, size, overlap)
    covered: set[int] = set()
    for chunk in chunks:
        assert document.text[chunk.start : chunk.end] == chunk.text != ""
        assert chunk.page is not None
        base = document.offsets[chunk.page - 1]
        assert base <= chunk.start < chunk.end <= base + len(sections[chunk.page - 1].text)
        assert chunk.heading == f"h{chunk.page}"
        covered.update(range(chunk.start, chunk.end))
    assert all(position in covered for position, letter in enumerate(document.text) if not letter.isspace())
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


def test_chunks_keep_the_token_limit_of_the_real_tokenizer(embedder: Embedder) -> None:
    text = (
        "Customers return unopened goods within thirty days; refunds follow. 员工每年享有十五天年假，须提前申请。\n"
        * 60
    )
    document = LoadedDocument((Section(text.strip()),))
    chunks = split(document, embedder.count, 60, 10)
    counts = [embedder.count(chunk.text) for chunk in chunks]
    assert max(counts) <= 60
    assert sum(counts) / len(counts) > 30
    assert squeezed(chunks[0].text).startswith("Customers")


def test_neighbours_share_the_overlap() -> None:
    words = " ".join(f"w{number}" for number in range(100))
    first, second, *_ = split(LoadedDocument((Section(words),)), count_words, 20, 5)
    assert 0 < first.end - second.start <= len("w15 w16 w17 w18 w19 ")


def test_a_run_without_spaces_is_cut_all_the_same(embedder: Embedder) -> None:
    chunks = split(LoadedDocument((Section("x" * 100_000),)), embedder.count, 100, 10)
    assert max(len(chunk.text) for chunk in chunks) <= 100 * CHARACTERS_PER_TOKEN


def test_splitting_needs_no_torch() -> None:
    code = (
        "import sys; from dbgpt_lite.knowledge.splitter import split;"
        "from dbgpt_lite.knowledge.loaded import LoadedDocument, Section;"
        "split(LoadedDocument((Section('a b ' * 99),)), len, 20, 5); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
