"""Decoding within a grammar: the starter model keeps to it, alone and in beams; a broken grammar restricts nothing."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dbgpt_lite.config import ROOT
from dbgpt_lite.llm.engine import LocalEngine
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.unconstrained import Unconstrained
from dbgpt_lite.messages import Message, Prompt, Sampling

ASKED = Message("user", "CREATE TABLE city (id INTEGER, name TEXT);\n\nHow many cities?")
PROMPT = Prompt("sql", (ASKED,), "How many cities?")
COLOURS = 'start: "red" | "green" " " "tea"\n'


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    loaded = load(ROOT / "models" / "starter-sql", LoadOptions(device_map="cpu", constrained=True))
    yield loaded  # type: ignore[misc]
    loaded.close()


def said(engine: LocalEngine | Unconstrained, prompt: Prompt, temperature: float = 0.0, limit: int = 40) -> str:
    sampling = Sampling(temperature=temperature, max_tokens=limit, seed=7)
    return "".join(piece for piece in engine.stream(prompt, sampling, threading.Event()) if isinstance(piece, str))


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_answer_is_of_the_grammar(engine: LocalEngine, temperature: float) -> None:
    assert engine.info.constrained
    assert said(engine, replace(PROMPT, grammar=COLOURS), temperature) in ("red", "green tea")


def test_every_beam_is_of_the_grammar(engine: LocalEngine) -> None:
    found = engine.candidates(replace(PROMPT, grammar=COLOURS), 4, 40, threading.Event())
    assert found
    assert set(found) <= {"red", "green tea"}


def test_without_a_grammar_and_with_a_broken_one_it_is_free(engine: LocalEngine) -> None:
    free = said(engine, PROMPT)
    assert "SELECT" in free.upper()
    assert said(engine, replace(PROMPT, grammar="start: missing_rule\n")) == free
    assert said(Unconstrained(engine), replace(PROMPT, grammar=COLOURS)) == free
    assert not Unconstrained(engine).info.constrained


def test_an_answer_that_is_cut_ends_where_it_may(engine: LocalEngine) -> None:
    """So many letters may follow; near its limit the answer stops at the first place where the grammar lets it."""
    text = said(engine, replace(PROMPT, grammar='start: "a" ("b" "c")*\n'), temperature=1.5, limit=30)
    assert text.replace("bc", "") == "a"
