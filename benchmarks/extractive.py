"""How well the built-in assistant quotes and refuses, on an extractive question set in SQuAD's JSON format.

    python benchmarks/extractive.py FOLDER [--questions 300] [--seed 0 | --held-out] [--write FILE]

FOLDER holds xquad.en.json and xquad.zh.json (https://github.com/google-deepmind/xquad, CC BY-SA 4.0; not part of the
project). Each question is asked of its own paragraph and three random others (answerable) and of four random others
(unanswerable), cut into chunks as documents are; and once more with the paragraphs that are nearest to it instead of
random ones (hard).

The calibration was set on the questions of seeds 0 and 1; --held-out asks only questions that neither of them drew.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbgpt_lite.chat.extractive import CALIBRATION, ExtractiveEngine, Selection
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.loaders import load
from dbgpt_lite.knowledge.splitter import split
from dbgpt_lite.messages import Passage
from dbgpt_lite.texts import LANGUAGES, Language

CHUNK_TOKENS, OVERLAP_TOKENS = 180, 30
CALIBRATION_SEEDS, CALIBRATION_QUESTIONS = (0, 1), 300
TIMED = 30


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the paragraph that answers it and the spellings of the answer."""

    text: str
    paragraph: int
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question asked with and without its paragraph."""

    score: float
    answered: bool
    contains: bool
    first_contains: bool
    right_paragraph: bool
    quotes: int
    refused: bool
    unanswerable_score: float


def read(file: Path) -> tuple[list[str], list[Question]]:
    """Paragraphs and questions of a SQuAD file."""
    paragraphs: list[str] = []
    questions: list[Question] = []
    for article in json.loads(file.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in asked["answers"])
                questions.append(Question(asked["question"], len(paragraphs), answers))
            paragraphs.append(paragraph["context"])
    return paragraphs, questions


class Bench:
    """The paragraphs of one language as chunks, ready to be asked."""

    def __init__(self, paragraphs: Sequence[str], embedder: Embedder, engine: ExtractiveEngine) -> None:
        self._engine = engine
        self._embedder = embedder
        self._chunks = [list(_chunks(number, text, embedder)) for number, text in enumerate(paragraphs)]
        self._vectors = embedder.embed(paragraphs)

    def seconds(self, question: Question, others: Sequence[int]) -> float:
        """Seconds to choose the quotes with no sentence embedded before, as for a question about new passages."""
        passages = self._passages([question.paragraph, *others[:-1]])
        engine = ExtractiveEngine(self._embedder.embed)
        started = time.perf_counter()
        engine.select(question.text, passages)
        return time.perf_counter() - started

    def ask(self, question: Question, others: Sequence[int]) -> Outcome:
        """Ask `question` of its paragraph and all but the last of `others`, then of all `others`."""
        passages = self._passages([question.paragraph, *others[:-1]])
        found = self._engine.select(question.text, passages)
        without = self._engine.select(question.text, self._passages(others))
        hits = [any(_plain(answer) in _plain(quote.text) for answer in question.answers) for quote in found.quotes]
        return Outcome(
            score=found.score,
            answered=bool(found.quotes),
            contains=any(hits),
            first_contains=bool(hits) and hits[0],
            right_paragraph=_paragraph(found, passages) == question.paragraph,
            quotes=len(found.quotes),
            refused=not without.quotes,
            unanswerable_score=without.score,
        )

    def nearest(self, question: Question, count: int) -> list[int]:
        """The `count` paragraphs nearest to the question, its own left out."""
        near = self._vectors @ self._embedder.embed([question.text], "query")[0]
        order = sorted(range(len(near)), key=lambda number: -near[number])
        return [number for number in order if number != question.paragraph][:count]

    def _passages(self, paragraphs: Sequence[int]) -> list[Passage]:
        return [chunk for number in paragraphs for chunk in self._chunks[number]]


def _chunks(number: int, text: str, embedder: Embedder) -> Iterator[Passage]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        document = load(Path(file.name), "paragraph.txt")
    for chunk in split(document, embedder.count, CHUNK_TOKENS, OVERLAP_TOKENS):
        yield Passage(number, chunk.text, str(number), f"paragraph {number}")


def _paragraph(found: Selection, passages: Sequence[Passage]) -> int:
    return passages[found.quotes[0].number - 1].id if found.quotes else -1


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text.lower())


def line(name: str, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> str:
    """One row of the table."""

    def share(field: str) -> str:
        return f"{100 * statistics.fmean(getattr(outcome, field) for outcome in outcomes):.1f} %"

    answered = [outcome for outcome in outcomes if outcome.answered]
    right = statistics.fmean(outcome.contains for outcome in answered)
    quotes = statistics.fmean(outcome.quotes for outcome in answered)
    cut = statistics.quantiles([outcome.unanswerable_score for outcome in outcomes], n=50)[-1]
    cells = [share("answered"), share("contains"), share("first_contains"), f"{100 * right:.1f} %"]
    cells += [share("right_paragraph"), share("refused"), f"{quotes:.2f}", f"{cut:.2f}"]
    cells.append(f"{statistics.median(seconds):.2f} / {max(seconds):.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def measure(folder: Path, count: int, seed: int, held_out: bool) -> Iterator[str]:
    """The rows of the table, one as each is done."""
    embedder = Embedder()
    for language in LANGUAGES:
        paragraphs, questions = read(folder / f"xquad.{language}.json")
        bench = Bench(paragraphs, embedder, ExtractiveEngine(embedder.embed))
        draw = random.Random(seed)
        pool = _without_calibration(questions) if held_out else questions
        asked = draw.sample(pool, min(count, len(pool)))
        needed = CALIBRATION[language].needed
        for kind in ("random", "hard"):
            others = [_others(bench, question, kind, len(paragraphs), draw) for question in asked]
            outcomes = [bench.ask(*pair) for pair in zip(asked, others, strict=True)]
            seconds = [bench.seconds(*pair) for pair in zip(asked[:TIMED], others[:TIMED], strict=True)]
            yield line(f"{_name(language)}, {kind} (needed {needed})", outcomes, seconds)


def _without_calibration(questions: Sequence[Question]) -> list[Question]:
    """The questions that the calibration has not seen."""
    seen: set[int] = set()
    for seed in CALIBRATION_SEEDS:
        seen.update(random.Random(seed).sample(range(len(questions)), CALIBRATION_QUESTIONS))
    return [question for place, question in enumerate(questions) if place not in seen]


def _others(bench: Bench, question: Question, kind: str, paragraphs: int, draw: random.Random) -> list[int]:
    if kind == "hard":
        return bench.nearest(question, 5)
    return draw.sample([number for number in range(paragraphs) if number != question.paragraph], 4)


def _name(language: Language) -> str:
    return {"en": "English", "zh": "Chinese"}[language]


COLUMNS = (
    "questions",
    "answered",
    "quotes hold the answer (of all)",
    "first quote holds it",
    "quotes hold it (of answered)",
    "right paragraph",
    "unanswerable refused",
    "quotes an answer",
    "score that refuses 98 %",
    "seconds, nothing cached (median / worst of 30)",
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}"


def machine() -> str:
    """Where and with what this was measured."""
    names = ("sentence-transformers", "transformers", "torch", "jieba")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    system = f"{platform.machine()}, {platform.system()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"{system}, {versions}; all-MiniLM-L6-v2 on the CPU"


def main() -> None:
    """Measure and print; write the table where asked."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--questions", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--held-out", action="store_true", help="only questions the calibration has not seen")
    arguments.add_argument("--write", type=Path)
    given = arguments.parse_args()
    rows = [HEADER]
    print(HEADER, flush=True)
    for row in measure(given.folder, given.questions, given.seed, given.held_out):
        rows.append(row)
        print(row, flush=True)
    if given.write:
        command = f"python benchmarks/extractive.py FOLDER --questions {given.questions} --seed {given.seed}"
        command += " --held-out" if given.held_out else ""
        text = f"# The built-in assistant on XQuAD\n\n`{command}`\n\n{machine()}\n\n" + "\n".join(rows) + "\n"
        given.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
