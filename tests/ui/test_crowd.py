"""Several readers at one real model: who waits sees it, and a closed tab or Stop frees the model within one token."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from conftest import serving
from fake_services import make_services
from playwright.sync_api import Page, expect
from visiting import Site, Visitors

from dbgpt_lite.llm import slot as slots
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage, Waiting
from tests.llm.tiny_models import make_model, make_tokenizer

SHORT = Sampling(0, 1, 8)
LONG = Sampling(0, 1, 4000)


class Watched:
    """A real engine at reading speed, which notes what it did after it was told to stop.

    A question with "slow" is answered until it is stopped, any other in a few tokens.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.log: list[tuple[str, str]] = []
        self.late = 0

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def waiting(self) -> int:
        return self._engine.waiting

    @property
    def busy(self) -> bool:
        return self._engine.busy

    def count(self, messages: Sequence[Message]) -> int:
        # The model's window is small and the app's own instructions would fill it.
        return len(messages)

    def count_text(self, text: str) -> int:
        return 1

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Waiting | Usage]:
        slow = "slow" in prompt.question
        bare = Prompt("chat", (Message("user", prompt.question),), prompt.question, owner=prompt.owner)
        self.log.append(("asked", prompt.question))
        for item in self._engine.stream(bare, LONG if slow else SHORT, cancel):
            if isinstance(item, str):
                self.late += cancel.is_set()
                cancel.wait(0.05)
            elif isinstance(item, Usage):
                self.log.append((item.finish_reason, prompt.question))
            yield item

    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        return []

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page over a model that writes for as long as it may."""
    folder = tmp_path_factory.mktemp("endless")
    # A window that twenty minutes would not fill: only a stop ends a slow answer within the test.
    make_model(folder, endless=True, max_position_embeddings=32768)
    make_tokenizer(folder)
    engine = Watched(load(folder, LoadOptions(dtype="float32", device_map="cpu")))
    with serving(make_services(tmp_path_factory.mktemp("page"), engine)) as site:
        yield site
    engine.close()


@pytest.fixture
def readers(browser: Any, crowded: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitors]:
    """Readers of that page. An answer under way keeps its place, so that only a stop can free it."""
    monkeypatch.setattr(slots, "TURN_TOKENS", 10**9)
    opened = Visitors(browser, crowded.url)
    yield opened
    opened.close()


def send(page: Page, question: str) -> None:
    page.fill("#ask textarea", question)
    page.press("#ask textarea", "Enter")


@pytest.mark.parametrize("leave", ["stop", "close"])
def test_who_waits_sees_it_and_is_served_once_the_other_leaves(readers: Visitors, crowded: Site, leave: str) -> None:
    engine = crowded.services.engine
    engine.log.clear()
    engine.late = 0
    ana, ben = readers.open().page, readers.open("zh-CN").page
    send(ana, f"slow {leave}")
    ana.wait_for_selector("#live .prose")
    send(ben, "短 dog")
    expect(ben.locator("#live .step")).to_contain_text("前面还有 1 个请求")
    assert engine.waiting == 1
    assert engine.log == [("asked", f"slow {leave}"), ("asked", "短 dog")]
    if leave == "stop":
        ana.click("#stop")
        expect(ana.locator("#thread .stopped")).to_be_visible()
    else:
        ana.close()
    expect(ben.locator("#thread .prose")).to_be_visible()
    expect(ben.locator("#thread .stopped")).to_have_text("回答已达到长度上限。")
    assert engine.log[2:] == [("cancelled", f"slow {leave}"), ("length", "短 dog")]
    assert engine.late <= 1
    assert not engine.busy
    for _ in range(100):
        # The last answer's thread ends a moment after its reader has seen it.
        if crowded.services.chat.taken:
            ben.wait_for_timeout(50)
    assert crowded.services.chat.taken == 0


def test_a_full_house_says_so_keeps_the_question_and_stores_nothing(readers: Visitors, crowded: Site) -> None:
    chat = crowded.services.chat
    page = readers.open().page
    places = [chat.admit(f"user:{number}") for number in range(64)]
    send(page, "no room")
    expect(page.locator(".toast-wrap")).to_contain_text("as this app takes on: 64")
    expect(page.locator("#ask textarea")).to_have_value("no room")
    expect(page.locator(".conversation")).to_have_count(0)
    for place in places:
        place.leave()
    send(page, "no room")
    expect(page.locator("#thread .prose")).to_be_visible()
    expect(page.locator(".conversation")).to_have_count(1)
