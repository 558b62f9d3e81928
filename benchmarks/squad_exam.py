"""Turn question sets in SQuAD's JSON format into an exam folder for `python -m dbgpt_lite evaluate retrieval --exam`.

    python benchmarks/squad_exam.py FOLDER OUT [--left-out 4] [--prefix xquad]

FOLDER holds <prefix>.en.json and <prefix>.zh.json (XQuAD: https://github.com/google-deepmind/xquad, CC BY-SA 4.0; not
part of the project). Every n-th article is left out of the documents; its questions become the unanswerable ones.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbgpt_lite.texts import LANGUAGES


def articles(file: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Number and paragraphs of each article."""
    data = json.loads(file.read_text(encoding="utf-8"))["data"]
    for number, article in enumerate(data, start=1):
        yield number, article["paragraphs"]


def convert(file: Path, out: Path, language: str, left_out: int) -> tuple[int, int]:
    """Write documents and questions of one language; returns how many paragraphs and questions there are."""
    out.mkdir(parents=True, exist_ok=True)
    written, lines = 0, []
    for number, paragraphs in articles(file):
        kept = number % left_out != 0
        name = f"article-{number:03}.md"
        if kept:
            sections = [f"## {place}\n\n{_prose(p['context'])}\n" for place, p in enumerate(paragraphs, start=1)]
            (out / name).write_text("\n".join(sections), encoding="utf-8")
            written += len(sections)
        for place, paragraph in enumerate(paragraphs, start=1):
            for asked in paragraph["qas"]:
                found = {"document": name, "heading": str(place), "answer": _prose(asked["answers"][0]["text"])}
                missing = {"document": "", "heading": "", "answer": ""}
                lines.append({"question": asked["question"], **(found if kept else missing)})
    questions = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (out / f"questions_{language}_1.jsonl").write_text(questions, encoding="utf-8")
    return written, len(lines)


def _prose(text: str) -> str:
    """On one line, as the splitter and Markdown leave it."""
    return " ".join(text.split())


def main() -> None:
    """Convert both languages."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--left-out", type=int, default=4, help="every n-th article (default: %(default)s)")
    arguments.add_argument("--prefix", default="xquad")
    given = arguments.parse_args()
    for language in LANGUAGES:
        file = given.folder / f"{given.prefix}.{language}.json"
        paragraphs, questions = convert(file, given.out / language, language, given.left_out)
        print(f"{language}: {paragraphs} paragraphs, {questions} questions")


if __name__ == "__main__":
    main()
