"""Write the tables of docs/models.md: families, chat formats, and what each model of the mission needs where.

The prose there is written by hand; what stands between ``<!-- table NAME -->`` and ``<!-- end -->`` comes from the
tables in dbgpt_lite/llm and from its planner. A test fails when they have drifted.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbgpt_lite.config import ROOT
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.families import FAMILIES, shape
from dbgpt_lite.llm.placement import Device
from dbgpt_lite.llm.plan import Plan, plan
from dbgpt_lite.llm.speed import hypothetical
from dbgpt_lite.llm.units import gib

PAGE = ROOT / "docs" / "models.md"
WINDOWS = (2048, 8192, 32768)
NUMBERS = ("none", "int8", "nf4", "int4")
# A card of each size that people have, as its driver calls it.
CARDS = {"8 GB": "rtx 4060", "12 GB": "rtx 4070", "24 GB": "rtx 4090", "48 GB": "l40s", "80 GB": "h100 80gb hbm3"}
PAIRS = {"2 x 12 GB": "rtx 4070", "2 x 24 GB": "rtx 4090"}
# Rather more bits than a longer window, once this many tokens fit.
ENOUGH = 8192
_TABLE = re.compile(r"(<!-- table ([\w.-]+) -->\n).*?(<!-- end -->)", re.S)


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its folder in models/ and the sizes that its published config.json states."""

    folder: str
    config: Mapping[str, Any]

    def plan(self, quantization: str, context: int, devices: tuple[Device, ...]) -> Plan:
        """Where and whether it fits, in 16-bit numbers where it is not quantized."""
        checkpoint = Checkpoint(Path(self.folder), self.config, TaskFacts(), "safetensors", (), (), 0)
        return plan(checkpoint, dtype="bfloat16", quantization=quantization, context=context, devices=devices)


def _llama(layers: int, hidden: int, heads: int, feed: int, window: int = 4096, **more: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    return {
        "model_type": "llama",
        **sizes,
        "intermediate_size": feed,
        "vocab_size": 32000,
        "max_position_embeddings": window,
        **more,
    }


MODELS = (
    Model("guanaco-33b-merged", _llama(60, 6656, 52, 17920, 2048)),
    Model(
        "chatglm2-6b",
        {
            "model_type": "chatglm",
            "num_layers": 28,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "kv_channels": 128,
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "ffn_hidden_size": 13696,
            "padded_vocab_size": 65024,
            "seq_length": 32768,
            "add_qkv_bias": True,
        },
    ),
    Model(
        "chatglm-6b",
        {
            "model_type": "chatglm",
            "num_layers": 28,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "inner_hidden_size": 16384,
            "vocab_size": 130528,
            "max_sequence_length": 2048,
            "position_encoding_2d": True,
        },
    ),
    Model("vicuna-7b-v1.5", _llama(32, 4096, 32, 11008)),
    Model("vicuna-13b-v1.5", _llama(40, 5120, 40, 13824)),
    Model(
        "Llama-3.1-8B-Instruct",
        _llama(
            32,
            4096,
            32,
            14336,
            131072,
            vocab_size=128256,
            num_key_value_heads=8,
            rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
        ),
    ),
    Model(
        "Qwen2.5-7B-Instruct",
        _llama(28, 3584, 28, 18944, 32768, model_type="qwen2", vocab_size=152064, num_key_value_heads=4),
    ),
    Model(
        "Qwen2.5-14B-Instruct",
        _llama(48, 5120, 40, 13824, 32768, model_type="qwen2", vocab_size=152064, num_key_value_heads=8),
    ),
    Model(
        "Qwen3-30B-A3B-Instruct-2507",
        _llama(
            48,
            2048,
            32,
            6144,
            262144,
            model_type="qwen3_moe",
            vocab_size=151936,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
        ),
    ),
    Model(
        "Mistral-7B-Instruct-v0.3",
        _llama(
            32,
            4096,
            32,
            14336,
            32768,
            model_type="mistral",
            vocab_size=32768,
            num_key_value_heads=8,
            sliding_window=None,
        ),
    ),
    Model(
        "glm-4-9b-chat-hf",
        _llama(
            40,
            4096,
            32,
            13696,
            131072,
            model_type="glm",
            vocab_size=151552,
            num_key_value_heads=2,
            head_dim=128,
            attention_bias=True,
        ),
    ),
)


def families() -> list[str]:
    """Every architecture of the table."""
    lines = [
        "| architecture | family | format without a template | adapters are trained on |",
        "| --- | --- | --- | --- |",
    ]
    for kind, row in FAMILIES.items():
        lines.append(f"| `{kind}` | {row.name} | `{row.chat_format}` | {', '.join(row.lora)} |")
    return lines


def formats() -> list[str]:
    """Every chat format of the table."""
    lines = ["| format | one question | an answer ends at |", "| --- | --- | --- |"]
    for name, row in CHAT_FORMATS.items():
        question = _code(row.user.replace("{content}", "...").replace("{n}", "1") + row.opening)
        lines.append(f"| `{name}` | {question} | {', '.join(_code(stop) for stop in row.stop)} |")
    return lines


def _code(text: str) -> str:
    return "`{}`".format(text.strip().replace("\n", "⏎").replace("|", "\\|"))


def memory(model: Model) -> list[str]:
    """GiB on one card by number of bits: the weights, and everything with one conversation of each length."""
    own = shape(model.config).context_length
    windows = [window for window in WINDOWS if window <= own]
    lines = [
        f"| `LLM_QUANTIZATION` | weights | {' | '.join(f'{window:,} tokens' for window in windows)} |",
        "| --- |" + " ---: |" * (1 + len(windows)),
    ]
    huge = (Device("cuda:0", 2**50),)
    for numbers in NUMBERS:
        plans = [model.plan(numbers, window, huge) for window in windows]
        totals = " | ".join(gib(one.need.total) for one in plans)
        lines.append(f"| `{numbers}` | {gib(plans[0].need.weights)} | {totals} |")
    return lines


def cards(model: Model) -> list[str]:
    """The settings for each card: the most bits that leave room for a useful window."""
    lines = ["| card | setting | window | GiB used | tokens/s |", "| --- | --- | ---: | ---: | ---: |"]
    for label, name in (*CARDS.items(), *PAIRS.items()):
        count = 2 if label in PAIRS else 1
        devices = tuple(hypothetical(name, place) for place in range(count))
        lines.append(f"| {label} | {_setting(model, devices)} |")
    return lines


def _setting(model: Model, devices: tuple[Device, ...]) -> str:
    own = shape(model.config).context_length
    plans: list[tuple[str, Plan]] = []
    for numbers in NUMBERS[:3]:
        found = model.plan(numbers, 0, devices)
        if found.verdict == "fits":
            plans.append((numbers, found))
            if found.need.context >= min(own, ENOUGH):
                break
    if not plans:
        return f"does not fit: nf4 takes at least {gib(found.need.total)} GiB with {found.need.context:,} tokens | | |"
    best, found = max(plans, key=lambda one: one[1].need.context)
    words = "no setting" if best == "none" else f"`LLM_QUANTIZATION={best}`"
    pace = f"{found.speed.first:.0f}" if found.speed else ""
    return f"{words} | {found.need.context:,} | {gib(found.need.total)} | {pace}"


def tables() -> dict[str, Callable[[], list[str]]]:
    """What may stand between the marks of the page, by name."""
    made: dict[str, Callable[[], list[str]]] = {"families": families, "formats": formats}
    for model in MODELS:
        made[model.folder] = lambda model=model: [*memory(model), "", *cards(model)]  # type: ignore[misc]
    return made


def page(text: str) -> str:
    """The page with its tables written anew. Raises KeyError for a table that does not exist."""
    made = tables()

    def written(found: re.Match[str]) -> str:
        return "\n".join([found[1], *made[found[2]](), "", found[3]])

    return _TABLE.sub(written, text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
