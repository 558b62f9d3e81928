"""Columns that a query computes and does not name, in words: "SUM(total)" -> "sum of total". Pure; for reading only."""

import re

from dbgpt_lite.texts import Language, text

_LONGEST = 120
_COLUMN = r"(?:[\w]+\.)?[\"`]?(\w+)[\"`]?"
_MEASURE = re.compile(rf"(sum|avg|min|max|count)\(\s*(distinct\s+)?{_COLUMN}\s*\)", re.IGNORECASE)
_ROUNDED = re.compile(r"round\((.+?)(?:,\s*\d+)?\)", re.IGNORECASE)
_PART = re.compile(rf"(year|month|day)\({_COLUMN}\)", re.IGNORECASE)
_FORMATTED = re.compile(
    rf"(?:strftime\(\s*'([^']+)'\s*,\s*{_COLUMN}\s*\)|date_format\(\s*{_COLUMN}\s*,\s*'([^']+)'\s*\))", re.IGNORECASE
)
_MEASURES = {
    "sum": "sql.column_sum",
    "avg": "sql.column_avg",
    "min": "sql.column_min",
    "max": "sql.column_max",
    "count": "sql.column_count",
}
_PARTS = {"year": "sql.column_year", "month": "sql.column_month", "day": "sql.column_day"}
_FORMATS = {"%Y": "year", "%Y-%m": "month", "%m": "month", "%Y-%m-%d": "day", "%d": "day"}


def column_label(name: str, language: Language) -> str:
    """What a reader is shown for a column of a result; a name that says it itself stays."""
    # A query may name its columns as it likes: a long name is not taken apart.
    if "(" not in name or len(name) > _LONGEST:
        return name
    if name.replace(" ", "").lower() == "count(*)":
        return text("sql.column_rows", language)
    if found := _MEASURE.fullmatch(name):
        kind, distinct, column = found.groups()
        different = distinct and kind.lower() == "count"
        return text("sql.column_distinct" if different else _MEASURES[kind.lower()], language, column=column)
    if found := _ROUNDED.fullmatch(name):
        inner = column_label(found[1], language)
        return name if inner == found[1] and "(" in inner else inner
    if found := _PART.fullmatch(name):
        return text(_PARTS[found[1].lower()], language)
    if found := _FORMATTED.fullmatch(name):
        part = _FORMATS.get(found[1] or found[4])
        return text(_PARTS[part], language) if part else name
    return name
