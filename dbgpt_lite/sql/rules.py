"""Which tables and columns of a connection may be asked at all: what a rule hides is absent from its schema.

A rule is `-table`, `-table.column`, `+table` or `+table.column`; in names `*` stands for any letters, `?` for one,
and case does not count. `-` hides. Once there is a `+`, only what a `+` names is shown. `-` wins over `+`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dbgpt_lite.errors import ConfigError
from dbgpt_lite.sql.schema import Schema, TableInfo

EVERY_CONNECTION = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it was written; `column` is None when it is about a whole table."""

    text: str
    shows: bool
    table: re.Pattern[str]
    column: re.Pattern[str] | None = None

    def is_about(self, table: str) -> bool:
        """Whether the table is one that the rule names."""
        return self.table.fullmatch(table) is not None

    def names(self, table: str, column: str) -> bool:
        """Whether the column is one that the rule names, be it by its whole table."""
        return self.is_about(table) and (self.column is None or self.column.fullmatch(column) is not None)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one connection; none allow everything."""

    rules: tuple[Rule, ...] = ()

    def allows_table(self, table: str) -> bool:
        """Whether anything of the table may be seen."""
        hidden = any(rule.is_about(table) and rule.column is None for rule in self.rules if not rule.shows)
        shown = [rule.is_about(table) for rule in self.rules if rule.shows]
        return not hidden and (not shown or any(shown))

    def allows(self, table: str, column: str) -> bool:
        """Whether the column of the table may be seen."""
        hidden = any(rule.names(table, column) for rule in self.rules if not rule.shows)
        shown = [rule.names(table, column) for rule in self.rules if rule.shows]
        return not hidden and (not shown or any(shown))

    def apply(self, schema: Schema) -> Schema:
        """The schema without what is hidden, nor keys that lead there. A table without a visible column is hidden."""
        if not self.rules:
            return schema
        tables = [self._visible(table) for table in schema.tables]
        seen = Schema(tuple(table for table in tables if table.columns))
        names = {table.name for table in seen.tables}
        hidden = frozenset(table.name.lower() for table in schema.tables if table.name not in names)
        return Schema(tuple(_with_known_keys(table, seen) for table in seen.tables), hidden)

    def unused(self, schema: Schema) -> tuple[str, ...]:
        """Rules that name nothing in the whole schema: most likely a misspelling."""
        named = [(table.name, column.name) for table in schema.tables for column in table.columns]
        return tuple(rule.text for rule in self.rules if not any(rule.names(*pair) for pair in named))

    def _visible(self, table: TableInfo) -> TableInfo:
        columns = tuple(column for column in table.columns if self.allows(table.name, column.name))
        return replace(table, columns=columns, partial=len(columns) < len(table.columns))


def parse_rules(text: str) -> dict[str, Rules]:
    """Rules by connection from the setting, e.g. `shop:-employees,-customers.email main:+orders`.

    The connection `*` stands for every one. Raises ConfigError that shows the rule it could not read.
    """
    found: dict[str, list[Rule]] = {}
    for word in text.split():
        connection, colon, listed = word.partition(":")
        if not (connection and colon):
            raise ConfigError("sql.bad_rule", rule=word)
        found.setdefault(connection, []).extend(_rule(part) for part in listed.split(","))
    return {connection: Rules(tuple(rules)) for connection, rules in found.items()}


def rules_for(name: str, rules: Mapping[str, Rules]) -> Rules:
    """The rules of the connection `name`: its own and those of every connection."""
    return Rules(tuple(rule for key in (name, EVERY_CONNECTION) if key in rules for rule in rules[key].rules))


def _rule(text: str) -> Rule:
    sign, names = text[:1], text[1:]
    table, dot, column = names.partition(".")
    if sign not in ("+", "-") or not table or (dot and not column) or "." in column:
        raise ConfigError("sql.bad_rule", rule=text)
    return Rule(text, sign == "+", _pattern(table), _pattern(column) if column else None)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", ".*").replace(r"\?", "."), re.IGNORECASE | re.DOTALL)


def _with_known_keys(table: TableInfo, seen: Schema) -> TableInfo:
    def known(name: str, columns: tuple[str, ...]) -> bool:
        found = seen.table(name)
        return found is not None and all(found.column(column) for column in columns)

    keys = tuple(
        key for key in table.foreign_keys if known(table.name, key.columns) and known(key.target, key.target_columns)
    )
    return replace(table, foreign_keys=keys)
