"""Which tables of a schema can be joined, by declared keys or by their names, and the shortest ways between tables."""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from dbgpt_lite.sql.schema import ForeignKey, Schema, TableInfo
from dbgpt_lite.sql.words import split

# Who made or changed a row: a key to the users in every table, and never the way to join two of them.
_AUDIT = re.compile(
    r"(?:created?|updated?|modified|changed|deleted|inserted|edited)_?(?:by|user)(?:_?id)?|(?:创建|更新|修改|录入)人(?:_?id)?",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"(?P<stem>.+?)(?:_?(?:id|no|code|key|cd|fk)|编号|编码|号)", re.IGNORECASE)


@dataclass(frozen=True)
class Joins:
    """Links between the tables of a schema, by their names as spelled there."""

    schema: Schema

    @cached_property
    def links(self) -> Mapping[str, Mapping[str, tuple[ForeignKey, ...]]]:
        """Table -> table it refers to -> the keys, those to itself and those that only say who wrote a row left out."""
        found: dict[str, dict[str, tuple[ForeignKey, ...]]] = {table.name: {} for table in self.schema.tables}
        for table in self.schema.tables:
            for key in (*table.foreign_keys, *self._undeclared(table)):
                target = self.schema.table(key.target)
                if target and target.name != table.name and not _AUDIT.fullmatch(key.columns[0]):
                    found[table.name][target.name] = (*found[table.name].get(target.name, ()), key)
        return found

    @cached_property
    def neighbours(self) -> Mapping[str, frozenset[str]]:
        """Table -> the tables it refers to or that refer to it."""
        near: dict[str, set[str]] = {name: set() for name in self.links}
        for name, targets in self.links.items():
            near[name].update(targets)
            for target in targets:
                near[target].add(name)
        return {name: frozenset(others) for name, others in near.items()}

    def way(self, start: str, goals: Iterable[str], cost: Callable[[str], float]) -> tuple[str, ...]:
        """The cheapest chain of tables from `start` to one of `goals`, both ends included; () when there is none.

        `cost` is what a table in between costs, more than 0; the ends cost nothing.
        """
        ends = frozenset(goals)
        queue: list[tuple[float, str]] = [(0.0, start)]
        best, came_from = {start: 0.0}, {start: ""}
        while queue:
            spent, name = heapq.heappop(queue)
            if name in ends:
                return _chain(came_from, name)
            if spent > best[name]:
                continue
            for near in sorted(self.neighbours[name]):
                total = spent + (0.0 if near in ends else cost(near))
                if total < best.get(near, float("inf")):
                    best[near], came_from[near] = total, name
                    heapq.heappush(queue, (total, near))
        return ()

    def keys_between(self, names: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """For each of these tables, its columns that join it to another of them, lower case."""
        needed: dict[str, set[str]] = {name: set() for name in names}
        for name in names:
            for target, keys in self.links[name].items():
                for key in keys if target in names else ():
                    needed[name].update(column.lower() for column in key.columns)
                    needed[target].update(column.lower() for column in key.target_columns)
        return {name: frozenset(columns) for name, columns in needed.items()}

    def _undeclared(self, table: TableInfo) -> Iterator[ForeignKey]:
        """Keys that only names tell of: customer_id where customers has id, or wo_no where wo_no is a table's key."""
        declared = {column.lower() for key in table.foreign_keys for column in key.columns}
        for column in table.columns:
            if column.primary_key or column.name.lower() in declared:
                continue
            target = self._meant_by(column.name, table.name)
            key = target.column(_single_key(target)) if target else None
            if target and key and key.kind == column.kind:
                yield ForeignKey((column.name,), target.name, (key.name,))

    def _meant_by(self, column: str, owner: str) -> TableInfo | None:
        same = self._by_key.get(column.lower(), ())
        if len(same) == 1 and same[0].name != owner:
            return same[0]
        reference = _REFERENCE.fullmatch(column)
        named = self._by_name.get(" ".join(split(reference["stem"])), ()) if reference else ()
        return named[0] if len(named) == 1 else None

    @cached_property
    def _by_key(self) -> Mapping[str, tuple[TableInfo, ...]]:
        """Tables by the name of their key, where it is telling enough to be looked for in others."""
        found: dict[str, tuple[TableInfo, ...]] = {}
        for table in self.schema.tables:
            key = _single_key(table).lower()
            if len(key) > 3 and key not in ("code", "name", "guid", "uuid", "number"):
                found[key] = (*found.get(key, ()), table)
        return found

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[TableInfo, ...]]:
        found: dict[str, tuple[TableInfo, ...]] = {}
        for table in self.schema.tables:
            words = " ".join(split(table.name))
            found[words] = (*found.get(words, ()), table)
        return found


def _single_key(table: TableInfo) -> str:
    keys = [column.name for column in table.columns if column.primary_key]
    return keys[0] if len(keys) == 1 else ""


def _chain(came_from: Mapping[str, str], end: str) -> tuple[str, ...]:
    names = [end]
    while came_from[names[-1]]:
        names.append(came_from[names[-1]])
    return tuple(reversed(names))
