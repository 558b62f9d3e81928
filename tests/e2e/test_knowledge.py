"""The knowledge base as a person uses it: a folder of real files, their progress, answers, and files thrown away."""

import re
import shutil
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import App
from tests.e2e.pages import ANSWER_MS, add, ask, ask_space, last_answer, new_space, searchable, upload

CONTRACT = "租赁合同\n甲方将观星台租给乙方，租期三年。月租金为八千六百元，押金为两个月租金。\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of mixed files, one of them in GB18030, one damaged, one of another kind."""
    top = tmp_path / "office"
    (top / "plans").mkdir(parents=True)
    (top / "plans" / "garden.md").write_text("# Garden\n\nThe pergola is built of larch and is 4 metres long.\n")
    (top / "opening.csv").write_text("day,opens\nMonday,09:00\nSunday,closed\n")
    (top / "page.html").write_text("<h1>Visitors</h1><p>Guided tours start at the north gate.</p>")
    (top / "合同.txt").write_bytes(CONTRACT.encode("gb18030"))
    (top / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (top / "photo.raw").write_bytes(b"\0\1")
    return top


def many(folder: Path, count: int, lines: int = 150) -> list[Path]:
    """Text files that take a moment to embed."""
    files = [folder / f"log-{number:02}.txt" for number in range(count)]
    for number, file in enumerate(files):
        file.write_text("\n".join(f"Entry {n} of log {number} counts {n * number} swallows." for n in range(lines)))
    return files


def test_a_folder_becomes_answers(page: Page, folder: Path) -> None:
    new_space(page, "Office")
    with page.expect_file_chooser() as chooser:
        page.locator(".add-folder").click()
    chooser.value.set_files(str(folder))
    expect(page.locator("#notice")).to_contain_text("1 files of other kinds")
    expect(page.locator(".preview-head b")).to_have_text("office/合同.txt")
    expect(page.locator(".preview select")).to_have_value("gb18030")
    expect(page.locator(".preview pre")).to_contain_text("月租金为八千六百元")
    searchable(page, 3)
    page.locator(".index-held").click()
    searchable(page, 4)
    expect(page.locator(".document[data-status=failed]")).to_contain_text("broken.pdf")
    expect(page.locator(".document", has_text="合同.txt")).to_contain_text("GB18030")
    answer = ask_space(page, "月租金是多少？")
    expect(answer).to_contain_text("八千六百元")
    answer.locator(".citation").first.click()
    expect(answer.locator(".passage mark").first).to_contain_text("八千六百元")
    expect(answer.locator(".passage .file").first).to_have_text("office/合同.txt")
    ask(page, "How long is the pergola?")
    expect(last_answer(page)).to_contain_text("4 metres")


def test_the_same_files_again_and_a_changed_one(page: Page, tmp_path: Path) -> None:
    tariff, rules = tmp_path / "tariff.md", tmp_path / "rules.md"
    tariff.write_text("A day ticket for the cable car costs 31 crowns.")
    rules.write_text("Dogs ride in the last cabin of the cable car.")
    new_space(page, "Cable car")
    add(page, tariff, rules)
    searchable(page, 2)
    add(page, tariff, rules)
    expect(page.locator(".job-facts")).to_have_text("2 already here", timeout=ANSWER_MS)
    tariff.write_text("A day ticket for the cable car costs 47 crowns.")
    add(page, tariff)
    expect(page.locator(".job-facts")).to_have_text("1 replaced", timeout=ANSWER_MS)
    searchable(page, 2)
    answer = ask_space(page, "What does a day ticket cost?")
    expect(answer).to_contain_text("47 crowns")
    expect(answer).not_to_contain_text("31 crowns")
    answer.locator(".citation").first.click()
    expect(answer.locator(".passage mark").first).to_contain_text("47 crowns")


def test_progress_stop_and_resume_beside_the_chat(page: Page, tmp_path: Path) -> None:
    files = many(tmp_path, 40, 260)
    new_space(page, "Logs")
    add(page, *files)
    job = page.locator("#knowledge-progress .job")
    expect(job.locator("b")).to_contain_text(re.compile(r"Reading file \d+ of 40: log-\d+.txt"), timeout=ANSWER_MS)
    expect(page.locator(".document[data-status=ready]").first).to_be_visible(timeout=ANSWER_MS)
    expect(page.locator(".activity")).to_contain_text("of 40")
    page.locator(".stop-job").click()
    expect(job).to_have_attribute("data-state", "cancelled", timeout=ANSWER_MS)
    done = page.locator(".document[data-status=ready]").count()
    assert 1 <= done < 40
    expect(page.locator(".banner p")).to_contain_text(f"{40 - done} documents were interrupted")
    page.locator("[data-action=resume_space]").click()
    expect(job.last).to_have_attribute("data-state", "running")
    page.locator("#new-chat").click()
    ask(page, "What can you do?")
    expect(last_answer(page)).to_contain_text("your documents")
    page.go_back()
    page.go_back()
    searchable(page, 40)


def test_a_text_is_pasted_and_a_private_address_refused(page: Page, app: App) -> None:
    new_space(page, "Notes")
    page.locator(".add-text").click()
    page.locator("dialog input").fill("Beehives")
    page.locator("dialog textarea").fill("The beehives stand behind the barn.\nThere are 14 of them.")
    page.locator("dialog .ok").click()
    searchable(page, 1)
    expect(page.locator(".document b")).to_have_text("Beehives.txt")
    for address in (f"{app.url}/health", "http://2130706433/", "http://[::1]:1/", "file:///etc/passwd"):
        page.locator(".add-url").click()
        page.locator("dialog input").fill(address)
        page.locator("dialog .ok").click()
        failed = page.locator(".job[data-kind=fetch][data-state=failed] .state")
        expect(failed).to_have_count(1, timeout=ANSWER_MS)
        assert len(failed.inner_text()) > 20
        page.locator(".job[data-kind=fetch] .dismiss").click()
        expect(failed).to_have_count(0)
    searchable(page, 1)


def test_a_thrown_in_file_is_asked_and_goes_with_its_conversation(page: Page, app: App, tmp_path: Path) -> None:
    notes = tmp_path / "天文馆.md"
    notes.write_text("# 天文馆\n\n天文馆的球幕影院可容纳二百四十名观众。影片每天放映六场。\n", encoding="utf-8")
    upload(page, notes)
    ask(page, "球幕影院能容纳多少观众？")
    expect(last_answer(page)).to_contain_text("二百四十名")
    identity = page.input_value("#source select")
    models = httpx.get(f"{app.url}/v1/models", trust_env=False).json()["data"]
    assert not any(identity in model["id"] for model in models)
    body = {"model": f"dbgpt-lite/documents/{identity}", "messages": [{"role": "user", "content": "多少观众？"}]}
    reply = httpx.post(f"{app.url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    assert reply.status_code == 404
    assert "二百四十" not in reply.text

    assert page.context.browser
    stranger = page.context.browser.new_context().new_page()
    stranger.goto(f"{app.url}/#/knowledge/{identity}")
    expect(stranger.locator(".toast-wrap")).to_contain_text("does not exist")
    stranger.goto(f"{app.url}/")
    stranger.wait_for_selector("html.is-ready")
    ask(stranger, "球幕影院能容纳多少观众？")
    expect(last_answer(stranger)).not_to_contain_text("二百四十")
    stranger.context.close()

    assert (app.data / "knowledge" / "files" / identity).is_dir()
    row = page.locator(".conversation").first
    row.hover()
    row.locator(".delete").click()
    page.locator("dialog .ok").click()
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".conversation")).to_have_count(0)
    assert not (app.data / "knowledge" / "files" / identity).exists()


def test_a_thrown_in_file_is_kept(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "orchard.txt"
    file.write_text("The orchard holds 62 pear trees.")
    upload(page, file)
    page.locator(".keep").click()
    page.locator("dialog input").fill("Orchard")
    page.locator("dialog .ok").click()
    expect(page.locator("#source select option:checked")).to_have_text("Orchard")
    ask(page, "How many pear trees are there?")
    expect(last_answer(page)).to_contain_text("62 pear trees")
    page.goto(page.url.split("#")[0] + "#/knowledge")
    page.locator(".space-card", has_text="Orchard").click()
    searchable(page, 1)
    shutil.rmtree(file.parent)
    expect(page.locator(".document b")).to_have_text("orchard.txt")
