"""Downloading on the Models page, in a real browser against a hub on this computer; and the list of connections."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fake_services import FakeServices, make_services
from playwright.sync_api import Browser, expect
from serve import make_app
from visiting import Visitors

from tests.hub.conftest import NAME
from tests.hub.fake_hub import FakeHub, FakeRepository, serving

HOSTILE = '<img src=x onerror="window.crossed=1">'


@dataclass(frozen=True)
class Served:
    """The page with a hub behind it."""

    hub: FakeHub
    services: FakeServices
    visitors: Visitors


@pytest.fixture
def served(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Settings may be given as the fixture's parameter."""
    with serving() as hub:
        hub.repositories[NAME] = FakeRepository({"config.json": b"{}", "model.safetensors": bytes(6_000_000)})
        given: dict[str, Any] = getattr(request, "param", {})
        services = make_services(tmp_path, hf_endpoint=hub.url, **given)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(services), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        visitors = Visitors(browser, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        yield Served(hub, services, visitors)
        visitors.close()
        hub.go.set()
        services.downloads.close()
        server.should_exit = True
        thread.join(20)
        services.store.close()
        services.databases.close()


def go_on_when_it_stops(served: Served) -> None:
    """The rest arrives soon once the hub goes on: not before the server knows of the stop."""
    ended = time.monotonic() + 20
    while served.services.downloads.status.state == "running" and time.monotonic() < ended:
        time.sleep(0.01)
    served.hub.go.set()


def test_download_stop_go_on_in_both_languages(served: Served) -> None:
    hub, page = served.hub, served.visitors.open(at="#/models").page
    hub.waits_after = 3_000_000
    page.fill("#download-form [name=name]", NAME)
    page.press("#download-form [name=name]", "Enter")
    expect(page.locator("#download-progress .job b")).to_have_text(f"Downloading {NAME}")
    expect(page.locator("#download-progress .job-facts")).to_contain_text("2.86 MiB of 5.72 MiB")
    expect(page.locator("#download-progress [role=progressbar]")).to_have_attribute("aria-valuenow", "50")
    chinese = served.visitors.open("zh-CN", at="#/models").page
    expect(chinese.locator("#download-progress .job b")).to_have_text(f"正在下载 {NAME}")
    page.click("#download-progress [data-action=stop_download]")
    go_on_when_it_stops(served)
    expect(page.locator("#download-progress .job b")).to_have_text(f"Unfinished: {NAME}")
    expect(chinese.locator("#download-progress .job b")).to_have_text(f"未完成：{NAME}")
    hub.waits_after = -1
    page.click("#download-progress [data-action=resume_download]")
    expect(page.locator("#download-progress .download-done")).to_contain_text("in the models folder as tiny-llama")
    assert (served.services.settings.models_dir / "tiny-llama" / "model.safetensors").stat().st_size == 6_000_000


def test_errors_are_said_and_what_is_unfinished_can_be_discarded(served: Served) -> None:
    hub, visit = served.hub, served.visitors.open("zh-CN", at="#/models")
    page = visit.page
    page.fill("#download-form [name=name]", HOSTILE)
    page.click("#download-form button[type=submit]")
    expect(page.locator(".toast-wrap")).to_contain_text("不是模型库中的模型")
    hub.repositories[NAME].gated = True
    page.fill("#download-form [name=name]", NAME)
    page.click("#download-form button[type=submit]")
    expect(page.locator("#download-progress .error")).to_contain_text("HF_TOKEN")
    expect(page.locator("#download-progress .job")).to_have_count(0)
    hub.repositories[NAME].gated = False
    hub.waits_after = 3_000_000
    page.click("#download-form button[type=submit]")
    expect(page.locator("#download-progress .job-facts")).to_contain_text("2.86 MiB / 5.72 MiB")
    page.click("#download-progress [data-action=stop_download]")
    go_on_when_it_stops(served)
    expect(page.locator("#download-progress .job b")).to_have_text(f"未完成：{NAME}")
    page.click("#download-progress [data-action=discard_download]")
    page.click(".ask-dialog button:not(.plain)")
    expect(page.locator("#download-progress .job")).to_have_count(0)
    assert list(served.services.settings.models_dir.iterdir()) == []
    assert page.evaluate("window.crossed === undefined")
    assert visit.errors == []


@pytest.mark.parametrize("served", [{"model_downloads": "off"}], indirect=True)
def test_where_it_is_off_there_is_no_form_and_no_way_around_it(served: Served) -> None:
    page = served.visitors.open(at="#/models").page
    expect(page.locator("#models-now h1")).to_have_text("Models")
    expect(page.locator("#download-form form")).to_have_count(0)
    page.evaluate(
        """name => {
            const form = document.createElement("form");
            form.dataset.action = "download_model";
            form.innerHTML = "<input name=name>";
            form.elements[0].value = name;
            document.querySelector("#models-now").append(form);
            form.requestSubmit();
        }""",
        NAME,
    )
    expect(page.locator(".toast-wrap")).to_contain_text("switched off")
    assert served.hub.asked == []
    assert served.services.downloads.status.state == "none"


def test_the_settings_page_lists_connections(served: Served) -> None:
    page = served.visitors.open(at="#/settings").page
    expect(page.locator(".connections p").first).to_contain_text("not being watched")
    for host in (HOSTILE, "db.example"):
        served.services.connections.heard("socket.getaddrinfo", (host, 443))
    chinese = served.visitors.open("zh-CN", at="#/settings").page
    rows = chinese.locator(".connections li")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("已配置db.example (查询名称)DATABASE_URL · 1 次")
    expect(rows.nth(1)).to_contain_text(HOSTILE)
    assert chinese.evaluate("window.crossed === undefined")
