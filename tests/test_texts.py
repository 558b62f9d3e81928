import pytest

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.texts import memory_size, text, variables


def test_text_renders_in_both_languages_and_ignores_extra_facts() -> None:
    assert text("chat.step_search", "en", count=3, other=1) == "Searching 3 documents"
    assert text("chat.step_search", "zh", count=3) == "正在检索 3 个文档"


def test_unknown_key_or_missing_fact_is_a_fault_of_the_program() -> None:
    with pytest.raises(KeyError):
        text("chat.no_such_text")
    with pytest.raises(KeyError):
        text("chat.step_search")


def test_facts_with_braces_stay_as_they_are() -> None:
    assert "{x}" in text("app.no_path", "en", name="{x}")


def test_errors_speak_the_readers_language() -> None:
    error = NotFound("app.no_conversation")
    assert error.render("zh").startswith("此对话")
    assert str(error).startswith("This conversation")
    assert isinstance(error, UserError)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0.00 MiB"), (5_999_999, "5.72 MiB"), (53 * 2**20, "53.0 MiB"), (2**30, "1.00 GiB"), (2**40, "1024 GiB")],
)
def test_sizes_of_models(count: int, shown: str) -> None:
    assert memory_size(count) == shown


def test_variables() -> None:
    assert variables("{a} and {b} and {{c}}") == {"a", "b"}
