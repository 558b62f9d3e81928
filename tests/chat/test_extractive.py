"""The built-in assistant: exact quotes, honest refusals, help, and results in words."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from dbgpt_lite.chat.extractive import ExtractiveEngine, escape, word_table
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.messages import Message, Passage, Prompt, ResultTable, Sampling, Usage
from dbgpt_lite.texts import Language, text

pytestmark = pytest.mark.xdist_group("extractive")

LAMP = "The Beacon gives 800 lumens at 9 watts. It weighs 1.4 kilograms."
RETURNS = "Customers may return an article within 45 days of delivery."


@pytest.fixture(scope="module")
def engine() -> Iterator[ExtractiveEngine]:
    embedder = Embedder()
    yield ExtractiveEngine(embedder.embed)
    embedder.close()


def passages(*texts: str) -> tuple[Passage, ...]:
    return tuple(Passage(id=number, text=one, document_id="d", document="a.md") for number, one in enumerate(texts))


def documents(question: str, *texts: str, language: Language = "en") -> Prompt:
    return Prompt("documents", (Message("user", question),), question, language, passages(*texts))


def read(
    engine: ExtractiveEngine, prompt: Prompt, sampling: Sampling | None = None, cancel: threading.Event | None = None
) -> tuple[str, Usage]:
    *pieces, usage = engine.stream(prompt, sampling or Sampling(), cancel or threading.Event())
    assert isinstance(usage, Usage)
    return "".join(str(piece) for piece in pieces), usage


def test_quotes_word_for_word_with_the_passage_number(engine: ExtractiveEngine) -> None:
    answer, usage = read(engine, documents("How many lumens does the Beacon give?", RETURNS, LAMP))
    assert answer == "> The Beacon gives 800 lumens at 9 watts. [2]"
    assert usage.finish_reason == "stop"
    assert usage.completion_tokens > 5


def test_quotes_chinese(engine: ExtractiveEngine) -> None:
    answer, _ = read(
        engine,
        documents(
            "年假有多少天？", "工资每月 10 日发放。", "员工每年享有 10 天年假。生日可以休假半天。", language="zh"
        ),
    )
    assert answer == "> 员工每年享有 10 天年假。 [2]"


def test_refuses_with_the_scores(engine: ExtractiveEngine) -> None:
    answer, _ = read(engine, documents("Who painted the Mona Lisa?", LAMP, RETURNS))
    assert answer.startswith("The documents do not contain an answer to this.")
    assert "0.69 is needed" in answer


def test_says_that_it_cannot_translate(engine: ExtractiveEngine) -> None:
    answer, _ = read(engine, documents("珠穆朗玛峰有多高？", LAMP, RETURNS, language="zh"))
    assert answer == text("assistant.other_language", "zh")


def test_says_when_nothing_was_retrieved(engine: ExtractiveEngine) -> None:
    assert read(engine, documents("What?"))[0] == text("assistant.nothing_retrieved", "en")


def test_document_text_cannot_act_as_markdown(engine: ExtractiveEngine) -> None:
    hostile = "The <img src=x onerror=alert(1)> Beacon **gives** [800 lumens](http://evil.example) at 9 watts [7]."
    answer, _ = read(engine, documents("How many lumens does the Beacon give?", hostile))
    assert r"\<img" in answer
    assert r"\[7\]. [1]" in answer
    assert r"\*\*gives\*\* \[800 lumens\](" in answer


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("1. one\n2. two", r"1\. one 2. two"),
        ("- item", r"\- item"),
        ("a_b LLM_MODEL _x_", r"a_b LLM_MODEL \_x\_"),
        ("$5 | `x` # y", r"\$5 \| \`x\` \# y"),
        ("普通的句子。", "普通的句子。"),
        ("清洗时不要使\n用钢丝球", "清洗时不要使用钢丝球"),
    ],
)
def test_escape(plain: str, escaped: str) -> None:
    assert escape(plain) == escaped


@pytest.mark.parametrize(("language", "question"), [("en", "What can you do?"), ("zh", "你好")])
def test_chat_answers_from_the_help_pages(engine: ExtractiveEngine, language: Language, question: str) -> None:
    answer, _ = read(engine, Prompt("chat", (), question, language))
    assert answer != text("assistant.no_conversation", language)
    assert len(answer) > 10


@pytest.mark.parametrize(("language", "question"), [("en", "Tell me a joke"), ("zh", "讲个笑话")])
def test_chat_says_that_a_model_is_needed(engine: ExtractiveEngine, language: Language, question: str) -> None:
    assert read(engine, Prompt("chat", (), question, language))[0] == text("assistant.no_conversation", language)


def test_other_tasks_are_declined(engine: ExtractiveEngine) -> None:
    assert read(engine, Prompt("sql", (), "How many?"))[0] == text("assistant.no_task", "en")
    assert engine.candidates(Prompt("sql", (), "How many?"), 4, 100, threading.Event()) == []


def table(columns: Sequence[str], *rows: Sequence[object], truncated: bool = False) -> ResultTable:
    return ResultTable(tuple(columns), tuple(tuple(row) for row in rows), truncated)


@pytest.mark.parametrize(
    ("result", "english", "chinese"),
    [
        (table(["count(*)"], [42]), "The answer is 42.", "答案是 42。"),
        (table(["price"], [19.5]), "The answer is 19.5 (price).", "答案是 19.5（price）。"),
        (table(["avg"], [None]), text("assistant.rows_null", "en"), text("assistant.rows_null", "zh")),
        (table(["name"], ["Lin"], ["Ann"]), "2 results: Lin, Ann.", "共 2 项：Lin，Ann。"),
        (table(["name", "n"], ["Lin", 3]), "One row: name Lin, n 3.", "共一行：name Lin，n 3。"),
        (
            table(["a", "b"], [1, None], [2, True]),
            "2 rows (a, b): 1 (none); 2 yes.",
            "共 2 行（a，b）：1 （无）；2 是。",
        ),
        (table(["a"]), "The query ran and found nothing.", "查询已执行，没有找到数据。"),
    ],
)
def test_result_in_words(result: ResultTable, english: str, chinese: str) -> None:
    assert word_table(result, "en") == english
    assert word_table(result, "zh") == chinese


def test_notes_follow_the_rows(engine: ExtractiveEngine) -> None:
    rows = table(["count(*)"], [0])
    english = Prompt("rows", (), "q", "en", table=rows, notes=("Note: nothing.",))
    assert engine.answer(english) == "The answer is 0. Note: nothing."
    chinese = Prompt("rows", (), "q", "zh", table=rows, notes=("注意：没有。",))
    assert engine.answer(chinese) == "答案是 0。注意：没有。"


def test_wide_rows_are_cut_in_the_sentence() -> None:
    wide = table([f"c{n}" for n in range(20)], list(range(20)))
    assert word_table(wide, "en") == "One row: " + ", ".join(f"c{n} {n}" for n in range(8)) + ", …."


def test_long_and_cut_results_give_the_number_of_rows() -> None:
    many = table(["name"], *[[f"n{row}"] for row in range(37)])
    assert word_table(many, "en") == "37 rows. The first: name n0."
    assert word_table(table(["a", "b"], *[[n, n] for n in range(1200)]), "en") == "1,200 rows. The first: a 0, b 0."
    pairs = table(["a", "b"], [1, 2], [3, 4], truncated=True)
    assert word_table(pairs, "en") == "More rows than the limit; the first 2 are shown. The first: a 1, b 2."
    cut = table(["name"], ["x"], ["y"], truncated=True)
    assert word_table(cut, "en") == "More rows than the limit; the first 2 are shown. The first: name x."


@pytest.mark.parametrize(
    ("value", "shown"), [(1 / 3, "0.3333"), (12.0, "12"), (2.345678, "2.35"), (0.0, "0"), (True, "yes")]
)
def test_cells(value: object, shown: str) -> None:
    assert word_table(table(["n(*)"], [value]), "en") == f"The answer is {shown}."


def test_cells_cannot_act_as_markdown() -> None:
    assert word_table(table(["<b>"], ["[x](http://evil)\n# y"]), "en") == r"The answer is \[x\](http://evil) \# y."


def test_stops_when_cancelled(engine: ExtractiveEngine) -> None:
    cancel = threading.Event()
    stream = engine.stream(documents("How many lumens does the Beacon give?", LAMP), Sampling(), cancel)
    assert next(stream) == "> "
    cancel.set()
    (usage,) = stream
    assert isinstance(usage, Usage)
    assert usage.finish_reason == "cancelled"


def test_length_limit_and_stop_strings(engine: ExtractiveEngine) -> None:
    prompt = documents("How many lumens does the Beacon give?", LAMP)
    answer, usage = read(engine, prompt, Sampling(max_tokens=3))
    assert answer == "> The Beacon "
    assert usage.finish_reason == "length"
    assert read(engine, prompt, Sampling(stop=(" at",)))[0] == "> The Beacon gives 800 lumens"


def test_counts_roughly(engine: ExtractiveEngine) -> None:
    assert engine.count_text("年假十天") == 6
    assert engine.count_text("eight ch") == 3
    assert engine.count((Message("user", "abc"), Message("user", "年"))) == 3


def test_facts_about_itself(engine: ExtractiveEngine) -> None:
    assert engine.info.kind == "builtin"
    assert engine.info.name == "Built-in assistant"
    assert ExtractiveEngine(Embedder().embed, "zh").info.name == "内置助手"
