"""Spaces, uploads and thrown-in files in a real browser, over knowledge that a test can hold and let go."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, expect
from visiting import Site, Visit, Visitors

from dbgpt_lite.knowledge.records import Space
from dbgpt_lite.ui import spaces

GREETING = "编码测试：这是一份合同。".encode("gb18030")


def file(name: str, content: bytes = b"x") -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def add(page: Page, *files: FilePayload) -> None:
    page.set_input_files("#knowledge-upload input[type=file]", list(files))


def throw(page: Page, *files: FilePayload) -> None:
    page.set_input_files("#composer input[type=file]", list(files))


@pytest.fixture
def space(visit: Visit, request: pytest.FixtureRequest) -> Visit:
    """A page with a new, empty space open."""
    visit.go("knowledge")
    visit.page.click("#new-space")
    visit.page.fill("dialog input", f"Space {request.node.name}"[:60])
    visit.page.click("dialog .ok")
    visit.page.wait_for_selector("#knowledge-top [data-view=space]")
    return visit


@pytest.fixture
def held(site: Site) -> Iterator[None]:
    """Files named held.* stay at work until the test lets them go."""
    site.services.knowledge.jobs.go.clear()
    yield
    site.services.knowledge.jobs.go.set()


# --- Spaces


def test_spaces_are_made_filled_renamed_emptied_and_deleted(visit: Visit) -> None:
    page = visit.page
    visit.go("knowledge")
    page.click("#new-space")
    page.fill("dialog input", "Leases")
    page.click("dialog .ok")
    expect(page.locator("#knowledge-top h1")).to_have_text("Leases")
    add(page, file("a.md"))
    expect(page.locator(".document .status")).to_have_text("searchable")
    expect(page.locator("#knowledge-top p")).to_have_text("1 document · 12 passages")
    page.click(".document .open")
    expect(page.locator(".chunk")).to_have_count(3)
    page.click(".back")
    page.click("[data-action=rename_space]")
    page.fill("dialog input", "Old leases")
    page.click("dialog .ok")
    expect(page.locator("#knowledge-top h1")).to_have_text("Old leases")
    page.click("[data-action=empty_space]")
    expect(page.locator("dialog p")).to_contain_text("1 document · 12 passages")
    page.click("dialog .ok")
    expect(page.locator(".page-empty")).to_be_visible()
    page.click(".ask-here")
    expect(page.locator("#source select option:checked")).to_have_text("Old leases")
    visit.go("knowledge")
    page.locator(".space-card", has_text="Old leases").click()
    page.click("[data-action=delete_space]")
    page.click("dialog .ok")
    expect(page.locator(".space-card", has_text="Old leases")).to_have_count(0)
    expect(page.locator("#new-space")).to_be_visible()
    assert page.url.endswith("#/knowledge")
    assert not visit.errors


def test_a_space_has_an_address(space: Visit, visitors: Visitors) -> None:
    add(space.page, file("a.md"))
    expect(space.page.locator(".document")).to_have_count(1)
    address = space.page.url.split("/", 3)[3]
    assert re.fullmatch(r"#/knowledge/\w+", address)
    other = visitors.open(at=address)
    expect(other.page.locator(".document b")).to_have_text("a.md")
    other.page.goto(visitors.url + "#/knowledge/gone")
    expect(other.page.locator(".toast-wrap")).to_contain_text("does not exist")
    expect(other.page.locator("#new-space")).to_be_visible()


def test_a_document_is_searched_for_words(space: Visit) -> None:
    page = space.page
    add(page, file("a.md"))
    page.click(".document .open")
    expect(page.locator(".chunk")).to_have_count(3)
    page.fill(".find input", "潮汐")
    page.press(".find input", "Enter")
    expect(page.locator(".chunk")).to_have_count(1)
    page.fill(".find input", "nothing like it")
    page.press(".find input", "Enter")
    expect(page.locator(".page-empty")).to_contain_text("nothing like it")


READY = "#knowledge-body .document[data-status=ready]"


class SlowLook:
    """Holds the next look at the spaces in the background, before it has read anything, until it is let go."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self._plain = site.services.knowledge.spaces
        monkeypatch.setattr(site.services.knowledge, "spaces", self._spaces)

    def _spaces(self, owner: str = "") -> list[Space]:
        if not self.began.is_set():
            self.began.set()
            self.go.wait(20)
        return self._plain(owner)


@pytest.fixture
def slow_look(space: Visit, site: Site, held: None, monkeypatch: pytest.MonkeyPatch) -> SlowLook:
    """A look that will find a second document searchable, under way over a space that shows it at work."""
    add(space.page, file("a.md"))
    expect(space.page.locator(".document .status")).to_have_text("searchable")
    add(space.page, file("held.md"))
    expect(space.page.locator("#knowledge-progress")).to_contain_text("held.md")
    look = SlowLook(site, monkeypatch)
    assert look.began.wait(20)
    site.services.knowledge.jobs.go.set()
    for job in site.services.knowledge.jobs.running():
        site.services.knowledge.jobs.wait(job.id)
    expect(space.page.locator(READY)).to_have_count(1)
    return look


def test_a_late_look_does_not_take_the_reader_back(space: Visit, slow_look: SlowLook) -> None:
    page = space.page
    page.click(f"{READY} .open")
    expect(page.locator(".chunk")).to_have_count(3)
    beat = page.locator("#activity .mark").get_attribute("data-beat")
    slow_look.go.set()
    expect(page.locator("#activity .mark")).not_to_have_attribute("data-beat", beat or "")
    page.wait_for_timeout(300)
    assert page.locator(".chunk").count() == 3
    assert page.locator(".document").count() == 0
    page.click(".back")
    expect(page.locator(READY)).to_have_count(2)


def test_a_look_keeps_the_page_of_a_long_list(
    space: Visit, site: Site, held: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "PER_PAGE", 2)
    page = space.page
    add(page, *(file(f"{letter}.md") for letter in "abc"))
    expect(page.locator(READY)).to_have_count(2)
    add(page, file("held.md"))
    expect(page.locator("#knowledge-progress")).to_contain_text("held.md")
    page.click(".pager .to-next")
    expect(page.locator(".pager span")).to_have_text("3–4 of 4")
    before = page.locator("#knowledge-progress .mark").get_attribute("data-seen")
    site.services.knowledge.jobs.go.set()
    expect(page.locator("#knowledge-top p")).to_have_text("4 documents · 48 passages")
    expect(page.locator("#knowledge-progress .mark")).not_to_have_attribute("data-seen", before or "")
    expect(page.locator(".pager span")).to_have_text("3–4 of 4")


@pytest.mark.parametrize("turned", [False, True], ids=["moved", "another row's"])
def test_a_click_means_what_was_pressed(
    space: Visit, site: Site, slow_look: SlowLook, turned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the list is drawn anew before the button is let go."""
    page = space.page
    page.hover(f"{READY} .open")
    page.mouse.down()
    plain = site.services.knowledge.documents
    if turned:
        monkeypatch.setattr(site.services.knowledge, "documents", lambda space_id: plain(space_id)[::-1])
    slow_look.go.set()
    expect(page.locator(READY)).to_have_count(2)
    expect(page.locator(READY).nth(int(not turned)).locator("b")).to_have_text("a.md")
    page.mouse.up()
    expect(page.locator(".chunk")).to_have_count(3)
    expect(page.locator("#knowledge-top h1")).to_have_text("a.md")
    assert not space.errors


def test_a_press_that_is_let_go_elsewhere_is_no_click(space: Visit, slow_look: SlowLook) -> None:
    page = space.page
    page.hover(f"{READY} .open")
    page.mouse.down()
    slow_look.go.set()
    expect(page.locator(READY)).to_have_count(2)
    page.mouse.move(5, 5)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert page.locator(".chunk").count() == 0


def test_documents_of_another_embedder_are_embedded_again(space: Visit, site: Site) -> None:
    page = space.page
    add(page, file("a.md"))
    expect(page.locator(".document .status")).to_have_text("searchable")
    identity = page.locator("#knowledge-top [data-space]").get_attribute("data-space")
    assert identity
    site.services.knowledge.changed.add(identity)
    page.reload()
    page.click("[data-action=reembed_space]")
    expect(page.locator("#knowledge-progress .job")).to_be_visible()
    expect(page.locator(".banner")).to_have_count(0)


# --- Ways in


def test_a_text_is_pasted(space: Visit) -> None:
    page = space.page
    page.click(".add-text")
    page.fill("dialog input", "House rules / 2026")
    page.fill("dialog textarea", "Shoes off.\n请脱鞋。")
    page.click("dialog .ok")
    expect(page.locator(".document b")).to_have_text("House rules 2026.txt")
    page.click(".add-text")
    page.fill("dialog textarea", "First line is the name\nmore")
    page.click("dialog .ok")
    expect(page.locator(".document b")).to_have_text(["First line is the name.txt", "House rules 2026.txt"])


def test_a_private_address_is_refused_in_words(space: Visit, site: Site) -> None:
    page = space.page
    page.click(".add-url")
    page.fill("dialog input", f"{site.url}health?token=secret")
    page.click("dialog .ok")
    line = page.locator("#knowledge-progress .job[data-kind=fetch] .upload")
    expect(line.locator(".file")).to_have_text("127.0.0.1/health")
    expect(line.locator(".state")).not_to_be_empty()
    assert "secret" not in page.content()
    page.click(".dismiss")
    expect(line).to_have_count(0)


def test_an_uncertain_encoding_is_looked_at_first(space: Visit) -> None:
    page = space.page
    add(page, file("plain.txt", b"hello"), file("合同.txt", GREETING))
    expect(page.locator(".document b")).to_have_text("plain.txt")
    expect(page.locator(".preview-head b")).to_have_text("合同.txt")
    expect(page.locator(".preview pre")).to_contain_text("这是一份合同")
    page.select_option(".preview select", "big5")
    expect(page.locator(".preview pre")).not_to_contain_text("这是一份合同")
    page.reload()
    expect(page.locator(".preview select")).to_have_value("big5")
    page.select_option(".preview select", "gb18030")
    expect(page.locator(".preview pre")).to_contain_text("这是一份合同")
    page.click(".index-held")
    expect(page.locator(".preview")).to_have_count(0)
    expect(page.locator(".document b")).to_have_text(["合同.txt", "plain.txt"])
    expect(page.locator(".document .open span").first).to_contain_text("GB18030")


def test_a_file_whose_encoding_nobody_confirms_is_left_out(space: Visit, visitors: Visitors) -> None:
    page = space.page
    add(page, file("合同.txt", GREETING))
    expect(page.locator(".preview")).to_be_visible()
    other = visitors.open(at=page.url.split("/", 3)[3])
    expect(other.page.locator(".page-empty")).to_be_visible()
    expect(other.page.locator(".preview")).to_have_count(0)
    page.click("[data-action=drop_held]")
    expect(page.locator(".preview")).to_have_count(0)
    expect(page.locator(".document")).to_have_count(0)


def test_a_folder_is_added_under_its_ways(space: Visit, tmp_path: Path) -> None:
    page = space.page
    for name in ("2026/a.md", "b.md", "photo.raw", ".git/c.md"):
        path = tmp_path / "plans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with page.expect_file_chooser() as chooser:
        page.click(".add-folder")
    chooser.value.set_files(str(tmp_path / "plans"))
    expect(page.locator("#notice")).to_contain_text("1 files of other kinds")
    expect(page.locator(".document .status[data-state=ready]")).to_have_count(2)
    assert {b.inner_text() for b in page.locator(".document b").all()} == {"plans/2026/a.md", "plans/b.md"}


# --- Progress


@pytest.mark.usefixtures("held")
def test_work_outlives_the_page_and_is_seen_from_everywhere(space: Visit, visitors: Visitors, site: Site) -> None:
    page = space.page
    add(page, file("first.md"), file("held.md"), file("bad.pdf"))
    job = page.locator("#knowledge-progress .job")
    expect(job.locator("b")).to_have_text("Reading file 2 of 3: held.md")
    expect(job.locator(".job-facts")).to_have_text("16 passages done · about 2 minutes left")
    expect(page.locator(".document .status")).to_have_text(["waiting", "reading", "searchable"])
    page.reload()
    expect(job.locator("b")).to_have_text("Reading file 2 of 3: held.md")
    other = visitors.open()
    expect(other.page.locator(".activity")).to_contain_text("held.md")
    other.ask("meanwhile")
    expect(other.page.locator("#thread .prose")).to_contain_text("meanwhile")
    other.page.click(".activity")
    expect(other.page.locator("#knowledge-progress .job b")).to_contain_text("held.md")
    site.services.knowledge.jobs.go.set()
    for seen in (page, other.page):
        expect(seen.locator("#knowledge-progress .job")).to_have_attribute("data-state", "done")
        expect(seen.locator(".job-facts")).to_have_text("2 files added · 1 failed")
        expect(seen.locator(".document")).to_have_count(2)
        expect(seen.locator(".activity")).to_have_count(0)
        expect(seen.locator(".upload .state")).to_contain_text("No text was found")
    page.reload()
    expect(page.locator(".upload .state")).to_contain_text("No text was found")
    page.click(".dismiss")
    expect(page.locator(".upload")).to_have_count(0)
    page.reload()
    expect(page.locator(".document")).to_have_count(2)
    expect(page.locator(".upload")).to_have_count(0)


@pytest.mark.usefixtures("held")
def test_work_is_stopped_and_resumed(space: Visit, site: Site) -> None:
    page = space.page
    add(page, file("a.md"), file("held.md"), file("c.md"))
    expect(page.locator(".document .status")).to_have_text(["waiting", "reading", "searchable"])
    page.click(".stop-job")
    expect(page.locator(".banner p")).to_contain_text("2 documents were interrupted")
    expect(page.locator(".document .status")).to_have_text(["interrupted", "interrupted", "searchable"])
    site.services.knowledge.jobs.go.set()
    page.click("[data-action=resume_space]")
    expect(page.locator(".document .status")).to_have_text(["searchable"] * 3)
    expect(page.locator(".banner")).to_have_count(0)


def test_a_changed_file_replaces_the_old_one(space: Visit) -> None:
    page = space.page
    for content in (b"old", b"new"):
        add(page, file("a.md", content))
        expect(page.locator("#knowledge-progress .job")).to_have_attribute("data-state", "done")
        page.wait_for_timeout(300)
    expect(page.locator(".job-facts")).to_have_text("1 replaced")
    expect(page.locator(".document")).to_have_count(1)


# --- Files of one conversation


def test_files_given_to_the_chat_are_for_this_chat_only(visit: Visit, visitors: Visitors, site: Site) -> None:
    page = visit.page
    throw(page, file("租约 2026.pdf"), file("bad.pdf"))
    expect(page.locator(".chip[data-state=ready]")).to_contain_text("租约 2026.pdf")
    expect(page.locator(".chip[data-state=ready]")).to_contain_text("this chat only")
    expect(page.locator(".chip[data-state=failed]")).to_contain_text("No text was found")
    expect(page.locator("#mode label.selected")).to_have_text("Documents")
    expect(page.locator("#source select option:checked")).to_have_text("租约 2026.pdf · this chat only")
    identity = page.input_value("#source select")
    page.reload()
    expect(page.locator(".chip[data-state=ready]")).to_contain_text("租约 2026.pdf")
    visit.ask("cite it")
    expect(page.locator(".chip[data-state=ready]")).to_be_visible()
    page.click("#new-chat")
    expect(page.locator(".chip")).to_have_count(0)
    page.locator(".conversation .open").first.click()
    expect(page.locator(".chip[data-state=ready]")).to_be_visible()

    # Nobody else sees it: not in the picker, not on the Knowledge page, not by its address.
    other = visitors.open(at=f"#/knowledge/{identity}")
    expect(other.page.locator(".toast-wrap")).to_contain_text("does not exist")
    expect(other.page.locator(".space-card", has_text="租约")).to_have_count(0)
    other.page.click("#new-chat")
    other.page.locator("#mode input[value=documents]").check(force=True)
    expect(other.page.locator("#source option", has_text="租约")).to_have_count(0)

    row = page.locator(".conversation").first
    row.hover()
    row.locator(".delete").click()
    page.click("dialog .ok")
    expect(page.locator(".conversation")).to_have_count(0)
    expect(page.locator(".chip")).to_have_count(0)
    assert identity not in site.services.knowledge._spaces


def test_a_thrown_in_file_is_kept_as_a_space(visit: Visit) -> None:
    page = visit.page
    throw(page, file("lease.pdf"))
    page.click(".chip-tools .keep")
    expect(page.locator("dialog input")).to_have_value("lease")
    page.fill("dialog input", "My lease")
    page.click("dialog .ok")
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator("#source select option:checked")).to_have_text("My lease")
    visit.go("knowledge")
    expect(page.locator(".space-card", has_text="My lease")).to_have_count(1)


def test_a_thrown_in_file_is_taken_back(visit: Visit, site: Site) -> None:
    page = visit.page
    throw(page, file("oops.pdf"))
    expect(page.locator(".chip[data-state=ready]")).to_be_visible()
    page.click(".detach")
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator("#mode label.selected")).to_have_text("Auto")
    assert not any(space.name == "oops.pdf" for space in site.services.knowledge._spaces.values())


def test_files_that_cannot_be_read_leave_no_space_behind(visit: Visit, site: Site) -> None:
    page = visit.page
    throw(page, file("bad （终稿）.pdf"))
    expect(page.locator(".chip[data-state=failed] b")).to_have_text("bad (终稿).pdf")
    expect(page.locator("#mode label.selected")).to_have_text("Auto")
    assert not any(space.temporary for space in site.services.knowledge._spaces.values() if "终稿" in space.name)
    page.click(".detach")
    expect(page.locator(".chip")).to_have_count(0)


def test_a_dropped_file_is_taken(visit: Visit) -> None:
    page = visit.page
    bag = page.evaluate_handle(
        "() => { const bag = new DataTransfer(); bag.items.add(new File(['x'], 'dropped.md')); return bag; }"
    )
    page.dispatch_event("#page-chat", "dragenter", {"dataTransfer": bag})
    expect(page.locator("#drop-hint")).to_be_visible()
    page.dispatch_event("#page-chat", "drop", {"dataTransfer": bag})
    expect(page.locator("#drop-hint")).to_be_hidden()
    expect(page.locator(".chip[data-state=ready]")).to_contain_text("dropped.md")
