"""The page in a real browser: what a reader does, and what a hostile answer cannot."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from gradio.utils import get_upload_folder
from playwright.sync_api import Route, expect
from visiting import Site, Visit, Visitors

CROSSED = "window.crossed === undefined"


def test_a_question_is_answered_with_a_citation_that_opens(visit: Visit) -> None:
    page = visit.page
    visit.ask("please cite the lantern")
    expect(page.locator("#thread .answer-mode")).to_have_attribute("data-mode", "documents")
    page.click("#thread .citation")
    expect(page.locator(".passage[data-number='1']")).to_have_attribute("open", "")
    expect(page.locator(".passage mark")).to_have_text("The Drift lantern runs for 120 hours on its lowest setting.")
    expect(page.locator(".passage[data-number='1'] .place")).to_have_text("page 3 · Drift lantern")
    page.locator(".figures summary").click()
    expect(page.locator(".ledger")).to_contain_text("Passages")
    expect(page.locator(".conversation .open")).to_have_text("please cite the lantern")
    assert not visit.errors
    assert not visit.foreign


def test_rows_of_the_database_and_their_csv(visit: Visit) -> None:
    page = visit.page
    visit.ask("rows please")
    expect(page.locator(".code.sql")).to_contain_text("SELECT id, name, price, note FROM items")
    expect(page.locator(".result-table tbody tr")).to_have_count(10)
    expect(page.locator(".result-table")).to_contain_text("灯笼")
    page.locator(".attempts summary").click()
    expect(page.locator(".attempts")).to_contain_text("There is no column nmae")
    with page.expect_download() as download:
        page.click(".csv")
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert "灯笼" in text
    assert "'=cmd" in text
    assert len(text.splitlines()) == 251


def test_an_answer_stops_and_keeps_what_was_written(visit: Visit, site: Site) -> None:
    page = visit.page
    page.fill("#ask textarea", "slow one")
    page.press("#ask textarea", "Enter")
    page.wait_for_selector("#live .prose")
    expect(page.locator("#live .progress")).to_be_visible()
    expect(page.locator("#send")).to_be_hidden()
    page.click("#stop")
    expect(page.locator("#thread .stopped")).to_be_visible()
    expect(page.locator("#thread .prose")).to_contain_text("word")
    expect(page.locator("#stop")).to_be_hidden()
    assert not site.services.engine.busy.is_set()


def test_closing_the_tab_frees_the_engine(visitors: Visitors, site: Site) -> None:
    visit = visitors.open()
    visit.page.fill("#ask textarea", "slow one")
    visit.page.press("#ask textarea", "Enter")
    visit.page.wait_for_selector("#live .prose")
    visit.page.close()
    for _ in range(200):
        if not site.services.engine.busy.is_set():
            break
        site.services.engine.idle.wait(0.1)
    assert not site.services.engine.busy.is_set()


def test_a_failed_answer_says_what_to_do_and_can_be_retried(visit: Visit) -> None:
    visit.ask("fail now")
    expect(visit.page.locator("#thread .error")).to_contain_text("Memory ran out while guanaco-33b was answering")
    visit.page.click(".retry")
    visit.page.wait_for_selector("html:not(.answering)")
    expect(visit.page.locator("#thread .turn")).to_have_count(1)
    expect(visit.page.locator(".toast-wrap")).to_contain_text("Memory ran out")


def test_a_question_is_edited_and_asked_again(visit: Visit) -> None:
    page = visit.page
    visit.ask("first")
    visit.ask("second")
    page.locator(".turn").first.hover()
    page.locator(".edit-question").first.click()
    page.fill(".edit-box", "better")
    page.click(".edit-send")
    expect(page.locator("#thread .prose")).to_have_text(["You said: better"])
    question = page.locator("#thread .turn").get_attribute("data-question")
    page.click(".again")
    expect(page.locator("#thread .turn")).not_to_have_attribute("data-question", question or "")
    expect(page.locator("#thread .prose")).to_have_text(["You said: better"])


def test_enter_sends_shift_enter_breaks_and_composing_does_neither(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#ask textarea")).to_be_focused()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#ask textarea")).to_have_value("one\ntwo")
    page.locator("#ask textarea").dispatch_event(
        "keydown", {"key": "Enter", "isComposing": True, "bubbles": True, "keyCode": 229}
    )
    expect(page.locator("#thread .turn")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator("#thread .bubble")).to_have_text("one\ntwo")
    expect(page.locator("#ask textarea")).to_have_value("")


def test_examples_ask_in_their_mode(visit: Visit) -> None:
    page = visit.page
    page.locator(".examples [data-mode=database] .example, .example[data-mode=database]").first.click()
    expect(page.locator("#thread .result-table")).to_be_visible()
    expect(page.locator("#mode label.selected")).to_have_text("Database")
    expect(page.locator("#source select")).to_have_value("shop")
    page.click("#new-chat")
    expect(page.locator("#mode label.selected")).to_have_text("Auto")
    expect(page.locator("#source select")).to_have_count(0)


def test_conversations_are_found_renamed_reopened_and_deleted(visitors: Visitors) -> None:
    visit = visitors.open()
    page = visit.page
    visit.ask("about turtles")
    page.click("#new-chat")
    expect(page.locator("#thread .empty")).to_be_visible()
    visit.ask("about whales")
    expect(page.locator(".conversation")).to_have_count(2)
    page.fill("#search input", "turtles")
    expect(page.locator(".conversation .open")).to_have_text(["about turtles"])
    page.fill("#search input", "")
    expect(page.locator(".conversation")).to_have_count(2)
    row = page.locator(".conversation", has_text="turtles")
    row.hover()
    row.locator(".rename").click()
    page.fill("dialog input", "Sea <b>life</b>")
    page.click("dialog .ok")
    expect(page.locator(".conversation .open", has_text="Sea <b>life</b>")).to_be_visible()

    page.locator(".conversation .open", has_text="Sea").click()
    expect(page.locator("#thread .bubble")).to_have_text("about turtles")
    again = visitors.open(same=visit, at=page.url.split("/", 3)[3])
    expect(again.page.locator("#thread .bubble")).to_have_text("about turtles")

    row = page.locator(".conversation", has_text="Sea")
    row.hover()
    row.locator(".delete").click()
    page.click("dialog .cancel")
    expect(page.locator(".conversation")).to_have_count(2)
    row.hover()
    row.locator(".delete").click()
    page.click("dialog .ok")
    expect(page.locator(".conversation .open")).to_have_text(["about whales"])
    expect(page.locator("#thread .empty")).to_be_visible()


def test_another_browser_sees_nothing_of_it(visitors: Visitors) -> None:
    visit = visitors.open()
    visit.ask("a private question")
    address = visit.page.url.split("/", 3)[3]
    assert address.startswith("#/c/")
    other = visitors.open(at=address)
    expect(other.page.locator("#thread .empty")).to_be_visible()
    expect(other.page.locator(".conversation")).to_have_count(0)
    expect(other.page.locator("body")).not_to_contain_text("a private question")


def test_an_answer_goes_on_while_another_conversation_is_open(visit: Visit) -> None:
    page = visit.page
    visit.ask("short one")
    page.click("#new-chat")
    page.fill("#ask textarea", "slow one")
    page.press("#ask textarea", "Enter")
    page.wait_for_selector("#live .prose")
    page.locator(".conversation .open", has_text="short one").click()
    expect(page.locator("#thread .bubble")).to_have_text(["short one"])
    expect(page.locator("#live")).to_be_hidden()
    page.fill("#ask textarea", "and another")
    page.press("#ask textarea", "Enter")
    expect(page.locator("#notice")).to_contain_text("still being answered")
    page.locator(".conversation .open", has_text="slow one").click()
    expect(page.locator("#live .prose")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#thread .stopped")).to_be_visible()


def test_a_new_chat_that_opens_late_does_not_cover_the_question_asked_in_it(visit: Visit) -> None:
    page, held = visit.page, []
    visit.ask("short one")

    def hold_the_first(route: Route) -> None:
        if held:
            return route.continue_()
        return held.append(route)

    page.route("**/queue/join*", hold_the_first)
    page.click("#new-chat")
    page.fill("#ask textarea", "slow one")
    page.press("#ask textarea", "Enter")
    page.wait_for_selector("#live .prose")
    with page.expect_response("**/queue/join*"):
        held[0].continue_()
    # The reply shows the empty page, and the question comes back after it: once, without asking again and again.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/queue/join" in request.url else None)
    page.wait_for_timeout(3000)
    assert len(asked) < 8
    expect(page.locator("#live .prose")).to_be_visible()
    page.click("#stop")
    expect(page.locator("#thread .bubble")).to_have_text(["slow one"])
    expect(page.locator("#thread .stopped")).to_be_visible()
    assert not visit.errors


def test_a_second_window_is_told_that_an_answer_is_being_written(visitors: Visitors) -> None:
    first = visitors.open()
    first.ask("hello")
    second = visitors.open(same=first, at=first.page.url.split("/", 3)[3])
    first.page.fill("#ask textarea", "slow one")
    first.page.press("#ask textarea", "Enter")
    first.page.wait_for_selector("#live .prose")
    second.page.fill("#ask textarea", "me too")
    second.page.press("#ask textarea", "Enter")
    expect(second.page.locator(".toast-wrap")).to_contain_text("still being answered")
    expect(second.page.locator("#ask textarea")).to_have_value("me too")
    first.page.click("#stop")
    expect(first.page.locator("#thread .stopped")).to_be_visible()


def test_the_page_follows_the_stream_unless_the_reader_scrolls_up(visit: Visit) -> None:
    page = visit.page
    visit.ask("long one")
    visit.ask("long two")
    gap = "(s => s.scrollHeight - s.scrollTop - s.clientHeight)(document.querySelector('#scroll'))"
    page.wait_for_function(f"{gap} < 4")
    page.fill("#ask textarea", "slow three")
    page.press("#ask textarea", "Enter")
    page.wait_for_selector("#live .prose")
    page.wait_for_function(f"{gap} < 4")
    page.evaluate("document.querySelector('#scroll').scrollTop = 0")
    written = page.locator("#live .prose").inner_text()
    page.wait_for_function(
        "(was) => document.querySelector('#live .prose').innerText.length > was + 40", arg=len(written)
    )
    assert page.evaluate("document.querySelector('#scroll').scrollTop") == 0
    page.click("#to-end")
    page.wait_for_function(f"{gap} < 4")
    page.click("#stop")
    page.wait_for_selector("#thread .stopped")


def test_hostile_answers_names_and_cells_are_text(visit: Visit) -> None:
    page = visit.page
    visit.ask(
        "hostile ${window.crossed=1} {{constructor.constructor('window.crossed=1')()}} "
        "<img src=x onerror=window.crossed=1>"
    )
    page.locator(".sources .fold summary").first.click()
    for card in page.locator(".passage summary").all():
        card.click()
    visit.ask("rows please")
    visit.go("knowledge")
    page.locator(".space-card", has_text="合同").click()
    page.locator(".document .open").first.click()
    page.wait_for_selector(".chunk")
    visit.go("data")
    page.locator(".table summary").first.click()
    page.locator(".peek").first.click()
    page.wait_for_selector("#sql-result .result-table")
    assert page.evaluate(CROSSED)
    assert page.locator("#thread img, #thread script, #conversations img, .page img").count() == 0
    hrefs = page.eval_on_selector_all("#thread .prose a", "links => links.map(link => link.href)")
    assert hrefs == ["https://example.com/ok"]
    assert not visit.foreign
    assert not visit.errors


def test_a_notice_with_markup_is_text(visit: Visit) -> None:
    visit.go("knowledge")
    for _ in range(2):
        visit.page.click("#new-space") if visit.page.locator("#new-space").count() else visit.go("knowledge")
        visit.page.fill("dialog input", "<img src=x onerror=window.crossed=1>")
        visit.page.click("dialog .ok")
        visit.page.wait_for_timeout(300)
        visit.page.evaluate("location.hash = '#/'")
        visit.go("knowledge")
        visit.page.wait_for_selector("#new-space")
    expect(visit.page.locator(".toast-wrap")).to_contain_text("<img src=x")
    assert visit.page.evaluate(CROSSED)


def test_ones_own_query_runs_behind_the_fences(visit: Visit) -> None:
    page = visit.page
    visit.go("data")
    expect(page.locator("#schema .table")).to_have_count(6)
    page.fill("#sql-editor textarea", "SELECT name FROM items WHERE id = 2")
    page.press("#sql-editor textarea", "Control+Enter")
    expect(page.locator("#sql-result td")).to_have_text("灯笼")
    page.fill("#sql-editor textarea", "DELETE FROM items")
    page.click("#run-sql")
    expect(page.locator("#sql-result .error")).to_be_visible()


def test_what_a_reader_runs_peeks_at_and_saves_is_audited(visit: Visit, site: Site) -> None:
    page, audit = visit.page, site.services.queries.audit
    known = {entry.id for entry in audit.entries(limit=10_000)}
    visit.go("data")
    page.fill("#sql-editor textarea", "SELECT name FROM items WHERE id = 3")
    page.click("#run-sql")
    expect(page.locator("#sql-result td")).to_have_count(1)
    with page.expect_download():
        page.click("#sql-result .csv")
    page.locator(".table summary").first.click()
    page.locator(".peek").first.click()
    expect(page.locator("#sql-result th").nth(1)).not_to_have_text("name")
    new = [one for one in audit.entries(limit=10_000) if one.id not in known and one.origin != "schema"][::-1]
    # The download holds the rows that are shown, so nothing is sent for it.
    assert new[0].asked == "SELECT name FROM items WHERE id = 3"
    assert "SELECT * FROM" in new[1].statement
    assert len(new) == 2
    assert {(entry.origin, entry.outcome, entry.connection) for entry in new} == {("editor", "ok", "shop")}
    owners = {entry.owner for entry in new}
    assert len(owners) == 1
    assert owners.pop().startswith("browser:")


def test_the_tables_are_read_again_when_the_reader_asks_for_it(visit: Visit, site: Site) -> None:
    def reads() -> int:
        return sum(one.origin == "schema" for one in site.services.queries.audit.entries(limit=10_000))

    visit.go("data")
    expect(visit.page.locator("#schema .table")).to_have_count(6)
    before = reads()
    for _ in range(3):
        visit.go("models")
        visit.go("data")
    expect(visit.page.locator("#schema .table")).to_have_count(6)
    assert reads() == before
    visit.page.click("#schema .reread")
    for _ in range(100):
        visit.page.wait_for_timeout(100)
        if reads() > before:
            break
    expect(visit.page.locator("#schema .table")).to_have_count(6)
    assert reads() == before + 1


def test_a_model_loads_with_progress_and_a_failure_is_told(visit: Visit) -> None:
    page = visit.page
    visit.go("models")
    expect(page.locator(".model[data-name=half-copied] .error")).to_contain_text("no weights")
    page.select_option(".model[data-name=chatglm2-6b] select", "nf4")
    page.click(".model[data-name=chatglm2-6b] .button")
    expect(page.locator("#models-now .loading")).to_be_visible()
    expect(page.locator("#model-badge")).to_have_attribute("data-state", "ready")
    expect(page.locator("#model-badge")).to_contain_text("chatglm2-6b")
    page.click(".model[data-name=broken-7b] .button")
    expect(page.locator("#models-now .error")).to_contain_text("damaged")
    page.click("#unload-model")
    page.click("dialog .ok")
    expect(page.locator("#model-badge")).to_contain_text("Built-in assistant")


def test_whether_a_model_fits_follows_the_chosen_quantization(visit: Visit) -> None:
    page = visit.page
    visit.go("models")
    row = page.locator(".model[data-name=guanaco-33b-merged]")
    expect(row.locator(".fit:visible")).to_have_count(1)
    expect(row.locator(".fit:visible .verdict")).to_contain_text("will be slow")
    expect(row.locator(".fit:visible li").first).to_contain_text("choose nf4 here")
    row.locator("select[name=quantization]").select_option("int8")
    expect(row.locator(".fit:visible .verdict")).to_contain_text("Does not fit")
    row.locator("select[name=quantization]").select_option("nf4")
    expect(row.locator(".fit:visible .verdict")).to_contain_text("Fits: 22 of 24 GiB")
    expect(row.locator(".fit:visible")).to_contain_text("tokens/s")
    row.locator(".fit:visible summary").click()
    expect(row.locator(".fit:visible td").first).to_have_text("cuda:0 NVIDIA GeForce RTX 3090")
    broken = page.locator(".model[data-name=broken-7b] .fit:visible")
    expect(broken).to_have_count(1)
    expect(broken).to_contain_text("config.json")


def test_a_chat_format_is_asked_for_where_the_files_show_none(visit: Visit, site: Site) -> None:
    page = visit.page
    visit.go("models")
    expect(page.locator("select[name=chat_format]")).to_have_count(1)
    row = page.locator(".model[data-name=guanaco-33b-merged]")
    expect(row.locator("select[name=chat_format]")).to_have_value("guanaco")
    expect(row).to_contain_text("choose another")
    row.locator("select[name=chat_format]").select_option("vicuna")
    row.locator("select[name=quantization]").select_option("nf4")
    row.locator(".button").click()
    expect(page.locator("#model-badge")).to_have_attribute("data-state", "ready")
    assert site.services.models.asked == ("guanaco-33b-merged", "nf4", "vicuna")
    page.click("#unload-model")
    page.click("dialog .ok")
    expect(page.locator("#model-badge")).to_contain_text("Built-in assistant")


def test_settings_are_shown(visit: Visit) -> None:
    visit.go("settings")
    expect(visit.page.locator(".setting", has_text="SQL_ROW_LIMIT").first).to_contain_text("1000")


@pytest.mark.parametrize(
    ("language", "greeting"), [("zh-CN", "想了解什么？"), ("en-GB", "What would you like to know?")]
)
def test_the_browser_chooses_the_language(visitors: Visitors, language: str, greeting: str) -> None:
    visit = visitors.open(language=language)
    expect(visit.page.locator("h1").first).to_have_text(greeting)
    visit.page.click(".language-switch")
    visit.page.wait_for_selector("html.is-ready")
    expect(visit.page.locator("#thread h1")).not_to_have_text(greeting)


def test_light_and_dark(visitors: Visitors) -> None:
    page = visitors.open(dark=True).page
    expect(page.locator("html")).to_have_class("night is-ready is-empty")
    page.click(".theme-switch")
    expect(page.locator("html")).not_to_have_class("night is-ready is-empty")
    page.reload()
    page.wait_for_selector("html.is-ready")
    assert not page.evaluate("document.body.classList.contains('dark')")


def test_a_phone_has_everything(visitors: Visitors) -> None:
    visit = visitors.open(width=400)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    page.click(".open-sidebar")
    expect(page.locator("#sidebar")).to_be_in_viewport()
    page.click(".nav[data-page=data]")
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    expect(page.locator("#page-data h1")).to_be_visible()
    page.click(".open-sidebar")
    page.click("#new-chat")
    visit.ask("rows please")
    box = page.locator("#composer").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 400


def test_files_of_the_host_are_not_served(visit: Visit, site: Site) -> None:
    request = visit.page.context.request
    for path in ("/etc/passwd", str(site.services.settings.data_dir / "store.db"), "../../etc/passwd", "%2e%2e/app.py"):
        for route in ("gradio_api/file=", "file="):
            assert request.get(site.url + route + path).status in (401, 403, 404), path


class Listener(BaseHTTPRequestHandler):
    """Notes who asks it for anything."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)


def event_of(visit: Visit, url: str, element: str, event: str) -> int:
    """Number of the handler of a component's event, as any client can look it up."""
    config = visit.page.context.request.get(url + "config").json()
    found = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == element)
    return int(next(d["id"] for d in config["dependencies"] if [found, event] in d["targets"]))


@pytest.mark.parametrize(("element", "event"), [("attach", "upload"), ("bridge", "ask"), ("search", "change")])
def test_no_event_reads_a_file_of_the_host_or_fetches_an_address(
    visit: Visit, site: Site, element: str, event: str
) -> None:
    number = event_of(visit, site.url, element, event)
    request = visit.page.context.request
    known = site.services.settings.data_dir / "store.db"
    before = set(Path(get_upload_folder()).glob("*/passwd"))
    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listener.server_port}/x.pdf"
        hostile = [
            {"path": "/etc/passwd"}, {"path": str(known)}, {"path": address}, {"path": "x", "url": address},
            {"path": "../../etc/passwd"}, {"path": f"{get_upload_folder()}/../../etc/passwd"},
        ]  # fmt: skip
        for number_of_session, file in enumerate(hostile):
            named = {**file, "meta": {"_type": "gradio.FileData"}}
            first: object = [named] if element == "attach" else named
            data = {"attach": [first, "auto", ""], "bridge": ["auto", "", first, 0.7, 64], "search": [first]}[element]
            session = f"crossing-{element}-{number_of_session}"
            body = {"data": data, "fn_index": number, "session_hash": session, "trigger_id": None}
            assert request.post(site.url + "gradio_api/queue/join", data=body).ok
            stream = request.get(f"{site.url}gradio_api/queue/data?session_hash={session}").text()
            assert '"success":false' in stream, file
            assert "process_generating" not in stream, file
        listener.shutdown()
    assert Listener.asked == []
    assert set(Path(get_upload_folder()).glob("*/passwd")) == before


def test_no_event_is_public(visit: Visit, site: Site) -> None:
    info = visit.page.context.request.get(site.url + "gradio_api/info").json()
    assert info["named_endpoints"] == {}
    assert info["unnamed_endpoints"] == {}


def test_a_reply_whose_stream_was_closed_early_still_arrives(visit: Visit) -> None:
    page = visit.page
    closed: list[str] = []

    def close_early(route: Route) -> None:
        if closed:
            return route.continue_()
        closed.append(route.request.url)
        body = 'data: {"msg": "close_stream", "event_id": null}\n\n'
        return route.fulfill(body=body, content_type="text/event-stream")

    page.wait_for_timeout(7000)  # the nudges that belong to the opening of the page
    page.route("**/queue/data*", close_early)
    visit.ask("please cite the lantern")
    assert len(closed) == 1
    expect(page.locator("#thread .turn")).to_have_count(1)
    expect(page.locator("#ask textarea")).to_have_value("")
