"""kill -9 while files are being indexed: finished files stay searchable, and the rest is finished after the start."""

from pathlib import Path

import httpx
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import App
from tests.e2e.pages import ANSWER_MS, add, new_page, new_space, searchable

FILES = 30


def test_finished_files_survive(browser: Browser, tmp_path: Path) -> None:
    files = []
    for number in range(FILES):
        file = tmp_path / f"note-{number:02}.txt"
        lines = [f"Locker {number * 100 + n} holds item {n * 7 + number} of the collection." for n in range(200)]
        file.write_text(f"The keeper of note {number} is Keeper{number:02}.\n" + "\n".join(lines), encoding="utf-8")
        files.append(file)
    app = App(tmp_path / "data").start()
    page = next(opened := new_page(browser, app.url))
    new_space(page, "Notes")
    add(page, *files)
    expect(page.locator(".document[data-status=ready]").first).to_be_visible(timeout=ANSWER_MS)
    assert page.locator(".document[data-status=ready]").count() < FILES
    address = page.url.split("#")[1]
    app.kill()
    app.start()
    try:
        models = httpx.get(f"{app.url}/v1/models", trust_env=False).json()["data"]
        spaces = [m["id"] for m in models if m["id"].startswith("dbgpt-lite/documents/")]
        assert len(spaces) == 2, "the sample space and the new one"
        body = {"messages": [{"role": "user", "content": "Who is the keeper of note 0?"}]}
        found = [
            httpx.post(f"{app.url}/v1/chat/completions", json={**body, "model": s}, timeout=60, trust_env=False).json()
            for s in spaces
        ]
        answers = [reply["choices"][0]["message"]["content"] for reply in found]
        assert any("Keeper00" in answer for answer in answers), answers
        page.goto(f"{app.url}/#{address}")
        searchable(page, FILES)
    finally:
        opened.close()
        app.stop()
