"""A grammar of the SELECT statements that one schema can answer, for decoding that cannot leave it.

Not only the syntax: a column stands only where a table of the same query has it. A query names columns before the
tables they are of, so a rule's number tells which qualifier means which table (grammar_scope.py): in the SELECT list
it is assumed, and FROM then accepts only tables that bear the assumptions out. What the grammar accepts passes the
guard's name check and the database's EXPLAIN; tests draw random sentences to see that it does.

In it: joins of up to four tables, numbered, short and no aliases, subqueries in FROM, IN, EXISTS and as values, set
operations, CASE, windows, aggregates, GROUP BY, HAVING, ORDER BY, LIMIT, DISTINCT, casts, date functions.
Left out: WITH, comma joins, output names in ORDER BY that are not on the list of grammar_aliases.py.
"""

from dataclasses import replace

from dbgpt_lite.sql.grammar_aliases import AliasRules
from dbgpt_lite.sql.grammar_expressions import add_aggregates, add_common, add_expressions
from dbgpt_lite.sql.grammar_list import add_lists
from dbgpt_lite.sql.grammar_rules import Rules, both, either, equals, neither
from dbgpt_lite.sql.grammar_scope import (
    BARE,
    INNER,
    MAX_TABLES,
    NUMBERED,
    OUTER,
    PLACE,
    PLAN,
    SINGLE,
    STYLES,
    WITHOUT_INNER,
    Names,
    Slot,
    planned,
)
from dbgpt_lite.sql.grammar_shapes import families
from dbgpt_lite.sql.grammar_words import SPACE, define, is_sayable, words_pattern
from dbgpt_lite.sql.schema import Schema, TableInfo


def select_grammar(schema: Schema, dialect: str, otherwise: str = "") -> str:
    """Lark text, as llguidance reads it, of every SELECT over `schema` in `dialect` ("sqlite" or "mysql").

    `otherwise` is a text that may be answered in place of a query. A query then stands in a code fence, as chat models
    write it: one that is kept from closing a fence does not know how to end. In the text, `<stop>` stands for the
    tokens that end an answer. Names with control characters are left out. "" when the schema has no table or more
    than 63: then there is nothing to hold on to.
    """
    tables = tuple(table for table in map(_sayable, schema.tables) if table.columns and is_sayable(table.name))
    if not tables or len(tables) > MAX_TABLES:
        return ""
    return _Grammar(Names(Schema(tables), dialect)).text(otherwise)


def _sayable(table: TableInfo) -> TableInfo:
    """Without columns whose names hold control characters: no terminal spells them, and the guard refuses them."""
    columns = tuple(column for column in table.columns if is_sayable(column.name))
    return table if len(columns) == len(table.columns) else replace(table, columns=columns)


class _Grammar:
    """Builds the rules, one method a part of the query."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._rules = Rules()

    def text(self, otherwise: str) -> str:
        """All of it."""
        rules = self._rules
        dialect = self._names.dialect
        define(rules, dialect)
        add_common(rules, dialect)
        self._terminals()
        self._columns()
        add_expressions(rules, dialect, "", "column")
        add_aggregates(rules, dialect)
        enter = f"::bit_and({hex(WITHOUT_INNER)})"
        rules.add("predicate", f"EXISTS inner_exists{enter} CLOSE_QUERY")
        rules.add("predicate", f"value COMPARE OPEN_QUERY inner_value{enter} CLOSE_QUERY")
        add_expressions(rules, dialect, "_in", "inner_column")
        aliases = AliasRules(rules, self._names)
        aliases.use()
        add_lists(rules, self._names, aliases)
        self._from()
        self._ends()
        self._over()
        self._inner()
        self._statement(otherwise)
        return rules.text()

    # --- names

    def _terminals(self) -> None:
        rules, names = self._rules, self._names
        for number, table in names.tables:
            rules.terminal(f"TABLE{number}", words_pattern([names.spelled(table.name)]))
            rules.terminal(f"COLUMN{number}", words_pattern(names.columns(table)))
            if own := names.own_columns(number):
                rules.terminal(f"OWN{number}", words_pattern(own))
        for slot in (*OUTER, *INNER):
            for _, _, text in names.qualifiers(slot):
                rules.terminal(names.qualified(text), words_pattern([text + "."]))
                rules.terminal(names.alias(text, 0), rf"{SPACE}(?:(?i:as) )?{words_pattern([text])}")

    # --- columns

    def _columns(self) -> None:
        """column: one of the tables that FROM has named."""
        rules = self._rules
        rules.add("column", "bare1", when=equals(OUTER[1].table, 0))
        for slot in OUTER:
            self._dispatch(slot, "")
            for style in STYLES:
                rules.add("column", f"q{slot.number}_{style}", when=equals(slot.style, style))
        self._bare_after_from()

    def _dispatch(self, slot: Slot, prefix: str) -> None:
        """bareN: a column of the slot's table; qN_S: the same after a qualifier of style S."""
        rules, names = self._rules, self._names
        for number, _ in names.tables:
            rules.add(f"{prefix}bare{slot.number}", f"COLUMN{number}", when=equals(slot.table, number))
        for number, style, text in names.qualifiers(slot):
            name = f"{prefix}q{slot.number}_{style}"
            if style in (NUMBERED, PLACE):
                if name not in rules.rules:
                    rules.add(name, f"{names.qualified(text)} {prefix}bare{slot.number}")
            else:
                rules.add(name, f"{names.qualified(text)} COLUMN{number}", when=equals(slot.table, number))
        for style in STYLES:
            rules.rules.setdefault(f"{prefix}q{slot.number}_{style}", [])

    def _bare_after_from(self) -> None:
        """Columns without a qualifier where FROM names several tables: those that one of them alone has."""
        rules, names = self._rules, self._names
        groups: dict[tuple[int, ...], set[str]] = {}
        for _, table in names.tables:
            for column in table.columns:
                groups.setdefault(names.holders[column.name.lower()], set()).add(names.spelled(column.name))
        for place, (holders, columns) in enumerate(groups.items()):
            has = [either(*(equals(slot.table, number) for number in holders)) for slot in OUTER]
            alone = either(*(both(has[i], neither(*has[:i], *has[i + 1 :])) for i in range(len(OUTER))))
            rules.terminal(f"GROUP{place}", words_pattern(columns))
            several = neither(equals(OUTER[1].table, 0))
            rules.add("column", f"GROUP{place}", when=both(several, alone))

    # --- FROM

    def _from(self) -> None:
        for slot in OUTER:
            self._tables(slot)
            self._after_table(slot)

    def _tables(self, slot: Slot) -> None:
        rules, names = self._rules, self._names
        others = [other for other in OUTER if other != slot]
        n = slot.number
        for number, style, text in names.qualifiers(slot):
            twice = either(*(equals(other.table, number) for other in others))
            when = both(
                _may_be(slot, number, style),
                neither(*names.same_text(others, text)),
                f"not(and(bit_set({BARE}), {twice}))",
            )
            table = f"TABLE{number} {names.alias(text, style)}"
            bits = hex(slot.bits(number, style))
            if n > 1:
                rules.add(f"from{n}", f"{table} ON on{n}::bit_or({bits})", when=when)
            rules.add("from1" if n == 1 else f"cross{n}", f"{table} joined{n}::bit_or({bits})", when=when)

    def _after_table(self, slot: Slot) -> None:
        rules, n = self._rules, slot.number
        joined = f"joined{n}"
        if n > 1:
            rules.add(f"on{n}", f"matches{n} {joined}")
            self._matches(n)
        several = f"bit_clear({SINGLE})"
        if n < len(OUTER):
            rules.add(joined, f"JOIN from{n + 1}", f"CROSS_JOIN cross{n + 1}", when=several)
        count = f"bit_set({SINGLE})" if n == 1 else several
        rules.add(joined, "done", when=both(count, *(equals(later.whole, 0) for later in OUTER[n:])))

    def _matches(self, n: int) -> None:
        """What joins the n-th table: first one of its columns with one of an earlier table."""
        rules = self._rules
        new, old, any_ = f"side{n}", f"earlier{n}", f"either{n}"
        for slot in OUTER[:n]:
            for style in STYLES:
                when = equals(slot.style, style)
                rules.add(any_, f"q{slot.number}_{style}", when=when)
                rules.add(new if slot.number == n else old, f"q{slot.number}_{style}", when=when)
        rules.add(f"matches{n}", f"{new} COMPARE {old} more{n}", f"{old} COMPARE {new} more{n}")
        rules.add(f"more{n}", '""', f"AND {any_} COMPARE {any_} more{n}", f"AND {any_} COMPARE literal more{n}")

    # --- what follows FROM

    def _ends(self) -> None:
        rules = self._rules
        rules.add("direction", '""', "DIRECTION")
        rules.add("filter", '""', "WHERE condition")
        rules.add("group", '""', "GROUP_BY groups", "GROUP_BY groups HAVING having")
        rules.add("limit", '""', "LIMIT")
        rules.add("sorted", '""', "LIMIT", "ORDER_ONE direction", "ORDER_ONE direction LIMIT")
        wide = all(len(table.columns) > 1 for _, table in self._names.tables)
        for name, places in (("first", "1"), ("two", "[12]"), ("many", "[12]" if wide else "1"), ("one", "1")):
            self._order(name, places)
        rules.add("end_many", "filter order_many limit finish")
        rules.add("end_first", "filter order_first limit finish", "filter group SET set_1 sorted finish")
        rules.add("end_first", "filter group UNION union1 sorted finish")
        rules.add("end_two", "filter order_two limit finish", "filter group SET select_set2 sorted finish")
        rules.add("end_two", "filter group UNION union2 sorted finish")
        rules.add("end_derived", "filter group CLOSE_QUERY DERIVED end_over")
        rules.add("end_over", "over_filter over_order limit finish")
        for n in (1, 2):
            query = f"select_set{n}"
            rules.add(f"union{n}", f"{query} UNION {query}", f"{query} UNION union{n}")
        rules.add("end_set1", "filter group")
        rules.add("end_set1b", "filter group")
        rules.add("end_sum", "filter")
        rules.add("end_one", "filter order_one LIMIT_ONE")
        for family in families(self._names.dialect):
            if f"end_{family.name}" in rules.rules:
                rules.add("done", f"end_{family.name}", when=equals(PLAN, family.number))

    def _order(self, name: str, places: str) -> None:
        """GROUP BY and ORDER BY of one kind of query; SQLite sorts by an aggregate only where rows are grouped."""
        rules = self._rules
        place = rules.terminal(f"PLACE_{name.upper()}", places)
        key, group_key = f"key_{name}", f"group_key_{name}"
        rules.add(key, "value direction", "ordered_alias direction", f"{place} direction")
        rules.add(group_key, key, "count direction")
        for rule in (key, group_key):
            rules.add(f"{rule}s", rule, f"{rule} COMMA {rule}s")
        rules.add(f"sort_{name}", '""', f"ORDER_BY {key}s")
        rules.add(f"group_sort_{name}", '""', f"ORDER_BY {group_key}s")
        groups = "GROUP_BY groups"
        sort = f"group_sort_{name}"
        rules.add(f"order_{name}", f"sort_{name}", f"{groups} {sort}", f"{groups} HAVING having {sort}")

    def _over(self) -> None:
        """What follows a subquery in FROM: only its output names can be meant."""
        rules = self._rules
        rules.add("over_test", "ordered_alias COMPARE moment", "ordered_alias COMPARE share")
        rules.add("over_tests", "over_test", "over_test LOGIC over_tests")
        rules.add("over_filter", '""', "WHERE over_tests")
        rules.add("over_key", "ordered_alias direction")
        rules.add("over_sum", "over_key", "AGGREGATE ordered_alias CLOSE direction", "COUNT_ALL direction")
        for rule in ("over_key", "over_sum"):
            rules.add(f"{rule}s", rule, f"{rule} COMMA {rule}s")
        rules.add("over_order", '""', "ORDER_BY over_keys")
        rules.add("over_order", "GROUP_BY ordered_alias", "GROUP_BY ordered_alias ORDER_BY over_sums")

    def _statement(self, otherwise: str) -> None:
        rules = self._rules
        single = hex(1 << SINGLE)
        for part in families(self._names.dialect):
            items = f"SELECT items_{part.name}"
            rules.add(f"select_{part.name}", f"{items}::0x0", f"{items}::{single}")
        whole = planned(1)
        rules.add("all", f"SELECT STAR FROM from1::{hex(whole)}", f"SELECT STAR FROM from1::{hex(whole | 1 << SINGLE)}")
        rules.add("scalar", "select_sum", "select_one")
        rules.add("set_1", "select_set1")
        rules.add("query", "select_first", "all", "SELECT items_over::0x0", "SELECT STAR FROM OPEN_QUERY derived::0x0")
        for kind in ("", f"::set_bit({SINGLE})"):
            rules.add("derived", f"SELECT items_derived{kind}", f"SELECT key_derived{kind}")
        rules.add("stop", "<stop>")
        if not otherwise:
            rules.add("start", "query")
            rules.add("finish", "stop")
            return
        # What is missing may follow a colon.
        said = rules.terminal("OTHERWISE", words_pattern([otherwise]) + r"(?:[:：][^\n`]{0,200})?")
        rules.terminal("FENCE", r"[ \n]?```(?:sql|SQL)?\n")
        rules.terminal("FENCE_END", r"[ \n]?;?\n?```")
        rules.add("start", "FENCE query", f"{said} stop", f"FENCE {said} FENCE_END stop")
        rules.add("finish", "FENCE_END stop")

    # --- subqueries that look out

    def _inner(self) -> None:
        rules, names = self._rules, self._names
        alone = equals(INNER[1].table, 0)
        for slot in INNER:
            self._dispatch(slot, "in_")
            for style in STYLES:
                rules.add("inner_named", f"in_q{slot.number}_{style}", when=equals(slot.style, style))
        rules.add("inner_column", "in_bare1", when=alone)
        rules.add("inner_column", "inner_named")
        for slot in OUTER:
            for style in STYLES:
                rules.add("outer_column", f"q{slot.number}_{style}", when=equals(slot.style, style))
        rules.add("correlated", "correlation", "correlation AND correlated")
        rules.add("correlation", "inner_column COMPARE outer_column", "outer_column COMPARE inner_column")
        rules.add(
            "inner_end",
            "WHERE correlated",
            "WHERE correlated AND condition_in",
            "WHERE predicate_in AND correlated",
            "WHERE predicate_in AND correlated AND condition_in",
        )
        rules.add("inner_exists", "SELECT ONE FROM in_from1", "SELECT STAR FROM in_from1")
        rules.add("inner_value", "SELECT COUNT_ALL FROM in_from1")
        for number, _ in names.tables:
            bits = hex(INNER[0].bits(number, 0))
            rules.add("inner_value", f"SELECT AGGREGATE COLUMN{number} CLOSE FROM in_alone::bit_or({bits})")
        self._inner_from()

    def _inner_from(self) -> None:
        """FROM of a subquery that looks out. No qualifier hides one of the query around: one at least must be seen."""
        rules, names = self._rules, self._names
        first, second = INNER
        for number, style, text in names.qualifiers(first):
            table = f"TABLE{number} {names.alias(text, style)}"
            bits = hex(first.bits(number, style))
            seen = neither(*names.same_text(OUTER, text))
            rules.add("in_from1", f"{table} in_joined::bit_or({bits})", when=seen)
            rules.add("in_alone", f"{table} inner_end::bit_or({bits})", when=both(equals(first.table, number), seen))
            named = f"SELECT AGGREGATE {names.qualified(text)} COLUMN{number} CLOSE FROM in_named::bit_or({bits})"
            rules.add("inner_value", named, when=seen)
            rules.add("in_named", f"{table} in_joined", when=equals(first.whole, first.value(number, style)))
        rules.add("in_joined", "inner_end", "JOIN in_from2")
        for number, style, text in names.qualifiers(second):
            alias = names.alias(text, style)
            body = f"TABLE{number} {alias} ON in_match::bit_or({hex(second.bits(number, style))})"
            rules.add("in_from2", body, when=neither(*names.same_text([*OUTER, first], text)))
        rules.add("in_match", "inner_named COMPARE inner_named inner_end")


def _may_be(slot: Slot, number: int, style: int) -> str:
    """The slot is open, or already this table with this style or with none yet."""
    values = dict.fromkeys((0, slot.value(number, 0), slot.value(number, style)))
    return either(*(equals(slot.whole, value) for value in values))
