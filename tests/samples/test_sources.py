"""The shipped sample documents hold what their Markdown sources say."""

import re
from pathlib import Path

import pytest

from dbgpt_lite.knowledge.loaders import load

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "tools" / "sample_sources").glob("*.md"))
BUILT = {file.stem: file for file in (ROOT / "dbgpt_lite" / "samples" / "documents").iterdir()}


def test_every_document_has_a_source() -> None:
    assert {source.stem for source in SOURCES} == set(BUILT)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_paragraph_reached_the_document(source: Path) -> None:
    built = BUILT[source.stem]
    shipped = _letters(load(built, built.name).text)
    paragraphs = [block for block in source.read_text(encoding="utf-8").split("\n\n") if block[0] not in "#|"]
    assert [paragraph for paragraph in paragraphs if _letters(paragraph) not in shipped] == []


def _letters(text: str) -> str:
    """Letters and digits only: line breaks, hyphens at their ends and quotation marks depend on the format."""
    return re.sub(r"[\W_]+", "", text)
