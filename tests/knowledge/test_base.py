"""The knowledge base end to end: upload, search, delete, names, limits, several threads."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import docx
import pytest

from dbgpt_lite.errors import Cancelled, KnowledgeIndexError, NotFound, TooLarge, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.embeddings import Embedder
from dbgpt_lite.knowledge.records import IngestProgress, Upload
from tests.knowledge.fake_embedder import FakeEmbedder

TakeIn = Callable[..., list[IngestProgress]]

POLICY = """# Policy
General words about the company.

## Refunds
Customers may return unopened goods within 30 days; the refund arrives five days later.

## Hardware
The RX-200 scanner has a battery of 12,000 mAh.
"""
LEAVE = "公司假期制度：员工每年享有十五天年假。\n小禾手机的售价为三千元。\n销售额由财务部每月公布。"


def all_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_upload_search_and_passage(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Handbook")
    reports = take_in(space.id, {"policy.md": POLICY, "假期.txt": LEAVE.encode("gb18030")})
    assert [report.state for report in reports] == ["done", "done"]
    [best, *_] = base.search(space.id, "When do I get my money back?", 3)
    assert best.heading == "Policy › Refunds"
    assert best.document == "policy.md"
    assert 0.2 < best.score < 1
    assert base.passage(space.id, best.id).text == best.text
    assert base.search(space.id, "rx200 battery", 1)[0].heading == "Policy › Hardware"
    for question in ("员工有多少天年假？", "销售", "小禾"):
        assert base.search(space.id, question, 1)[0].document == "假期.txt"
    assert base.space(space.id).documents == 2
    assert base.space(space.id).chunks == sum(document.chunks for document in base.documents(space.id))


def test_documents_say_what_they_are(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("s")
    take_in(space.id, {"a.txt": LEAVE.encode("gb18030")})
    [document] = base.documents(space.id)
    assert (document.name, document.status, document.encoding) == ("a.txt", "ready", "gb18030")
    assert document.size == len(LEAVE.encode("gb18030")) == base.original(space.id, document.id).stat().st_size
    chunks = base.chunks(space.id, document.id)
    assert [LEAVE[chunk.start : chunk.end] for chunk in chunks] == [chunk.text for chunk in chunks]


def test_same_bytes_are_indexed_once_a_space(base: KnowledgeBase, take_in: TakeIn) -> None:
    first, second = base.create("one"), base.create("two")
    reports = take_in(first.id, {"a.md": POLICY, "b.md": POLICY})
    assert {report.file: report.state for report in reports} == {"a.md": "done", "b.md": "duplicate"}
    assert take_in(first.id, {"c.md": POLICY})[0].state == "duplicate"
    assert take_in(second.id, {"a.md": POLICY})[0].state == "done"
    assert len(base.documents(first.id)) == 1


def test_a_bad_file_fails_alone_and_can_come_again(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> None:
    space = base.create("s")
    bad, good = sorted(take_in(space.id, {"bad.pdf": "no pdf", "good.md": POLICY}), key=lambda report: report.file)
    assert (bad.state, good.state) == ("failed", "done")
    assert bad.error is not None
    assert bad.error.key == "knowledge.unreadable"
    failed = next(document for document in base.documents(space.id) if document.status == "failed")
    assert failed.error is not None
    assert failed.error.render("zh") == bad.error.render("zh")
    assert base.chunks(space.id, failed.id) == []
    assert take_in(space.id, {"now.txt": "no pdf"})[0].state == "done"
    assert {document.status for document in base.documents(space.id)} == {"ready"}
    assert len(all_files(tmp_path / "knowledge" / "files")) == 2


def test_deleted_documents_answer_no_more(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> None:
    space = base.create("s")
    take_in(space.id, {"policy.md": POLICY, "leave.txt": LEAVE})
    document = next(document for document in base.documents(space.id) if document.name == "policy.md")
    [passage, *_] = base.search(space.id, "refund", 1)
    base.delete_document(space.id, document.id)
    assert {found.document for found in base.search(space.id, "refund", 9)} == {"leave.txt"}
    for gone in (
        lambda: base.passage(space.id, passage.id),
        lambda: base.chunks(space.id, document.id),
        lambda: base.delete_document(space.id, document.id),
    ):
        with pytest.raises(NotFound):
            gone()
    base.delete(space.id)
    assert base.spaces() == []
    with pytest.raises(NotFound):
        base.search(space.id, "refund", 1)
    assert not all_files(tmp_path / "knowledge" / "files") | all_files(tmp_path / "knowledge" / "indexes")


def test_a_passage_of_another_space_is_not_there(base: KnowledgeBase, take_in: TakeIn) -> None:
    mine, yours = base.create("mine"), base.create("yours")
    take_in(mine.id, {"a.md": POLICY})
    document, passage = base.documents(mine.id)[0], base.search(mine.id, "refund", 1)[0]
    with pytest.raises(NotFound):
        base.passage(yours.id, passage.id)
    with pytest.raises(NotFound):
        base.chunks(yours.id, document.id)
    with pytest.raises(NotFound):
        base.delete_document(yours.id, document.id)
    assert base.search(yours.id, "refund", 3) == []


@pytest.mark.parametrize(
    "name",
    [
        "../../x.txt",
        "/etc/passwd.txt",
        "..\\..\\x.txt",
        "a\x00b.txt",
        "．．／x.txt",
        "%2e%2e%2fx.txt",
        "x" * 5000 + ".txt",
        "\u202etxt.txt",
    ],
)
def test_file_names_are_only_words(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path, name: str) -> None:
    space = base.create("s")
    outside = all_files(tmp_path) - all_files(tmp_path / "knowledge")
    [report] = take_in(space.id, {name: "some text"})
    assert report.state == "done"
    [document] = base.documents(space.id)
    assert document.name.endswith(".txt")
    assert len(document.name) <= 150
    assert not set("/\\\x00\u202e") & set(document.name)
    assert all_files(tmp_path) - all_files(tmp_path / "knowledge") == outside | {tmp_path / "upload0"}
    assert {path.name for path in all_files(tmp_path / "knowledge" / "files")} == {document.id}


@pytest.mark.parametrize("hostile", ["../..", "/", "..\\..", "%2e%2e", "a\x00b", "", "．．", "' OR 1=1 --", "x" * 9999])
def test_hostile_ids_are_not_found(base: KnowledgeBase, tmp_path: Path, hostile: str) -> None:
    space = base.create("s")
    before = all_files(tmp_path)
    for action in (
        lambda: base.space(hostile),
        lambda: base.delete(hostile),
        lambda: base.rename(hostile, "n"),
        lambda: base.documents(hostile),
        lambda: base.search(hostile, "q", 1),
        lambda: base.delete_document(space.id, hostile),
        lambda: base.original(space.id, hostile),
        lambda: list(base.ingest(hostile, [], threading.Event())),
        lambda: list(base.resume(hostile, threading.Event())),
    ):
        with pytest.raises(NotFound):
            action()
    assert before <= all_files(tmp_path)


@pytest.mark.parametrize("name", ["", "   ", "\x00\x01", "x" * 61, "\u200b"])
def test_space_names_are_checked(base: KnowledgeBase, name: str) -> None:
    with pytest.raises(UserError, match="1 to 60"):
        base.create(name)


def test_space_names_are_unique_and_only_words(base: KnowledgeBase, tmp_path: Path) -> None:
    space = base.create("  ../Sales  docs ")
    assert space.name == "../Sales docs"
    with pytest.raises(UserError, match="already"):
        base.create("../SALES docs")
    assert base.rename(space.id, "知识库").name == "知识库"
    assert base.rename(space.id, "知识库").name == "知识库"
    assert [found.name for found in base.spaces()] == ["知识库"]


def test_limits_are_named(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> None:
    space = base.create("s")
    big, small = take_in(space.id, {"big.txt": b"x" * 2_000_001, "small.txt": "fine"})
    assert (big.state, small.state) == ("failed", "done")
    assert isinstance(big.error, TooLarge)
    assert len(all_files(tmp_path / "knowledge" / "files")) == 1
    with pytest.raises(TooLarge, match="21 files"):
        take_in(space.id, {f"{number}.txt": "x" for number in range(21)})


def test_stopping_keeps_what_is_finished(base: KnowledgeBase, tmp_path: Path) -> None:
    space, cancel = base.create("s"), threading.Event()
    (tmp_path / "a").write_text(POLICY)
    (tmp_path / "b").write_text("\n\n".join(f"Paragraph {n} about topic {n * 7}. " * 20 for n in range(200)))
    uploads = [Upload(tmp_path / "a", "a.md"), Upload(tmp_path / "b", "b.txt")]

    def stop_in_the_second() -> None:
        done = set()
        for report in base.ingest(space.id, uploads, cancel):
            done |= {report.file} if report.state == "done" else set()
            if "a.md" in done and report.file == "b.txt" and report.chunks_done:
                cancel.set()

    with pytest.raises(Cancelled):
        stop_in_the_second()
    assert [document.name for document in base.documents(space.id)] == ["a.md"]
    assert len(all_files(tmp_path / "knowledge" / "files")) == 1
    assert base.search(space.id, "refund", 1)[0].document == "a.md"


def test_an_embedder_that_is_nowhere_is_refused_until_the_space_is_re_embedded(
    base: KnowledgeBase, tmp_path: Path
) -> None:
    gone = KnowledgeBase(tmp_path / "knowledge", FakeEmbedder("gone"))
    space = gone.create("s")
    (tmp_path / "a").write_text(POLICY)
    list(gone.ingest(space.id, [Upload(tmp_path / "a", "a.md")], threading.Event()))
    gone.close()
    with pytest.raises(KnowledgeIndexError, match="another embedding model"):
        base.search(space.id, "refund", 1)
    with pytest.raises(KnowledgeIndexError):
        list(base.ingest(space.id, [], threading.Event()))
    assert base.outdated() == [space.id]
    reports = list(base.reembed(space.id, threading.Event()))
    assert (reports[-1].state, reports[-1].chunks_done) == ("done", 3)
    assert base.search(space.id, "When do I get my money back?", 1)[0].heading == "Policy › Refunds"
    assert base.outdated() == []


def test_two_processes_see_each_others_documents(
    base: KnowledgeBase, take_in: TakeIn, tmp_path: Path, embedder: Embedder
) -> None:
    space = base.create("s")
    other = KnowledgeBase(tmp_path / "knowledge", embedder)
    assert other.search(space.id, "refund", 1) == []
    take_in(space.id, {"a.md": POLICY, "b.txt": LEAVE})
    assert other.search(space.id, "refund", 1)[0].document == "a.md"
    base.delete_document(space.id, next(d.id for d in base.documents(space.id) if d.name == "a.md"))
    assert {found.document for found in other.search(space.id, "refund", 9)} == {"b.txt"}
    other.close()


def test_searching_while_others_upload_and_delete(base: KnowledgeBase, tmp_path: Path) -> None:
    space = base.create("s")
    errors: list[BaseException] = []
    stop = threading.Event()
    (tmp_path / "policy").write_text(POLICY)
    list(base.ingest(space.id, [Upload(tmp_path / "policy", "policy.md")], threading.Event()))

    def guarded(action: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                action()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def search() -> None:
        while not stop.is_set():
            assert "policy.md" in {found.document for found in base.search(space.id, "refund of goods", 5)}

    def upload(worker: int) -> None:
        for number in range(4):
            path = tmp_path / f"file{worker}-{number}"
            path.write_text(f"Report {worker} of month {number}: sales grew in region {worker * 10 + number}.")
            list(base.ingest(space.id, [Upload(path, f"{worker}-{number}.txt")], threading.Event()))
            newest = next(d for d in base.documents(space.id) if d.name == f"{worker}-{number}.txt")
            if number % 2:
                base.delete_document(space.id, newest.id)

    searchers = [guarded(search) for _ in range(2)]
    uploaders = [guarded(lambda worker=worker: upload(worker)) for worker in range(3)]
    for thread in uploaders:
        thread.join()
    stop.set()
    for thread in searchers:
        thread.join()
    assert errors == []
    assert base.space(space.id).documents == 1 + 3 * 2
    found = base.search(space.id, "report sales region month", 50)
    assert len(found) == base.space(space.id).chunks == 3 + 6


def test_the_same_file_from_two_people_at_once(base: KnowledgeBase, tmp_path: Path) -> None:
    space, states = base.create("s"), []
    (tmp_path / "a").write_text(POLICY)

    def upload() -> None:
        states.extend(r.state for r in base.ingest(space.id, [Upload(tmp_path / "a", "a.md")], threading.Event()))

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(state for state in states if state in ("done", "duplicate", "failed")) == ["done", "duplicate"]


def test_a_bundled_folder_is_mirrored(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    (folder / "zh").mkdir(parents=True)
    (folder / "policy.md").write_text(POLICY)
    stream = io.BytesIO()
    document = docx.Document()
    document.add_paragraph(LEAVE)
    document.save(stream)
    (folder / "zh" / "假期.docx").write_bytes(stream.getvalue())
    (folder / "ignored.bin").write_bytes(b"x")
    base.create("Sample")
    space = base.ensure_folder("Sample", folder)
    assert (space.name, space.readonly, space.documents) == ("Sample (2)", True, 2)
    first = {document.id for document in base.documents(space.id)}
    assert base.ensure_folder("Sample", folder).id == space.id
    assert {document.id for document in base.documents(space.id)} == first
    (folder / "policy.md").write_text(POLICY.replace("30 days", "45 days"))
    (folder / "zh" / "假期.docx").unlink()
    assert base.ensure_folder("Sample", folder).documents == 1
    assert "45 days" in base.search(space.id, "refund", 1)[0].text
    for action in (
        lambda: base.delete(space.id),
        lambda: base.rename(space.id, "mine"),
        lambda: base.delete_document(space.id, base.documents(space.id)[0].id),
        lambda: take_in(space.id, {"a.txt": "x"}),
    ):
        with pytest.raises(UserError, match="comes with the app"):
            action()


def test_hidden_spaces_are_searched_but_not_listed(base: KnowledgeBase, tmp_path: Path) -> None:
    folder = tmp_path / "help"
    folder.mkdir()
    (folder / "a.md").write_text(POLICY)
    hidden = base.ensure_folder("Help", folder, hidden=True)
    assert base.create("Help").name == "Help"
    assert [space.name for space in base.spaces()] == ["Help"]
    assert base.search(hidden.id, "refund", 1)
    assert base.ensure_folder("Help", folder, hidden=True).id == hidden.id
