"""Take pictures of every page of a running app: both languages, light and dark, wide and narrow.

    python tools/screenshots.py http://127.0.0.1:7860 OUTPUT_FOLDER

Needs the dev extra and Chromium. The three pictures of the README are written by ``--readme``.
"""

import argparse
import shutil
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = "租赁合同\n甲方将观星台租给乙方，租期三年。\n月租金为八千六百元，押金为两个月租金。\n"
KNOWLEDGE = {
    "en": {
        "space": "Observatory", "log": "Logbook of the dome, swallows counted:", "title": "House rules",
        "text": "House rules\n\nThe observatory opens at dusk. Visitors wear soft shoes in the dome.\n"
        "A guided evening costs 14 crowns and lasts two hours.",
        "searchable": "searchable", "question": "What does a guided evening cost?",
        "refused": "What is the boiling point of mercury?",
    },
    "zh": {
        "space": "观星台", "log": "值班日志 记录的燕子数量：", "title": "参观须知",
        "text": "参观须知\n\n观星台于黄昏开放，进入圆顶须换软底鞋。\n讲解夜场每人十四元，时长两小时。",
        "searchable": "可检索", "question": "讲解夜场多少钱？", "refused": "水银的沸点是多少度？",
    },
}  # fmt: skip
# In English on both pages: the embedded SQL model reads no Chinese.
QUERIES = {
    "chart": "Total revenue per month",
    "write": "Delete all orders.",
    "repair": "How many orders did customers from Shanghai place?",
}
EDITED = (
    "SELECT substr(order_date, 1, 7) AS month, count(*) AS orders, sum(total) AS revenue\n"
    "FROM orders\nWHERE status <> 'cancelled'\nGROUP BY substr(order_date, 1, 7)\nORDER BY month"
)
CHINESE_NAMES = (
    "SELECT c.chinese_name AS 城市, count(*) AS 客户数 FROM customers AS u JOIN cities AS c ON c.id = u.city_id "
    "GROUP BY c.chinese_name ORDER BY 客户数 DESC LIMIT 12"
)
SIZES = {"wide": (1280, 800), "narrow": (400, 800)}
PAGES = ("knowledge", "data", "models", "settings")
QUESTIONS = {
    "en": (
        ("documents", "How many days do customers have to return an article?"),
        ("database", "Which cities have more than 50 customers?"),
        ("documents", "What is the boiling point of mercury?"),
    ),
    "zh": (
        ("documents", "工龄满五年有多少天年假？"),
        ("chat", "你能做什么？"),
        ("database", "一共有多少位客户？"),
    ),
}


def open_page(browser: Browser, url: str, language: str, scheme: str, size: tuple[int, int]) -> Page:
    """A fresh browser of one language, colour scheme and size."""
    locale = "zh-CN" if language == "zh" else "en-GB"
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(locale=locale, color_scheme=scheme, viewport=viewport)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("html.is-ready")
    page.wait_for_timeout(400)
    return page


def ask(page: Page, mode: str, question: str) -> None:
    """Ask and wait for the stored answer."""
    before = page.locator("#thread .turn").count()
    page.locator(f"#mode input[value={mode}]").check(force=True)
    page.locator("#ask textarea").fill(question)
    page.locator("#ask textarea").press("Enter")
    expect(page.locator("#thread .turn")).to_have_count(before + 1, timeout=90_000)
    page.wait_for_timeout(500)


def tour(browser: Browser, url: str, language: str, scheme: str, width: str, folder: Path) -> None:
    """Every page once."""
    page = open_page(browser, url, language, scheme, SIZES[width])

    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"{language}-{scheme}-{width}-{name}.png")

    shoot("0-empty")
    for number, (mode, question) in enumerate(QUESTIONS[language], 1):
        ask(page, mode, question)
        if page.locator("#thread .answer").last.locator(".citation").count():
            page.locator("#thread .answer").last.locator(".citation").first.click()
            page.wait_for_timeout(300)
        shoot(f"{number}-{mode}")
    for number, name in enumerate(PAGES, 4):
        page.goto(f"{url}/#/{name}")
        page.wait_for_timeout(1500)
        shoot(f"{number}-{name}")
    page.context.close()


def knowledge_tour(browser: Browser, url: str, language: str, scheme: str, width: str, folder: Path) -> None:
    """A space from its making to its answers, and a file thrown into a chat. Removes what it has made."""
    page = open_page(browser, url, language, scheme, SIZES[width])
    words = KNOWLEDGE[language]

    def shoot(name: str, wait_ms: int = 500) -> None:
        page.wait_for_timeout(wait_ms)
        page.screenshot(path=folder / f"{language}-{scheme}-{width}-{name}.png")

    page.goto(f"{url}/#/knowledge")
    page.click("#new-space")
    page.fill("dialog input", f"{words['space']} {language}-{scheme}-{width}")
    page.click("dialog .ok")
    page.wait_for_selector("#knowledge-top [data-view=space]")
    shoot("k1-empty-space")
    page.set_input_files("#knowledge-upload input[type=file]", [*_long_files(words["log"]), _file("scan.pdf", b"%PDF")])
    expect(page.locator("#knowledge-progress .bar i").first).not_to_have_attribute("style", "width:0%", timeout=60_000)
    shoot("k2-ingesting", 300)
    page.click(".stop-job")
    expect(page.locator(".banner")).to_be_visible(timeout=30_000)
    shoot("k3-stopped")
    page.click("[data-action=resume_space]")
    page.wait_for_selector("#knowledge-progress [data-running]")
    expect(page.locator("#knowledge-progress [data-running]")).to_have_count(0, timeout=240_000)
    page.set_input_files("#knowledge-upload input[type=file]", _file("合同.txt", CONTRACT.encode("gb18030")))
    page.wait_for_selector(".preview")
    shoot("k4-encoding")
    page.click(".index-held")
    page.click(".add-url")
    shoot("k5-web-page")
    page.fill("dialog input", "http://192.168.1.1/admin")
    page.click("dialog .ok")
    page.wait_for_selector(".job[data-kind=fetch][data-state=failed]")
    shoot("k6-refused-address")
    page.click(".job[data-kind=fetch] .dismiss")
    page.click(".add-text")
    page.locator("dialog input").fill(words["title"])
    page.locator("dialog textarea").fill(words["text"])
    shoot("k7-paste")
    page.click("dialog .ok")
    expect(page.locator(".document", has_text=words["title"])).to_contain_text(words["searchable"], timeout=60_000)
    page.reload()
    page.wait_for_selector(".document")
    shoot("k8-documents")
    page.locator(".document .open", has_text=words["title"]).click()
    page.wait_for_selector(".chunk")
    shoot("k9-passages")
    page.click(".back")
    page.click(".ask-here")
    expect(page.locator("#source option:checked")).to_contain_text(words["space"])
    ask(page, "documents", words["question"])
    page.locator("#thread .citation").first.click()
    shoot("k10-citation", 2000)
    ask(page, "documents", words["refused"])
    page.locator("#thread .near-misses > summary").last.click()
    shoot("k11-near-misses")
    page.goto(f"{url}/#/")
    page.set_input_files("#composer input[type=file]", _file(f"{words['title']}.md", words["text"].encode()))
    page.wait_for_selector(".chip[data-state=ready]")
    shoot("k12-thrown-in")
    page.goto(f"{url}/#/knowledge")
    page.locator(".space-card", has_text=f"{language}-{scheme}-{width}").click()
    page.click("[data-action=delete_space]")
    shoot("k13-delete")
    page.click("dialog .ok")
    page.wait_for_selector("#new-space")
    page.context.close()


def query_tour(
    browser: Browser, url: str, connection: str, language: str, scheme: str, width: str, folder: Path
) -> None:
    """From a question to a chart, an edited query run again, a write refused, a repair, and one's own queries."""
    page = open_page(browser, url, language, scheme, SIZES[width])

    def shoot(name: str, at: str = "") -> None:
        if page.locator(at or "nothing").count():
            page.locator(at).last.evaluate("part => part.scrollIntoView({block: 'center'})")
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{language}-{scheme}-{width}-{name}.png")

    page.locator("#mode input[value=database]").check(force=True)
    page.locator("#source select").select_option(connection)
    ask(page, "database", QUERIES["chart"])
    shoot("q1-chart", "#thread .query")
    page.locator("#thread .explain-sql").last.click()
    page.wait_for_selector("#thread .explained")
    shoot("q2-explained", "#thread .query")
    page.locator("#thread .edit-sql").last.click()
    page.locator("#thread .sql-edit textarea").fill("DELETE FROM orders")
    page.locator("#thread .sql-edit textarea").press("Control+Enter")
    page.wait_for_selector("#thread .part-problem .error")
    shoot("q3-write-refused", "#thread .sql-box")
    page.locator("#thread .sql-edit textarea").fill(EDITED)
    page.locator("#thread .sql-edit textarea").press("Control+Enter")
    expect(page.locator("#thread .sql-box")).to_have_count(0, timeout=60_000)
    page.locator("#thread .rate.up").last.click()
    shoot("q4-edited-and-run-again", "#thread .query")
    ask(page, "database", QUERIES["write"])
    shoot("q5-asked-to-write")
    ask(page, "database", QUERIES["repair"])
    for fold in page.locator("#thread .turn:last-child .attempts:not([open]) > summary").all():
        fold.click()
    shoot("q6-repair")
    page.goto(f"{url}/#/data")
    page.wait_for_selector("#connection select")
    page.locator("#connection select").select_option(connection)
    page.wait_for_selector("#schema .table")
    page.locator("#sql-editor textarea").fill(CHINESE_NAMES)
    page.locator("#sql-editor textarea").press("Control+Enter")
    page.wait_for_selector("#sql-result .result-table")
    page.locator(".shelf.past summary").click()
    shoot("q7-own-query")
    page.context.close()


def _file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def _long_files(line: str) -> list[FilePayload]:
    """Files that take a while to embed."""
    return [
        _file(f"{line.split()[0]} {number:02}.txt", "\n".join(f"{line} {n * number}." for n in range(400)).encode())
        for number in range(1, 30)
    ]


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--knowledge", action="store_true", help="only the knowledge base, in English and Chinese")
    parser.add_argument("--queries", metavar="CONNECTION", help="only queries, on a connection to the sample shop")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for language, scheme, width in product(("en", "zh"), ("light", "dark"), SIZES):
            if options.queries:
                query_tour(browser, options.url, options.queries, language, scheme, width, options.folder)
                continue
            if not options.knowledge:
                tour(browser, options.url, language, scheme, width, options.folder)
            if (scheme, width) in (("light", "wide"), ("dark", "narrow")):
                knowledge_tour(browser, options.url, language, scheme, width, options.folder)
        browser.close()
    if options.readme:
        images = ROOT / "docs" / "images"
        images.mkdir(exist_ok=True)
        for source, name in (
            ("en-light-wide-1-documents", "documents"),
            ("en-light-wide-2-database", "database"),
            ("zh-dark-narrow-1-documents", "chinese-dark"),
        ):
            shutil.copy(options.folder / f"{source}.png", images / f"{name}.png")


if __name__ == "__main__":
    main()
