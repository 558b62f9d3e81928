"""The embedder: shapes, order, identity, threads, bad folders."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.knowledge.embeddings import BATCH, GPU_BATCH, Embedder


def test_unit_vectors_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = [f"{'word ' * (number % 7)}number {number}" for number in range(BATCH + 5)]
    vectors = embedder.embed(texts)
    assert vectors.shape == (len(texts), embedder.dimension) == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = embedder.embed([texts[3]])[0]
    assert float(alone @ vectors[3]) > 0.999
    assert embedder.embed([]).shape == (0, 384)


def test_near_in_meaning_is_near_in_space(embedder: Embedder) -> None:
    question = embedder.embed(["How many days off do employees get?"], "query")[0]
    near, far = embedder.embed(["Staff receive fifteen days of annual leave.", "The battery holds 12,000 mAh."])
    assert float(question @ near) > float(question @ far) + 0.2


def test_tokens_are_counted_without_the_model() -> None:
    code = (
        "import sys; from dbgpt_lite.knowledge.embeddings import Embedder; e = Embedder();"
        "assert e.count('hello world') == 2 and e.max_tokens == 254; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_identity_names_the_model_and_its_weights(embedder: Embedder, tmp_path: Path) -> None:
    copy = tmp_path / "my-model"
    shutil.copytree(embedder.folder, copy)
    same = Embedder(str(copy))
    assert embedder.identity.startswith("all-MiniLM-L6-v2@")
    assert same.identity.split("@")[1] == embedder.identity.split("@")[1]
    with (copy / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    assert Embedder(str(copy)).identity != same.identity


def test_prefixes_follow_the_name_of_the_model(embedder: Embedder, tmp_path: Path) -> None:
    copy = tmp_path / "multilingual-e5-small"
    shutil.copytree(embedder.folder, copy)
    prefixed = Embedder(str(copy), "cpu")
    expected = embedder.embed(["query: price", "passage: price"])
    assert float(prefixed.embed(["price"], "query")[0] @ expected[0]) > 0.999
    assert float(prefixed.embed(["price"], "passage")[0] @ expected[1]) > 0.999


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, embedder: Embedder) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        _ = Embedder(str(tmp_path / "nowhere")).folder
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match="holds no embedding model"):
        _ = Embedder(str(empty)).identity
    broken = tmp_path / "broken"
    shutil.copytree(embedder.folder, broken)
    (broken / "model.safetensors").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="could not be loaded"):
        Embedder(str(broken), "cpu").embed(["text"])
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Embedder(str(broken), "cpu").count("text")


def test_pickled_weights_are_never_loaded(tmp_path: Path, embedder: Embedder) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(embedder.folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        Embedder(str(folder), "cpu").embed(["text"])


def test_a_query_goes_before_the_waiting_batches(embedder: Embedder) -> None:
    finished: list[str] = []
    started = threading.Event()

    def passages() -> None:
        started.set()
        for _ in range(4):
            embedder.embed(["a long passage about nothing " * 30] * BATCH)
        finished.append("passages")

    worker = threading.Thread(target=passages)
    worker.start()
    started.wait()
    embedder.embed(["short question"], "query")
    finished.append("query")
    worker.join()
    assert finished == ["query", "passages"]


def test_constant_questions_do_not_stop_an_upload(embedder: Embedder) -> None:
    finished = threading.Event()

    def ask() -> None:
        while not finished.is_set():
            embedder.embed(["question"], "query")

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    embedder.embed(["passage"] * (2 * BATCH))
    finished.set()
    for asker in askers:
        asker.join()


def test_closing_and_using_again(tmp_path: Path, embedder: Embedder) -> None:
    config = json.loads((embedder.folder / "config.json").read_text())
    again = Embedder(device="cpu")
    first = again.embed(["text"])
    again.close()
    assert np.allclose(again.embed(["text"]), first, atol=1e-6)
    assert config["hidden_size"] == again.dimension


def test_the_batch_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Embedder(device="cpu").batch == BATCH
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert Embedder(device="auto").batch == GPU_BATCH > BATCH


def test_what_does_not_fit_the_memory_is_embedded_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Embedder(device="cpu")
    whole, asked = small._load().encode, []

    def encode(texts: list[str], **options: object) -> object:
        asked.append(len(texts))
        if len(texts) > 6:
            raise RuntimeError("CUDA out of memory")
        return whole(texts, **options)

    monkeypatch.setattr(small._load(), "encode", encode)
    texts = [f"text number {number}" for number in range(BATCH)]
    vectors = small.embed(texts)
    assert asked == [16, 8, 4, 4, 8, 4, 4]
    assert float(vectors[11] @ small.embed([texts[11]])[0]) > 0.999

    def broken(texts: list[str], **options: object) -> object:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(small._load(), "encode", broken)
    with pytest.raises(ModelError):
        small.embed(texts)
