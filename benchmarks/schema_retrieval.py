"""Does the prompt show the tables a question needs, on a MariaDB of 500 tables and 8,000 columns, and how fast?

    python benchmarks/schema_retrieval.py [--prompt TOKENS] [--results DIR] [--misses]

Makes the schema of enterprise_schema.py on a private server, reads it back as the app does, and asks every labelled
question. Compared: tables in order of their names while they fit (first fit), words without vectors, words and vectors,
and the latter without the thesaurus. Weights were chosen on the questions marked dev, never on those marked held.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import mean
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from dbgpt_lite.config import prepare_process  # noqa: E402

prepare_process()

import numpy as np  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from benchmarks.enterprise_schema import Question, create_statements, enterprise_schema, questions  # noqa: E402
from dbgpt_lite.chat.recall import NOTHING, variables  # noqa: E402
from dbgpt_lite.chat.sql_prompt import PROMPT_TOKENS  # noqa: E402
from dbgpt_lite.knowledge.embeddings import Embedder  # noqa: E402
from dbgpt_lite.prompts import Prompts  # noqa: E402
from dbgpt_lite.sql.database import Database  # noqa: E402
from dbgpt_lite.sql.schema import Schema, ddl  # noqa: E402
from dbgpt_lite.sql.schema_search import SchemaSearch  # noqa: E402
from tools.private_mariadb import MariaDB, private_mariadb  # noqa: E402

TOKENIZER = ROOT / "models" / "starter-sql" / "tokenizer.json"
Pick = Callable[[str, Schema, str, Callable[[Schema], bool]], Schema]

HEAD = """# Which tables a large schema's prompt shows

`{command}`

Machine: {machine}. Versions: {versions}.

{tables} tables and {columns} columns on a private MariaDB {server}; made, then read back in {reflected:.2f} s
({again:.2f} s the second time). {asked} questions, {needed:.1f} tables each on average. A question counts as found when
all the tables its answer needs are in the prompt; "columns" when all the columns are too. Prompts are sql.*.txt whole,
with types and comments (`ddl(comments=True)`), of at most {room} tokens as in the app, counted by starter-sql's
tokenizer, which spends many on Chinese. Milliseconds are of one `pick`, the question's vector included, after the
schema's vectors were made ({warm:.0f} s, in the background in the app; words alone answer meanwhile). Other work kept
the machine busy (load average {load:.1f}): "CPU ms" is what the process itself used, both cores together.

The schema, the questions and the thesaurus are by one hand, so a stranger's schema may do worse than these figures: the
rows without the thesaurus show what is left for words that it does not know (Chinese questions on English names most).
Weights were chosen on dev alone; the halves differ in what is asked for, so nothing in held has a paraphrase in dev.

"""
COLUMNS = ("method", "half", "language", "questions", "all tables", "mean of tables", "columns", "tables shown",
           "prompt tokens mean / max", "ms p50 / p95", "CPU ms p50 / p95")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What one question's prompt showed."""

    question: Question
    tables: float
    columns: float
    shown: int
    prompt: int
    ms: float
    cpu_ms: float
    missing: frozenset[str]


class Tokens:
    """starter-sql's tokens, and the fit of a schema in a prompt of at most `most` tokens."""

    def __init__(self, most: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(TOKENIZER))
        self._prompts = Prompts(ROOT / "prompts")
        self._most = most

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def fits(self, question: Question) -> Callable[[Schema], bool]:
        """Whether a schema fits in the prompt of this question, as chat/text_to_sql.py decides it."""
        room = self._most - self.prompt(Schema(()), question)
        return lambda schema: self.count(ddl(schema, comments=True)) <= room

    def prompt(self, schema: Schema, question: Question) -> int:
        """Tokens of everything the model reads."""
        template = self._prompts.get("sql", question.language)
        values = {"dialect": "mysql", "schema": ddl(schema, comments=True), "question": question.text, "previous": ""}
        values |= variables(self._prompts, NOTHING, question.language)
        return sum(self.count(message.content) for message in template.render(**values))


def first_fit(_name: str, schema: Schema, _question: str, fits: Callable[[Schema], bool]) -> Schema:
    """The most tables from the beginning that fit: what an app does that just cuts."""
    low, high = 1, len(schema.tables)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(Schema(schema.tables[:middle])) else (low, middle - 1)
    return Schema(schema.tables[:low])


def searched(search: SchemaSearch) -> Pick:
    return lambda name, schema, question, fits: search.pick(name, schema, question, fits).schema


@contextmanager
def no_thesaurus() -> Iterator[None]:
    """Words mean only themselves and what they shorten."""
    with (
        mock.patch("dbgpt_lite.sql.word_match.synonyms", dict),
        mock.patch("dbgpt_lite.sql.schema_index.synonyms", dict),
        mock.patch("dbgpt_lite.sql.schema_index.chinese_words", return_value=[]),
        mock.patch("dbgpt_lite.sql.schema_index.in_english", return_value=""),
    ):
        yield


def made(maria: MariaDB, schema: Schema) -> str:
    """The schema in a database of its own; the server's version."""
    with maria.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE enterprise CHARACTER SET utf8mb4")
        cursor.execute("USE enterprise")
        cursor.execute("SET foreign_key_checks = 0")
        for statement in create_statements(schema):
            cursor.execute(statement)
        cursor.execute("SELECT VERSION()")
        return str(cursor.fetchone()[0])  # type: ignore[index]


def read_back(maria: MariaDB) -> tuple[Schema, float, float]:
    """The schema as the app reads it, and the seconds of the first and of a second read."""
    database = Database("enterprise", maria.url("owner", "enterprise"))
    started = time.perf_counter()
    database.schema()
    first = time.perf_counter() - started
    started = time.perf_counter()
    schema = database.schema(refresh=True)
    second = time.perf_counter() - started
    database.close()
    return schema, first, second


def ask(pick: Pick, schema: Schema, asked: Sequence[Question], tokens: Tokens) -> list[Result]:
    """Every question once; a few before that are not counted."""
    for question in asked[:5]:
        pick("enterprise", schema, question.text, tokens.fits(question))
    return [_result(pick, schema, question, tokens) for question in asked]


def _result(pick: Pick, schema: Schema, question: Question, tokens: Tokens) -> Result:
    fits = tokens.fits(question)
    started, used = time.perf_counter(), time.process_time()
    shown = pick("enterprise", schema, question.text, fits)
    ms, cpu_ms = 1000 * (time.perf_counter() - started), 1000 * (time.process_time() - used)
    names = {table.name for table in shown.tables}
    held = [bool((table := shown.table(owner)) and table.column(column)) for owner, column in question.columns]
    share = len(question.tables & names) / len(question.tables)
    missing = question.tables - names
    return Result(question, share, mean(held), len(names), tokens.prompt(shown, question), ms, cpu_ms, missing)


def row(method: str, half: str, language: str, results: Sequence[Result]) -> str:
    """One line of the table."""
    wall, used = ([getattr(result, name) for result in results] for name in ("ms", "cpu_ms"))
    times = (f"{p50:.0f} / {p95:.0f}" for p50, p95 in (np.percentile(found, [50, 95]) for found in (wall, used)))
    cells = (
        method, half, language, f"{len(results)}", f"{mean(r.tables == 1 for r in results):.3f}",
        f"{mean(r.tables for r in results):.3f}", f"{mean(r.columns == 1 for r in results):.3f}",
        f"{mean(r.shown for r in results):.1f}",
        f"{mean(r.prompt for r in results):.0f} / {max(r.prompt for r in results)}", *times,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def rows(method: str, results: Sequence[Result]) -> Iterator[str]:
    """Lines by half and language, and for all."""
    for half in ("dev", "held"):
        of_half = [result for result in results if result.question.half == half]
        for language in ("en", "zh"):
            yield row(method, half, language, [r for r in of_half if r.question.language == language])
        yield row(method, half, "both", of_half)


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def versions() -> str:
    names = ("sqlalchemy", "pymysql", "sentence-transformers", "torch", "numpy", "tokenizers")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def main() -> None:
    """Run all methods, print the table, and write it where --results says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=PROMPT_TOKENS, help="tokens a prompt may have")
    parser.add_argument("--results", type=Path, help="folder for schema-retrieval.md")
    parser.add_argument("--misses", action="store_true", help="list the dev questions whose tables were not all shown")
    options = parser.parse_args()
    with private_mariadb() as maria:
        server = made(maria, enterprise_schema())
        schema, reflected, again = read_back(maria)
    embedder, asked, tokens = Embedder(), questions(), Tokens(options.prompt)
    embedder.embed(["ready"])
    full = SchemaSearch(embedder.embed, lambda texts: embedder.embed(texts, "query"))
    started = time.perf_counter()
    full.warm("enterprise", schema)
    warm = time.perf_counter() - started
    results = {
        "first fit": ask(first_fit, schema, asked, tokens),
        "words": ask(searched(SchemaSearch()), schema, asked, tokens),
        "words and vectors": ask(searched(full), schema, asked, tokens),
    }
    with no_thesaurus():
        bare = SchemaSearch(embedder.embed, lambda texts: embedder.embed(texts, "query"))
        bare.warm("enterprise", schema)
        results["words and vectors, no thesaurus"] = ask(searched(bare), schema, asked, tokens)
    head = HEAD.format(
        command="python " + " ".join(sys.argv),
        machine=machine(),
        versions=versions(),
        server=server,
        tables=len(schema.tables),
        columns=f"{sum(len(table.columns) for table in schema.tables):,}",
        reflected=reflected,
        again=again,
        asked=len(asked),
        needed=mean(len(question.tables) for question in asked),
        room=f"{options.prompt:,}",
        load=os.getloadavg()[1],
        warm=warm,
    )
    lines = [f"| {' | '.join(COLUMNS)} |", "| " + " | ".join(["---"] * len(COLUMNS)) + " |"]
    lines += [line for method, found in results.items() for line in rows(method, found)]
    print(head + "\n".join(lines))
    if options.misses:
        for result in results["words and vectors"]:
            if result.missing and result.question.half == "dev":
                print(result.question.text, sorted(result.missing))
    if options.results:
        (options.results / "schema-retrieval.md").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
