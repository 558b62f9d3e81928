"""What is kept from one question to the next: the time to the first token, on the CPU.

A model with the built-in one's shape, random weights and a window of 8,192 tokens or more. First: a question over a
context of 8,000 tokens, then a second question over the same one, after somebody else has asked about something else.
Then 8 users one after the other on the same schema of 1,600 tokens, two questions each, with their conversation.

    python benchmarks/prefix.py
"""

import random
import threading
from dataclasses import replace

from dbgpt_lite.config import ROOT, prepare_process

prepare_process()

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from dbgpt_lite.llm.checkpoint import read_checkpoint  # noqa: E402
from dbgpt_lite.llm.engine import LocalEngine  # noqa: E402
from dbgpt_lite.llm.loader import LoadOptions, load  # noqa: E402
from dbgpt_lite.messages import Message, Prompt, Sampling, Usage  # noqa: E402

USERS = 8
WORDS = "order customer price date town branch reader loan book title author fine amount street country total".split()


def engine(window: int, prefix_bytes: int) -> LocalEngine:
    """The built-in model's engine around a random model of its shape, in bfloat16."""
    built_in = load(ROOT / "models" / "starter-sql", LoadOptions(device_map="cpu"))
    written = dict(read_checkpoint(ROOT / "models" / "starter-sql").config)
    shape = {key: value for key, value in written.items() if key not in ("quantization_bit", "model_type", "dtype")}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**shape, "max_position_embeddings": window})).bfloat16().eval()
    info = replace(built_in.info, context_length=window, constrained=False)
    return LocalEngine(model, built_in._tokenizer, built_in._template, info, prefix_bytes)


def words(tokens: int, engine: LocalEngine, seed: int) -> str:
    """About so many tokens of words that differ by the seed."""
    draw = random.Random(seed)
    text = ""
    while engine.count_text(text) < tokens:
        text += "".join(f"{draw.choice(WORDS)} {draw.randrange(100)} " for _ in range(tokens // 8))
    while engine.count_text(text) > tokens:
        text = text[: int(len(text) * max(0.5, tokens / engine.count_text(text)))]
    return text


def ask(engine: LocalEngine, *messages: Message, owner: str = "one") -> tuple[str, Usage]:
    """(answer, its usage) of 16 tokens at most. A system message is everybody's."""
    common = len(messages[0].content) if messages[0].role == "system" else 0
    prompt = Prompt("chat", messages, messages[-1].content, owner=owner, common=common)
    *pieces, usage = engine.stream(prompt, Sampling(0, 1, 16), threading.Event())
    assert isinstance(usage, Usage)
    return "".join(str(piece) for piece in pieces), usage


def row(name: str, usage: Usage, first: float) -> None:
    """Print a line of the table."""
    share = f"{usage.first_token_s / first:.1%}"
    print(f"| {name} | {usage.prompt_tokens} | {usage.cached_tokens} | {usage.first_token_s * 1000:.0f} ms | {share} |")


def second_question(kept: LocalEngine) -> None:
    """The same context twice, with another user between."""
    context = Message("system", words(8000, kept, 1))
    answer, first = ask(kept, context, Message("user", "What is the total of the first order?"))
    row("first question", first, first.first_token_s)
    _, other = ask(kept, Message("system", words(500, kept, 2)), Message("user", "Who wrote the book?"), owner="two")
    row("another user, another context", other, first.first_token_s)
    _, second = ask(kept, context, Message("user", "Which town has the most readers?"))
    row("second question, same context", second, first.first_token_s)
    history = (Message("user", "What is the total of the first order?"), Message("assistant", answer))
    _, follow = ask(kept, context, *history, Message("user", "And of the second one?"))
    row("a follow-up to the first", follow, first.first_token_s)


def same_schema(kept: LocalEngine) -> None:
    """8 users in turn, two rounds."""
    schema = Message("system", words(1600, kept, 3))
    histories: list[list[Message]] = [[] for _ in range(USERS)]
    first = 0.0
    for turn in (1, 2):
        for user, history in enumerate(histories, 1):
            question = Message("user", f"Question {turn} of user {user}: which {WORDS[user]} has the highest fine?")
            answer, usage = ask(kept, schema, *history, question, owner=f"user {user}")
            first = first or usage.first_token_s
            row(f"user {user}, question {turn}", usage, first)
            history += [question, Message("assistant", answer)]


def main() -> None:
    """Print both tables, each with prefixes kept and with the last prompt only."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, size in (("0.5 GiB of prefixes", 2**29), ("the last prompt only", 0)):
        kept = engine(9000, size)
        ask(kept, Message("user", "warm up"))
        for title, scene in (("8,000 tokens", second_question), (f"{USERS} users, one schema", same_schema)):
            print(f"\n{title}, {name}\n\n| | prompt | kept | first token | of the first |")
            print("| --- " * 5 + "|")
            scene(kept)


if __name__ == "__main__":
    main()
