"""Which chat format a folder wants: the first that says anything wins, and only a guess is asked about."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.chat_choice import FormatChoice, FormatClues, choose_format, format_of_folder, remember_format
from dbgpt_lite.llm.checkpoint import TaskFacts, read_checkpoint, read_facts
from dbgpt_lite.llm.families import family
from dbgpt_lite.llm.loader import LoadOptions
from dbgpt_lite.llm.manager import ModelManager
from tests.llm.test_manager import Canned
from tests.llm.tiny_models import make_tokenizer

Copy = Callable[..., Path]
TOKENS = frozenset(("<|im_start|>", "<|im_end|>"))
ALL = FormatClues("chatglm2", True, TOKENS)
# Everything says something; each case takes away what won before.
ORDER: list[tuple[str, str, FormatClues, str, FormatChoice]] = [
    ("vicuna", "alpaca", ALL, "gemma", FormatChoice("vicuna", "folder")),
    ("", "alpaca", ALL, "gemma", FormatChoice("alpaca", "setting")),
    ("", "", ALL, "gemma", FormatChoice("chatglm2", "architecture")),
    ("", "", FormatClues("", True, TOKENS), "gemma", FormatChoice("", "template")),
    ("", "", FormatClues("", False, TOKENS), "gemma", FormatChoice("chatml", "tokens")),
    ("", "", FormatClues(), "gemma", FormatChoice("gemma", "family")),
    ("", "", FormatClues(), "never-heard-of", FormatChoice("plain", "family")),
]


@pytest.mark.parametrize(("told", "setting", "clues", "model_type", "expected"), ORDER)
def test_order(told: str, setting: str, clues: FormatClues, model_type: str, expected: FormatChoice) -> None:
    assert choose_format(told, setting, clues, family({"model_type": model_type})) == expected
    assert expected.known == (expected.source != "family")


def files(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def bare(folder: Path) -> Path:
    """The folder without a chat template."""
    make_tokenizer(folder, chat_template=None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("place", ["jinja", "config"])
def test_a_folders_template_is_seen_without_loading(copy_of: Copy, place: str) -> None:
    folder = bare(copy_of())
    if place == "jinja":
        (folder / "chat_template.jinja").write_text("{{ messages }}")
    else:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": "{{ messages }}"}))
    assert format_of_folder(folder, read_checkpoint(folder)) == FormatChoice("", "template")


def test_a_folders_special_tokens_are_seen_without_loading(copy_of: Copy) -> None:
    folder = bare(copy_of())
    assert format_of_folder(folder, read_checkpoint(folder)) == FormatChoice("chatml", "tokens")
    added = {str(n): {"content": mark} for n, mark in enumerate(("<start_of_turn>", "<end_of_turn>"))}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    assert format_of_folder(folder, read_checkpoint(folder)) == FormatChoice("gemma", "tokens")
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text('{"added_tokens": []}')
    assert format_of_folder(folder, read_checkpoint(folder)) == FormatChoice("guanaco", "family")


def test_a_damaged_tokenizer_config_is_named(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "tokenizer_config.json").write_text("[")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        format_of_folder(folder, read_checkpoint(folder))


def test_a_choice_is_remembered_beside_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "dbgpt.json").write_text('{"languages": ["zh"], "chat_format": "plain"}')
    remember_format(tmp_path, "vicuna")
    assert read_facts(tmp_path) == TaskFacts(languages=("zh",), chat_format="vicuna")
    assert files(tmp_path) == ["dbgpt.json"]


def test_what_is_no_format_or_no_facts_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="guanaco"):
        remember_format(tmp_path, "../vicuna")
    assert files(tmp_path) == []
    (tmp_path / "dbgpt.json").write_text("not json")
    with pytest.raises(ModelError, match=r"dbgpt\.json"):
        remember_format(tmp_path, "vicuna")
    assert (tmp_path / "dbgpt.json").read_text() == "not json"


def test_an_adapters_folder_comes_before_its_base(copy_of: Copy) -> None:
    base = bare(copy_of("base"))
    adapter = base.parent / "adapter"
    adapter.mkdir()
    checkpoint = read_checkpoint(base)
    assert format_of_folder(adapter, checkpoint) == FormatChoice("chatml", "tokens")
    remember_format(adapter, "guanaco")
    assert format_of_folder(adapter, checkpoint) == FormatChoice("guanaco", "folder")
    assert format_of_folder(base, checkpoint) == FormatChoice("chatml", "tokens")


@pytest.fixture
def unknown(copy_of: Copy) -> Path:
    """A Llama that says nothing of its format."""
    folder = bare(copy_of("llama-33b"))
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_start|>", "<|one|>"))
    return folder


def opening(manager: ModelManager) -> str:
    manager.wait()
    assert manager.status.state == "ready", manager.status.detail
    engine: Any = manager.engine
    return str(engine._template.row.opening)


def test_the_page_asks_only_where_nothing_tells(tiny: Path, unknown: Path) -> None:
    manager = ModelManager(unknown.parent, Canned())
    (folder,) = manager.folders()
    assert folder.chat_format == FormatChoice("guanaco", "family")
    assert [found.chat_format for found in ModelManager(tiny.parent, Canned()).folders()] == [None]


def test_a_choice_of_the_page_is_used_and_kept(unknown: Path) -> None:
    manager = ModelManager(unknown.parent, Canned(), LoadOptions(dtype="float32", device_map="cpu"))
    manager.load("llama-33b", None, "guanaco")
    assert opening(manager) == "### Assistant:"
    assert not (unknown / "dbgpt.json").exists()  # what is used anyway is no choice
    manager.load("llama-33b", None, "vicuna")
    assert opening(manager) == "ASSISTANT:"
    manager.load("llama-33b")
    assert opening(manager) == "ASSISTANT:"
    assert manager.folders()[0].chat_format == FormatChoice("vicuna", "folder")
    manager.load("llama-33b", None, "alpaca")
    assert opening(manager) == "### Response:"
    with pytest.raises(ModelError, match="vicuna"):
        manager.load("llama-33b", None, "nonsense")
    assert opening(manager) == "### Response:"
    manager.close()


def test_a_format_that_is_not_known_is_left_for_the_person_who_wrote_it(unknown: Path) -> None:
    (unknown / "dbgpt.json").write_text('{"chat_format": "vikuna"}')
    manager = ModelManager(unknown.parent, Canned(), LoadOptions(dtype="float32", device_map="cpu"))
    (found,) = manager.folders()
    assert found.chat_format is None
    assert "vikuna" in str(found.problem)
    manager.load("llama-33b", None, "vicuna")
    assert "vikuna" in str(manager.wait().detail)
    assert read_facts(unknown).chat_format == "vikuna"


def test_a_folder_that_cannot_be_written_is_loaded_all_the_same(unknown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(Path, "replace", refuse)
    manager = ModelManager(unknown.parent, Canned(), LoadOptions(dtype="float32", device_map="cpu"))
    manager.load("llama-33b", None, "vicuna")
    assert opening(manager) == "ASSISTANT:"
    assert not [name for name in files(unknown) if "dbgpt" in name]
    manager.close()


def test_the_setting_is_for_the_configured_model_alone(unknown: Path, copy_of: Copy) -> None:
    import shutil

    shutil.copytree(unknown, unknown.parent / "other")
    options = LoadOptions(dtype="float32", device_map="cpu", chat_format="alpaca")
    manager = ModelManager(unknown.parent, Canned(), options, str(unknown))
    for name, expected in (
        (str(unknown), "### Response:"),
        ("llama-33b", "### Response:"),
        ("other", "### Assistant:"),
    ):
        manager.load(name)
        assert opening(manager) == expected
    manager.close()
