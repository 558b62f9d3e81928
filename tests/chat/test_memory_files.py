"""Examples and terms as JSON lines: what is written is read back, and what is wrong is told with its line."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbgpt_lite.chat import memory_files
from dbgpt_lite.chat.memory_files import (
    one_a_question,
    read_examples,
    read_terms,
    write_examples,
    write_terms,
)
from dbgpt_lite.errors import QueryRefused, TooLarge, UserError
from dbgpt_lite.query_store import Example, NewExample, NewTerm, Term, one_line, question_key

GOOD = {"connection": "shop", "question": "How many orders?", "sql": "SELECT count(*) FROM orders"}


def check(connection: str, sql: str) -> tuple[str, str]:
    if not sql.startswith("SELECT"):
        raise QueryRefused("sql.not_select", kind=sql.split()[0])
    return connection or "first", sql


def lines(*objects: object) -> bytes:
    return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in objects).encode()


def test_examples_are_read_with_empty_lines_marks_and_defaults() -> None:
    other = {"question": "多少客户？", "sql": "SELECT '\u2028'"}
    named = {"question": "x", "sql": "SELECT 1", "language": "zh", "connection": ""}
    content = b"\xef\xbb\xbf" + lines(GOOD, "", other, " ", named).replace(b"\n", b"\r\n")
    assert read_examples(content, "hr", check) == [
        NewExample("shop", "How many orders?", "SELECT count(*) FROM orders", "en"),
        NewExample("hr", "多少客户？", "SELECT '\u2028'", "zh"),
        NewExample("hr", "x", "SELECT 1", "zh"),
    ]
    assert read_examples(b"", "", check) == []
    assert read_examples(lines(named), "", check)[0].connection == "first"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "JSON"),
        ("[1]", "JSON"),
        ("NaN", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"question": "a", "question": "b", "sql": "SELECT 1"}', "once"),
        ({**GOOD, "question": "q", "note": "x"}, "note"),
        ({**GOOD, "question": 7}, "question"),
        ({**GOOD, "question": None}, "question"),
        ({**GOOD, "question": " \u200b"}, "question"),
        ({"question": "q"}, "sql"),
        ({**GOOD, "question": "q" * 1001}, "1001"),
        ({**GOOD, "question": "q", "language": "fr"}, "fr"),
        ({**GOOD, "question": "q", "sql": "DROP TABLE orders"}, "DROP"),
        ({**GOOD, "question": "how many  orders"}, "line 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(bad: object, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read_examples(lines(GOOD, "", bad), "", check)
    assert str(caught.value).startswith("Line 3: ")
    assert reason in str(caught.value)


def test_a_nested_reason_is_in_the_readers_language() -> None:
    with pytest.raises(UserError) as caught:
        read_examples(lines({**GOOD, "sql": "DROP TABLE x"}), "", check)
    reason = QueryRefused("sql.not_select", kind="DROP")
    assert reason.render("zh") in caught.value.render("zh")
    assert reason.render("en") in caught.value.render("en")


def test_other_encodings_and_huge_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^Line 2: .*UTF-8"):
        read_terms(lines({"term": "a", "meaning": "b"}) + "\n毛利".encode("gb18030"), "")
    monkeypatch.setattr(memory_files, "MAX_LINES", 2)
    with pytest.raises(TooLarge):
        read_terms(lines(*({"term": f"t{n}", "meaning": "m"} for n in range(3))), "")
    monkeypatch.setattr(memory_files, "MAX_BYTES", 10)
    with pytest.raises(TooLarge):
        read_terms(b" " * 11, "")


def test_terms_of_a_file() -> None:
    content = lines({"term": "ARR", "meaning": "yearly revenue"}, {"term": "arr", "meaning": "x", "connection": "hr"})
    assert read_terms(content, "") == [NewTerm("ARR", "yearly revenue"), NewTerm("arr", "x", "", "hr")]
    with pytest.raises(UserError, match=r"^Line 2: .*line 1"):
        read_terms(content, "hr")
    with pytest.raises(UserError, match="meaning"):
        read_terms(lines({"term": "ARR"}), "")


_line = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(one_line).filter(bool)
_sql = st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: f"SELECT {text}")
_now = datetime.now(UTC)


@given(
    st.lists(
        st.builds(Example, _line, _line, _sql, st.sampled_from(["en", "zh"])),
        max_size=5,
        unique_by=lambda one: (one.connection, question_key(one.question)),
    )
)
def test_what_is_exported_is_imported_as_it_was(examples: list[Example]) -> None:
    found = read_examples(write_examples(examples).encode(), "", check)
    assert found == [NewExample(one.connection, one.question, one.sql, one.language) for one in examples]


@given(
    st.lists(
        st.builds(Term, _line, _line, _line | st.just(""), _line | st.just("")),
        max_size=5,
        unique_by=lambda one: (one.connection, question_key(one.term)),
    )
)
def test_a_glossary_is_imported_as_it_was(terms: list[Term]) -> None:
    found = read_terms(write_terms(terms).encode(), "")
    assert found == [NewTerm(one.term, one.meaning, one.sql, one.connection) for one in terms]


def test_of_a_question_that_several_people_taught_the_newest_is_written() -> None:
    def taught(number: int, question: str, connection: str = "shop", day: int = 1) -> Example:
        when = datetime(2026, 1, day, tzinfo=UTC)
        return Example(connection, question, f"SELECT {number}", "en", "thumbs", number, f"user:{number}", when)

    examples = [taught(1, "How many?", day=3), taught(2, "How many?", "hr"), taught(3, "how  many", day=2),
                taught(4, "Which?"), taught(5, "which")]  # fmt: skip
    kept = one_a_question(examples)
    assert [one.sql for one in kept] == ["SELECT 1", "SELECT 2", "SELECT 5"]
    assert len(read_examples(write_examples(kept).encode(), "", check)) == 3
