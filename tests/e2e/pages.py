"""What a person does with the page, in words."""

from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect

ANSWER_MS = 60_000


def new_page(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh browser at the app; fails at the end when the page asked another machine for anything."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 800})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.wait_for_selector("html.is-ready", timeout=ANSWER_MS)
    yield page
    context.close()
    assert [u for u in asked if not u.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def ask(page: Page, question: str, wait: bool = True) -> None:
    """Type a question, press Enter and wait until it is answered and stored."""
    before = page.locator("#thread .turn").count()
    box = page.locator("#ask textarea")
    box.fill(question)
    box.press("Enter")
    if wait:
        expect(page.locator("#thread .turn")).to_have_count(before + 1, timeout=ANSWER_MS)
        expect(page.locator("#live .turn")).to_have_count(0, timeout=ANSWER_MS)


def last_answer(page: Page) -> Locator:
    """The newest finished answer."""
    return page.locator("#thread .answer").last


def choose_mode(page: Page, mode: str) -> None:
    """Pick chat, documents or database beside the box."""
    page.locator(f"#mode input[value={mode}]").check(force=True)


def upload(page: Page, *files: Path) -> None:
    """Throw files into the chat and wait until they are indexed and chosen."""
    page.locator("#attach input[type=file], #composer input[type=file]").first.set_input_files([str(f) for f in files])
    expect(page.locator("#mode input[value=documents]")).to_be_checked(timeout=ANSWER_MS)
    expect(page.locator(".chip[data-state=ready]")).to_have_count(len(files), timeout=ANSWER_MS)


def new_space(page: Page, name: str) -> None:
    """Make a space on the Knowledge page and leave it open."""
    page.goto(page.url.split("#")[0] + "#/knowledge")
    page.locator("#new-space").click()
    page.locator("dialog input").fill(name)
    page.locator("dialog .ok").click()
    expect(page.locator("#knowledge-top h1")).to_have_text(name)


def add(page: Page, *files: Path) -> None:
    """Add files to the open space."""
    with page.expect_file_chooser() as chooser:
        page.locator("#space-upload").click()
    chooser.value.set_files([str(f) for f in files])


def searchable(page: Page, count: int) -> None:
    """Wait until the open space has so many searchable documents and nothing runs."""
    expect(page.locator(".document[data-status=ready]")).to_have_count(count, timeout=ANSWER_MS)
    expect(page.locator("#knowledge-progress [data-running]")).to_have_count(0, timeout=ANSWER_MS)


def ask_space(page: Page, question: str) -> Locator:
    """Ask the open space; returns the answer."""
    page.locator(".ask-here").click()
    expect(page.locator("#mode input[value=documents]")).to_be_checked()
    ask(page, question)
    return last_answer(page)
