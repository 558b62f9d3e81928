"""A model of one's own: it streams, Stop stops it, kill -9 loses nothing finished, a broken one is explained."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import App
from tests.e2e.pages import ANSWER_MS, ask, choose_mode, last_answer, new_page
from tests.llm.tiny_models import make_model, make_tokenizer


@pytest.fixture(scope="module")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a long window: greedy, it babbles until it is stopped."""
    folder = tmp_path_factory.mktemp("models") / "babbler"
    make_model(folder, endless=True, max_position_embeddings=65536, num_hidden_layers=8, hidden_size=256)
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, babbler: Path) -> Iterator[App]:
    environment = {"LLM_MODEL": str(babbler), "LLM_TEMPERATURE": "0", "LLM_MAX_TOKENS": "50000", "SQL_MODEL": ""}
    running = App(tmp_path_factory.mktemp("app") / "data", environment).start()
    yield running
    running.stop()


@pytest.fixture
def page(browser: Browser, app: App) -> Iterator[Page]:
    yield from new_page(browser, app.url)


def begin(page: Page, question: str) -> None:
    choose_mode(page, "chat")
    ask(page, question, wait=False)
    expect(page.locator("#live .prose")).not_to_be_empty(timeout=ANSWER_MS)


def test_stop_midway_keeps_the_words_and_frees_the_place(page: Page) -> None:
    expect(page.locator("#badge")).to_contain_text("babbler", timeout=ANSWER_MS)
    begin(page, "Tell me everything")
    page.locator("#stop").click()
    expect(last_answer(page).locator(".stopped")).to_be_visible(timeout=ANSWER_MS)
    expect(last_answer(page).locator(".prose")).not_to_be_empty()
    # The place is free: the next answer begins.
    begin(page, "And now?")
    page.locator("#stop").click()
    expect(page.locator("#thread .stopped")).to_have_count(2, timeout=ANSWER_MS)


def test_closed_tab_frees_the_place(browser: Browser, app: App, page: Page) -> None:
    other = browser.new_context().new_page()
    other.goto(app.url)
    # A mode that is chosen before the page has been filled would be chosen anew by it.
    other.wait_for_selector("html.is-ready", timeout=ANSWER_MS)
    begin(other, "Nobody will read this")
    other.context.close()
    # One answer at a time: that this one begins is what shows that the place was given back.
    begin(page, "But this")
    page.locator("#stop").click()
    expect(last_answer(page).locator(".stopped")).to_be_visible(timeout=ANSWER_MS)


def test_kill_during_an_answer_leaves_the_rest_and_offers_a_retry(page: Page, app: App) -> None:
    begin(page, "First question")
    page.locator("#stop").click()
    expect(last_answer(page).locator(".stopped")).to_be_visible(timeout=ANSWER_MS)
    kept = last_answer(page).locator(".prose").inner_text()
    begin(page, "Second question")
    cookies = page.context.cookies()
    place = page.url.split("#")[-1]
    app.kill()
    app.start()
    page.context.add_cookies(
        [{"name": c["name"], "value": c["value"], "url": app.url, "httpOnly": True} for c in cookies]
    )
    page.goto(f"{app.url}/#{place}")
    expect(page.locator("#thread .turn")).to_have_count(2, timeout=ANSWER_MS)
    assert page.locator("#thread .answer").first.locator(".prose").inner_text() == kept
    page.locator("#thread .retry").click()
    expect(page.locator("#live .prose")).not_to_be_empty(timeout=ANSWER_MS)
    page.locator("#stop").click()
    expect(page.locator("#thread .stopped")).to_have_count(2, timeout=ANSWER_MS)
    expect(page.locator("#thread .turn")).to_have_count(2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LLM_MODEL": "models/guanaco-33b-merged"}, "guanaco-33b-merged"),
        ({"LLM_ENDPOINT": "http://127.0.0.1:9/v1"}, "127.0.0.1 does not answer"),
    ],
)
def test_a_model_that_cannot_be_had_is_explained_and_the_assistant_answers(
    browser: Browser, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    app = App(tmp_path / "data", settings).start()
    try:
        page = next(opened := new_page(browser, app.url))
        page.goto(f"{app.url}/#/models")
        expect(page.locator("#page-models")).to_contain_text(said, timeout=ANSWER_MS)
        page.goto(f"{app.url}/#/")
        choose_mode(page, "documents")
        ask(page, "How many days do customers have to return an article?")
        expect(last_answer(page)).to_contain_text("45 days")
        opened.close()
    finally:
        app.stop()
