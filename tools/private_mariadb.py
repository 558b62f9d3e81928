"""A private MariaDB server on a free port of 127.0.0.1, gone when its context ends: for tests and benchmarks."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pymysql

Connection: TypeAlias = "pymysql.Connection[pymysql.cursors.Cursor]"


class ServerMissing(RuntimeError):
    """MariaDB is not installed, or did not start; the message says which."""


@dataclass(frozen=True)
class MariaDB:
    """A private server. `owner` may do everything, `reader` may SELECT from the database shop."""

    port: int
    owner_password: str = "owner-Secret-41"
    reader_password: str = "reader-Secret-42"

    def url(self, user: str, database: str = "shop") -> str:
        """The SQLAlchemy URL of `database` for one of the two accounts."""
        password = self.owner_password if user == "owner" else self.reader_password
        return f"mysql+pymysql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str | None = None) -> Connection:
        """A plain connection with all rights, for preparing data."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="owner",
            password=self.owner_password,
            database=database,
            autocommit=True,
        )


@contextmanager
def private_mariadb() -> Iterator[MariaDB]:
    """Start a fresh server, yield it, and remove it with its data. Raises ServerMissing."""
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


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found:
            return found
    raise ServerMissing(
        f"{names[0]} is not installed; the database tests need a real server. "
        "Install it (Debian and Ubuntu: apt-get install mariadb-server) and run the tests again."
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_ready(server: "subprocess.Popen[bytes]", socket_path: Path, log: Path) -> Connection:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            return pymysql.connect(unix_socket=str(socket_path), user="root", autocommit=True)
        except pymysql.Error:
            time.sleep(0.05)
    raise ServerMissing(f"mariadbd did not start:\n{log.read_text()[-2000:]}")


def _create_accounts(root: Connection, maria: MariaDB) -> None:
    with root, root.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop CHARACTER SET utf8mb4")
        cursor.execute("CREATE USER 'owner'@'%%' IDENTIFIED BY %s", (maria.owner_password,))
        cursor.execute("GRANT ALL PRIVILEGES ON *.* TO 'owner'@'%' WITH GRANT OPTION")
        cursor.execute("CREATE USER 'reader'@'%%' IDENTIFIED BY %s", (maria.reader_password,))
        cursor.execute("GRANT SELECT ON shop.* TO 'reader'@'%'")
