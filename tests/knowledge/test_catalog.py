"""The catalogue: migrations, visibility in one transaction, words of any kind."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.errors import KnowledgeIndexError, NotFound
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.catalog_documents import Arrival
from dbgpt_lite.knowledge.lexical import index_words, search_words
from dbgpt_lite.knowledge.migrations import MIGRATIONS
from dbgpt_lite.knowledge.records import Chunk


def add(catalog: Catalog, space: str, document: str, *texts: str) -> None:
    catalog.enter(space, Arrival(document, f"{document}.txt", document, 1))
    chunks = [Chunk(text, 0, len(text), words=index_words(text)) for text in texts]
    catalog.stage(document, chunks, np.ones((len(texts), 4), dtype=np.float32) / 2, "e@1")


def found(catalog: Catalog, space: str, question: str, limit: int) -> list[int]:
    return [hit.id for hit in search_words(catalog, space, question, limit)]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog.sqlite3")


def test_schema_version_and_newer_files(tmp_path: Path, catalog: Catalog) -> None:
    with catalog.reading() as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    catalog.close()
    Catalog(tmp_path / "catalog.sqlite3").close()
    with sqlite3.connect(tmp_path / "catalog.sqlite3") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(KnowledgeIndexError, match="newer version"):
        Catalog(tmp_path / "catalog.sqlite3")


def test_staged_chunks_are_seen_by_nobody(catalog: Catalog) -> None:
    space = catalog.add_space("s")
    add(catalog, space, "d", "the red house", "the blue house")
    assert found(catalog, space, "house", 9) == []
    assert catalog.visible_ids(space, 99).size == 0
    assert catalog.passages(space, [1, 2]) == {}
    assert catalog.version(space).generation == 0
    catalog.publish(space, "d", 0, "", "e@1")
    assert sorted(found(catalog, space, "house", 9)) == [1, 2]
    with catalog.vectors_since(space, 0) as (version, blocks):
        [rows] = blocks
    assert (version.generation, version.chunks, rows.ids.tolist(), rows.vectors.shape) == (1, 2, [1, 2], (2, 4))


def test_deleting_takes_words_and_vectors_along(catalog: Catalog) -> None:
    space = catalog.add_space("s")
    for document in ("a", "b"):
        add(catalog, space, document, f"house {document}x")
        catalog.publish(space, document, 0, "", "e@1")
    catalog.delete_document(space, "a")
    assert found(catalog, space, "house ax", 9) == [2]
    catalog.delete_space(space)
    with catalog.reading() as db:
        for table in ("documents", "chunks", "vectors"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0
        assert db.execute("SELECT count(*) FROM chunk_words WHERE chunk_words MATCH 'house'").fetchone()[0] == 0
    with catalog.writing() as db:
        db.execute("INSERT INTO chunk_words(chunk_words) VALUES ('integrity-check')")


def test_what_was_deleted_while_indexing_is_not_published(catalog: Catalog) -> None:
    space = catalog.add_space("s")
    add(catalog, space, "d", "text")
    catalog.delete_document(space, "d")
    with pytest.raises(NotFound):
        catalog.publish(space, "d", 0, "", "e@1")
    with pytest.raises(NotFound):
        catalog.stage("d", [], np.zeros((0, 4), dtype=np.float32), "e@1")
    assert catalog.version(space).chunks == 0


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "house OR",
        "NEAR(house)",
        "words:house",
        "house*",
        "'; DROP TABLE chunks; --",
        "^house",
        "( house",
        "-",
        "\x00 house",
    ],
)
def test_a_question_is_never_an_expression(catalog: Catalog, question: str) -> None:
    space = catalog.add_space("s")
    add(catalog, space, "d", "my house")
    catalog.publish(space, "d", 0, "", "e@1")
    assert found(catalog, space, question, 9) == ([1] if "house" in question else [])


def test_codes_plurals_and_chinese_pairs_are_found(catalog: Catalog) -> None:
    space, other = catalog.add_space("s"), catalog.add_space("other")
    add(catalog, space, "d", "The RX-200 needs v2.1", "refunds arrive", "新品小禾手机售价三千元", "unrelated")
    add(catalog, other, "o", "RX-200 refund 小禾")
    for id_, document in ((space, "d"), (other, "o")):
        catalog.publish(id_, document, 0, "", "e@1")
    for question, expected in (
        ("RX-200", 1),
        ("rx200", 1),
        ("v2.1", 1),
        ("a refund", 2),
        ("小禾多少钱", 3),
        ("售价", 3),
    ):
        assert found(catalog, space, question, 1) == [expected]
