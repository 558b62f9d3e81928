"""Driver errors as ours: a class and the useful part of the message, never a host, a user, a password or a path."""

import re

import pymysql

from dbgpt_lite.errors import DatabaseError, QueryFailed, QueryRefused, QueryTimeout

# MySQL and MariaDB error numbers: https://mariadb.com/kb/en/mariadb-error-code-reference/
_DENIED = (1044, 1045, 1698, 3159, 4151)
_LOST = (2006, 2013, 2014, 2055, 1927, 1053, 4031)
_DOWN = (2001, 2002, 2003, 2005, 1040, 1129, 1203, 1226)
_NO_RIGHT = (1142, 1143, 1227, 1370, 1356)
_TIMEOUT = (1969, 3024, 1205)
_READ_ONLY = (1792, 1290, 1836)

_MYSQL_NAMES = {
    1054: ("sql.db_no_column", r"Unknown column '([^']{1,130})'"),
    1146: ("sql.db_no_table", r"Table '(?:[^']*\.)?([^'.]{1,64})' doesn't exist"),
    1052: ("sql.db_ambiguous", r"Column '([^']{1,130})'"),
    1060: ("sql.db_ambiguous", r"Duplicate column name '([^']{1,130})'"),
    1305: ("sql.function", r"FUNCTION (?:[^ ]*\.)?([^ .]{1,64}) does not exist"),
    1055: ("sql.db_group_by", r"column '([^']{1,200})'"),
}
_MYSQL_KEYS = {
    1064: "sql.db_syntax",
    1111: "sql.db_aggregate",
    1140: "sql.db_group_by_any",
    1222: "sql.db_column_count",
    1241: "sql.db_one_column",
    4078: "sql.db_types",
    1242: "sql.db_one_row",
}
_SQLITE_NAMES = (
    ("sql.db_no_column", r"no such column: ([^\n]{1,130})"),
    ("sql.db_no_table", r"no such table: ([^\n]{1,130})"),
    ("sql.db_ambiguous", r"ambiguous column name: ([^\n]{1,130})"),
    ("sql.function", r"no such function: ([^\n]{1,64})"),
    ("sql.db_arguments", r"wrong number of arguments to function ([^\n(]{1,64})"),
)
_SQLITE_KEYS = (
    ("syntax error", "sql.db_syntax"),
    ("misuse of", "sql.db_aggregate"),
    ("same number of result columns", "sql.db_column_count"),
    ("sub-select returns", "sql.db_one_column"),
    ("row value misused", "sql.db_one_column"),
    ("too big", "sql.db_too_big"),
)


def mysql_code(error: BaseException) -> int:
    """The server's error number, 0 when there is none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, so that a new one may succeed."""
    return mysql_code(error) in _LOST or isinstance(error, OSError | pymysql.InterfaceError)


def mysql_fault(error: BaseException, name: str, seconds: float) -> DatabaseError:
    """What a pymysql error of the connection `name` means. `seconds` is the time limit."""
    code = mysql_code(error)
    message = str(error.args[1]) if len(error.args) > 1 else ""
    if code in _TIMEOUT:
        return QueryTimeout("sql.timeout", seconds=f"{seconds:g}")
    if code in _DENIED:
        return DatabaseError("sql.denied", name=name)
    if code == 1049:
        return DatabaseError("sql.no_such_database", name=name)
    if code in _DOWN or is_lost(error):
        return DatabaseError("sql.unreachable", name=name)
    if code in _NO_RIGHT:
        return QueryFailed("sql.no_right", name=name)
    if code in _READ_ONLY:
        return QueryRefused("sql.read_only")
    if code in _MYSQL_NAMES:
        key, pattern = _MYSQL_NAMES[code]
        found = re.search(pattern, message)
        if found:
            return QueryFailed(key, name=found[1])
    if code in _MYSQL_KEYS:
        return QueryFailed(_MYSQL_KEYS[code])
    return QueryFailed("sql.failed", code=code or type(error).__name__)


def sqlite_fault(error: BaseException, name: str) -> DatabaseError:
    """What a sqlite3 error of the connection `name` means."""
    message = str(error)
    if message.startswith("access to") and "prohibited" in message:
        return QueryRefused("sql.hidden")
    if "prohibited" in message or "not authorized" in message or "readonly" in message:
        return QueryRefused("sql.read_only")
    if "unable to open" in message or "not a database" in message or "malformed" in message or "disk I/O" in message:
        return DatabaseError("sql.bad_file", name=name)
    if "locked" in message or "busy" in message:
        return DatabaseError("sql.locked", name=name)
    for key, pattern in _SQLITE_NAMES:
        found = re.search(pattern, message)
        if found:
            return QueryFailed(key, name=found[1])
    for part, key in _SQLITE_KEYS:
        if part in message:
            return QueryFailed(key)
    return QueryFailed("sql.failed", code=getattr(error, "sqlite_errorname", type(error).__name__))
