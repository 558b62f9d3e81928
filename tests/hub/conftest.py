"""A hub on this computer, with one model."""

import random
from collections.abc import Iterator

import pytest

from tests.hub.fake_hub import FakeHub, FakeRepository, serving

NAME = "lantern/tiny-llama"


def content(seed: int, size: int) -> bytes:
    """Bytes that no other seed gives."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A hub that holds NAME."""
    with serving() as running:
        running.repositories[NAME] = FakeRepository(
            {
                "config.json": b'{"model_type": "llama"}',
                "tokenizer.json": b"{}",
                "README.md": "灯鱼".encode(),
                "model-00001-of-00002.safetensors": content(1, 5_000_000),
                "model-00002-of-00002.safetensors": content(2, 3_000_001),
                "model.safetensors.index.json": b'{"weight_map": {}}',
                "pytorch_model.bin": content(3, 1000),
                "modeling_llama.py": b"raise SystemExit",
            }
        )
        yield running


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxies are not what is tested."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
