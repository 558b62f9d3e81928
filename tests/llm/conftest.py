"""Tiny real checkpoints: a random Llama of some hundred kilobytes and a byte-level tokenizer trained on a few lines."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.llm.tiny_models import make_model, make_tokenizer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small run many times faster on one thread when the machine is busy."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded Llama folder with a chat template. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    make_model(folder)
    make_tokenizer(folder)
    return folder


@pytest.fixture
def copy_of(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny folder with entries of config.json changed; None removes an entry."""
    import shutil

    def copy(name: str = "copy", **changes: Any) -> Path:
        folder = Path(shutil.copytree(tiny, tmp_path / name))
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


@pytest.fixture(scope="session")
def engine(tiny: Path) -> Any:
    """The tiny model in float32."""
    from dbgpt_lite.llm.loader import LoadOptions, load

    return load(tiny, LoadOptions(dtype="float32", device_map="cpu"))


@pytest.fixture
def never() -> threading.Event:
    """A cancel event that nobody sets."""
    return threading.Event()
