"""Fit a prompt into the model's window, and say what was left out. Pure: tokens are counted by a function passed in.

The order of sacrifice: the oldest rounds of the history go first, then the worst passages. The instructions, the
schema and the question are never cut; when they alone do not fit, that is an error with the numbers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dbgpt_lite.errors import TooLarge
from dbgpt_lite.messages import Ledger, LedgerLine, Message, Passage
from dbgpt_lite.prompts import PromptTemplate

MIN_ANSWER = 64
LABEL_LENGTH = 120
T = TypeVar("T")
_FENCE = re.compile(r"<\s*/?\s*passage\s*/?\s*>?", re.IGNORECASE)
Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Material:
    """What a prompt is made of before it is cut.

    `fixed` are variables of the template that are never cut, `instructions` join its system message.
    `common`: those of them that say nothing of who asks what, so that what a model read of them may serve others.
    `tables`: how many tables the schema in `fixed` shows and how many it leaves out, for the ledger.
    """

    template: PromptTemplate
    question: str
    history: tuple[Message, ...] = ()
    passages: tuple[Passage, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    instructions: str = ""
    tables: tuple[int, int] = (0, 0)
    common: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: the messages, the passages that stayed, the room for the answer and the ledger.

    `grammar` is what the answer must follow, "" for free text. `common`: see Prompt.
    """

    messages: tuple[Message, ...]
    passages: tuple[Passage, ...]
    max_tokens: int
    ledger: Ledger
    grammar: str = ""
    common: int = 0


def number_passages(passages: Sequence[Passage]) -> str:
    """Passages as numbered text: ``[1] handbook.pdf, p. 3``, then the words between <passage> and </passage>.

    The words cannot end the fence, and a file name or heading is one short line: what is written in a document reads
    as its contents and never as another passage or as the prompt.
    """
    return "\n\n".join(
        f"[{n}] {_where(passage)}\n<passage>\n{_FENCE.sub('‹passage›', passage.text).strip()}\n</passage>"
        for n, passage in enumerate(passages, 1)
    )


def fit(material: Material, count: Count, window: int, max_tokens: int) -> Fitted:
    """Cut `material` so that prompt and answer share `window` tokens.

    The answer gets `max_tokens`, or what a quarter of the window leaves of it, and never less than MIN_ANSWER.
    Raises TooLarge when instructions, schema and question leave no such room.
    """
    reserved = max(min(max_tokens, window // 4), min(MIN_ANSWER, max_tokens))
    room = window - reserved
    bare = count(_render(material, (), ()))
    if bare > room:
        raise TooLarge("chat.prompt_too_long", needed=bare, window=window, reserved=reserved)
    passages = _most(material.passages, lambda kept: count(_render(material, kept, ())) <= room)
    rounds = _rounds(material.history)
    newest_first = _most(rounds[::-1], lambda kept: count(_render(material, passages, _flat(kept[::-1]))) <= room)
    history = _flat(newest_first[::-1])
    messages = _render(material, passages, history)
    ledger = _ledger(material, passages, len(newest_first), count, messages, Ledger(window, reserved))
    spare = window - count(messages)
    common = len(material.template.common(material.common, **material.fixed))
    return Fitted(messages, passages, min(max_tokens, spare), ledger, common=common)


def _render(material: Material, passages: Sequence[Passage], history: Sequence[Message]) -> tuple[Message, ...]:
    values = {**material.fixed, "question": material.question, "passages": number_passages(passages)}
    *system, user = material.template.render(**values)
    told = "\n\n".join(part for part in (*(m.content for m in system), material.instructions) if part)
    return (*([Message("system", told)] if told else []), *history, user)


def _most(items: Sequence[T], fits: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """The longest prefix of `items` that fits, by bisection: counting tokens is the cost here."""
    low, high = 0, len(items)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(items[:middle]):
            low = middle
        else:
            high = middle - 1
    return tuple(items[:low])


def _ledger(
    material: Material,
    passages: Sequence[Passage],
    rounds: int,
    count: Count,
    messages: tuple[Message, ...],
    empty: Ledger,
) -> Ledger:
    """Tokens by section, each measured as what the prompt grows by when the section is added."""
    total = count(messages)
    bare = count(_render(material, (), ()))
    with_passages = count(_render(material, passages, ()))
    schema = material.fixed.get("schema", "")
    without_schema = count(_render(_without(material, "schema"), (), ())) if schema else bare
    question = count((Message("user", material.question),))
    lines = [LedgerLine("system", max(without_schema - question, 0)), LedgerLine("question", question)]
    if schema:
        lines.append(LedgerLine("schema", bare - without_schema, *material.tables))
    if material.passages:
        dropped = len(material.passages) - len(passages)
        lines.append(LedgerLine("passages", with_passages - bare, len(passages), dropped))
    if material.history:
        lines.append(LedgerLine("history", total - with_passages, rounds, len(_rounds(material.history)) - rounds))
    return Ledger(empty.window, empty.reserved, tuple(lines))


def _without(material: Material, name: str) -> Material:
    return replace(material, history=(), passages=(), fixed={**material.fixed, name: ""})


def _rounds(history: Sequence[Message]) -> list[tuple[Message, ...]]:
    """History cut into rounds, each starting with a user message."""
    rounds: list[list[Message]] = []
    for message in history:
        if message.role == "user" or not rounds:
            rounds.append([])
        rounds[-1].append(message)
    return [tuple(turns) for turns in rounds]


def _flat(rounds: Sequence[tuple[Message, ...]]) -> tuple[Message, ...]:
    return tuple(message for turns in rounds for message in turns)


def _where(passage: Passage) -> str:
    page = f", p. {passage.page}" if passage.page else ""
    heading = f" ({_label(passage.heading)})" if passage.heading else ""
    return f"{_label(passage.document)}{page}{heading}"


def _label(text: str) -> str:
    line = " ".join(_FENCE.sub("‹passage›", text).split())
    return line if len(line) <= LABEL_LENGTH else line[: LABEL_LENGTH - 1] + "…"
