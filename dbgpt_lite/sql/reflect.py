"""Read a schema from a live database through SQLAlchemy's inspector; no SQL of our own."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import ReflectedColumn
    from sqlalchemy.engine.reflection import Inspector


def reflect(connection: "Connection") -> Schema:
    """All tables and views of the connection's own database, in the order of their names."""
    inspector = inspect(connection)
    views = set(inspector.get_view_names())
    names = sorted({*inspector.get_table_names(), *views})
    found = (_table(inspector, name, name in views) for name in names)
    return Schema(tuple(table for table in found if table is not None))


def _table(inspector: "Inspector", name: str, is_view: bool) -> TableInfo | None:
    """One table; None for a view that is broken or may not be read, so that one bad view does not hide the rest."""
    try:
        key = set(inspector.get_pk_constraint(name)["constrained_columns"] or ()) if not is_view else set()
        columns = tuple(_column(column, column["name"] in key) for column in inspector.get_columns(name))
        keys = () if is_view else tuple(_foreign_key(inspector, found) for found in inspector.get_foreign_keys(name))
    except SQLAlchemyError:
        return None
    return TableInfo(name, columns, tuple(key for key in keys if key), _comment(inspector, name), is_view)


def _column(column: "ReflectedColumn", primary_key: bool) -> ColumnInfo:
    try:
        type_name = "" if type(column["type"]).__name__ == "NullType" else str(column["type"])
    except SQLAlchemyError:
        type_name = ""
    return ColumnInfo(column["name"], type_name.split(" COLLATE ")[0], primary_key, column.get("comment") or "")


def _foreign_key(inspector: "Inspector", found: Any) -> ForeignKey | None:
    if found.get("referred_schema"):
        return None
    target = found["referred_table"]
    columns = tuple(found["constrained_columns"])
    # SQLite lets a key leave out the target columns: then they are its primary key.
    targets = tuple(found["referred_columns"] or inspector.get_pk_constraint(target)["constrained_columns"])
    return ForeignKey(columns, target, targets) if len(columns) == len(targets) else None


def _comment(inspector: "Inspector", name: str) -> str:
    try:
        return inspector.get_table_comment(name)["text"] or ""
    except (NotImplementedError, SQLAlchemyError):
        return ""
