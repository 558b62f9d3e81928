"""`evaluate retrieval` from the command line, with the real pipeline, on a small exam."""

import json
from pathlib import Path

import pytest

from dbgpt_lite.cli import main
from dbgpt_lite.evaluation.exam import read_exam
from dbgpt_lite.evaluation.report import table
from dbgpt_lite.evaluation.retrieval import evaluate
from dbgpt_lite.knowledge.embeddings import Embedder

SMALL = Path(__file__).resolve().parent.parent / "fixtures" / "retrieval_exam"


def run(*arguments: str) -> int:
    return main(["evaluate", "retrieval", *arguments], lambda: 99)


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, cache = tmp_path / "figures.json", tmp_path / "cache"
    assert run("--exam", str(SMALL), "--json", str(file), "--cache", str(cache)) == 0
    told = capsys.readouterr()
    for part in ("| English (7) | vectors only |", "| Chinese (4) | BM25 only |", "| both (11) | fused |"):
        assert part in told.out
    english, chinese, together = json.loads(file.read_text(encoding="utf-8"))
    assert (english["passages"], chinese["passages"], together["passages"]) == (8, 4, 12)
    for part in (english, chinese):
        assert part["methods"]["fused"]["recall_5"] == 1.0
        assert part["refusal"]["kept"] == part["refusal"]["refused"] == 1.0
    # The second time nothing is taken in again, and the figures are the same.
    assert run("--exam", str(SMALL), "--json", str(file), "--cache", str(cache), "--limit", "3") == 0
    assert [part["questions"] for part in json.loads(file.read_text(encoding="utf-8"))] == [3, 3, 6]


def test_a_missing_exam_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--exam", str(tmp_path)) == 1
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        run("--limit", "0")
    assert stopped.value.code == 2


def test_a_reranker_gets_a_row_of_its_own() -> None:
    class Backwards:
        """Orders as badly as it can, so that its row must differ."""

        def scores(self, question: str, texts: list[str]) -> list[float]:
            return [float(place) for place in range(len(texts))]

    [english, *_] = evaluate(read_exam(SMALL)[:1], Embedder(device="cpu"), reranker=Backwards())
    fused, reranked = english.methods["fused"], english.methods["fused, reranked"]
    assert reranked.mrr_10 < fused.mrr_10
    assert "fused, reranked" in table([english])
