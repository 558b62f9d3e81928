"""Write .env.template and docs/settings.md from the Settings class. A test fails when they have drifted."""

from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dbgpt_lite.config import ROOT, Settings

_TYPES = {
    "llm_quantization": "none, int8, nf4, int4",
    "llm_dtype": "auto, float32, float16, bfloat16",
    "model_downloads": "auto, on, off",
}


def template() -> str:
    """The text of .env.template."""
    lines = ["# Copy this file to .env and change what you need. Every setting is listed with its default."]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {_help(name, field)}", f"#{name.upper()}={_default(field)}"]
    return "\n".join(lines) + "\n"


def table() -> str:
    """The text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Set them in `.env` (copy `.env.template`) or in the environment; the environment wins.",
        "This page is generated from `dbgpt_lite/config.py` by `make docs`.",
        "",
        "| setting | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = _default(field)
        lines.append(f"| `{name.upper()}` | {f'`{default}`' if default else ''} | {_help(name, field)} |")
    return "\n".join(lines) + "\n"


def _help(name: str, field: FieldInfo) -> str:
    values = f" One of: {_TYPES[name]}." if name in _TYPES else ""
    return f"{field.description}{values}"


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    if isinstance(default, Path):
        return default.as_posix()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in ({}, "", None) else str(default)


def main() -> None:
    """Write both files."""
    (ROOT / ".env.template").write_text(template(), encoding="utf-8")
    (ROOT / "docs" / "settings.md").write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main()
