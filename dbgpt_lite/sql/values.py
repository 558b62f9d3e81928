"""The few values of a text column, read so that a model knows how they are spelled: 'shipped', 'Brazil', '男'.

They are data that leaves the database for a prompt, so little is read: columns of short text that repeat a few values,
or the rows of a small table that others refer to. Columns that name or reach a person, hold secrets or long text are
never read, and one such value keeps the whole column out. One statement a table, over its first rows only; views are
left out, since the first row of a view may cost a whole scan.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from dbgpt_lite.errors import QueryFailed, QueryRefused, QueryTimeout, UserError
from dbgpt_lite.messages import ResultTable
from dbgpt_lite.sql.schema import VALUE_LENGTH, ColumnInfo, Schema, TableInfo

log = logging.getLogger(__name__)

ROWS_READ = 1000
"""Rows of a table that are looked at: a value that none of them holds is not known."""
STATEMENT_SECONDS = 1.0
TOTAL_SECONDS = 5.0
# SQLite takes no more SELECTs in one statement.
_COLUMNS_A_STATEMENT = 100
_SHORT_TEXT = re.compile(
    r"(?:N?VARCHAR2?|N?CHAR|CHARACTER|ENUM|TINYTEXT|TEXT)\b(?:\((?P<length>\d+)\))?", re.IGNORECASE
)
_LONGEST_TYPE = 255
_PRIVATE_NAME = re.compile(
    r"pass|pwd|secret|token|credential|api_?key|hash|salt|signature|\bpin\b|_pin\b|ssn|mail|phone|mobile|\btel|_tel|fax|"
    r"address|street|addr|card|iban|account_?n|licen|birth|first_?name|last_?name|full_?name|given_?name|family_?name|"
    r"middle_?name|surname|nick_?name|user_?name|login|contact|comment|note|remark|memo|descr|summary|body|message|content|"
    r"text\b|subject|url|uri|path|\bip\b|ip_|_ip\b|file|"
    r"密码|口令|密钥|令牌|邮箱|邮件|电话|手机|身份证|证件|护照|地址|住址|卡号|账号|帐号|姓名|昵称|联系|出生|备注|内容|说明|描述|留言",
    re.IGNORECASE,
)
# An address on the net, a person's number, a key or hash: long digits, or long without a space and of mixed kinds.
_PRIVATE_VALUE = re.compile(r"@|://|(?:\d[ -]?){7,}|(?=\S*\d)(?=\S*[A-Za-z])\S{16,}|\beyJ|\bsk-|-----", re.IGNORECASE)
_NUMBER_OR_DATE = re.compile(r"[\d\s.,:/+T-]+Z?")

Ask = Callable[[str, float], ResultTable]
"""Runs one statement within so many seconds behind the session's fences."""


def with_values(
    schema: Schema, dialect: str, ask: Ask, most: int, clock: Callable[[], float] = time.monotonic
) -> Schema:
    """`schema` with `values` set for the text columns that hold at most `most` different ones.

    A table that cannot be read in time keeps none, and what is not read within TOTAL_SECONDS in all stays unread. Never
    raises what the database raises.
    """
    if most <= 0:
        return schema
    ends = clock() + TOTAL_SECONDS
    referred = frozenset(key.target.lower() for table in schema.tables for key in table.foreign_keys)
    tables: list[TableInfo] = []
    for place, table in enumerate(schema.tables):
        left = ends - clock()
        if left <= 0:
            log.info("values of %d tables were not read: the time for it is over", len(schema.tables) - place)
            return Schema((*tables, *schema.tables[place:]))
        try:
            tables.append(
                _read(table, dialect, ask, most, min(left, STATEMENT_SECONDS), table.name.lower() in referred)
            )
        except (QueryFailed, QueryRefused, QueryTimeout):
            tables.append(table)
        except UserError as error:
            log.info("values of %d tables were not read: %s", len(schema.tables) - place, type(error).__name__)
            return Schema((*tables, *schema.tables[place:]))
    return Schema(tuple(tables))


def statement(table: TableInfo, columns: Sequence[ColumnInfo], dialect: str, most: int) -> str:
    """One SELECT: (number of the column, value, how often) over the first rows; one group more than `most` and NULL."""
    parts = (_part(number, table.name, column.name, dialect, most + 2) for number, column in enumerate(columns))
    return " UNION ALL ".join(parts)


def _part(number: int, table: str, column: str, dialect: str, groups: int) -> str:
    name, source = _quoted(column, dialect), _quoted(table, dialect)
    rows = f"(SELECT {name} AS r FROM {source} LIMIT {ROWS_READ}) AS rows_read"
    # In binary order, so that values which differ in case stay apart; SQLite's columns may hold any type.
    value = "CONVERT(r USING utf8mb4) COLLATE utf8mb4_bin" if dialect == "mysql" else "r"
    only = "" if dialect == "mysql" else " WHERE typeof(r) IN ('text', 'null')"
    grouped = f"SELECT {value} AS v, COUNT(*) AS n FROM {rows}{only} GROUP BY v LIMIT {groups}"
    return f"SELECT {number} AS c, v, n FROM ({grouped}) AS groups_read"


def _quoted(name: str, dialect: str) -> str:
    mark = "`" if dialect == "mysql" else '"'
    return mark + name.replace(mark, mark * 2) + mark


def _read(table: TableInfo, dialect: str, ask: Ask, most: int, seconds: float, referred: bool) -> TableInfo:
    candidates = [] if table.is_view else [column for column in table.columns if _may_be_read(column)]
    small = referred and not any(_PRIVATE_NAME.search(f"{column.name} {column.comment}") for column in table.columns)
    values: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(candidates), _COLUMNS_A_STATEMENT):
        part = candidates[start : start + _COLUMNS_A_STATEMENT]
        found = ask(statement(table, part, dialect, most), seconds)
        for number, counts in _by_column(found).items():
            values[part[number].name] = _kept(counts, most, small)
    columns = tuple(replace(column, values=values.get(column.name, ())) for column in table.columns)
    return replace(table, columns=columns) if values else table


def _may_be_read(column: ColumnInfo) -> bool:
    found = _SHORT_TEXT.match(column.type)
    if column.primary_key or not found or int(found["length"] or 0) > _LONGEST_TYPE:
        return False
    return not _PRIVATE_NAME.search(f"{column.name} {column.comment}")


def _by_column(found: ResultTable) -> Mapping[int, Mapping[object, int]]:
    counts: dict[int, dict[object, int]] = {}
    for number, value, count in _rows(found):
        counts.setdefault(number, {})[value] = count
    return counts


def _rows(found: ResultTable) -> Iterator[tuple[int, object, int]]:
    for number, value, count in found.rows:
        yield int(str(number)), value, int(str(count))


def _kept(counts: Mapping[object, int], most: int, small: bool) -> tuple[str, ...]:
    """The values, the commonest first; none when there are too many, too few rows to tell, or one that is private.

    Values that hardly repeat are rather names than kinds, unless the table is `small`: a list that others refer to.
    """
    texts = {str(value): count for value, count in counts.items() if value is not None}
    if not texts or len(texts) > most or any(_private(value) for value in texts):
        return ()
    if all(_NUMBER_OR_DATE.fullmatch(value) for value in texts):
        return ()
    if sum(texts.values()) < 2 * len(texts) and not small:
        return ()
    return tuple(sorted(texts, key=lambda value: (-texts[value], value)))


def _private(value: str) -> bool:
    """Whether a value may identify somebody or be a secret, or is no kind of anything: long, or of several lines."""
    return len(value) > VALUE_LENGTH or "\n" in value or "\r" in value or bool(_PRIVATE_VALUE.search(value))
