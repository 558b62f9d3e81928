"""docs/models.md says what the tables and the planner say, and names nothing that does not exist."""

import re

import pytest

from dbgpt_lite.config import Settings
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.families import FAMILIES, family, shape
from tools import write_model_docs

TEXT = write_model_docs.PAGE.read_text(encoding="utf-8")


def test_tables_are_current() -> None:
    assert write_model_docs.page(TEXT) == TEXT, "run: make docs"


def test_every_table_is_on_the_page() -> None:
    assert set(re.findall(r"<!-- table ([\w.-]+) -->", TEXT)) == set(write_model_docs.tables())


@pytest.mark.parametrize("model", write_model_docs.MODELS, ids=lambda model: model.folder)
def test_each_model_has_a_settings_line_and_a_family(model: write_model_docs.Model) -> None:
    assert f"LLM_MODEL=models/{model.folder}\n" in TEXT
    assert family(model.config) in FAMILIES.values()
    sizes = shape(model.config)
    assert min(sizes.layers, sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.hidden) > 0


def test_settings_and_formats_on_the_page_exist() -> None:
    assert {name.lower() for name in re.findall(r"\bLLM_[A-Z_]+[A-Z]", TEXT)} <= set(Settings.model_fields)
    told = set(re.findall(r"LLM_CHAT_FORMAT=(\w+)", TEXT)) | set(re.findall(r'"chat_format": "(\w+)"', TEXT))
    assert told
    assert told <= set(CHAT_FORMATS)


def test_a_smaller_card_never_gets_more() -> None:
    """Windows and bits of the settings: on a larger card neither both shrink, and what fits once fits there too."""
    bits = {"none": 16, "int8": 8, "nf4": 4}
    for model in write_model_docs.MODELS:
        rows = [row.split(" | ") for row in write_model_docs.cards(model)[2 : 2 + len(write_model_docs.CARDS)]]
        held = [
            bits[found[1] if (found := re.search(r"QUANTIZATION=(\w+)", row[1])) else "none"]
            if "does not fit" not in row[1]
            else 0
            for row in rows
        ]
        assert held == sorted(held), model.folder
