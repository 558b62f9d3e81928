"""The page over fake services, served by uvicorn, and a real Chromium to look at it."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))

from fake_services import FakeServices, make_services
from serve import make_app
from visiting import Site, Visit, Visitors


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests of the page; each browser context is a reader of its own."""
    with serving(make_services(tmp_path_factory.mktemp("page"))) as site:
        yield site


@contextmanager
def serving(services: FakeServices) -> Iterator[Site]:
    """The page over these services, at a free port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(make_app(services), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", services)
    server.should_exit = True
    thread.join(20)
    services.store.close()
    services.databases.close()


@pytest.fixture
def visitors(browser: Browser, site: Site) -> Iterator[Visitors]:
    """Readers of the page."""
    opened = Visitors(browser, site.url)
    yield opened
    opened.close()


@pytest.fixture
def visit(visitors: Visitors) -> Visit:
    """An English reader at a desk."""
    return visitors.open()
