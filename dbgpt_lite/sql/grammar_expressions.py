"""Expressions and conditions of a SELECT over the columns that a rule names."""

from dbgpt_lite.sql.grammar_rules import Rules


def add_expressions(rules: Rules, dialect: str, suffix: str, column: str) -> None:
    """`term`, `value`, `total`, `count`, `condition` and the like, their names ended by `suffix`.

    `column` is the rule of a column; every expression but `count` holds at least one. `value` is of one row, `total`
    and `count` hold an aggregate.
    """
    s = suffix
    rules.add(f"value{s}", f"term{s}", f"term{s} ARITHMETIC operand{s}", f"NUMBER ARITHMETIC term{s}")
    rules.add(f"operand{s}", f"term{s}", "NUMBER", "OPEN_QUERY scalar CLOSE_QUERY")
    rules.add(
        f"term{s}",
        column,
        f"OPEN value{s} CLOSE",
        f"ONE_ARGUMENT value{s} CLOSE",
        f"ROUND_OF value{s} rounding",
        f"CAST_OF value{s} AS_TYPE",
        f"COALESCE_OF value{s} COMMA literal CLOSE",
        f"IFNULL_OF value{s} COMMA literal CLOSE",
        f"NULLIF_OF value{s} COMMA literal CLOSE",
        f"REPLACE_OF value{s} COMMA TEXT COMMA TEXT CLOSE",
        f"SUBSTRING_OF value{s} COMMA NUMBER length",
        f"CASE condition{s} THEN choice{s} cases{s}",
    )
    rules.add(f"cases{s}", "END", f"ELSE choice{s} END", f"WHEN condition{s} THEN choice{s} cases{s}")
    rules.add(f"choice{s}", "literal", "NULL", f"value{s}")
    _dialect_terms(rules, dialect, s)
    _conditions(rules, s)
    _aggregates(rules, dialect, s)


def add_common(rules: Rules, dialect: str) -> None:
    """What no column is part of."""
    rules.add("literal", "TEXT", "SIGNED")
    rules.add("literals", "literal", "literal COMMA literals")
    rules.add("rounding", "CLOSE", "COMMA DIGIT CLOSE")
    rules.add("length", "CLOSE", "COMMA NUMBER CLOSE")
    rules.add("moment", "literal")
    if dialect == "sqlite":
        rules.add("shifts", "CLOSE", "COMMA SHIFT CLOSE")
        rules.add("moment", "DATE_OF NOW shifts", "DATE_OF TEXT shifts", "STRFTIME_OF FORMAT COMMA NOW shifts")
    else:
        rules.add("moment", "TODAY", "DATE_SHIFT_OF today INTERVAL", "DATE_FORMAT_OF TODAY COMMA FORMAT CLOSE")
        rules.add("today", "TODAY", "TEXT")
    rules.add("free_count", "COUNT_ALL", "COUNT_ALL ARITHMETIC free_operand", "ROUND_OF free_count rounding")
    rules.add("free_operand", "NUMBER", "share", "NUMBER ARITHMETIC share")
    rules.add("share", "OPEN_QUERY scalar CLOSE_QUERY")


def _dialect_terms(rules: Rules, dialect: str, s: str) -> None:
    if dialect == "sqlite":
        rules.add(
            f"term{s}",
            f"STRFTIME_OF FORMAT COMMA value{s} shifts",
            f"DATE_OF value{s} COMMA SHIFT CLOSE",
            f"INSTR_OF value{s} COMMA TEXT CLOSE",
            f"term{s} CONCAT joined{s}",
        )
        rules.add(f"joined{s}", "TEXT", f"term{s}", f"TEXT CONCAT joined{s}")
    else:
        rules.add(
            f"term{s}",
            f"DATE_FORMAT_OF value{s} COMMA FORMAT CLOSE",
            f"DATE_DIFF_OF value{s} COMMA dated{s} CLOSE",
            f"DATE_DIFF_OF moment COMMA value{s} CLOSE",
            f"TIME_DIFF_OF value{s} COMMA dated{s} CLOSE",
            f"DATE_SHIFT_OF value{s} INTERVAL",
            f"EXTRACT_OF value{s} CLOSE",
            f"CONCAT_OF joined{s}",
            f"LEFT_OF value{s} COMMA NUMBER CLOSE",
        )
        rules.add(f"dated{s}", "moment", f"value{s}")
        rules.add(f"joined{s}", f"value{s} CLOSE", f"value{s} COMMA more{s}", f"TEXT COMMA joined{s}")
        rules.add(f"more{s}", "TEXT CLOSE", f"TEXT COMMA more{s}", f"joined{s}")
    rules.add(f"term{s}", f"IF_OF condition{s} COMMA choice{s} COMMA choice{s} CLOSE")


def _conditions(rules: Rules, s: str) -> None:
    rules.add(f"condition{s}", f"predicate{s}", f"predicate{s} LOGIC condition{s}")
    rules.add(f"predicate{s}", f"value{s} one_test{s}", f"NOT value{s} COMPARE compared{s}")
    rules.add(f"predicate{s}", f"OPEN condition{s} CLOSE", f"NOT OPEN condition{s} CLOSE")
    rules.add(
        f"one_test{s}",
        f"COMPARE compared{s}",
        "LIKE TEXT",
        f"BETWEEN bound{s} AND bound{s}",
        "IS_NULL",
        "IN literals CLOSE",
        "IN set_1 CLOSE_QUERY",
    )
    rules.add(f"compared{s}", "moment", f"value{s}", "OPEN_QUERY scalar CLOSE_QUERY")
    rules.add(f"bound{s}", "moment", f"term{s}")


def _aggregates(rules: Rules, dialect: str, s: str) -> None:
    rules.add(
        f"sum{s}",
        f"AGGREGATE value{s} CLOSE",
        f"LIST_OF value{s} CLOSE",
        f"ROUND_OF total{s} rounding",
        f"COALESCE_OF total{s} COMMA literal CLOSE",
        f"CAST_OF total{s} AS_TYPE",
        f"OPEN total{s} CLOSE",
    )
    if dialect == "sqlite":
        rules.add(f"sum{s}", f"COUNT_ALL FILTER condition{s} CLOSE", f"TOTAL value{s} CLOSE FILTER condition{s} CLOSE")
    rules.add(f"total{s}", f"sum{s}", f"sum{s} ARITHMETIC summand{s}", f"NUMBER ARITHMETIC sum{s}")
    rules.add(f"total{s}", f"COUNT_ALL ARITHMETIC sum{s}")
    rules.add(f"summand{s}", f"sum{s}", "COUNT_ALL", "free_operand", f"NUMBER ARITHMETIC sum{s}")
    rules.add(f"count{s}", f"total{s}", "free_count")
    rules.add(f"having{s}", f"group_test{s}", f"group_test{s} LOGIC having{s}")
    rules.add(
        f"group_test{s}",
        f"count{s} COMPARE SIGNED",
        f"count{s} COMPARE share",
        f"count{s} COMPARE count{s}",
        f"count{s} BETWEEN SIGNED AND SIGNED",
    )
    rules.add(f"groups{s}", f"value{s}", f"value{s} COMMA groups{s}")
    rules.add(f"ordered{s}", f"value{s}", f"count{s}")
    rules.add(f"orders{s}", f"ordered{s} direction", f"ordered{s} direction COMMA orders{s}")
