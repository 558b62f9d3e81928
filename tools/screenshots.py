"""Take pictures of every page of a running app: both languages, light and dark, wide and narrow.

    python tools/screenshots.py http://127.0.0.1:7860 OUTPUT_FOLDER

Needs the dev extra and Chromium. The three pictures of the README are written by ``--readme``.
"""

import argparse
import shutil
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
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


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for language, scheme, width in product(("en", "zh"), ("light", "dark"), SIZES):
            tour(browser, options.url, language, scheme, width, options.folder)
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
