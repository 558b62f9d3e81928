"""The web server: page and API on one port, behind the same checks."""

import asyncio
import errno
import logging
import socket
import sys
from typing import Any

import uvicorn
from anyio import to_thread
from fastapi import FastAPI

from dbgpt_lite.auth import check_password, is_password_hash
from dbgpt_lite.config import (
    Settings,
    keep_uploads_in,
    load_settings,
    prepare_process,
    proxies_in_use,
    telemetry_left_on,
)
from dbgpt_lite.errors import ConfigError, UserError
from dbgpt_lite.guards import BrowserIdentity, PageHeaders, RequestFence
from dbgpt_lite.outbound import ConnectionLog, configured_hosts, status_line

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TALKATIVE = ("httpx", "sentence_transformers", "transformers", "accelerate", "faiss")
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> int:
    """Start the app with the settings of .env and the environment; returns the exit code when it ends."""
    prepare_process()
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level.upper(), format=_LOG_FORMAT)
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        serve(settings)
    except UserError as error:
        print(f"dbgpt_lite: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def serve(settings: Settings) -> None:
    """Listen until stopped. Raises ConfigError before anything is opened when the settings are not safe."""
    check_settings(settings)
    listener = _listen(settings)
    keep_uploads_in(settings.data_dir / "uploads")
    connections = ConnectionLog(configured_hosts(settings), settings.block_unexpected_connections, proxies_in_use())
    connections.install()
    connections.self_test()
    # Heavy imports wait until the settings are known to be right, and are watched too.
    from dbgpt_lite.bootstrap import build_services

    services = build_services(settings, connections)
    app = create_app(settings, services)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3, server_header=False)
    print(f"dbgpt_lite runs on http://{_shown_host(settings.host)}:{settings.port}", flush=True)  # noqa: T201
    print(status_line(connections, telemetry_left_on()), flush=True)  # noqa: T201
    services.start()
    try:
        asyncio.run(_serve(uvicorn.Server(config), listener, settings.max_answers))
    finally:
        services.close()


async def _serve(server: uvicorn.Server, listener: socket.socket, answers: int) -> None:
    """Serve with a thread for each answer that is waited for, beside those for everything else: Stop among it."""
    to_thread.current_default_thread_limiter().total_tokens += answers
    await server.serve(sockets=[listener])


def create_app(settings: Settings, services: Any) -> FastAPI:
    """The API with the page mounted at its root."""
    import gradio as gr

    from dbgpt_lite.api import create_api
    from dbgpt_lite.ui.app import build_ui, launch_options
    from dbgpt_lite.ui.theme import CONTENT_SECURITY_POLICY

    app = create_api(services)
    users = settings.auth_users
    login = (lambda name, password: check_password(users, name, password)) if users else None
    gr.mount_gradio_app(app, build_ui(services), path="", auth=login, **launch_options(services))
    app.add_middleware(PageHeaders, policy=CONTENT_SECURITY_POLICY)
    app.add_middleware(BrowserIdentity)
    app.add_middleware(RequestFence, loopback=settings.host in LOOPBACK)
    return app


def check_settings(settings: Settings) -> None:
    """Raises ConfigError for settings that would open the app to strangers."""
    if settings.host not in LOOPBACK and not settings.auth_users:
        raise ConfigError("app.host_needs_users", host=settings.host)
    for name, value in settings.auth_users.items():
        if not is_password_hash(value):
            raise ConfigError("app.users_not_hashed", name=name)
    for name, value in settings.api_keys.items():
        if len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise ConfigError("app.keys_not_hashed", name=name)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        key = "app.port_taken" if error.errno == errno.EADDRINUSE else "app.cannot_listen"
        raise ConfigError(key, host=settings.host, port=settings.port) from None
    return listener


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
