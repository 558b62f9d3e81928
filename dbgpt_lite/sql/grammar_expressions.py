"""Expressions and conditions of a SELECT over the columns that a rule names."""

from dbgpt_lite.sql.grammar_rules import Rules


def add_expressions(rules: Rules, dialect: str, suffix: str, column: str) -> None:
    """`term`, `value` and `condition` over single rows, their names ended by `suffix`; each holds a column.

    `column` is the rule of a column.
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
    rules.add("free_operand", "NUMBER", "COUNT_ALL", "share", "NUMBER ARITHMETIC share", "NUMBER ARITHMETIC COUNT_ALL")
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


def add_aggregates(rules: Rules, dialect: str) -> None:
    """What GROUP BY, HAVING and ORDER BY of the query itself may hold: `groups`, `having`, `count`."""
    rules.add(
        "sum",
        "AGGREGATE value CLOSE",
        "LIST_OF value CLOSE",
        "ROUND_OF total rounding",
        "COALESCE_OF total COMMA literal CLOSE",
        "CAST_OF total AS_TYPE",
        "OPEN total CLOSE",
    )
    if dialect == "sqlite":
        rules.add("sum", "COUNT_ALL FILTER condition CLOSE", "TOTAL value CLOSE FILTER condition CLOSE")
    rules.add("total", "sum", "sum ARITHMETIC summand", "NUMBER ARITHMETIC sum", "COUNT_ALL ARITHMETIC sum")
    rules.add("summand", "sum", "free_operand", "NUMBER ARITHMETIC sum")
    rules.add("count", "total", "free_count")
    rules.add("having", "group_test", "group_test LOGIC having")
    rules.add(
        "group_test",
        "count COMPARE SIGNED",
        "count COMPARE share",
        "count COMPARE count",
        "count BETWEEN SIGNED AND SIGNED",
        "having_alias COMPARE SIGNED",
        "having_alias COMPARE share",
    )
    rules.add("group_key", "value", "grouped_alias")
    rules.add("groups", "group_key", "group_key COMMA groups")
