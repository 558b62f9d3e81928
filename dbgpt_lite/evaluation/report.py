"""Figures of an evaluation as Markdown tables and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from dbgpt_lite.evaluation.metrics import Figures
from dbgpt_lite.evaluation.retrieval import Part

NAMES = {"en": "English", "zh": "Chinese", "all": "both"}


def table(parts: Sequence[Part]) -> str:
    """Two tables: how well passages are found, and how well questions without an answer are told."""
    lines = ["| questions | method | recall@1 | recall@5 | recall@10 | nDCG@10 | MRR@10 |", f"|{' --- |' * 7}"]
    for part in parts:
        for method, found in part.methods.items():
            lines.append(f"| {NAMES[part.name]} ({part.refusal.answerable}) | {method} | {_cells(found)} |")
    lines += ["", "| questions | passages | answerable kept | unanswerable refused | needed | median question |"]
    lines.append(f"|{' --- |' * 6}")
    lines += [_refusal_line(part) for part in parts]
    return "\n".join(lines)


def as_json(parts: Sequence[Part]) -> str:
    """All figures."""
    return json.dumps([asdict(part) for part in parts], indent=1, ensure_ascii=False) + "\n"


def _cells(found: Figures) -> str:
    return " | ".join(
        f"{value:.3f}" for value in (found.recall_1, found.recall_5, found.recall_10, found.ndcg_10, found.mrr_10)
    )


def _refusal_line(part: Part) -> str:
    told = part.refusal
    kept = f"{100 * told.kept:.1f} % of {told.answerable}"
    refused = f"{100 * told.refused:.1f} % of {told.unanswerable}" if told.unanswerable else "none asked"
    needed = f"{part.needed:.2f}" if part.needed else "by language"
    return f"| {NAMES[part.name]} | {part.passages} | {kept} | {refused} | {needed} | {part.median_ms:.0f} ms |"
