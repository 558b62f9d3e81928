"""The part of a schema that is shown: what was asked for is there, what joins it too, and it fits."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.enterprise_schema import COLUMNS, TABLES, enterprise_schema, questions
from dbgpt_lite.sql.joins import Joins
from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo, ddl
from dbgpt_lite.sql.schema_index import Vectors, terms
from dbgpt_lite.sql.schema_search import KEPT, Picked, SchemaSearch
from dbgpt_lite.sql.thesaurus import chinese_words, in_english, synonyms
from dbgpt_lite.sql.word_match import Vocabulary, shortens, stem
from dbgpt_lite.sql.words import singular
from tests.sql.corpus import table

ROOM = 6000


@pytest.fixture(scope="module")
def large() -> Schema:
    return enterprise_schema()


@pytest.fixture(scope="module")
def search() -> SchemaSearch:
    return SchemaSearch()


def in_room(room: int):
    return lambda schema: len(ddl(schema, comments=True)) <= room


def names(picked: Picked) -> set[str]:
    return {t.name for t in picked.schema.tables}


def test_the_made_schema_is_of_the_promised_size_and_its_questions_name_columns_it_has(large):
    assert len(large.tables) == TABLES == 500
    assert sum(len(t.columns) for t in large.tables) == COLUMNS == 8000
    assert len({t.name for t in large.tables}) == TABLES
    for question in questions():
        for owner, column in question.columns:
            assert large.table(owner).name == owner
            assert large.table(owner).column(column), (question.text, owner, column)
    assert {(q.half, q.language) for q in questions()} == {(h, n) for h in ("dev", "held") for n in ("en", "zh")}


@pytest.mark.parametrize("half", ["dev", "held"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_and_keys_alone_find_nearly_everything_in_500_tables(large, search, half, language):
    asked = [q for q in questions() if (q.half, q.language) == (half, language)]
    found = [q.tables <= names(search.pick("big", large, q.text, in_room(ROOM))) for q in asked]
    assert sum(found) / len(found) >= 0.9


def test_what_is_shown_fits_and_is_counted(large, search):
    picked = search.pick("big", large, "total value of sales orders per customer city", in_room(ROOM))
    assert len(ddl(picked.schema, comments=True)) <= ROOM
    assert (picked.tables, picked.of_tables) == (len(picked.schema.tables), TABLES)
    assert picked.columns == sum(len(t.columns) for t in picked.schema.tables)
    assert picked.of_columns == COLUMNS
    assert picked.tables > 10


def test_a_schema_that_fits_is_shown_whole(shop_schema):
    picked = SchemaSearch().pick("shop", shop_schema, "anything", lambda schema: True)
    assert picked.schema is shop_schema
    assert picked.tables == picked.of_tables == len(shop_schema.tables)


def test_one_table_at_least_is_shown(shop_schema):
    picked = SchemaSearch().pick("shop", shop_schema, "orders", lambda schema: False)
    assert [t.name for t in picked.schema.tables] == ["orders"]


def test_the_way_between_tables_is_shown_with_its_keys(shop_schema):
    picked = SchemaSearch().pick("shop", shop_schema, "suppliers with bad reviews", lambda s: len(s.tables) <= 3)
    assert names(picked) == {"suppliers", "products", "reviews"}
    shown = {t.name: {c.name for c in t.columns} for t in picked.schema.tables}
    assert {"id", "supplier_id"} <= shown["products"]
    assert "product_id" in shown["reviews"]
    assert "REFERENCES suppliers(id)" in ddl(picked.schema)


def test_a_wide_table_keeps_its_keys_and_what_was_asked_for():
    columns = tuple(ColumnInfo(f"measure{n}", "INT") for n in range(300))
    wide = TableInfo(
        "readings",
        (ColumnInfo("id", "INT", True), *columns, ColumnInfo("air_humidity", "REAL"), ColumnInfo("sensor_id", "INT")),
        (ForeignKey(("sensor_id",), "sensors", ("id",)),),
    )
    schema = Schema((wide, table("sensors", "id INT*", "place TEXT")))
    picked = SchemaSearch().pick("w", schema, "humidity by place of the sensor", in_room(400))
    assert names(picked) == {"readings", "sensors"}
    assert {"id", "air_humidity", "sensor_id"} <= {c.name for c in picked.schema.table("readings").columns}
    assert picked.columns < picked.of_columns


def test_columns_and_tables_stay_in_the_order_of_the_schema(large, search):
    picked = search.pick("big", large, "net pay of employees", in_room(ROOM))
    place = {t.name: n for n, t in enumerate(large.tables)}
    assert [place[t.name] for t in picked.schema.tables] == sorted(place[t.name] for t in picked.schema.tables)
    for shown in picked.schema.tables:
        whole = [c.name for c in large.table(shown.name).columns]
        assert [c.name for c in shown.columns] == [name for name in whole if shown.column(name)]


WORDS = ["order", "customer", "city", "cust_nm", "订单", "客户", "archive", "total", "id", "name", "log", "价格"]


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Up to 12 tables of odd names with keys among them, declared or told by names only."""
    count = draw(st.integers(2, 12))
    tables = []
    for n in range(count):
        own = [
            f"{word}{n if draw(st.booleans()) else ''}" for word in draw(st.lists(st.sampled_from(WORDS), max_size=6))
        ]
        target = draw(st.integers(0, count - 1))
        columns = [ColumnInfo("key", "INT", True), *(ColumnInfo(name, "TEXT") for name in dict.fromkeys(own))]
        columns.append(ColumnInfo(f"thing{target}_id", "INT"))
        keys = (ForeignKey((columns[-1].name,), f"thing{target}", ("key",)),) if draw(st.booleans()) else ()
        tables.append(TableInfo(f"thing{n}", tuple(columns), keys, draw(st.sampled_from(["", *WORDS]))))
    return Schema(tuple(tables))


def reachable(joins: Joins, start: str) -> set[str]:
    seen, left = {start}, [start]
    while left:
        for near in joins.neighbours[left.pop()] - seen:
            seen.add(near)
            left.append(near)
    return seen


@given(schemas(), st.lists(st.sampled_from(WORDS), max_size=5), st.integers(50, 900))
def test_any_part_is_joined_keyed_and_fits(schema: Schema, asked: list[str], room: int) -> None:
    def fits(some: Schema) -> bool:
        return len(ddl(some)) <= room

    picked = SchemaSearch().pick("x", schema, " ".join(asked), fits).schema
    assert picked.tables
    assert fits(picked) or len(picked.tables) == 1
    joins = Joins(schema)
    shown = {t.name for t in picked.tables}
    needed = joins.keys_between(frozenset(shown))
    for part in picked.tables:
        whole = schema.table(part.name)
        assert whole
        assert set(part.columns) <= set(whole.columns)
        assert part.column("key")
        assert needed[part.name] <= {c.name.lower() for c in part.columns}
        for key in part.foreign_keys:
            assert key.target in shown
    # Whatever can be joined in the whole schema within the longest way shown can be joined in the part.
    within = Joins(picked)
    first = picked.tables[0].name
    for name in shown:
        way = joins.way(name, [first], lambda _: 1.0)
        if 0 < len(way) <= 5:
            assert name in reachable(within, first)


def test_joins_by_declared_keys_and_by_names():
    schema = Schema(
        (
            table("customers", "id INT*", "name TEXT"),
            table("cities", "city_code TEXT*", "name TEXT"),
            table("orders", "id INT*", "customer_id INT", "city_code TEXT", "created_by INT", "region_id INT"),
            table("users", "id INT*"),
            table("region", "id TEXT*"),
            TableInfo(
                "audits", (ColumnInfo("id", "INT", True), ColumnInfo("created_by", "INT")),
                (ForeignKey(("created_by",), "users", ("id",)),),
            ),
        )
    )  # fmt: skip
    joins = Joins(schema)
    # region's key is text and region_id a number: no join. Who wrote a row joins nothing.
    assert joins.neighbours["orders"] == {"customers", "cities"}
    assert joins.neighbours["users"] == frozenset()
    assert joins.way("customers", ["cities"], lambda _: 1.0) == ("customers", "orders", "cities")
    assert joins.way("customers", ["users"], lambda _: 1.0) == ()
    assert joins.keys_between(frozenset({"orders", "cities"})) == {"orders": {"city_code"}, "cities": {"city_code"}}


@pytest.mark.parametrize(
    ("short", "word"), [("cust", "customer"), ("qty", "quantity"), ("nm", "name"), ("dt", "date"), ("amt", "amount")]
)
def test_usual_ways_to_shorten(short, word):
    assert shortens(short, word)
    assert Vocabulary([short]).matches(word)


@pytest.mark.parametrize(("short", "word"), [("cat", "contact"), ("no", "none"), ("a", "amount"), ("ust", "customer")])
def test_no_ways_to_shorten(short, word):
    assert not shortens(short, word)


def test_words_are_matched_by_stem_synonym_and_spelling():
    assert stem("delivered") == stem("delivery") == stem("delivering")
    assert Vocabulary(["delivery"]).matches("delivered") == {0: 0.9}
    assert Vocabulary(["supplier", "vndr"]).matches("vendor").keys() == {0, 1}
    assert Vocabulary(["customer"]).matches("客户")
    assert Vocabulary(["maintenance"]).matches("maintainance")
    assert not Vocabulary(["customs"]).matches("customer")


def test_the_thesaurus_holds_its_own_form():
    for word in synonyms():
        assert word == word.lower()
        assert word.isascii() or chinese_words(word) == [word]
    assert {"client", "cust", "客户"} <= synonyms()["customer"]
    assert in_english("各部门的供应商") == "department supplier"
    assert singular("customers") in synonyms()


def test_terms_of_questions():
    assert {t.word for t in terms("How many customers placed orders?")} == {"customer", "placed", "order"}
    assert {"供应商", "采购", "订单"} <= {t.word for t in terms("按供应商统计采购订单有多少")}
    assert "work_order" in {t.word for t in terms("overdue work orders")}
    assert terms("") == ()


class Embedding:
    """Unit vectors by whether a text speaks of the sea; records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.go.wait(30)
        self.asked.append(list(texts))
        sea = [any(word in text for word in ("ocean", "vessel")) for text in texts]
        return np.array([[1, 0] if found else [0, 1] for found in sea], dtype=np.float32)


def _fleet() -> Schema:
    """Many tables, of which no word but `vessels` has to do with the sea."""
    others = (table(f"thing{n}", "id INT*", *(f"part{n}x{m} TEXT" for m in range(20))) for n in range(90))
    return Schema((*others, table("vessels", "id INT*", "flag TEXT")))


def test_vectors_find_what_no_word_tells_and_are_made_once():
    embed, schema = Embedding(), _fleet()
    search = SchemaSearch(embed)
    search.warm("f", schema)
    made = len(embed.asked)
    picked = search.pick("f", schema, "who rides the ocean", lambda s: len(s.tables) <= 3)
    assert "vessels" in names(picked)
    assert embed.asked[made:] == [["who rides the ocean"]]
    search.warm("f", Schema(tuple(schema.tables)))
    assert len(embed.asked) == made + 1
    changed = Schema((*schema.tables, table("harbours", "id INT*")))
    search.warm("f", changed)
    assert embed.asked[-1] == ["harbour: id"]


def test_a_question_does_not_wait_for_vectors():
    embed = Embedding()
    embed.go.clear()
    search, schema = SchemaSearch(embed), _fleet()
    picked = search.pick("f", schema, "flag of vessels", lambda s: len(s.tables) <= 3)
    assert "vessels" in names(picked)
    embed.go.set()
    search.warm("f", schema)
    assert len(embed.asked) == 1


def test_an_embedder_that_fails_leaves_words_and_is_not_asked_again(caplog):
    calls = []

    def fail(texts: Sequence[str]) -> Vectors:
        calls.append(len(texts))
        raise RuntimeError("secret path")

    search, schema = SchemaSearch(fail), _fleet()
    for _ in range(3):
        search.warm("f", schema)
        picked = search.pick("f", schema, "flag of vessels", lambda s: len(s.tables) <= 2)
        assert "vessels" in names(picked)
    assert len(calls) == 1
    assert "secret" not in caplog.text


def test_only_so_many_schemas_are_kept():
    search = SchemaSearch()
    for n in range(KEPT + 5):
        search.warm(f"c{n}", Schema((table("t", "id INT*"),)))
    assert len(search._places) == KEPT


def test_values_point_to_their_column():
    tables = [table(f"t{n}", "id INT*", "kind TEXT") for n in range(30)]
    holder = TableInfo("zz", (ColumnInfo("id", "INT", True), ColumnInfo("st", "TEXT", values=("shipped", "已取消"))))
    schema = Schema((*tables, holder))
    for question in ("what was shipped", "已取消的有多少"):
        assert "zz" in names(SchemaSearch().pick("v", schema, question, lambda s: len(s.tables) <= 2))
