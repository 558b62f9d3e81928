"""Rules of the project that a reader of the code relies on: layers, holders of heavy libraries, generated files."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dbgpt_lite.texts import variables
from tools import write_settings_docs

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dbgpt_lite"
FILES = sorted(PACKAGE.rglob("*.py"))

LEVELS = {
    0: ("texts", "errors", "messages", "config", "model_loading", "outbound"),
    1: (
        "llm",
        "knowledge",
        "sql",
        "hub",
        "store",
        "store_schema",
        "query_store",
        "audit_trail",
        "prompts",
        "metrics",
        "auth",
        "guards",
    ),
    2: ("chat", "finetune", "evaluation"),
    3: ("bootstrap", "sql_solver"),
    4: (
        "ui",
        "api",
        "cli",
        "cli_evaluate",
        "cli_knowledge",
        "cli_memory",
        "cli_models",
        "cli_progress",
        "cli_quantize",
        "cli_download",
    ),
    5: ("server", "__main__"),
}
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}
# Packages of one level that may not see each other; single modules of a level may (store and its schema).
SIBLINGS = {
    "llm",
    "knowledge",
    "sql",
    "hub",
    "store",
    "query_store",
    "ui",
    "api",
    "cli",
    "chat",
    "finetune",
    "evaluation",
}
HOLDERS = {
    "gradio": {"ui", "server"},
    "faiss": {"knowledge"},
    "jieba": {"knowledge"},
    "sentence_transformers": {"knowledge"},
    "langchain_core": {"knowledge"},
    "langchain_text_splitters": {"knowledge"},
    "qdrant_client": {"knowledge"},
    "sqlglot": {"sql"},
    "llguidance": {"llm"},
    "sentencepiece": {"llm"},
    "pymysql": {"sql"},
    "transformers": {"llm", "finetune", "knowledge"},  # sentence-transformers stands on it
    "accelerate": {"llm", "finetune"},
    "bitsandbytes": {"llm", "finetune"},
    "peft": {"finetune", "llm"},
    "torch": {"llm", "knowledge", "finetune"},
    "fastapi": {"api", "server"},
    "prometheus_client": {"metrics"},
}


def part_of(file: Path) -> str:
    """The part of the package a file belongs to: its folder, or its own name."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """Full names of the modules a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(file: Path) -> set[str]:
    inside = {name.split(".")[1] for name in imports_of(file) if name.startswith("dbgpt_lite.")}
    return {name for name in inside if name in LEVEL_OF}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_layers_look_down_only(file: Path) -> None:
    part = part_of(file)
    if part in ("__init__", "samples"):
        return
    for other in parts_imported(file) - {part}:
        assert LEVEL_OF[other] <= LEVEL_OF[part], f"{part} imports {other}, which is above it"
        if LEVEL_OF[other] == LEVEL_OF[part]:
            assert not {part, other} <= SIBLINGS, f"{part} and {other} are siblings"


@pytest.mark.parametrize("library", sorted(HOLDERS))
def test_heavy_library_has_one_holder(library: str) -> None:
    users = {part_of(file) for file in FILES if any(n.split(".")[0] == library for n in imports_of(file))}
    assert users <= HOLDERS[library]


def test_chat_imports_no_third_party() -> None:
    for file in (PACKAGE / "chat").glob("*.py"):
        outside = {n.split(".")[0] for n in imports_of(file)} - set(sys.stdlib_module_names) - {"dbgpt_lite"}
        assert not outside, f"{file.name} imports {outside}"


@pytest.mark.parametrize(
    "module",
    [
        "config",
        "cli",
        "llm.families",
        "llm.placement",
        "llm.forecast",
        "sql.guard",
        "knowledge.splitter",
        "chat.budget",
        "messages",
    ],
)
def test_imports_without_torch(module: str) -> None:
    code = (
        f"import sys, dbgpt_lite.{module}; sys.exit(sum(n in sys.modules for n in ('torch', 'gradio', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_env_template_and_settings_page_are_current() -> None:
    hint = "run: make docs"
    assert (ROOT / ".env.template").read_text(encoding="utf-8") == write_settings_docs.template(), hint
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == write_settings_docs.table(), hint


LOCALES = sorted(PACKAGE.glob("locales/*.en.json"))


@pytest.mark.parametrize("english", LOCALES, ids=lambda file: file.name)
def test_both_languages_say_the_same_things(english: Path) -> None:
    chinese = english.with_name(english.name.replace(".en.", ".zh."))
    en, zh = (json.loads(file.read_text(encoding="utf-8")) for file in (english, chinese))
    assert en.keys() == zh.keys()
    for name in en:
        assert variables(en[name]) == variables(zh[name]), name
        assert en[name].strip(), name


def test_every_text_key_in_the_code_exists() -> None:
    known = {
        f"{file.name.split('.')[0]}.{name}" for file in LOCALES for name in json.loads(file.read_text(encoding="utf-8"))
    }
    sections = {key.split(".")[0] for key in known}
    pattern = re.compile(rf"[\"']((?:{'|'.join(sorted(sections))})\.[a-z0-9_]+)[\"']")
    used = {key for file in FILES for key in pattern.findall(file.read_text(encoding="utf-8"))}
    used -= {"chat.completion", "queries.js"}  # OpenAI's name of an object, a file
    # A key that ends in "_" is put together at run time; some text must begin with it.
    assert {key for key in used if not key.endswith("_")} - known == set()
    assert all(any(name.startswith(key) for name in known) for key in used if key.endswith("_"))


def test_no_dangerous_calls() -> None:
    banned = {"eval", "exec", "compile", "__import__"}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in banned, f"{file}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_dangerous_deserialization"):
                assert isinstance(node.value, ast.Constant), f"{file}:{node.value.lineno}"
                assert node.value.value is False, f"{file}:{node.value.lineno}"
        assert not {"pickle", "dill", "joblib", "shelve", "subprocess"} & {n.split(".")[0] for n in imports_of(file)}


def test_no_dictionary_is_read_at_import() -> None:
    """It would be most of what a small command takes."""
    code = (
        "import sys, dbgpt_lite.bootstrap, dbgpt_lite.knowledge.words as words; "
        "sys.exit(words._segmenter.cache_info().currsize)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_is_quick_to_load() -> None:
    code = "import sys; sys.argv=['x','--help']\n"
    code += "try:\n import dbgpt_lite.__main__ as m; m.run()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch','gradio','transformers','sqlalchemy','fastapi'} & set(sys.modules); sys.exit(bool(heavy))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0
