"""Figures of a text-to-SQL exam: Markdown tables, JSON, and a file of what went wrong."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from dbgpt_lite.evaluation.report import NAMES
from dbgpt_lite.evaluation.sql_dataset import DIFFICULTIES
from dbgpt_lite.evaluation.text_to_sql import Judged, bad_golds
from dbgpt_lite.texts import LANGUAGES

REASONS = {
    "columns": "another number of columns",
    "rows": "another number of rows",
    "values": "other values",
    "order": "the same rows in another order",
}


@dataclass(frozen=True, slots=True)
class SqlFigures:
    """Figures of a group of questions, counted; the seconds are of those that were asked.

    written: questions for which the model wrote a query; first_valid and valid: of these, whose first or whose last
    query passed the fences and ran. Of the questions without an answer: rightly_refused, stray_rows (a query ran all
    the same), unanswered (nothing that was written could run).
    """

    name: str
    difficulty: str
    answerable: int
    matches: int
    written: int
    first_valid: int
    valid: int
    refused: int
    not_asked: int
    unanswerable: int
    rightly_refused: int
    stray_rows: int
    unanswered: int
    p50_s: float
    p95_s: float


def figures(judged: Sequence[Judged]) -> list[SqlFigures]:
    """By language and difficulty, then the language as a whole; all together last when there are two languages."""
    parts: list[SqlFigures] = []
    for language in LANGUAGES:
        mine = [one for one in judged if one.question.language == language]
        levels = {one.difficulty for one in mine if one.difficulty and one.question.answerable}
        for level in sorted(levels, key=_rank):
            group = [one for one in mine if one.difficulty == level and one.question.answerable]
            parts.append(_figures(language, level, group))
        if mine:
            parts.append(_figures(language, "", mine))
    wholes = [part for part in parts if not part.difficulty]
    return [*parts, _figures("all", "", judged)] if len(wholes) > 1 else parts


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank); 0.0 for none."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1] if ordered else 0.0


def table(judged: Sequence[Judged]) -> str:
    """Markdown: the figures, how questions without an answer fared, and the known queries that cannot be run."""
    parts = figures(judged)
    unread = [part for part in parts if part.name != "all" and not part.difficulty and part.not_asked]
    # Figures of questions that were not asked would say something about the model that was not found out.
    hidden = {part.name for part in unread} | ({"all"} if unread else set())
    shown = [part for part in parts if part.name not in hidden]
    heads = ("questions", "match", "first query valid", "a query valid", "wrongly refused", "p50", "p95")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [_line(part) for part in shown if part.answerable]
    if without := [part for part in shown if part.unanswerable and not part.difficulty]:
        lines += ["", "| without an answer | rightly refused | no query ran | a query ran |", f"|{' --- |' * 4}"]
        lines += [_line_without(part) for part in without]
    for part in unread:
        lines += ["", f"{part.not_asked} questions in {NAMES[part.name]} were not asked: the model does not read it."]
    if bad := bad_golds(judged):
        lines += ["", "Left out, because the known query cannot be run:"]
        lines += [f"- {one.question.id}: {one.gold_problem}" for one in bad]
    return "\n".join(lines)


def as_json(judged: Sequence[Judged], engine: str, constrained: bool) -> str:
    """All figures, and every question with its queries."""
    content = {
        "engine": engine,
        "constrained": constrained,
        "figures": [asdict(part) for part in figures(judged)],
        "questions": [
            {
                **asdict(one.question),
                "difficulty": one.difficulty,
                "verdict": one.verdict,
                "predicted": one.solution.sql,
                "attempts": [asdict(attempt) for attempt in one.solution.attempts],
                "problem": one.gold_problem or one.solution.problem,
                "difference": one.difference and one.difference.reason,
                "seconds": round(one.seconds, 4),
            }
            for one in judged
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def diffs(judged: Sequence[Judged]) -> str:
    """Markdown: every question that went wrong, its known query, what was written, and the first rows that differ."""
    return "\n".join(line for one in judged for line in _diff(one))


def _diff(one: Judged) -> Iterator[str]:
    right = one.verdict == "match" or (one.verdict == "refused" and not one.question.answerable)
    if right or one.verdict == "not_asked":
        return
    level = f", {one.difficulty}" if one.difficulty else ""
    yield f"## {one.question.id}{level}: {one.verdict.replace('_', ' ')}\n\n{one.question.question}\n"
    yield (
        f"Known query:\n\n{_code(one.question.sql)}\n" if one.question.answerable else "The database holds no answer.\n"
    )
    for attempt in one.solution.attempts:
        yield f"Written ({attempt.method}){': ' + attempt.problem if attempt.problem else ''}\n\n{_code(attempt.sql)}\n"
    if problem := one.gold_problem or one.solution.problem:
        yield f"Problem: {problem}\n"
    if one.difference:
        yield f"Difference: {REASONS[one.difference.reason]}.\n"
        yield f"Known rows: {_rows(one.difference.missing)}\n"
        yield f"Rows found: {_rows(one.difference.unexpected)}\n"


def _code(sql: str) -> str:
    return "\n".join(f"    {line}" for line in sql.splitlines() or [""])


def _rows(rows: Sequence[tuple[object, ...]]) -> str:
    return "; ".join(f"({', '.join(json.dumps(cell, ensure_ascii=False) for cell in row)})" for row in rows) or "none"


def _figures(name: str, difficulty: str, judged: Sequence[Judged]) -> SqlFigures:
    usable = [one for one in judged if one.verdict != "bad_gold"]
    answerable = [one for one in usable if one.question.answerable]
    others = [one for one in usable if not one.question.answerable]
    written = [one.solution for one in answerable if one.solution.attempts]
    seconds = [one.seconds for one in usable if one.solution.asked]
    return SqlFigures(
        name,
        difficulty,
        answerable=len(answerable),
        matches=sum(one.verdict == "match" for one in answerable),
        written=len(written),
        first_valid=sum(one.attempts[0].valid for one in written),
        valid=sum(one.table is not None for one in written),
        refused=sum(one.verdict == "refused" for one in answerable),
        not_asked=sum(one.verdict == "not_asked" for one in usable),
        unanswerable=len(others),
        rightly_refused=sum(one.verdict == "refused" for one in others),
        stray_rows=sum(one.verdict == "wrong" for one in others),
        unanswered=sum(one.verdict == "no_query" for one in others),
        p50_s=percentile(seconds, 0.5),
        p95_s=percentile(seconds, 0.95),
    )


def _line(part: SqlFigures) -> str:
    name = f"{NAMES[part.name]}{', ' + part.difficulty if part.difficulty else ''}"
    cells = (
        f"{name} ({part.answerable})",
        f"{_share(part.matches, part.answerable)} ({part.matches})",
        _share(part.first_valid, part.written),
        _share(part.valid, part.written),
        str(part.refused),
        f"{part.p50_s:.2f} s",
        f"{part.p95_s:.2f} s",
    )
    return f"| {' | '.join(cells)} |"


def _line_without(part: SqlFigures) -> str:
    cells = (f"{NAMES[part.name]} ({part.unanswerable})", part.rightly_refused, part.unanswered, part.stray_rows)
    return f"| {' | '.join(map(str, cells))} |"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _rank(difficulty: str) -> tuple[int, str]:
    known = difficulty in DIFFICULTIES
    return (DIFFICULTIES.index(difficulty) if known else len(DIFFICULTIES), difficulty)
