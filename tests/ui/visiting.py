"""Readers of the page, each in a browser context of its own."""

from dataclasses import dataclass

from fake_services import FakeServices
from playwright.sync_api import Browser, BrowserContext, Page


@dataclass(frozen=True)
class Site:
    """A served page; `services` are what it shows."""

    url: str
    services: FakeServices


@dataclass
class Visit:
    """A reader's page, with everything it asked of other hosts and every script error."""

    page: Page
    foreign: list[str]
    errors: list[str]

    def ask(self, question: str) -> None:
        """Type a question, send it with Enter, wait for the end of its answer."""
        turns = self.page.locator("#thread .turn").count()
        self.page.fill("#ask textarea", question)
        self.page.press("#ask textarea", "Enter")
        self.page.locator("#thread .turn").nth(turns).wait_for()
        self.page.wait_for_selector("html:not(.answering)")

    def go(self, name: str) -> None:
        """Open another page by the sidebar."""
        self.page.click(f".nav[data-page={name}]")
        self.page.wait_for_selector(f"html[data-page={name}] #page-{name} h1")


class Visitors:
    """Opens pages, each in a browser context of its own unless one is given."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        self.url = url
        self._contexts: list[BrowserContext] = []

    def open(
        self, language: str = "en-US", width: int = 1280, dark: bool = False, at: str = "", same: Visit | None = None
    ) -> Visit:
        context = same.page.context if same else self._context(language, width, dark)
        page = context.new_page()
        visit = Visit(page, [], [])
        page.on("request", lambda request: self._note(visit, request.url))
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.goto(self.url + at)
        page.wait_for_selector("html.is-ready")
        return visit

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _context(self, language: str, width: int, dark: bool) -> BrowserContext:
        context = self._browser.new_context(
            locale=language, viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(20_000)
        self._contexts.append(context)
        return context

    def _note(self, visit: Visit, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            visit.foreign.append(url)
