"""The words of a SELECT as terminals of a grammar: keywords, operators, literals and the functions of each dialect."""

import re
from collections.abc import Iterable

from dbgpt_lite.sql.grammar_rules import Rules

# One space, or a new line with its indentation: more would let a model write blanks for ever.
SPACE = r"(?: |\n {0,8})"
# Text in quotes: no backslash, which MySQL reads as an escape; no "/*", no control characters, which the guard refuses.
_UNSAFE = r"\x00-\x1f\x7f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_STRING = rf"'(?:/{{0,3}}(?:[^'\\/*{_UNSAFE}]|'')|\*){{0,80}}/?'"
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,4})?"
_TYPES = {"sqlite": "integer|real|text", "mysql": "signed|unsigned|char|date|datetime|double"}
_FORMATS = {
    "sqlite": "%Y|%m|%d|%Y-%m|%Y-%m-%d|%w|%H|%j",
    "mysql": "%Y|%m|%d|%Y-%m|%Y-%m-%d|%w|%H|%j|%M|%b|%W|%y",
}
_ONE_ARGUMENT = {
    "sqlite": "abs|lower|upper|length|trim|date|julianday",
    "mysql": (
        "abs|lower|upper|length|char_length|trim|date|year|month|day|dayofmonth|dayofweek|dayofyear|weekday|week"
        "|quarter|hour|minute|dayname|monthname|last_day|floor|ceil|ceiling|to_days"
    ),
}


def keyword(words: str) -> str:
    """The pattern of one or more keywords with blanks between them."""
    return SPACE.join(f"(?i:{word})" for word in words.split())


def define(rules: Rules, dialect: str) -> None:
    """Every terminal that does not depend on the schema."""
    clauses = {
        "FROM": "from",
        "WHERE": "where",
        "GROUP_BY": "group by",
        "HAVING": "having",
        "ORDER_BY": "order by",
        "ON": "on",
        "AND": "and",
        "THEN": "then",
        "ELSE": "else",
    }
    for name, words in clauses.items():
        rules.terminal(name, f"{SPACE}{keyword(words)}{SPACE}")
    rules.terminal("SELECT", f"{keyword('select')}{SPACE}(?:{keyword('distinct')}{SPACE})?")
    rules.terminal("JOIN", f"{SPACE}(?:(?i:inner|left|left outer|right|right outer){SPACE})?{keyword('join')}{SPACE}")
    rules.terminal("CROSS_JOIN", f"{SPACE}{keyword('cross join')}{SPACE}")
    rules.terminal("SET", f"{SPACE}(?i:union all|union|intersect|except){SPACE}")
    rules.terminal("UNION", f"{SPACE}(?i:union all|union){SPACE}")
    rules.terminal("LOGIC", f"{SPACE}(?i:and|or){SPACE}")
    rules.terminal("NOT", "(?i:not) ")
    rules.terminal("DIRECTION", f"{SPACE}(?i:asc|desc)")
    rules.terminal("LIMIT", f"{SPACE}(?i:limit) [1-9][0-9]{{0,5}}(?:{SPACE}(?i:offset) [0-9]{{1,6}})?")
    rules.terminal("LIMIT_ONE", f"{SPACE}(?i:limit) 1")
    rules.terminal("ORDER_ONE", f"{SPACE}{keyword('order by')}{SPACE}1")
    rules.terminal("COMMA", rf",{SPACE}?")
    rules.terminal("OPEN", r"\(")
    rules.terminal("CLOSE", r"\)")
    rules.terminal("OPEN_QUERY", r"\((?:\n {0,8})?")
    rules.terminal("CLOSE_QUERY", r"(?:\n {0,8})?\)")
    names = "t|q|s|x|sub|subquery|temp|inner_query|derived|result|counts|totals"
    rules.terminal("DERIVED", f"{SPACE}(?:(?i:as) )?(?:{names})")
    rules.terminal("STAR", r"\*")
    rules.terminal("ONE", "1")
    _values(rules, dialect)
    _functions(rules, dialect)


def _values(rules: Rules, dialect: str) -> None:
    rules.terminal("COMPARE", " ?(?:=|!=|<>|<=|>=|<|>) ?")
    rules.terminal("ARITHMETIC", r" ?[-+*/%] ?" if dialect == "sqlite" else r" ?[-+*/%] ?| (?i:div) ")
    rules.terminal("LIKE", f"{SPACE}(?:(?i:not) )?(?i:like) ")
    rules.terminal("BETWEEN", f"{SPACE}(?:(?i:not) )?(?i:between) ")
    rules.terminal("IN", rf"{SPACE}(?:(?i:not) )?(?i:in) ?\((?:\n {{0,8}})?")
    rules.terminal("EXISTS", r"(?:(?i:not) )?(?i:exists) ?\((?:\n {0,8})?")
    rules.terminal("IS_NULL", f"{SPACE}(?i:is) (?:(?i:not) )?(?i:null)")
    rules.terminal("NULL", "(?i:null)")
    rules.terminal("TEXT", _STRING)
    rules.terminal("NUMBER", _NUMBER)
    rules.terminal("SIGNED", f"-?{_NUMBER}")
    rules.terminal("DIGIT", "[0-9]")
    rules.terminal("AS_TYPE", rf"{SPACE}(?i:as) (?i:{_TYPES[dialect]})\)")
    rules.terminal("CASE", f"(?i:case){SPACE}(?i:when) ")
    rules.terminal("WHEN", f"{SPACE}(?i:when) ")
    rules.terminal("END", f"{SPACE}(?i:end)")


def _functions(rules: Rules, dialect: str) -> None:
    for name in ("round", "cast", "coalesce", "nullif", "replace", "ifnull"):
        rules.terminal(f"{name.upper()}_OF", rf"(?i:{name})\(")
    rules.terminal("COUNT_ALL", r"(?i:count)\(\*\)")
    rules.terminal("AGGREGATE", r"(?i:count|sum|avg|min|max)\((?:(?i:distinct) )?")
    rules.terminal("TOTAL", r"(?i:count|sum|avg|min|max)\(")
    rules.terminal("LIST_OF", r"(?i:group_concat)\((?:(?i:distinct) )?")
    rules.terminal("ONE_ARGUMENT", rf"(?i:{_ONE_ARGUMENT[dialect]})\(")
    rules.terminal("FORMAT", f"'(?:{_FORMATS[dialect]})'")
    rules.terminal("RANKING", r"(?i:row_number|rank|dense_rank)\(\)")
    rules.terminal("SHIFTED", r"(?i:lag|lead)\(")
    rules.terminal("SHIFT_BY", r"(?:, ?[0-9]{1,2})?\)")
    rules.terminal("OVER", r" (?i:over) ?\(")
    rules.terminal("PARTITION", f"(?i:partition){SPACE}(?i:by) ")
    rules.terminal("WINDOW_ORDER", f"(?i:order){SPACE}(?i:by) ")
    rules.terminal("WINDOW_ORDER_NEXT", f"{SPACE}(?i:order){SPACE}(?i:by) ")
    rules.terminal("SUBSTRING_OF", r"(?i:substr|substring)\(")
    if dialect == "sqlite":
        rules.terminal("STRFTIME_OF", r"(?i:strftime)\(")
        rules.terminal("DATE_OF", r"(?i:date)\(")
        rules.terminal("NOW", "'now'")
        rules.terminal("SHIFT", "'[-+][0-9]{1,3} (?:day|month|year)s?'|'start of (?:month|year)'")
        rules.terminal("INSTR_OF", r"(?i:instr)\(")
        rules.terminal("IF_OF", r"(?i:iif)\(")
        rules.terminal("CONCAT", r" ?\|\| ?")
        rules.terminal("FILTER", r" (?i:filter) ?\((?i:where) ")
    else:
        rules.terminal("DATE_FORMAT_OF", r"(?i:date_format)\(")
        rules.terminal("DATE_DIFF_OF", r"(?i:datediff)\(")
        rules.terminal("TIME_DIFF_OF", rf"(?i:timestampdiff)\((?i:{_UNITS}), ?")
        rules.terminal("DATE_SHIFT_OF", r"(?i:date_add|date_sub)\(")
        rules.terminal("INTERVAL", rf", ?(?i:interval) [0-9]{{1,3}} (?i:{_UNITS})\)")
        rules.terminal("TODAY", r"(?i:curdate)\(\)|(?i:current_date|current_timestamp)")
        rules.terminal("EXTRACT_OF", rf"(?i:extract)\((?i:{_UNITS}|quarter) (?i:from) ")
        rules.terminal("IF_OF", r"(?i:if)\(")
        rules.terminal("CONCAT_OF", r"(?i:concat)\(")
        rules.terminal("LEFT_OF", r"(?i:left|right)\(")


_UNITS = "year|month|day|hour|minute|second"


def is_sayable(name: str) -> bool:
    """Whether a terminal can spell the name: without line breaks and whatever else the guard refuses in a query."""
    return re.search(f"[{_UNSAFE}]", name) is None


def words_pattern(texts: Iterable[str]) -> str:
    """A pattern that matches exactly the given texts."""
    return "|".join(re.escape(text) for text in sorted(texts))
