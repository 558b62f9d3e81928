"""Serve the page over the fake services: ``python tests/ui/serve.py PORT [FOLDER]``; for looking at it."""

import sys
import tempfile
from pathlib import Path

import gradio as gr
import uvicorn
from fake_services import make_services
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbgpt_lite.guards import BrowserIdentity
from dbgpt_lite.ui.app import build_ui, launch_options
from dbgpt_lite.ui.theme import CONTENT_SECURITY_POLICY


class _Policy:
    """Adds the page's content security policy to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = CONTENT_SECURITY_POLICY
            await send(message)

        await self._app(scope, receive, sending)


def make_app(services: object) -> FastAPI:
    """The page as the server mounts it."""
    app = FastAPI()
    gr.mount_gradio_app(app, build_ui(services), path="", **launch_options(services))
    app.add_middleware(BrowserIdentity)
    app.add_middleware(_Policy)
    return app


if __name__ == "__main__":
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    uvicorn.run(make_app(make_services(folder)), port=int(sys.argv[1]), log_level="warning")
