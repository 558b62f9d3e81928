"""The optional cross-encoder, with a tiny random one made here."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import IngestProgress
from dbgpt_lite.knowledge.rerank import CrossEncoderReranker

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the ferry sails to holm at nine a bicycle is free letter".split()


def make_cross_encoder(folder: Path, labels: int = 1, seed: int = 0) -> Path:
    """A BERT of a few kilobytes with random weights and `labels` outputs."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_labels=labels, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("models") / "tiny-reranker")


def test_scores_are_of_the_pair_and_in_order(model: Path) -> None:
    reranker = CrossEncoderReranker(model, "cpu")
    texts = ["the ferry sails to holm", "a bicycle is free", "letter " * 500]
    found = reranker.scores("the ferry", texts)
    assert len(set(found)) == 3
    assert reranker.scores("the ferry", texts[::-1]) == pytest.approx(found[::-1], abs=0.02)
    assert reranker.scores("a letter", texts) != pytest.approx(found, abs=1e-6)
    assert reranker.scores("the ferry", []) == []
    assert reranker.name == "tiny-reranker"


def test_retrieval_follows_the_reranker(
    tmp_path: Path, embedder: Embedder, model: Path, take_in: Callable[..., list[IngestProgress]]
) -> None:
    reranker = CrossEncoderReranker(model, "cpu")
    base = KnowledgeBase(tmp_path / "k", embedder, reranker=reranker)
    folder = tmp_path / "bundled"
    folder.mkdir()
    for name, text in (
        ("a", "The ferry sails to Holm at nine."),
        ("b", "A ferry is free."),
        ("c", "The letter is free."),
    ):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    space = base.ensure_folder("Island", folder)
    question = "When does the ferry sail to Holm?"
    found = base.search(space.id, question, 3)
    scores = reranker.scores(question, [passage.text for passage in found])
    assert scores == sorted(scores, reverse=True)
    # Whether a question is covered is not the reranker's to say.
    assert base.retrieve([space.id], question, 3).covered
    assert not base.retrieve([space.id], "Who wrote the opera Carmen?", 3).covered
    base.close()


def test_what_is_no_reranker_is_named(tmp_path: Path, model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}", encoding="utf-8")
    classes = make_cross_encoder(tmp_path / "classes", labels=3)
    for folder, key in (
        (tmp_path / "nowhere", "reranker_missing"),
        (empty, "reranker_not_a_model"),
        (broken, "reranker_broken"),
        (classes, "reranker_not_a_model"),
    ):
        with pytest.raises(ModelError) as told:
            CrossEncoderReranker(folder, "cpu").scores("a", ["b"])
        assert told.value.key == f"knowledge.{key}"


@pytest.mark.parametrize("kind", ["code", "pickle"])
def test_neither_code_nor_pickles_are_loaded(tmp_path: Path, kind: str) -> None:
    folder = make_cross_encoder(tmp_path / "planted")
    planted = tmp_path / "ran"
    if kind == "code":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["model_type"] = "planted"
        config["auto_map"] = {
            "AutoConfig": "planted.Planted",
            "AutoModelForSequenceClassification": "planted.Planted",
        }
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "planted.py").write_text(f"open({str(planted)!r}, 'w')\n", encoding="utf-8")
    else:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        CrossEncoderReranker(folder, "cpu").scores("a", ["b"])
    assert not planted.exists()
