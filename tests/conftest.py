"""Fixtures for every test: a private MariaDB server and one real browser."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest
from hypothesis import settings
from playwright.sync_api import Browser, expect, sync_playwright

from dbgpt_lite.config import prepare_process

prepare_process()

# The same examples in every run, so that a change is judged by what it changed;
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "repeatable")


@dataclass(frozen=True)
class MariaDB:
    """A server of this test session only. `owner` may do everything, `reader` may SELECT from the database shop."""

    port: int
    owner_password: str = "owner-Secret-41"
    reader_password: str = "reader-Secret-42"

    def url(self, user: str, database: str = "shop") -> str:
        password = self.owner_password if user == "owner" else self.reader_password
        return f"mysql+pymysql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str | None = None) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """A plain connection with all rights, for preparing data."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="owner",
            password=self.owner_password,
            database=database,
            autocommit=True,
        )


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found:
            return found
    pytest.fail(
        f"{names[0]} is not installed; the database tests need a real server. "
        "Install it (Debian and Ubuntu: apt-get install mariadb-server) and run the tests again.",
        pytrace=False,
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_ready(
    server: "subprocess.Popen[bytes]", socket_path: Path, log: Path
) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            return pymysql.connect(unix_socket=str(socket_path), user="root", autocommit=True)
        except pymysql.Error:
            time.sleep(0.05)
    pytest.fail(f"mariadbd did not start:\n{log.read_text()[-2000:]}", pytrace=False)


def _create_accounts(root: "pymysql.Connection[pymysql.cursors.Cursor]", maria: MariaDB) -> None:
    with root, root.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop CHARACTER SET utf8mb4")
        cursor.execute("CREATE USER 'owner'@'%%' IDENTIFIED BY %s", (maria.owner_password,))
        cursor.execute("GRANT ALL PRIVILEGES ON *.* TO 'owner'@'%' WITH GRANT OPTION")
        cursor.execute("CREATE USER 'reader'@'%%' IDENTIFIED BY %s", (maria.reader_password,))
        cursor.execute("GRANT SELECT ON shop.* TO 'reader'@'%'")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A fresh MariaDB on a free port of 127.0.0.1, gone with the session. Fails when none is installed."""
    install, serve = _program("mariadb-install-db", "mysql_install_db"), _program("mariadbd", "mysqld")
    # A socket's path may have 107 characters at most, which pytest's own folders can exceed.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/mariadb-test-XXXXXX"], text=True).strip())
    data, socket_path, log = folder / "data", folder / "s", folder / "log"
    user = ["--user=root"] if os.getuid() == 0 else []
    subprocess.run(
        [
            install,
            "--no-defaults",
            *user,
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        check=True,
        capture_output=True,
    )
    maria = MariaDB(_free_port())
    server = subprocess.Popen(
        [
            serve, "--no-defaults", *user, f"--datadir={data}", f"--socket={socket_path}", f"--port={maria.port}",
            "--skip-networking=0", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={folder / 'pid'}",
            f"--log-error={log}", "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
            "--character-set-server=utf8mb4", "--local-infile=1", "--max-connections=60",
        ],
    )  # fmt: skip
    try:
        _create_accounts(_wait_ready(server, socket_path, log), maria)
        yield maria
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


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
