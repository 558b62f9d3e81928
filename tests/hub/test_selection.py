"""Which files are taken: one set of weights, what goes with it, never code; and names that stay where they belong."""

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbgpt_lite.errors import ModelError
from dbgpt_lite.hub.names import folder_name, is_safe_path, repository_name, revision_name
from dbgpt_lite.hub.selection import RemoteFile, chosen_files

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BIN_SHARDS = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
SMALL = ["config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "LICENSE", "README.md", "chat.jinja"]
NEVER = [
    ".gitattributes", "modeling_chatglm.py", "flax_model.msgpack", "tf_model.h5", "onnx/model.onnx", "onnx/config.json",
    "model.Q4_K_M.gguf", "training_args.bin", "optimizer.bin", "original/consolidated.00.pth", "original/params.json",
    "rust_model.ot", "openvino/openvino_model.bin", "runs/events.json", "requirements.sh", "coreml/model.mlmodel",
]  # fmt: skip


def chosen(*paths: str, gguf: str = "") -> list[str]:
    return [file.path for file in chosen_files("owner/name", [RemoteFile(path, 1) for path in paths], gguf)]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        ([*SHARDS, "model.safetensors.index.json", *BIN_SHARDS, "pytorch_model.bin.index.json"],
         [*SHARDS, "model.safetensors.index.json"]),
        ([*BIN_SHARDS, "pytorch_model.bin.index.json"], [*BIN_SHARDS, "pytorch_model.bin.index.json"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        # Two copies of the same weights: the index decides, without one the single file.
        (["model.safetensors", *SHARDS, "model.safetensors.index.json"], [*SHARDS, "model.safetensors.index.json"]),
        (["model.safetensors", *SHARDS], ["model.safetensors"]),
        ([*SHARDS, "model.safetensors.index.json", "consolidated.safetensors"],
         [*SHARDS, "model.safetensors.index.json"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["gptq_model-4bit-128g.safetensors"], ["gptq_model-4bit-128g.safetensors"]),
        (["adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"],
         ["adapter_config.json", "adapter_model.safetensors"]),
        (["adapter_model.bin", "adapter_config.json"], ["adapter_config.json", "adapter_model.bin"]),
        (["model.safetensors", "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"],
         ["1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors"]),
        (["model.safetensors", "additional_chat_templates/tools.jinja"],
         ["additional_chat_templates/tools.jinja", "model.safetensors"]),
    ],
)  # fmt: skip
def test_one_set_of_weights_and_what_goes_with_it(there: list[str], taken: list[str]) -> None:
    assert chosen(*there, *SMALL, *NEVER) == sorted([*taken, *SMALL])


def test_gguf_takes_the_place_of_the_weights() -> None:
    there = ("m.Q4_K_M.gguf", "m.Q8_0.gguf", "config.json", "model.safetensors", "model.safetensors.index.json")
    assert chosen(*there, gguf="*Q4_K_M.gguf") == ["config.json", "m.Q4_K_M.gguf"]
    with pytest.raises(ModelError, match=r"m\.Q4_K_M\.gguf, m\.Q8_0\.gguf"):
        chosen(*there, gguf="*Q2_K.gguf")


@pytest.mark.parametrize(
    ("there", "key"),
    [
        (["config.json"], "hub.no_weights"),
        (["tf_model.h5", "flax_model.msgpack", "training_args.bin"], "hub.no_weights"),
        (["m.Q4.gguf"], "hub.only_gguf"),
    ],
)
def test_nothing_to_load_is_said(there: list[str], key: str) -> None:
    with pytest.raises(ModelError) as told:
        chosen(*there)
    assert told.value.key == key


@pytest.mark.parametrize(
    "path", ["../evil.json", "a/../../evil", "/etc/passwd", "C:\\evil", "C:evil", "..\\evil", "a//b", "a\nb", "./a"]
)
def test_a_name_that_leaves_the_folder_spoils_the_repository(path: str) -> None:
    with pytest.raises(ModelError) as told:
        chosen("model.safetensors", path)
    assert told.value.key == "hub.bad_file_name"


@given(st.text(st.sampled_from("ab.:/\\ ~C\0"), min_size=1, max_size=12))
@example("..")
@example("a/..")
def test_safe_paths_stay_inside(path: str) -> None:
    if not is_safe_path(path):
        return
    root = Path("/models/.x.partial")
    assert (root / path).resolve(strict=False).is_relative_to(root)
    assert root.joinpath(path) != root
    windows = PureWindowsPath("D:\\m") / path
    assert windows.drive == "D:"
    assert ".." not in windows.parts
    assert ".." not in PurePosixPath(path).parts


ENDPOINT = "https://huggingface.co"


def test_names_that_people_write() -> None:
    assert repository_name(" Qwen/Qwen2.5-0.5B ", ENDPOINT) == "Qwen/Qwen2.5-0.5B"
    assert repository_name("https://huggingface.co/THUDM/chatglm2-6b/", ENDPOINT) == "THUDM/chatglm2-6b"
    assert revision_name("") == "main"
    assert revision_name("refs/pr/1") == "refs/pr/1"
    assert folder_name("", "THUDM/chatglm2-6b") == "chatglm2-6b"
    assert folder_name("我的模型") == "我的模型"


@pytest.mark.parametrize(
    "name", ["", "gpt2", "a/b/c", "../etc", "a/..", "-a/b", "a/b c", "a/b?x", "https://evil/a/b", "a--b/c", "ä/b"]
)
def test_no_repositories(name: str) -> None:
    with pytest.raises(ModelError, match="owner/name"):
        repository_name(name, ENDPOINT)


@pytest.mark.parametrize("folder", ["..", ".hidden", "a/b", "a\\b", "/abs", "a\0", "x" * 200, "end.", "a b"])
def test_no_folders(folder: str) -> None:
    with pytest.raises(ModelError):
        folder_name(folder)


@pytest.mark.parametrize("revision", ["../x", "-x", "a b", "a?b", "a..b"])
def test_no_revisions(revision: str) -> None:
    with pytest.raises(ModelError):
        revision_name(revision)
