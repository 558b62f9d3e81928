"""Changed files, folders run again, chosen encodings, addresses, temporary spaces, emptied spaces."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from tests.knowledge.fake_embedder import FakeEmbedder

OLD, NEW = "The scanner battery lasts nine hours.", "The scanner battery lasts twelve hours."


class Files:
    """A knowledge base with a fake embedder, and a way to bring files into it."""

    def __init__(self, folder: Path, embedder: FakeEmbedder) -> None:
        self.folder = folder
        self.embedder = embedder
        self.base = KnowledgeBase(folder / "knowledge", embedder, max_file_bytes=1_000_000)
        self.space = self.base.create("s").id

    def bring(self, *files: tuple[str, str | bytes], encoding: str = "", source: str = "") -> list[IngestProgress]:
        """Ingest and return the last report of each file, by the number of the file."""
        uploads = []
        for number, (name, content) in enumerate(files):
            path = self.folder / f"upload{number}"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            uploads.append(Upload(path, name, encoding, source))
        reports = {report.file_number: report for report in self.base.ingest(self.space, uploads, threading.Event())}
        return [reports[number] for number in sorted(reports)]

    def names(self) -> list[str]:
        return sorted(document.name for document in self.base.documents(self.space))

    def texts(self) -> list[str]:
        return sorted(p.text for d in self.base.documents(self.space) for p in self.base.chunks(self.space, d.id))

    def kept(self) -> set[str]:
        return {path.name for path in (self.folder / "knowledge" / "files" / self.space).iterdir()}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path, FakeEmbedder())
    yield made
    made.base.close()


def test_a_changed_file_replaces_the_old_one(files: Files) -> None:
    first = files.bring(("a.txt", OLD), ("b.txt", "Something else."))
    assert [report.replaced for report in first] == [False, False]
    [again] = files.bring(("a.txt", NEW))
    assert (again.state, again.replaced) == ("done", True)
    assert files.names() == ["a.txt", "b.txt"]
    assert files.texts() == ["Something else.", NEW]
    assert {hit.text for hit in files.base.search(files.space, "scanner battery hours", 9)} >= {NEW}
    assert OLD not in {hit.text for hit in files.base.search(files.space, "scanner battery nine hours", 9)}
    assert files.kept() == {document.id for document in files.base.documents(files.space)}


def test_an_unchanged_folder_embeds_nothing(files: Files) -> None:
    folder = [
        (f"sub{number % 3}/report.txt" if number < 3 else f"{number}.txt", f"Text {number}.") for number in range(9)
    ]
    files.bring(*folder)
    assert len(files.names()) == 9
    embedded = len(files.embedder.embedded)
    assert {report.state for report in files.bring(*folder)} == {"duplicate"}
    assert len(files.embedder.embedded) == embedded
    folder[4] = ("4.txt", "Another text.")
    assert sorted(report.state for report in files.bring(*folder)) == ["done"] + ["duplicate"] * 8
    assert len(files.embedder.embedded) == embedded + 1
    assert len(files.names()) == 9


def test_files_of_one_upload_never_replace_each_other(files: Files) -> None:
    reports = files.bring(("a.txt", OLD), ("a.txt", NEW), ("x/a.txt", "third"))
    assert [report.file for report in reports] == ["a.txt", "a (2).txt", "x/a.txt"]
    assert files.names() == ["a (2).txt", "a.txt", "x/a.txt"]
    assert {r.state for r in files.bring(("a.txt", OLD), ("a.txt", NEW))} == {"duplicate"}


def test_going_back_to_what_another_file_says(files: Files) -> None:
    files.bring(("a.txt", OLD), ("b.txt", NEW))
    [report] = files.bring(("a.txt", NEW))
    assert (report.state, report.replaced) == ("duplicate", True)
    assert files.names() == ["a.txt"]
    assert files.texts() == [NEW]
    assert files.kept() == {document.id for document in files.base.documents(files.space)}


def test_until_the_new_one_is_whole_the_old_one_answers(files: Files) -> None:
    files.bring(("a.txt", OLD))
    long = "\n\n".join(f"Scanner paragraph {number} about batteries." * 9 for number in range(200))
    (files.folder / "long").write_text(long)
    reports = files.base.ingest(files.space, [Upload(files.folder / "long", "a.txt")], threading.Event())
    for report in reports:
        if report.chunks_done > 100:
            break
    assert files.texts() == [OLD]
    assert [hit.text for hit in files.base.search(files.space, "scanner battery", 9)] == [OLD]
    reports.close()  # type: ignore[attr-defined]
    assert files.base.space(files.space).pending == 1
    assert list(files.base.resume(files.space, threading.Event()))[-1].replaced
    assert OLD not in files.texts()
    assert files.names() == ["a.txt"]


def test_a_search_sees_the_old_or_the_new_never_both_or_neither(files: Files) -> None:
    files.bring(("a.txt", f"{OLD} 0"))
    wrong: list[list[str]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = [hit.text for hit in files.base.search(files.space, "scanner battery hours", 9)]
            if len(found) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 25):
        files.bring(("a.txt", f"{OLD} {number}"))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_later_of_two_interrupted_versions_wins(files: Files) -> None:
    for text in (OLD, NEW):
        (files.folder / text[-9:]).write_text(text)
        tasks: list = []
        upload = Upload(files.folder / text[-9:], "a.txt")
        assert list(files.base.receive(files.space, [upload], threading.Event(), tasks)) == []
        assert len(tasks) == 1
    list(files.base.resume(files.space, threading.Event()))
    assert files.texts() == [NEW]
    assert len(files.kept()) == 1


def test_the_chosen_encoding_is_used_and_kept(files: Files) -> None:
    content = "銷售額".encode("big5") + b" plain words"
    files.bring(("a.txt", content), encoding="gb18030")
    wrong = files.texts()
    assert wrong != ["銷售額 plain words"]
    [report] = files.bring(("a.txt", content), encoding="big5")
    assert (report.state, report.replaced) == ("done", True)
    assert files.texts() == ["銷售額 plain words"]
    assert files.base.documents(files.space)[0].encoding == "big5"
    assert files.bring(("a.txt", content))[0].state == "duplicate"
    assert files.bring(("a.txt", content), encoding="big5")[0].state == "duplicate"


def test_an_encoding_survives_an_interruption(files: Files) -> None:
    (files.folder / "f").write_bytes("銷售額公布".encode("big5"))
    upload = Upload(files.folder / "f", "a.txt", "big5")
    reports = files.base.ingest(files.space, [upload], threading.Event())
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    list(files.base.resume(files.space, threading.Event()))
    assert files.texts() == ["銷售額公布"]


def test_an_address_is_kept_with_its_document(files: Files) -> None:
    files.bring(("page.html", "<p>Some words.</p>"), source="https://example.org/page")
    assert files.base.documents(files.space)[0].source == "https://example.org/page"


def test_preview_names_the_encoding(files: Files) -> None:
    (files.folder / "f").write_bytes("公司假期制度：员工每年享有十五天年假。".encode("gb18030"))
    preview = files.base.preview(files.folder / "f", "a.txt")
    assert preview is not None
    assert (preview.encoding, preview.undecodable) == ("gb18030", 0)
    assert preview.text.startswith("公司假期")
    assert files.base.preview(files.folder / "f", "a.pdf") is None


def test_temporary_spaces_belong_to_their_owner(files: Files) -> None:
    base = files.base
    mine, twin = base.create_temporary("ana", "notes.pdf"), base.create_temporary("bo", "notes.pdf")
    assert (mine.temporary, mine.owner, mine.name, twin.name) == (True, "ana", "notes.pdf", "notes.pdf")
    assert mine.id in {space.id for space in base.spaces("ana")}
    assert mine.id not in {space.id for space in base.spaces("bo")} | {space.id for space in base.spaces()}
    assert base.space(mine.id, "ana") == base.space(mine.id)
    with pytest.raises(NotFound):
        base.space(mine.id, "bo")
    with pytest.raises(UserError, match="already"):
        base.keep(mine.id, "S")
    kept = base.keep(mine.id, "Notes")
    assert (kept.temporary, kept.owner, kept.name) == (False, "", "Notes")
    assert kept.id in {space.id for space in base.spaces()}
    assert len(base.create_temporary("ana", "../" + "x" * 500).name) <= 60


def test_old_temporary_spaces_that_nobody_uses_go(files: Files) -> None:
    base = files.base
    old, used, young = (base.create_temporary("ana", name) for name in ("old", "used", "young"))
    (files.folder / "f").write_text("Some words.")
    for space in (old, used):
        list(base.ingest(space.id, [Upload(files.folder / "f", "f.txt")], threading.Event()))
    with sqlite3.connect(files.folder / "knowledge" / "catalog.sqlite3") as db:
        db.execute("UPDATE spaces SET added = added - 100000 WHERE id IN (?, ?)", (old.id, used.id))
    assert base.remove_temporary({used.id, "something"}) == 1
    assert {space.id for space in base.spaces("ana")} == {files.space, used.id, young.id}
    assert not (files.folder / "knowledge" / "files" / old.id).exists()


def test_old_files_of_temporary_spaces_are_no_orphans(files: Files) -> None:
    space = files.base.create_temporary("ana", "n")
    (files.folder / "f").write_text("Some words.")
    list(files.base.ingest(space.id, [Upload(files.folder / "f", "f.txt")], threading.Event()))
    [file] = (files.folder / "knowledge" / "files" / space.id).iterdir()
    orphan = file.with_name("0" * 16)
    orphan.write_text("left by a crash")
    for path in (file, orphan):
        os.utime(path, (time.time() - 90_000,) * 2)
    KnowledgeBase(files.folder / "knowledge", files.embedder).close()
    assert file.exists()
    assert not orphan.exists()


def test_emptying_a_space(files: Files) -> None:
    files.bring(("a.txt", OLD), ("b.txt", "Other words."), ("bad.pdf", "no pdf"))
    assert files.base.empty(files.space) == 3
    assert files.names() == []
    assert files.kept() == set()
    assert files.base.search(files.space, "scanner", 9) == []
    assert files.bring(("a.txt", OLD))[0].state == "done"
    with pytest.raises(NotFound):
        files.base.empty("nothing")
