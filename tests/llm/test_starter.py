"""The bundled text-to-SQL model writes the worked example of its card."""

import threading
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.messages import Message, Prompt, Sampling
from tests.llm.tiny_models import answer_of

# Word for word the same query with its tables the other way round. In float32 the two are 0.02 logits apart where they
# part, less than bfloat16 can tell.
OTHER_WAY_ROUND = (
    "SELECT T2.full_name FROM branches AS T1 JOIN readers AS T2 ON T1.id = T2.branch_id WHERE T1.town = 'Leeds'"
)
FOLDER = Path(__file__).parents[2] / "models" / "starter-sql"


@pytest.fixture(scope="module")
def starter() -> Any:
    return load(FOLDER, LoadOptions(dtype="bfloat16", device_map="cpu"))


def worked_example() -> tuple[Prompt, str, str]:
    """(prompt, its text, expected SQL), read from the model card."""
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    block = card.split("```\n")[1]
    text, _, answer = block.partition("<|im_start|>assistant\n")
    system, user = (part.split("<|im_end|>")[0] for part in text.split("<|im_start|>")[1:])
    messages = (Message("system", system.removeprefix("system\n")), Message("user", user.removeprefix("user\n")))
    prompt = Prompt("sql", messages, messages[1].content)
    return prompt, f"{text}<|im_start|>assistant\n", answer.partition("<|im_end|>")[0]


def test_worked_example(starter: Any, never: threading.Event) -> None:
    prompt, text, expected = worked_example()
    assert starter._template.render(prompt.messages) == text
    sql, usage = answer_of(starter.stream(prompt, Sampling(0, 1, 160), never))
    assert sql in (expected, OTHER_WAY_ROUND)
    assert usage.finish_reason == "stop"
    assert expected in starter.candidates(prompt, 4, 110, never)


def test_facts(starter: Any) -> None:
    info = starter.info
    assert (info.context_length, info.languages, info.sql_prompt) == (2048, ("en",), "sql_starter")
    assert (info.sql_dialect, info.quantization) == ("sqlite", "int4")
