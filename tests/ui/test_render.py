"""What is rendered is text, never markup; and says what it should."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harmless import HOSTILE, Tags, check_harmless, passage
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from dbgpt_lite.config import Settings
from dbgpt_lite.errors import ModelError
from dbgpt_lite.messages import (
    Answer,
    Citation,
    Done,
    Found,
    Ledger,
    LedgerLine,
    ResultTable,
    Rewritten,
    Routed,
    Rows,
    SqlAttempt,
    SqlTried,
    Step,
    Token,
    Usage,
    Waiting,
)
from dbgpt_lite.store import Conversation, StoredMessage
from dbgpt_lite.texts import section_texts, variables
from dbgpt_lite.ui import data_view, models_page
from dbgpt_lite.ui.asking import known_mode, paced
from dbgpt_lite.ui.fence import files_are_uploads
from dbgpt_lite.ui.figures import duration, figures, ledger
from dbgpt_lite.ui.i18n import choose_language
from dbgpt_lite.ui.markdown import Flags, highlight, to_html
from dbgpt_lite.ui.render import LiveTurn, live, marked, passage_card, thread
from dbgpt_lite.ui.session import Reader
from dbgpt_lite.ui.settings_page import settings_tables, shown_value
from dbgpt_lite.ui.sidebar import conversation_list, day_group

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def stored(number: int, role: str, content: str, answer: Answer | None = None) -> StoredMessage:
    return StoredMessage(number, role, content, NOW, answer)


@pytest.mark.parametrize(
    "source",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](  javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "[x](file:///etc/passwd)",
        "<javascript:alert(1)>",
        "![x](https://evil.example/pixel.png)",
        "![x][1]\n\n[1]: https://evil.example/pixel.png",
        '[x](https://e.example "\\" onmouseover=alert(1)")',
        "`</code><img src=x onerror=alert(1)>`",
        '```"><img src=x onerror=alert(1)>\n</code></pre><script>alert(1)</script>\n```',
        "    </code><script>alert(1)</script>",
        "| <img src=x onerror=alert(1)> |\n|---|\n| <b onclick=x>y</b> |",
        "<details open ontoggle=alert(1)>",
        "<a href='https://e.example' onclick=alert(1)>x</a>",
        "&lt;img src=x onerror=alert(1)&gt;",
        "<!-- --><iframe src=//evil.example></iframe>",
        "<style>*{background:url(//evil.example)}</style>",
        "[1]",
        "[1](javascript:alert(1))",
        "[1]: javascript:alert(1)",
    ],
)
def test_markdown_of_a_model_does_nothing(source: str) -> None:
    seen = check_harmless(to_html(source, {1}, "Copy"))
    assert "img" not in seen.tags


@given(
    st.text(
        alphabet=st.sampled_from("<>\"'`[]()!&:/*_#|-\n\\ =$]{}xonerrorscriptjavascript:imgsrchttps1;"), max_size=80
    )
)
def test_no_markdown_crosses_the_fence(source: str) -> None:
    check_harmless(to_html(source, {1, 2}, "Copy"))


def test_markdown_keeps_what_people_write() -> None:
    html = to_html("**bold** and `code`\n\n| a |\n|--:|\n| 1 |\n\n[site](https://example.com/a?b=c)", (), "Copy")
    assert "<strong>bold</strong>" in html
    assert "<code>code</code>" in html
    assert 'style="text-align:right"' in html
    assert '<a href="https://example.com/a?b=c" target="_blank" rel="noopener noreferrer nofollow">site</a>' in html


def test_an_image_becomes_its_description() -> None:
    assert "a cat" in to_html("![a cat](https://example.com/cat.png)")
    assert "example.com" not in to_html("![a cat](https://example.com/cat.png)")


def test_only_known_markers_become_citations() -> None:
    html = to_html("Yes [1][3]. `x[1]`\n\n```\nrow[1]\n```", {1})
    assert html.count('class="citation"') == 1
    assert "[3]" in html
    assert "x[1]" in html


FLAGGED = Flags(("It **really** weighs `9` kg.", '- no"<b>', "船会游。"), 'No "source"')


def test_a_sentence_without_a_source_is_underlined_and_markdown_stays_whole() -> None:
    html = to_html("Fine [1]. It **really** weighs `9` kg. More.\n\n灯很亮。船会游。", {1}, "", FLAGGED)
    seen = check_harmless(html)
    marks = [value for tag, name, value in seen.attributes if (tag, name) == ("span", "title")]
    assert marks == ['No "source"'] * 6
    assert '<strong><span class="unsupported" title="No &#34;source&#34;">really</span></strong>' in html
    assert '<span class="unsupported" title="No &#34;source&#34;"><code>9</code></span>' in html
    assert '灯很亮。<span class="unsupported"' in html
    assert 'class="citation"' in html
    assert "More." in html
    assert html.count("<p>") == html.count("</p>") == 2


def test_a_flagged_sentence_in_lists_and_tables() -> None:
    html = to_html("- one\n- two is 9\n\n| a | b |\n|---|---|\n| x | 8 |", (), "", Flags(("two is 9", "x | 8"), "?"))
    assert '<li><span class="unsupported" title="?">two is 9</span></li>' in html
    assert "<td>8</td>" in html
    assert to_html("a\nb c", (), "", Flags(("a b",), "?")).count("unsupported") == 2


@given(
    st.text(alphabet=st.sampled_from("ab *_`[]()1|\n->#<\"'&\\"), max_size=60),
    st.text(alphabet=st.sampled_from("ab *_`[]()1|<\"'&\\"), max_size=12),
)
def test_a_flag_changes_nothing_but_its_spans(source: str, sentence: str) -> None:
    flagged = str(to_html(source, {1}, "", Flags((sentence, source[3:9]), HOSTILE)))
    check_harmless(flagged)
    bare = re.sub(r'<span class="unsupported" title="[^"]*">(.*?)</span>', r"\1", flagged, flags=re.DOTALL)
    assert Tags(bare).text == Tags(to_html(source, {1})).text
    assert flagged.count("<span") == flagged.count("</span>")


def test_a_refusal_shows_what_came_near() -> None:
    near = (passage(text=HOSTILE, score=0.31), passage(id=2, document=HOSTILE))
    refusal = Answer(
        "Not in these documents.", "documents", "m", near_misses=near, best=0.31, needed=0.45, asked=HOSTILE
    )
    html = thread([stored(1, "user", "q"), stored(2, "assistant", "a", refusal)], "c", "en")
    seen = check_harmless(html)
    assert html.count('class="passage"') == 2
    assert '<details class="near-misses fold"><summary>The 2 passages that came closest</summary>' in html
    assert f"Searched for: {HOSTILE}" in seen.text
    assert html.count('class="asked"') == 1


def test_code_is_coloured_and_escaped() -> None:
    assert '<span class="k">SELECT</span>' in highlight("SELECT 1", "sql")
    assert highlight("<b>", "no such language") == Markup("&lt;b&gt;")
    assert highlight("x" * 30_000, "python") == "x" * 30_000


def test_an_unfinished_block_of_code_is_shown_while_it_streams() -> None:
    check_harmless(to_html("```python\nprint('<b>')"))
    assert "print" in to_html("```python\nprint(1)")


def test_quoted_words_are_marked_across_line_breaks() -> None:
    html = marked("Runs for 120\nhours <b> on low.", "120 hours <b> on")
    assert "<mark>120\nhours &lt;b&gt; on</mark>" in html
    assert "<mark>" not in marked("text", "missing")
    assert "<mark>" not in marked("text", "")


def test_a_passage_says_where_it_is_from() -> None:
    html = passage_card(passage(page=0, heading="Intro", document=HOSTILE, text=HOSTILE, score=0.5), 1, "", "en")
    text = check_harmless(html).text
    assert "page 0 · Intro" in text
    assert "50% similar" in text
    assert "page" not in check_harmless(passage_card(passage(), 1, "", "en")).text


def full_answer(**facts: object) -> Answer:
    table = ResultTable(("id", HOSTILE), ((1, HOSTILE), (None, True)), truncated=True, seconds=0.004)
    values: dict[str, object] = {
        "text": f"Answer [1] {HOSTILE}",
        "mode": "database",
        "engine": HOSTILE,
        "citations": (Citation(1, passage(text=HOSTILE), HOSTILE),),
        "passages": (passage(), passage(id=2, document=HOSTILE)),
        "attempts": (SqlAttempt(f"SELECT '{HOSTILE}'", HOSTILE), SqlAttempt("SELECT 1")),
        "sql": f"SELECT '{HOSTILE}'",
        "table": table,
        "usage": Usage(400, 50, 100, 0.5, 0.4, 3.0),
        "ledger": Ledger(
            4096, 512, (LedgerLine("system", 50), LedgerLine("passages", 300, 3, 2), LedgerLine(HOSTILE, 9))
        ),
        "error": "",
        "asked": HOSTILE,
        "unsupported": (HOSTILE, "Answer"),
        "near_misses": (passage(text=HOSTILE),),
    }
    return Answer(**{**values, **facts})  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_whole_thread_of_hostile_text_is_harmless(language: str) -> None:
    messages = [
        stored(1, "user", HOSTILE),
        stored(2, "assistant", HOSTILE, full_answer()),
        stored(3, "user", HOSTILE),
        stored(4, "assistant", "", full_answer(text="", table=None, error=HOSTILE)),
        stored(5, "user", HOSTILE),
    ]
    html = thread(messages, HOSTILE, language)  # type: ignore[arg-type]
    seen = check_harmless(html)
    assert seen.text.count(HOSTILE) > 8
    assert html.count('data-action="ask"') == 3


def test_a_failed_and_an_unanswered_question_can_be_asked_again() -> None:
    failed = stored(2, "assistant", "", full_answer(error="Memory ran out.", text="", table=None))
    html = thread([stored(1, "user", "q"), failed, stored(3, "user", "r")], "c", "en")
    assert html.count('class="retry"') == 2
    assert "Memory ran out." in html
    assert 'data-id="1"' in html
    assert 'data-id="3"' in html


def test_an_answer_shows_its_query_table_attempts_and_figures() -> None:
    html = thread([stored(1, "user", "q"), stored(2, "assistant", "a", full_answer())], "c", "en")
    text = Tags(html).text
    assert "Repaired after one query that did not work:" in text
    assert "1 more passage was found" in text
    assert "Prompt: 359 of 4,096 tokens" in text
    assert "3 kept, 2 left out" in text
    assert "2 rows · cut at the row limit" in text
    assert 'data-action="save_rows" data-of="answer:2" data-format="csv"' in html
    assert 'data-action="rate" data-of="answer:2" data-yes="true"' in html


def test_the_stopped_answer_says_so() -> None:
    answer = full_answer(stopped=True)
    assert "Stopped" in thread([stored(1, "user", "q"), stored(2, "assistant", "a", answer)], "c", "en")


@pytest.mark.parametrize(("reason", "said"), [("time", "LLM_TIME_LIMIT"), ("length", "length limit"), ("stop", "")])
def test_an_answer_that_a_limit_ended_says_so(reason: Any, said: str) -> None:
    answer = full_answer(usage=Usage(1, 1, finish_reason=reason))
    html = thread([stored(1, "user", "q"), stored(2, "assistant", "a", answer)], "c", "en")
    assert ('class="stopped"' in html) is bool(said)
    assert said in html


def test_who_waits_sees_how_many_come_first_until_the_turn_has_come() -> None:
    turn = LiveTurn("q", Step("answer", {"model": "m"})).after(Waiting(2, 38.2))
    assert "2 ahead of you, about 38 s" in live(turn, "c", "en")
    assert "前面还有 2 个请求，约需 38 秒" in live(turn, "c", "zh")
    assert "1 ahead of you<" in live(turn.after(Waiting(1)), "c", "en")
    assert "ahead" not in live(turn.after(Waiting(0, 0.0)), "c", "en")
    assert "Answering with m" in live(turn.after(Waiting(0, 0.0)), "c", "en")


def test_figures_tell_what_the_query_took() -> None:
    answer = Answer("a", "database", "m", spent=Usage(900, 41, 850, first_token_s=0.5, seconds=1.3))
    text = Tags(figures(answer, "en")).text
    assert "900 tokens in (850 cached), 41 out · 50 tokens/s" in text
    assert "900 → 41 tokens · 50 tokens/s" in text


def test_figures_leave_out_what_is_not_known() -> None:
    bare = Answer("a", "chat", "built-in")
    text = Tags(figures(bare, "en")).text
    assert "tokens/s" not in text
    assert "First token" not in text
    assert "Prompt:" not in text


def test_a_live_turn_grows_with_its_events() -> None:
    turn = LiveTurn("q")
    table = ResultTable(("a",), ((1,),))
    events = [
        Step("rewrite"), Rewritten(HOSTILE), Step("route"), Routed("database"),
        Step("sql_write", {"database": HOSTILE}), SqlTried(SqlAttempt("SELECT 1")),
        Rows("SELECT 1", table), Found((passage(),)), Token("Hello "), Token("[1]"), Done(Answer("", "chat", ""), 1, 2),
    ]  # fmt: skip
    for event in events:
        turn = turn.after(event)
    assert turn.text == "Hello [1]"
    assert turn.mode == "database"
    assert turn.asked == HOSTILE
    html = live(turn, HOSTILE, "en")
    check_harmless(html)
    assert 'class="citation"' in html
    assert "result-table" in html


def test_a_stream_is_drawn_in_steps_and_never_goes_silent() -> None:
    drawn = list(paced(iter([Token("a"), None, Token("b"), None]), LiveTurn("q")))
    assert [turn.text for turn in drawn if turn] == ["a", "ab"]


def test_conversations_are_grouped_by_the_readers_days() -> None:
    reader = Reader("o", "en", zone=8 * 60)
    assert day_group(datetime(2026, 11, 21, 17, tzinfo=UTC), NOW, reader) == "Today"
    assert day_group(datetime(2026, 11, 21, 15, tzinfo=UTC), NOW, reader) == "Yesterday"
    assert day_group(datetime(2026, 11, 16, tzinfo=UTC), NOW, reader) == "Previous 7 days"
    assert day_group(datetime(2026, 3, 16, tzinfo=UTC), NOW, reader) == "March"
    assert day_group(datetime(2025, 3, 16, tzinfo=UTC), NOW, Reader("o", "zh")) == "2025 年 3 月"


def test_the_list_of_conversations_is_harmless() -> None:
    rows = [Conversation(HOSTILE, HOSTILE, "auto", HOSTILE, NOW, NOW)]
    check_harmless(conversation_list(rows, Reader("o", "en"), now=NOW))
    check_harmless(conversation_list([], Reader("o", "en"), HOSTILE))


def small_plan(device: str = "cuda:0", free: int = 1000) -> Any:
    """A plan of a model and a card with names that are not to be trusted."""
    from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
    from dbgpt_lite.llm.placement import Device
    from dbgpt_lite.llm.plan import plan

    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 16}
    checkpoint = Checkpoint(Path(HOSTILE), {"model_type": "llama", **sizes}, TaskFacts(), "bin", (), (), 0)
    devices = (Device(device, free, HOSTILE),)
    return plan(checkpoint, dtype="float16", quantization="none", context=0, devices=devices)


def test_schemas_and_models_are_harmless() -> None:
    from dbgpt_lite.llm.chat_choice import FormatChoice
    from dbgpt_lite.llm.manager import ModelStatus
    from dbgpt_lite.llm.model_folders import ModelFolder
    from dbgpt_lite.messages import EngineInfo
    from dbgpt_lite.sql.schema import ColumnInfo, ForeignKey, Schema, TableInfo
    from dbgpt_lite.ui.i18n import say

    column = ColumnInfo(HOSTILE, HOSTILE, True, HOSTILE)
    table = TableInfo(HOSTILE, (column,), (ForeignKey((HOSTILE,), HOSTILE, (HOSTILE,)),), HOSTILE)
    check_harmless(data_view.schema_tree(Schema((table,)), HOSTILE, HOSTILE, "en"))
    folder = ModelFolder(HOSTILE, HOSTILE, 10, ModelError("llm.no_folder", name=HOSTILE))
    plans = {HOSTILE: {"none": small_plan(), "nf4": ModelError("llm.no_folder", name=HOSTILE)}}
    check_harmless(models_page.folder_list([folder, ModelFolder(HOSTILE, "llama", 10)], "nf4", "en", plans))
    told = ModelFolder("one", "llama", 10, chat_format=FormatChoice("vicuna", "folder"))
    guessed = ModelFolder(HOSTILE, "llama", 10, chat_format=FormatChoice(HOSTILE, "family"))
    page = models_page.folder_list([told, guessed], "nf4", "zh")
    check_harmless(page)
    assert page.count('<select name="chat_format"') == 2
    assert page.count('<option value="vicuna" selected>') == 1
    assert page.count(say("chat_format_unsure", "zh")) == 1
    status = ModelStatus("loading", HOSTILE, ModelError("llm.no_folder", name=HOSTILE), 0.5)
    check_harmless(models_page.current_model(status, EngineInfo(HOSTILE, "local", 10), "en"))


def test_what_a_folder_does_not_have_is_not_shown() -> None:
    """No size of a folder that could not be read, and nothing of CUDA without a GPU."""
    from dbgpt_lite.llm.manager import ModelFolder

    broken = ModelFolder("broken", "Llama", 0, ModelError("llm.no_config", name="broken"))
    whole = ModelFolder("whole", "Llama", 3 * 2**30)
    for plan, cuda in ((small_plan("cpu"), False), (small_plan(), True), (small_plan("cuda:0", 2**40), True)):
        page = models_page.folder_list([broken, whole], "none", "en", {"whole": {"none": plan}})
        assert ("<th>CUDA</th>" in page) is cuda
        assert page.count("<th>") == 8 - (not cuda)
        assert page.count("<td>") == page.count("<th>")
        assert "<span>Llama</span>" in page
        assert "<span>Llama · 3.00 GiB</span>" in page


def test_a_load_says_how_far_it_is_and_can_be_cancelled() -> None:
    from dbgpt_lite.llm.manager import ModelStatus
    from dbgpt_lite.messages import EngineInfo

    info = EngineInfo("old", "local", 10)
    status = ModelStatus("loading", "new", progress=0.25, done=3 * 2**30, total=12 * 2**30, rate=2**30 * 1.8)
    shown = check_harmless(models_page.current_model(status, info, "en")).text
    assert "Loading new, 25% · 3.0 of 12.0 GiB, 1.8 GiB/s" in shown
    assert 'data-action="cancel_load"' in models_page.current_model(status, info, "zh")
    kept = ModelStatus("failed", "new", ModelError("llm.no_weights", name="new"), kept="old")
    assert "old answers as before." in models_page.current_model(kept, info, "en")
    assert "spare GPU memory" not in models_page.current_model(ModelStatus("ready", "old"), info, "en")
    assert "59.8 GiB of spare GPU memory" in models_page.current_model(
        ModelStatus("ready", "old"), replace(info, widened=int(59.8 * 2**30)), "en"
    )
    asleep = models_page.current_model(ModelStatus("asleep", "old"), replace(info, widened=2**30), "en")
    assert "spare GPU memory" not in asleep
    assert "the next question loads it again" in asleep
    assert "cancel_load" not in asleep


def test_adapters_are_listed_with_their_base() -> None:
    from dbgpt_lite.llm.model_folders import ModelFolder

    folder = ModelFolder("guanaco-7b", "Llama", 10, adapter_for="llama-7b")
    assert "adapter for llama-7b" in models_page.folder_list([folder], "none", "en")


def test_settings_show_no_secret() -> None:
    settings = Settings(
        _env_file=None,
        database_url="mysql+pymysql://reader:hunter2@db/shop",
        databases="sales=mysql+pymysql://reader:hunter3@db/sales",
        llm_api_key="sk-hunter4",
        auth_users="alice:scrypt$hunter5",
        api_keys="robot:hunter6",
    )
    html = settings_tables(settings, "en")
    assert "hunter" not in check_harmless(html).text
    assert "set: sales" in html
    assert "set: alice" in html
    assert shown_value("llm_api_key", settings.llm_api_key, "en") == "set"
    assert shown_value("llm_wide_memory", None, "en") == "not set"
    assert shown_value("llm_endpoint", "http://ana:hunter2@host:8000/v1", "en") == "http://host:8000/v1"


def test_every_setting_is_explained_in_both_languages() -> None:
    for name, field in Settings.model_fields.items():
        assert section_texts("ui", "en")[f"setting_{name}"] == field.description, name
        assert section_texts("ui", "zh")[f"setting_{name}"]


def test_texts_of_the_page_match_in_both_languages() -> None:
    english, chinese = section_texts("ui", "en"), section_texts("ui", "zh")
    assert english.keys() == chinese.keys()
    for name in english:
        assert variables(english[name]) == variables(chinese[name]), name


@pytest.mark.parametrize(
    ("setting", "header", "cookies", "expected"),
    [
        ("auto", "zh-CN,zh;q=0.9,en;q=0.8", {}, "zh"),
        ("auto", "en-GB,en;q=0.9,zh;q=0.8", {}, "en"),
        ("auto", "de-DE,de;q=0.9,zh;q=0.3,en;q=0.2", {}, "zh"),
        ("auto", "fr", {}, "en"),
        ("auto", "", {}, "en"),
        ("auto", "zh;q=nonsense,en", {}, "en"),
        ("auto", "zh;q=0,fr", {}, "en"),
        ("zh", "en", {}, "zh"),
        ("en", "zh", {"dbgpt_language": "zh"}, "zh"),
        ("auto", "en", {"dbgpt_language": "xx"}, "en"),
    ],
)
def test_language_of_the_reader(setting: str, header: str, cookies: dict[str, str], expected: str) -> None:
    assert choose_language(setting, header, cookies) == expected  # type: ignore[arg-type]


def test_only_files_of_the_upload_folder_may_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    (folder / "a").mkdir(parents=True)
    own, foreign = folder / "a" / "own.md", tmp_path / "foreign.md"
    own.write_text("x")
    foreign.write_text("x")
    (folder / "link.md").symlink_to(foreign)
    assert files_are_uploads(["text", 1, None, [{"path": str(own), "meta": {}}]], folder)
    refused = [
        str(foreign), str(folder / "link.md"), str(folder / "missing.md"), f"{folder}/../foreign.md", "own.md", "",
        "http://example.com/a.md", f"{own}\0", None, 3, str(folder),
    ]  # fmt: skip
    for path in refused:
        assert not files_are_uploads(["text", [{"path": path}]], folder), path
    assert not files_are_uploads([{"url": "http://example.com/a.md"}], folder)


def test_durations_read_well() -> None:
    shown = [duration(seconds, "en") for seconds in (0.0004, 0.05, 0.42, 3.14, 42.6)]
    assert shown == ["1 ms", "50 ms", "0.42 s", "3.1 s", "43 s"]


def test_an_unknown_mode_is_auto() -> None:
    assert known_mode("documents") == "documents"
    assert known_mode("<b>") == "auto"


def test_the_ledger_says_how_many_tables_the_prompt_shows() -> None:
    book = Ledger(4096, 512, (LedgerLine("schema", 900, 12, 488),))
    assert "12 tables shown, 488 left out" in ledger(book, "en")
    assert "展示 12 张表，略去 488 张" in ledger(book, "zh")
    assert "left out" not in ledger(Ledger(4096, 512, (LedgerLine("schema", 900, 12, 0),)), "en")
