"""Queries in a real browser: from a question to a chart, through its rows, edited, saved; hostile cells stay text."""

import csv
import io
from pathlib import Path

import openpyxl
import pytest
from playwright.sync_api import Locator, Page, expect
from visiting import Site, Visit, Visitors

CROSSED = "window.crossed === undefined"


def saved(page: Page, button: Locator) -> bytes:
    """The file behind a button."""
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_bytes()


def hover(mark: Locator) -> None:
    """Point at a mark of a chart, once the page has stopped scrolling: a scroll takes the values away."""
    mark.scroll_into_view_if_needed()
    mark.page.wait_for_timeout(300)
    mark.hover()


def own(page: Page, sql: str) -> None:
    """Run a query of one's own with the keyboard, and wait for its end."""
    page.fill("#sql-editor textarea", sql)
    page.press("#sql-editor textarea", "Control+Enter")
    page.wait_for_selector("html:not(.running-sql)")


def edit(page: Page, sql: str) -> None:
    """Edit the only query of the thread and run it with the keyboard."""
    if not page.locator("#thread .sql-edit").count():
        page.click("#thread .edit-sql")
    page.fill("#thread .sql-edit textarea", sql)
    page.press("#thread .sql-edit textarea", "Control+Enter")


def test_a_question_becomes_a_chart_that_can_be_changed(visitors: Visitors, visit: Visit) -> None:
    page = visit.page
    visit.ask("months please")
    expect(page.locator(".drawing")).to_have_attribute("data-kind", "line")
    expect(page.locator(".drawing figcaption")).to_have_text("revenue, costs by month")
    hover(page.locator(".chart.wide .hit").first)
    expect(page.locator("#tip")).to_have_text("2025-01\nrevenue: 42,310.5\ncosts: 39,900")
    page.select_option(".chart-tools [name=kind]", "pie")
    expect(page.locator(".drawing")).to_have_attribute("data-kind", "pie")
    expect(page.locator("#tip")).to_have_count(0)
    page.focus(".chart-tools [name=y]")
    page.select_option(".chart-tools [name=y]", "2")
    expect(page.locator(".drawing figcaption")).to_have_text("costs by month")
    expect(page.locator(".chart-tools [name=y]")).to_be_focused()
    again = visitors.open(same=visit, at=page.url.split("/", 3)[3])
    expect(again.page.locator(".drawing")).to_have_attribute("data-kind", "pie")
    expect(again.page.locator(".drawing figcaption")).to_have_text("costs by month")
    page.select_option(".chart-tools [name=kind]", "none")
    expect(page.locator(".drawing")).to_have_count(0)
    assert not visit.errors
    assert not visit.foreign


def test_rows_are_paged_and_files_hold_them_all(visit: Visit) -> None:
    page = visit.page
    visit.ask("rows please")
    rows = page.locator("#thread .result-table tbody tr")
    expect(rows).to_have_count(10)
    expect(page.locator(".page-back")).to_be_disabled()
    page.click(".page-next")
    expect(rows.first.locator("td").first).to_have_text("11")
    expect(page.locator(".steps .place")).to_have_text("11–20 of 250")
    expect(page.locator(".page-next")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".steps .place")).to_have_text("21–30 of 250")
    page.select_option("[name=size]", "200")
    expect(rows).to_have_count(200)
    page.click(".page-next")
    expect(page.locator(".steps .place")).to_have_text("201–250 of 250")
    expect(page.locator(".page-next")).to_be_disabled()
    read = list(csv.reader(io.StringIO(saved(page, page.locator("#thread .csv")).decode("utf-8-sig"))))
    assert len(read) == 251
    assert read[1][3] == "'=cmd|' /C calc'!A0"
    sheet = openpyxl.load_workbook(io.BytesIO(saved(page, page.locator("#thread .xlsx")))).active
    cells = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert len(cells) == 251
    assert cells[1][3] == "=cmd|' /C calc'!A0"
    assert sheet["D2"].data_type == "s"
    assert page.evaluate(CROSSED)
    assert not visit.errors


def test_an_edited_query_runs_in_its_place(visitors: Visitors, visit: Visit) -> None:
    page = visit.page
    visit.ask("months please")
    page.click("#thread .explain-sql")
    expect(page.locator("#thread .explained")).to_contain_text("Runs <b>SELECT month")
    page.click("#thread .edit-sql")
    expect(page.locator("#thread .explained")).to_be_visible()
    edit(page, "SELECT month, revenu FROM months -- <img src=x onerror=window.crossed=1>")
    expect(page.locator("#thread .explained")).to_have_count(0)
    expect(page.locator("#thread .part-problem .error")).to_contain_text("did you mean revenue?")
    expect(page.locator("#thread .result-table tbody tr")).to_have_count(10)
    page.keyboard.press("Escape")
    expect(page.locator("#thread .code.sql").first).to_contain_text("SELECT month, revenue, costs")
    edit(page, "SELECT month, revenue FROM months WHERE month > '2025-09'")
    expect(page.locator("#thread .code.sql figcaption").first).to_contain_text("edited by you")
    expect(page.locator("#thread .result-table tbody tr")).to_have_count(3)
    expect(page.locator("#thread .prose")).to_have_text("There are 3 rows now.")
    page.click(".attempts summary")
    expect(page.locator(".attempts li")).to_have_count(2)
    expect(page.locator(".attempts li").last).to_contain_text("Before your edit")
    page.click(".rate.up")
    expect(page.locator(".rate.up")).to_have_attribute("aria-pressed", "true")
    page.click(".rate.down")
    expect(page.locator(".rate.up")).to_have_attribute("aria-pressed", "false")
    page.click(".rate.down")
    expect(page.locator(".rate.down")).to_have_attribute("aria-pressed", "false")
    again = visitors.open(same=visit, at=page.url.split("/", 3)[3])
    expect(again.page.locator("#thread .code.sql").first).to_contain_text("WHERE month >")
    assert page.evaluate(CROSSED)
    assert not visit.errors


def test_a_write_and_a_foreign_answer_are_refused(visit: Visit, visitors: Visitors, site: Site) -> None:
    page = visit.page
    visit.ask("cities please")
    edit(page, "DELETE FROM customers")
    expect(page.locator("#thread .part-problem .error")).to_contain_text("DELETE cannot")
    of = page.locator("#thread .part-problem").get_attribute("data-of")
    other = visitors.open()
    other.ask("hello")
    other.page.evaluate("(of) => { document.querySelector('#thread .answer').innerHTML ="
        "`<button class=stolen data-action=save_rows data-of=${of} data-format=csv>x</button>"
        "<button class=moved data-action=rows data-of=${of}>x</button>`; }", of)  # fmt: skip
    other.page.click(".stolen")
    expect(other.page.locator(".toast-wrap")).to_contain_text("not kept any more")
    other.page.click(".moved")
    expect(other.page.locator(".result-table")).to_have_count(0)


def test_a_slow_query_of_an_answer_is_stopped_by_the_reader(visit: Visit, site: Site) -> None:
    page = visit.page
    visit.ask("cities please")
    site.services.desk.stopped.clear()
    edit(page, "SELECT 'slow' AS a FROM customers")
    page.click("#thread .stop-sql")
    expect(page.locator("#thread .part-problem")).to_contain_text("The query was stopped.")
    assert site.services.desk.stopped.is_set()
    expect(page.locator("#thread .rerun")).to_be_visible()


def test_closing_the_tab_stops_its_query(visitors: Visitors, site: Site) -> None:
    visit = visitors.open()
    visit.go("data")
    site.services.desk.stopped.clear()
    visit.page.fill("#sql-editor textarea", "SELECT 'slow' AS a")
    visit.page.click("#run-sql")
    expect(visit.page.locator("#cancel-sql")).to_be_visible()
    visit.page.wait_for_timeout(500)
    visit.page.close()
    assert site.services.desk.stopped.wait(20)


def test_ones_own_queries_are_run_stopped_saved_and_found_again(visit: Visit) -> None:
    page = visit.page
    visit.go("data")
    own(page, "SELECT * FROM items ORDER BY id")
    expect(page.locator("#sql-result .result-table tbody tr")).to_have_count(50)
    page.click("#sql-result .page-next")
    expect(page.locator("#sql-result .steps .place")).to_have_text("51–100 of 250")
    assert saved(page, page.locator("#sql-result .csv")).count(b"\n") == 251
    page.click("#data-query .explain-sql")
    expect(page.locator("#data-query .explained")).to_be_visible()
    page.click(".save-sql")
    page.fill("dialog input", "All <b>items</b>")
    page.click("dialog .ok")
    page.click(".shelf.saved summary")
    expect(page.locator(".shelf.saved b").last).to_have_text("All <b>items</b>")

    page.fill("#sql-editor textarea", "SELECT 'slow' AS a")
    expect(page.locator("#data-query .explained")).to_have_count(0)
    page.click("#run-sql")
    page.click("#cancel-sql")
    expect(page.locator("#sql-result .stopped")).to_have_text("The query was stopped.")
    expect(page.locator("#cancel-sql")).to_be_hidden()
    own(page, "SELECT nme FROM items")
    expect(page.locator("#sql-result .error")).to_contain_text("did you mean name?")

    page.click(".shelf.past summary")
    # What a fence refused reached no database and is no part of the history.
    expect(page.locator(".shelf.past li")).to_have_count(2)
    expect(page.locator(".shelf.past li").first).to_contain_text("stopped")
    page.locator(".shelf.past .use-sql").last.click()
    expect(page.locator("#sql-editor textarea")).to_have_value("SELECT * FROM items ORDER BY id")
    page.click(".shelf.saved summary") if not page.locator(".shelf.saved .rename").is_visible() else None
    page.click(".shelf.saved .rename")
    page.fill("dialog input", "Everything")
    page.click("dialog .ok")
    expect(page.locator(".shelf.saved b").last).to_have_text("Everything")
    page.click(".shelf.saved summary") if not page.locator(".shelf.saved .delete").is_visible() else None
    page.click(".shelf.saved .delete")
    page.click("dialog .ok")
    expect(page.locator(".shelf.saved .none")).to_have_count(1)
    assert not visit.errors


def test_another_reader_sees_none_of_ones_queries(visitors: Visitors) -> None:
    first = visitors.open()
    first.go("data")
    own(first.page, "SELECT name FROM items WHERE id = 2")
    other = visitors.open()
    other.go("data")
    expect(other.page.locator(".shelf.past .none")).to_have_count(1)


def test_odd_cells_are_shown_as_they_are(visit: Visit) -> None:
    page = visit.page
    visit.go("data")
    own(page, "SELECT big, blob, text FROM oddities ORDER BY big DESC")
    cells = page.locator("#sql-result tbody td")
    expect(cells).to_have_text(
        ["9223372036854775807", "<2 bytes>", "", "7", "<0 bytes>", "two lines", "-9007199254740993", "NULL", "NULL"]
    )
    assert page.locator("#sql-result td.null").count() == 1
    sheet = openpyxl.load_workbook(io.BytesIO(saved(page, page.locator("#sql-result .xlsx")))).active
    assert [row[0].value for row in sheet.iter_rows(min_row=2)] == ["9223372036854775807", 7, "-9007199254740993"]
    own(page, 'SELECT name AS "<img src=x onerror=window.crossed=1>", id FROM items WHERE id < 4')
    page.select_option("#sql-result [name=kind]", "bar")
    expect(page.locator("#sql-result figcaption")).to_contain_text("<img src=x onerror=window.crossed=1>")
    hover(page.locator("#sql-result .chart.wide rect").first)
    expect(page.locator("#tip")).to_contain_text("<img src=x")
    assert page.locator("#sql-result img").count() == 0
    assert page.evaluate(CROSSED)
    assert not visit.errors


@pytest.mark.parametrize(("width", "shown", "hidden"), [(1280, "wide", "narrow"), (400, "narrow", "wide")])
def test_a_chart_has_the_width_of_its_column(visitors: Visitors, width: int, shown: str, hidden: str) -> None:
    visit = visitors.open(language="zh-CN", width=width, dark=True)
    page = visit.page
    visit.ask("每个城市有多少客户")
    expect(page.locator(f"#thread .chart.{shown}")).to_be_visible()
    expect(page.locator(f"#thread .chart.{hidden}")).to_be_hidden()
    expect(page.locator(".drawing figcaption")).to_be_visible()
    expect(page.locator(f"#thread .chart.{shown}")).to_contain_text("呼和浩特")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('#scroll').scrollWidth") <= width
