"""Schema text, look-up and the choice of tables; the rendering of the starter model's card."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.sql.database import Database
from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo, ddl, quoted
from dbgpt_lite.sql.words import content_words, singular
from tests.sql.corpus import SMALL, table

CARD = """\
CREATE TABLE branches (id INTEGER PRIMARY KEY, name TEXT, town TEXT);
CREATE TABLE readers (id INTEGER PRIMARY KEY, full_name TEXT, joined_on TEXT, branch_id INTEGER, \
FOREIGN KEY (branch_id) REFERENCES branches(id));
CREATE TABLE loans (id INTEGER PRIMARY KEY, reader_id INTEGER, book_id INTEGER, loan_date TEXT, return_date TEXT, \
fine REAL, FOREIGN KEY (reader_id) REFERENCES readers(id), FOREIGN KEY (book_id) REFERENCES books(id));
CREATE TABLE books (id INTEGER PRIMARY KEY, title TEXT, author TEXT, pages INTEGER, published_year INTEGER);"""


def _key(column: str, target: str) -> ForeignKey:
    return ForeignKey((column,), target, ("id",))


def test_rendering_is_the_one_of_the_model_card():
    loans = table(
        "loans",
        "id INT*",
        "reader_id INT",
        "book_id INT",
        "loan_date DATE",
        "return_date DATETIME",
        "fine DECIMAL(6,2)",
    )
    schema = Schema(
        (
            table("branches", "id INTEGER*", "name VARCHAR(30)", "town TEXT"),
            table(
                "readers",
                "id BIGINT*",
                "full_name TEXT",
                "joined_on DATE",
                "branch_id INT",
                refers=("branch_id", "branches"),
            ),
            TableInfo("loans", loans.columns, (_key("reader_id", "readers"), _key("book_id", "books"))),
            table("books", "id SERIAL*", "title TEXT", "author CHAR(9)", "pages SMALLINT", "published_year YEAR"),
        )
    )
    assert ddl(schema) == CARD


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("INTEGER", "INTEGER INT BIGINT TINYINT(1) BOOLEAN BOOL BIT(1) YEAR MEDIUMINT"),
        ("REAL", "REAL FLOAT DOUBLE DECIMAL(10,2) NUMERIC MONEY"),
        ("TEXT", "TEXT VARCHAR(50) CHAR DATE DATETIME TIME TIMESTAMP BLOB JSON ENUM UUID POINT GEOMETRY"),
    ],
)
def test_kinds(kind, types):
    assert {ColumnInfo("x", type_name).kind for type_name in types.split()} == {kind}


def test_only_tables_that_are_shown_are_referred_to():
    assert "FOREIGN KEY" in ddl(SMALL)
    assert ddl(SMALL, ["Orders"]) == "CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL, customer_id INTEGER);"


def test_composite_keys_have_no_primary_key_clause_and_one_clause_a_column():
    parts = TableInfo("parts", (ColumnInfo("a", "INT", True), ColumnInfo("b", "INT", True)))
    uses = TableInfo(
        "uses", (ColumnInfo("x", "INT"), ColumnInfo("y", "INT")), (ForeignKey(("x", "y"), "parts", ("a", "b")),)
    )
    assert ddl(Schema((parts, uses))) == (
        "CREATE TABLE parts (a INTEGER, b INTEGER);\n"
        "CREATE TABLE uses (x INTEGER, y INTEGER, "
        "FOREIGN KEY (x) REFERENCES parts(a), FOREIGN KEY (y) REFERENCES parts(b));"
    )


def test_with_comments_for_larger_models():
    sales = TableInfo(
        "sales",
        (
            ColumnInfo("a", "INT", True),
            ColumnInfo("b", "INT", True),
            ColumnInfo("amt", "DECIMAL(8,2)", comment="net */ amount"),
        ),
        comment="one row\na sale",
    )
    assert ddl(Schema((sales,)), comments=True) == (
        "CREATE TABLE sales (a INT, b INT, amt DECIMAL(8,2) /* net amount */, PRIMARY KEY (a, b)); -- one row a sale"
    )


@given(st.text(min_size=1, max_size=12))
def test_quoted_names_work_in_sqlite(name):
    name = name.replace("\x00", "")
    if not name or any(0xD800 <= ord(letter) <= 0xDFFF for letter in name):
        return
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE t ({quoted(name)} TEXT)")
        assert connection.execute("SELECT * FROM t").description[0][0] == name


def test_names_are_found_in_any_case_and_near_misses_suggested():
    assert SMALL.table("ORDERS").name == "orders"
    assert SMALL.table("orders").column("AMOUNT").name == "amount"
    assert SMALL.table("order") is None
    assert SMALL.similar_table("Order") == "orders"
    assert SMALL.similar_table("xyz") == ""


def test_two_tables_that_differ_in_case_are_kept_apart():
    schema = Schema((table("Users", "a TEXT"), table("users", "b TEXT")))
    assert schema.table("Users").columns[0].name == "a"
    assert schema.table("users").columns[0].name == "b"


@pytest.mark.parametrize(
    ("plural", "one"),
    [("cities", "city"), ("boxes", "box"), ("orders", "order"), ("status", "status"), ("address", "address")],
)
def test_singular(plural, one):
    assert singular(plural) == one


def test_words_of_names_in_any_style():
    assert content_words("OrderItems order_date HTTPCode2") == {"order", "item", "date", "http", "code"}
    assert content_words("How many customers are there?") == {"customer"}
    assert "客户" in content_words("每个客户的订单")
    assert {"customer", "order", "amount"} <= SMALL.words


def test_a_comment_cannot_end_itself_from_within():
    column = ColumnInfo("a", "INT", comment="x **//**/ y", values=("A", "it's"))
    assert ddl(Schema((TableInfo("t", (column,)),)), comments=True) == (
        "CREATE TABLE t (a INT /* x * y; values: 'A', 'it''s' */);"
    )


def test_reflection_of_sqlite(tmp_path):
    path = tmp_path / "r.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE a (x INT, y INT, PRIMARY KEY (x, y));"
            "CREATE TABLE b (id INTEGER PRIMARY KEY, ax INT, ay INT, c_id INT REFERENCES c,"
            " FOREIGN KEY (ax, ay) REFERENCES a(x, y));"
            "CREATE TABLE c (id INTEGER PRIMARY KEY, odd, weird FROBNICATE);"
            "CREATE VIEW v AS SELECT x, y + 1 AS z FROM a;"
            "CREATE VIEW broken AS SELECT gone FROM missing;"
        )
    schema = Database("r", f"sqlite:///{path}").schema()
    assert {t.name for t in schema.tables} >= {"a", "b", "c", "v"}
    assert {key.target: (key.columns, key.target_columns) for key in schema.table("b").foreign_keys} == {
        "a": (("ax", "ay"), ("x", "y")),
        "c": (("c_id",), ("id",)),
    }
    assert schema.table("v").is_view
    assert [column.name for column in schema.table("v").columns] == ["x", "z"]
    assert "CREATE TABLE c (id INTEGER PRIMARY KEY, odd TEXT, weird " in ddl(schema)
