"""Names and the bytes they stand for: renamed, swapped and rotated files, one page an address, kinds kept apart."""

import itertools
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.catalog import Catalog
from dbgpt_lite.knowledge.ingest import distinct
from dbgpt_lite.knowledge.migrations import MIGRATIONS
from dbgpt_lite.knowledge.names import distinct_names, file_name, same_name
from dbgpt_lite.knowledge.records import Upload
from dbgpt_lite.knowledge.space_texts import SpaceTexts, TextRecord
from tests.knowledge.fake_embedder import FakeEmbedder

Files = dict[str, str]
BEFORE: Files = {"a.txt": "Text one.", "b.txt": "Text two.", "c.txt": "Text three."}


class Bench:
    """A knowledge base with a fake embedder, files brought into it, and what it then holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.embedder = FakeEmbedder()
        self.base = KnowledgeBase(folder / "knowledge", self.embedder)
        self.space = self.base.create("s").id

    def uploads(self, files: Files, source: str = "") -> list[Upload]:
        made = []
        for number, (name, text) in enumerate(files.items()):
            path = self.folder / f"upload{number}"
            path.write_text(text)
            made.append(Upload(path, name, source=source))
        return made

    def bring(self, files: Files, source: str = "") -> list[tuple[str, bool]]:
        """State of each file and whether it has replaced another."""
        reports = self.base.ingest(self.space, self.uploads(files, source), threading.Event())
        last = {report.file_number: report for report in reports}
        return [(last[number].state, last[number].replaced) for number in sorted(last)]

    def held(self) -> Files:
        """Shown name -> text, after a look at the files kept and at both indexes."""
        documents = self.base.documents(self.space)
        assert {document.status for document in documents} <= {"ready"}
        folder = self.folder / "knowledge" / "files" / self.space
        assert {path.name for path in folder.glob("*")} == {document.id for document in documents}
        held = {d.name: "".join(p.text for p in self.base.chunks(self.space, d.id)) for d in documents}
        assert len(held) == len(documents)
        assert sorted(hit.text for hit in self.base.search(self.space, "text", 50)) == sorted(held.values())
        return held


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.base.close()


@pytest.mark.parametrize(
    ("after", "held", "embedded"),
    [
        ({"new.txt": "Text one."}, {"new.txt": "Text one.", "b.txt": "Text two.", "c.txt": "Text three."}, 0),
        ({"a-2025.txt": "Text one.", "a.txt": "Text four."},
         {"a-2025.txt": "Text one.", "a.txt": "Text four.", "b.txt": "Text two.", "c.txt": "Text three."}, 1),
        ({"a.txt": "Text two.", "b.txt": "Text one."},
         {"a.txt": "Text two.", "b.txt": "Text one.", "c.txt": "Text three."}, 0),
        ({"a.txt": "Text three.", "b.txt": "Text one.", "c.txt": "Text two."},
         {"a.txt": "Text three.", "b.txt": "Text one.", "c.txt": "Text two."}, 0),
        ({"c.txt": "Text four.", "b.txt": "Text three.", "a.txt": "Text two."},
         {"a.txt": "Text two.", "b.txt": "Text three.", "c.txt": "Text four."}, 1),
        ({"x.txt": "Text four.", "y.txt": "Text four."}, {**BEFORE, "y.txt": "Text four."}, 1),
        ({"a.txt": "Text two."}, {"a.txt": "Text two.", "c.txt": "Text three."}, 0),
    ],
    ids=["rename", "rotation", "swap", "three-way swap", "log rotation", "one text, two names", "a copy replaces"],
)  # fmt: skip
def test_every_file_stays_under_its_last_name(bench: Bench, after: Files, held: Files, embedded: int) -> None:
    bench.bring(BEFORE)
    count = len(bench.embedder.embedded)
    bench.bring(after)
    assert bench.held() == held
    assert len(bench.embedder.embedded) == count + embedded
    bench.bring(after)
    assert bench.held() == held
    assert len(bench.embedder.embedded) == count + embedded


def test_what_is_told_of_renamed_and_of_replaced_files(bench: Bench) -> None:
    bench.bring(BEFORE)
    assert bench.bring({"a.txt": "Text two.", "b.txt": "Text one."}) == [("duplicate", False), ("duplicate", False)]
    assert bench.bring({"a.txt": "Text three.", "d.txt": "Text four."}) == [("duplicate", True), ("done", False)]


def test_a_text_stays_until_all_its_names_stand_for_others(bench: Bench) -> None:
    bench.bring({"a.txt": "Text one.", "b.txt": "Text one."})
    assert bench.bring({"b.txt": "Text two."}) == [("done", False)]
    assert bench.held() == {"a.txt": "Text one.", "b.txt": "Text two."}
    assert bench.bring({"a.txt": "Text three."}) == [("done", True)]
    assert bench.held() == {"a.txt": "Text three.", "b.txt": "Text two."}


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from("1234"), min_size=1), max_size=6))
@settings(max_examples=40)
def test_the_last_text_of_every_name_is_held_and_nothing_else(rounds: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench, last = Bench(Path(folder)), Files()
        for files in rounds:
            named = {f"{name}.txt": f"Text {number}." for name, number in files.items()}
            bench.bring(named)
            last.update(named)
            held = bench.held()
            assert sorted(held.values()) == sorted(set(last.values()))
            assert all(last[name] == text for name, text in held.items())
        bench.base.close()


class Killed(BaseException):
    """The process is gone: nothing is written any more."""


def killed_at(base: KnowledgeBase, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `count` transactions be; from then on none is begun, as after a kill."""
    left, writing = itertools.count(count, -1), base._catalog.writing

    @contextmanager
    def write() -> Iterator[sqlite3.Connection]:
        if next(left) <= 0:
            raise Killed
        with writing() as db:
            yield db

    monkeypatch.setattr(base._catalog, "writing", write)


@pytest.mark.parametrize(
    "after",
    [
        {"a.txt": "Text three.", "b.txt": "Text one.", "c.txt": "Text two."},
        {"c.txt": "Text four.", "b.txt": "Text three.", "a.txt": "Text two.", "d.txt": "Text two."},
    ],
)
def test_killed_between_any_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: Files) -> None:
    begun = [dict([*BEFORE.items(), *list(after.items())[:count]]) for count in range(len(after) + 1)]
    for count in itertools.count():
        bench = Bench(tmp_path / str(count))
        bench.bring(BEFORE)
        killed_at(bench.base, count, monkeypatch)
        finished = False
        with suppress(Killed):
            bench.bring(after)
            finished = True
        monkeypatch.undo()
        bench.base.jobs.close()
        bench.base = KnowledgeBase(bench.folder / "knowledge", bench.embedder)
        list(bench.base.resume(bench.space, threading.Event()))
        texts = sorted(bench.held().values())
        assert texts in [sorted(set(files.values())) for files in begun]
        bench.bring(after)
        assert sorted(bench.held().values()) == sorted(set(begun[-1].values()))
        bench.base.close()
        if finished:
            break
    assert count > len(after)


def test_the_later_of_two_versions_wins_whichever_is_finished_first(bench: Bench) -> None:
    tasks: list = []
    for text in ("Text one.", "Text two."):
        assert list(bench.base.receive(bench.space, bench.uploads({"a.txt": text}), threading.Event(), tasks)) == []
    for task in reversed(tasks):
        list(bench.base.index(bench.space, [task], threading.Event()))
    assert bench.held() == {"a.txt": "Text two."}


def test_a_mirrored_folder_is_held_name_for_name(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "mirrored"
    folder.mkdir()
    for files in (
        BEFORE,
        {"a-2025.txt": "Text one.", "a.txt": "Text four.", "b.txt": "Text two."},
        {"a.txt": "Text two.", "b.txt": "Text four."},
        {"a.txt": "Text two.", "b.txt": "Text two."},
        {"a.txt": "Text five.", "b.txt": "Text two."},
    ):
        for old in folder.iterdir():
            old.unlink()
        for name, text in files.items():
            (folder / name).write_text(text)
        bench.space = bench.base.ensure_folder("m", folder).id
        held = bench.held()
        assert set(held.values()) == set(files.values())
        assert all(files[name] == text for name, text in held.items())
        embedded = len(bench.embedder.embedded)
        bench.base.ensure_folder("m", folder)
        assert len(bench.embedder.embedded) == embedded


def test_files_of_one_name_far_apart_in_an_upload_stay_apart(bench: Bench) -> None:
    bench.base.close()
    bench.base = KnowledgeBase(bench.folder / "knowledge", bench.embedder, max_files=3)
    files = {f"{number}.txt": f"Text {number}." for number in range(8)}
    uploads = [
        Upload(upload.path, "report.txt" if number in (1, 6) else upload.name)
        for number, upload in enumerate(bench.uploads(files))
    ]
    for _ in range(2):
        named = distinct(uploads)
        for first in range(0, len(named), 3):
            list(bench.base.ingest(bench.space, named[first : first + 3], threading.Event()))
        assert sorted(bench.held().values()) == sorted(files.values())
        assert len(bench.embedder.embedded) == len(files)
    assert {"report.txt", "report (2).txt"} < set(bench.held())


@given(st.lists(st.text(max_size=8) | st.sampled_from(["a.txt", "a (2).txt", ". a.txt", "x/a.txt"]), max_size=12))
def test_names_are_distinct_and_stay_as_they_are(given_names: list[str]) -> None:
    names = distinct_names(given_names)
    assert len(set(names)) == len(names)
    assert distinct_names(names) == names


@given(st.text(max_size=400))
def test_a_tidy_name_is_tidy(name: str) -> None:
    assert file_name(file_name(name)) == file_name(name)


def test_a_page_fetched_again_replaces_itself_whatever_its_title(bench: Bench) -> None:
    bench.bring({"Monday.html": "<p>Text one.</p>"}, "https://example.org/news")
    bench.bring({"Other.html": "<p>Text two.</p>"}, "https://example.org/other")
    [(state, replaced)] = bench.bring({"Friday.html": "<p>Text three.</p>"}, "https://example.org/news")
    assert (state, replaced) == ("done", True)
    assert bench.held() == {"Friday.html": "Text three.", "Other.html": "Text two."}
    bench.bring({"Saturday.html": "<p>Text three.</p>"}, "https://example.org/news")
    assert bench.held() == {"Saturday.html": "Text three.", "Other.html": "Text two."}
    # It comes to say what another page says: one document, and the old words are gone.
    bench.bring({"Sunday.html": "<p>Text two.</p>"}, "https://example.org/news")
    assert bench.held() == {"Sunday.html": "Text two."}


def test_a_programs_text_never_replaces_a_file_of_its_name(bench: Bench) -> None:
    bench.bring({"handbook.txt": "Text one."})
    texts = SpaceTexts(bench.folder / "knowledge", "s", bench.embedder)
    texts.add([TextRecord("handbook.txt", "Text two."), TextRecord("handbook.txt", "Text three.")])
    documents = bench.base.documents(bench.space)
    assert [document.name for document in documents] == ["handbook.txt"] * 2
    found = [hit.text for hit in bench.base.search(bench.space, "text", 9)]
    assert sorted(found) == ["Text one.", "Text three."]
    [record] = texts.get(["handbook.txt"])
    assert record.text == "Text three."
    # Nor does the file with the very bytes that are kept for the text.
    kept = next(bench.base.original(bench.space, d.id) for d in documents if d.encoding == "text-record")
    bench.bring({"handbook.txt": kept.read_text()})
    assert [one.text for one in texts.get(["handbook.txt"])] == ["Text three."]
    texts.close()


def test_a_programs_text_waits_for_the_writer_of_the_space(bench: Bench) -> None:
    bench.bring(BEFORE)
    texts = SpaceTexts(bench.folder / "knowledge", "s", bench.embedder)
    adding = threading.Thread(target=texts.add, args=([TextRecord("t", "Text four.")],))
    with bench.base._ingestor.writer(bench.space, threading.Event()):
        adding.start()
        adding.join(0.3)
        assert adding.is_alive()
        assert texts.get(["t"]) == []
    adding.join()
    assert [record.text for record in texts.get(["t"])] == ["Text four."]
    texts.close()


@pytest.mark.parametrize("published", [False, True])
def test_a_file_finished_with_another_embedder_holds_no_passage_twice(bench: Bench, published: bool) -> None:
    if published:
        bench.bring({"z.txt": "Text of another file."})
    text = "\n\n".join(f"Scanner paragraph {number} about batteries." * 9 for number in range(100))
    reports = bench.base.ingest(bench.space, bench.uploads({"long.txt": text}), threading.Event())
    for report in reports:
        if report.chunks_done > 70:
            break
    reports.close()  # type: ignore[attr-defined]
    bench.base.close()
    bench.base = KnowledgeBase(bench.folder / "knowledge", FakeEmbedder("other"))
    if published:
        list(bench.base.reembed(bench.space, threading.Event()))
    list(bench.base.resume(bench.space, threading.Event()))
    [long] = [document for document in bench.base.documents(bench.space) if document.name == "long.txt"]
    chunks = bench.base.chunks(bench.space, long.id)
    assert len(chunks) == len({(chunk.start, chunk.end) for chunk in chunks}) == long.chunks
    bench.base.calibrate(bench.space)
    bench.base.close()


def test_a_wrong_encoding_is_not_held_against_the_file(bench: Bench) -> None:
    [upload] = bench.uploads({"a.txt": "Text one."})
    for encoding, state in (("utf-7", "failed"), ("rot13", "failed"), ("", "done")):
        again = Upload(upload.path, "a.txt", encoding)
        assert list(bench.base.ingest(bench.space, [again], threading.Event()))[-1].state == state
    assert bench.held() == {"a.txt": "Text one."}


def test_names_of_spaces_differ_in_more_than_case() -> None:
    assert same_name("Handbook ", "hand\u202ebook")
    assert not same_name("Handbook", "Handbook 2")


def old_catalogue(path: Path) -> None:
    """A catalogue of the second schema: a text, a file, and one with chunks left over by another embedder."""
    vector = np.ones(4, dtype=np.float16).tobytes()
    with sqlite3.connect(path) as db:
        for statement in itertools.chain(*MIGRATIONS[:2]):
            db.execute(statement)
        db.execute("PRAGMA user_version = 2")
        db.execute("INSERT INTO spaces VALUES (1, 's', 's', 's', 0, 0, 'new@1', 7, 8, 0, 0, '')")
        for number, (name, encoding, chunks) in enumerate([("t", "text-record", 1), ("f", "", 1), ("left", "", 6)], 1):
            db.execute(
                """INSERT INTO documents(id, space, name, sha256, size, chunks, status, encoding, generation, added,
                   sequence) VALUES (?, 1, ?, ?, 9, ?, 'ready', ?, 5, 1, ?)""",
                (name, name, f"sha{number}", chunks, encoding, number),
            )
        # document, start, embedders of its vectors; chunk 3 is left over, 4 and 6 are there twice with all vectors.
        rows = [("t", 0, "new"), ("f", 0, "new"), ("left", 0, "old"), ("left", 5, "new"), ("left", 0, "new"),
                ("left", 9, "new"), ("left", 5, "new"), ("left", 9, "new")]  # fmt: skip
        for number, (document, start, embedder) in enumerate(rows, 1):
            db.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, NULL, '', ?, ?, ?)",
                (number, document, f"text {start}", start, start + 4, f"word{start}"),
            )
            db.execute("INSERT INTO vectors VALUES (?, ?, ?)", (number, f"{embedder}@1", vector))
        db.execute("INSERT INTO chunk_words(rowid, words, space) SELECT id, words, space FROM chunk_search")
    db.close()


def test_an_older_catalogue_is_repaired(tmp_path: Path) -> None:
    old_catalogue(tmp_path / "catalog.sqlite3")
    catalog = Catalog(tmp_path / "catalog.sqlite3")
    assert catalog.held("s") == {"t": "text:sha1", "f": "sha2", "left": "sha3"}
    assert [passage.id for passage in catalog.chunks("s", "left")] == [5, 7, 8]
    assert {document.name: document.chunks for document in catalog.documents("s")} == {"t": 1, "f": 1, "left": 3}
    version = catalog.version("s")
    assert (version.chunks, version.generation) == (5, 8)
    with catalog.connection() as db:
        db.execute("INSERT INTO chunk_words(chunk_words) VALUES ('integrity-check')")
        found = db.execute("SELECT rowid FROM chunk_words WHERE chunk_words MATCH 'word9'").fetchall()
        assert found == [(8,)]
        assert db.execute("SELECT count(*) FROM vectors").fetchone() == (5,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    catalog.close()
