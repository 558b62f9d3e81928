"""Fixtures for every test: a private MariaDB server and one real browser."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, expect, sync_playwright

from dbgpt_lite.config import prepare_process
from tools.private_mariadb import MariaDB, ServerMissing, private_mariadb

prepare_process()
# A shell that starts the tests in the background lets them ignore Ctrl-C, and so the programs that they start; tests
# that press it want it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a change is judged by what it changed;
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "repeatable")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A fresh MariaDB of this test session only. Fails when none is installed."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(private_mariadb())
        except ServerMissing as missing:
            pytest.fail(str(missing), pytrace=False)
        yield server


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET_BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, started once: Playwright allows one loop a process. Fails when there is none."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail(
            "Chromium is not installed; the page is tested in a real browser. "
            "Install it (Debian and Ubuntu: apt-get install chromium) and run the tests again.",
            pytrace=False,
        )
    # Patience for a busy machine; a page that is right answers far sooner.
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=QUIET_BROWSER)
        yield running
        running.close()
