"""A made schema of an enterprise's size: 500 tables and 8,000 columns, the same ones every time, and questions on it.

The core tables are written by hand in enterprise/tables.txt: twenty departments, each with its own way of naming. The
others are what grows around them in a real database: archives, histories, staging copies, logs, notes, attachments.
Housekeeping columns bring the number of columns up. enterprise/questions.txt says which columns a question needs.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo

FOLDER = Path(__file__).resolve().parent / "enterprise"
TABLES, COLUMNS = 500, 8000
_SEED = 20_231_101
_TYPES = {"i": "INT", "d": "DECIMAL(14,2)", "t": "DATE", "s": "DATETIME"}
_TEXT = "VARCHAR(80)"
_COLUMN = re.compile(
    r"(?P<name>[^!~>*]*)(?P<key>\*?)(?:(?P<link>>>?)(?P<target>[^!~]+))?(?:!(?P<type>\w))?(?:~(?P<comment>.*))?"
)
_IRREGULAR = {
    "addresses": "address",
    "branches": "branch",
    "batches": "batch",
    "classes": "class",
    "switches": "switch",
}
# Columns that every department's tables carry, in the order in which they are added.
_HOUSEKEEPING = (
    ("created_at", "DATETIME"), ("created_by", "INT"), ("updated_at", "DATETIME"), ("updated_by", "INT"),
    ("is_deleted", "INT"), ("remark", _TEXT), ("company_code", _TEXT), ("version_no", "INT"), ("source_system", _TEXT),
    ("external_ref", _TEXT), ("tenant_id", "INT"), ("workflow_state", _TEXT), ("approved_at", "DATETIME"),
    ("sort_no", "INT"), ("legacy_no", _TEXT), ("lock_flag", "INT"), ("print_count", "INT"), ("attribute1", _TEXT),
    ("attribute2", _TEXT), ("attribute3", _TEXT), ("region_code", _TEXT), ("batch_ref", _TEXT), ("owner_group", _TEXT),
    ("checksum", _TEXT), ("import_job_id", "INT"), ("language_code", _TEXT), ("valid_from_ts", "DATETIME"),
    ("valid_to_ts", "DATETIME"), ("attribute4", "DECIMAL(14,2)"), ("attribute5", "DECIMAL(14,2)"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A question in one language and the columns an answer needs, by table."""

    text: str
    language: Literal["en", "zh"]
    half: Literal["dev", "held"]
    columns: tuple[tuple[str, str], ...]

    @property
    def tables(self) -> frozenset[str]:
        """The tables an answer needs."""
        return frozenset(table for table, _ in self.columns)


def enterprise_schema() -> Schema:
    """The whole schema: TABLES tables, COLUMNS columns."""
    core = tuple(_core_tables())
    return _padded((*core, *_grown(core)[: TABLES - len(core)]))


def questions() -> tuple[Question, ...]:
    """All labelled questions."""
    found: list[Question] = []
    for block in (FOLDER / "questions.txt").read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            half, *needed = lines[0].split()
            columns = tuple((table, column) for table, column in (name.split(".", 1) for name in needed))
            found += [Question(line[3:], line[:2], half, columns) for line in lines[1:]]  # type: ignore[arg-type]
    return tuple(found)


def create_statements(schema: Schema) -> Iterator[str]:
    """MySQL statements that make the schema; foreign key checks must be off, since tables refer to later ones."""
    for table in schema.tables:
        parts = [
            f"`{c.name}` {c.type}{' PRIMARY KEY' if c.primary_key else ''}{_comment(c.comment, ' ')}"
            for c in table.columns
        ]
        parts += [
            f"FOREIGN KEY (`{key.columns[0]}`) REFERENCES `{key.target}` (`{key.target_columns[0]}`)"
            for key in table.foreign_keys
        ]
        yield f"CREATE TABLE `{table.name}` ({', '.join(parts)}){_comment(table.comment, '=')}"


def _comment(text: str, joint: str) -> str:
    return f" COMMENT{joint}'{text}'" if text else ""


def _core_tables() -> Iterator[TableInfo]:
    lines = (FOLDER / "tables.txt").read_text(encoding="utf-8").splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if "|" in line and not line.startswith("#")]
    keys = {name: _key_of(columns) for name, _, columns in rows}
    for name, comment, columns in rows:
        yield _core_table(name, comment, columns, keys)


def _key_of(columns: str) -> str:
    return next((found["name"] for text in columns.split(", ") if (found := _parsed(text))["key"]), "id")


def _parsed(text: str) -> re.Match[str]:
    found = _COLUMN.fullmatch(text)
    assert found, text
    return found


def _core_table(name: str, comment: str, columns: str, keys: dict[str, str]) -> TableInfo:
    own: list[ColumnInfo] = []
    links: list[ForeignKey] = []
    for part in (_parsed(text) for text in columns.split(", ")):
        target = part["target"]
        column = part["name"] or f"{_singular(target)}_id"
        kind = "INT" if target and keys[target] == "id" else _TYPES.get(part["type"] or "", _TEXT)
        own.append(ColumnInfo(column, kind, bool(part["key"]), part["comment"] or ""))
        if part["link"] == ">":
            links.append(ForeignKey((column,), target, (keys[target],)))
    if keys[name] == "id":
        own.insert(0, ColumnInfo("id", "INT", True))
    return TableInfo(name, tuple(own), tuple(links), comment)


def _singular(table: str) -> str:
    last = table.rsplit("_", 1)[-1]
    if last in _IRREGULAR:
        return table.removesuffix(last) + _IRREGULAR[last]
    return table[:-3] + "y" if table.endswith("ies") else table.removesuffix("s")


def _grown(core: Sequence[TableInfo]) -> list[TableInfo]:
    """Tables that grow around the core, in a shuffled order: every core table has some, no kind is rare."""
    shuffled = random.Random(_SEED)
    kinds = [_archive, _history, _staging, _log, _notes, _attachments, _tags, _by_year]
    rounds = []
    for _ in range(2):
        tables = list(core)
        shuffled.shuffle(tables)
        rounds += tables
    made = [kinds[n % len(kinds)](table) for n, table in enumerate(rounds)]
    return list({table.name: table for table in made}.values())


def _copy(table: TableInfo, name: str, comment: str, *extra: ColumnInfo) -> TableInfo:
    """The same columns without keys and links, as archives have them."""
    columns = tuple(replace(column, primary_key=False) for column in table.columns)
    return TableInfo(name, (*columns, *extra), (), comment)


def _chinese(table: TableInfo) -> bool:
    return any(letter >= "\u3400" for letter in table.name)


def _remark(table: TableInfo, english: str, chinese: str) -> str:
    """A comment in the table's own language; none where the table has none."""
    if not table.comment:
        return ""
    return f"{table.comment}{chinese}" if any(letter >= "\u3400" for letter in table.comment) else english


def _archive(table: TableInfo) -> TableInfo:
    name = f"{table.name}_归档" if _chinese(table) else f"{table.name}_archive"
    return _copy(
        table, name, _remark(table, f"Closed rows of {table.name}", "归档"), ColumnInfo("archived_at", "DATETIME")
    )


def _history(table: TableInfo) -> TableInfo:
    name = f"{table.name}_历史" if _chinese(table) else f"{table.name}_hist"
    return _copy(
        table, name, _remark(table, f"Old versions of {table.name}", "历史"), ColumnInfo("replaced_at", "DATETIME")
    )


def _staging(table: TableInfo) -> TableInfo:
    return _copy(table, f"stg_{table.name}", "", ColumnInfo("load_id", "INT"), ColumnInfo("load_error", _TEXT))


def _by_year(table: TableInfo) -> TableInfo:
    return _copy(table, f"{table.name}_2023", _remark(table, "Year 2023", "2023年"))


def _child(table: TableInfo, ending: str, comment: str, *columns: tuple[str, str]) -> TableInfo:
    """A table of its own rows about `table`'s, with a declared key to it."""
    key = next(column for column in table.columns if column.primary_key)
    link = f"{_singular(table.name)}_{key.name}"
    own = [ColumnInfo("id", "INT", True), ColumnInfo(link, key.type), *(ColumnInfo(*column) for column in columns)]
    return TableInfo(f"{table.name}_{ending}", tuple(own), (ForeignKey((link,), table.name, (key.name,)),), comment)


def _log(table: TableInfo) -> TableInfo:
    comment = _remark(table, "", "变更日志")
    return _child(
        table, "log", comment, ("changed_at", "DATETIME"), ("action", _TEXT), ("old_value", _TEXT), ("new_value", _TEXT)
    )


def _notes(table: TableInfo) -> TableInfo:
    return _child(
        table, "notes", _remark(table, "", "备注"), ("note", _TEXT), ("written_at", "DATETIME"), ("written_by", "INT")
    )


def _attachments(table: TableInfo) -> TableInfo:
    comment = _remark(table, "", "附件")
    return _child(table, "attachments", comment, ("file_name", _TEXT), ("mime_type", _TEXT), ("size_bytes", "INT"))


def _tags(table: TableInfo) -> TableInfo:
    return _child(table, "tags", _remark(table, "", "标签"), ("tag", _TEXT), ("tagged_at", "DATETIME"))


def _padded(tables: Sequence[TableInfo]) -> Schema:
    """Housekeeping columns, a few a table and more for some, until there are COLUMNS; created_by refers to staff."""
    drawn = random.Random(_SEED)
    missing = COLUMNS - sum(len(table.columns) for table in tables)
    # Most tables get a few, some become wide: shares drawn from an exponential distribution.
    shares = [drawn.expovariate(1) for _ in tables]
    wanted = [int(share * missing / sum(shares)) for share in shares]
    for place in drawn.sample(range(len(tables)), missing - sum(wanted)):
        wanted[place] += 1
    return Schema(tuple(_with(table, count) for table, count in zip(tables, wanted, strict=True)))


def _with(table: TableInfo, count: int) -> TableInfo:
    names = {column.name for column in table.columns}
    extra = [ColumnInfo(name, kind) for name, kind in _HOUSEKEEPING[:count] if name not in names]
    extra += [ColumnInfo(f"reserve_{n}", _TEXT) for n in range(count - len(extra))]
    links = [ForeignKey((c.name,), "hr_employees", ("id",)) for c in extra if c.name == "created_by"]
    return replace(table, columns=(*table.columns, *extra), foreign_keys=(*table.foreign_keys, *links))
