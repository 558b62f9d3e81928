"""What quantization and the fast kernels do to answers, on the built-in model, which is a trained one. On a GPU.

    python benchmarks/gpu_quality.py [--write FILE]

Text: the English questions of the built-in exam with their right queries, in the model's own prompt. Perplexity is that
of the queries' tokens; agreement: at how many of their places both rate the same token highest, each place computed as
a step of its own.
"""

import argparse
import json
import math
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_models import nf4_of  # noqa: E402
from dbgpt_lite.llm.gpu_step import GpuStepModel, runs_here  # noqa: E402
from dbgpt_lite.llm.int4 import unpack  # noqa: E402
from dbgpt_lite.llm.parts import take_apart  # noqa: E402
from dbgpt_lite.sql.sample_shop import build  # noqa: E402

FOLDER = ROOT / "models" / "starter-sql"
EXAM = ROOT / "dbgpt_lite" / "evaluation" / "sql_exam" / "questions_en.jsonl"
TASK = "Write one SQLite SELECT statement that answers the question, using only the schema below."
ROWS, WINDOW = 16, 1024
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"


def texts(tokenizer: Any) -> Iterator[tuple[list[int], int]]:
    """The exam's questions, each after the tables of the sample database and with its right query: token ids, and how
    many of them are the query's."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder) / "shop.sqlite")
        with closing(sqlite3.connect(Path(folder) / "shop.sqlite")) as connection:
            tables = "\n".join(table_text(connection, name) for (name,) in connection.execute(_TABLES).fetchall())
    for line in EXAM.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if case.get("sql"):
            chat = [
                {"role": "system", "content": f"{TASK}\n\n{tables}"}, {"role": "user", "content": case["question"]},
                {"role": "assistant", "content": case["sql"]},
            ]  # fmt: skip
            whole, asked = (
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (
                    tokenizer.apply_chat_template(chat, tokenize=False),
                    tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True),
                )
            )
            yield whole, len(whole) - len(asked)


def table_text(connection: sqlite3.Connection, name: str) -> str:
    """A table as the model's training showed tables."""
    columns = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,)).fetchall()
    keys = connection.execute('SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (name,)).fetchall()
    parts = [f"{column} {kind}{' PRIMARY KEY' if key else ''}" for column, kind, key in columns]
    parts += [f"FOREIGN KEY ({column}) REFERENCES {table}({to})" for column, table, to in keys]
    return f"CREATE TABLE {name} ({', '.join(parts)});"


def loaded(quantize: Callable[[Any, nn.Linear], nn.Module] | None) -> Any:
    """The model in bf16, its matrices replaced by what `quantize` makes of them."""
    from transformers import AutoConfig, LlamaForCausalLM

    stored, config = load_file(FOLDER / "model.safetensors"), AutoConfig.from_pretrained(FOLDER)
    weights = {name: value for name, value in stored.items() if f"{name}_scale" not in stored and "_scale" not in name}
    for name in stored:
        if f"{name}_scale" in stored:
            weights[name] = unpack(stored[name], stored[f"{name}_scale"], 4, torch.bfloat16)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # not the buffers: rotary frequencies are float32
        parameter.data = parameter.data.to(torch.bfloat16)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    model = model.to("cuda").eval()
    for module in list(model.modules()) if quantize else []:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and name != "lm_head":
                setattr(module, name, quantize(model, child))
    return model


def to_nf4(model: Any, layer: nn.Linear) -> nn.Module:
    """bitsandbytes' NF4 with double quantization."""
    return nf4_of(layer.weight.data)


def to_int8(model: Any, layer: nn.Linear) -> nn.Module:
    """bitsandbytes' LLM.int8."""
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    eight = Linear8bitLt(layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, threshold=6.0)
    eight.weight = Int8Params(layer.weight.data.half().cpu(), requires_grad=False, has_fp16_weights=False)
    return eight.to("cuda")


def perplexity(model: Any, cases: list[tuple[Tensor, int]]) -> tuple[float, list[Tensor]]:
    """Of the queries' tokens; and the token that is rated highest at every place."""
    loss, count, best = 0.0, 0, []
    for ids, answer in cases:
        logits = model(ids[None]).logits[0].float()
        loss += float(cross_entropy(logits[-answer - 1 : -1], ids[-answer:], reduction="sum"))
        count += answer
        best.append(logits.argmax(-1))
    return math.exp(loss / count), best


def stepped(model: Any, cases: list[tuple[Tensor, int]]) -> list[Tensor]:
    """The tokens that our kernels rate highest at the queries' places: prompts are read, then there is a step for each
    token, several queries at a time."""
    parts = take_apart(model)
    assert parts is not None
    assert runs_here(parts)
    steps = GpuStepModel(parts, ROWS, WINDOW)
    found: list[Tensor] = []
    for start in range(0, len(cases), ROWS):
        group = cases[start : start + ROWS]
        best: list[list[int]] = []
        for slot, (ids, answer) in enumerate(group):
            best.append([int(steps.read(slot, 0, ids[:-answer].tolist()).argmax())])
        for place in range(max(answer for _, answer in group) - 1):
            rows = [row for row, (_, answer) in enumerate(group) if place < answer - 1]
            at = [len(group[row][0]) - group[row][1] + place for row in rows]
            tokens = [int(group[row][0][where]) for row, where in zip(rows, at, strict=True)]
            for row, token in zip(rows, steps.step(rows, at, tokens).argmax(-1).tolist(), strict=True):
                best[row].append(token)
        found += [torch.tensor(tokens, device="cuda") for tokens in best]
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    cases = [(torch.tensor(ids, device="cuda"), answer) for ids, answer in texts(tokenizer)]
    lines = [
        f"{torch.cuda.get_device_name(0)}; {len(cases)} questions, {sum(one[1] for one in cases):,} tokens of queries.",
        "", "| weights | perplexity | |", "| --- | --- | --- |",
    ]  # fmt: skip
    base, _ = perplexity(loaded(None), cases)
    lines.append(f"| bf16 | {base:.3f} | |")
    eight, _ = perplexity(loaded(to_int8), cases)
    lines.append(f"| int8 | {eight:.3f} | {eight / base - 1:+.2%} |")
    model = loaded(to_nf4)
    four, theirs = perplexity(model, cases)
    lines.append(f"| NF4, bitsandbytes | {four:.3f} | {four / base - 1:+.2%} |")
    wanted = [best[-answer - 1 : -1] for best, (_, answer) in zip(theirs, cases, strict=True)]
    mine = stepped(model, cases)
    same = sum(int((one == other).sum()) for one, other in zip(mine, wanted, strict=True))
    places = sum(map(len, wanted))
    lines += ["", f"Same token rated highest by our NF4 steps and by bitsandbytes: {same:,} of {places:,} places "
              f"({same / places:.2%})."]  # fmt: skip
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
