"""Looks and launch options. Colours, type and layout are in style.css, behaviour in page.js and queries.js."""

from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from dbgpt_lite.bootstrap import Services

SANS = (
    "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "Liberation Sans", "Arial", "PingFang SC",
    "Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", "sans-serif",
)  # fmt: skip
# Nothing may be fetched from or sent to another host, even if a fence around a model's text had a gap.
# Gradio itself needs inline scripts and Function().
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='9' fill='%230b7466'/%3E%3Cpath d='M9 11h14M9 16h14M9 21h8' stroke='%23fff' stroke-width='2.6' "
    "stroke-linecap='round'/%3E%3C/svg%3E"
)
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "Noto Sans Mono CJK SC", "monospace")


def page_theme() -> gr.themes.Base:
    """Gradio's plainest theme on the system's own fonts: nothing is fetched."""
    return gr.themes.Base(font=list(SANS), font_mono=list(MONO))


def page_asset(name: str) -> str:
    """A text file of this package."""
    return (resources.files("dbgpt_lite.ui") / name).read_text(encoding="utf-8")


def page_head() -> str:
    """style.css and the scripts. As `css`, Gradio would prefix every rule and cut off those about the whole page."""
    icon = f'<link rel="icon" href="{ICON}">'
    queries = f"<script>{page_asset('queries.js')}</script>"
    return f"{icon}<style>{page_asset('style.css')}</style><script>{page_asset('page.js')}</script>{queries}"


def launch_options(services: "Services") -> dict[str, Any]:
    """Keyword arguments for ``gr.mount_gradio_app``.

    Nothing of the disk can be fetched: results are saved by the browser from what the page already holds.
    """
    return {
        "theme": page_theme(),
        "head": page_head(),
        "footer_links": [],
        "run_history": False,
        "mcp_server": False,
        "show_error": False,
        "ssr_mode": False,
        "pwa": False,
        "enable_monitoring": False,
        "max_file_size": services.settings.upload_max_mb * 10**6,
    }
