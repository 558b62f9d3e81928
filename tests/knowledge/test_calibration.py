"""The threshold: what it learns from a space, what is kept on disk, and when it is learned again."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dbgpt_lite.errors import NotFound, UserError
from dbgpt_lite.knowledge.base import KnowledgeBase
from dbgpt_lite.knowledge.calibration import FORMAT, LEAST, PRIOR, Calibration, evidence, learn
from dbgpt_lite.knowledge.calibrator import Calibrator
from dbgpt_lite.knowledge.catalog import Version
from dbgpt_lite.knowledge.embeddings import Embedder, EmbedderFacts, Kind, Vectors
from dbgpt_lite.knowledge.records import IngestProgress
from dbgpt_lite.knowledge.space_sample import SAMPLE_SIZE, SpaceSamples
from dbgpt_lite.knowledge.unrelated import UNRELATED
from dbgpt_lite.messages import Passage

TakeIn = Callable[..., list[IngestProgress]]

FERRY = """# Ferry
## Winter
Between November and March the ferry to Holm sails twice a day, at nine and at four.

## Bicycles
A bicycle travels free of charge; a motorcycle costs twelve crowns.
"""
QUESTIONS = {"When does the ferry sail in winter?": True, "What does a motorcycle cost?": True}
QUESTIONS |= {"Which planet has the most moons?": False, "Who wrote the opera Carmen?": False}


class Narrow(Embedder):
    """The real model with its cosines pressed into a narrow band far from 0, as other models' are."""

    @property
    def identity(self) -> str:  # type: ignore[override]
        return "narrow@1"

    @property
    def facts(self) -> EmbedderFacts:
        return EmbedderFacts(languages=("en",))

    def embed(self, texts: list[str], kind: Kind = "passage") -> Vectors:  # type: ignore[override]
        vectors = super().embed(texts, kind)
        wide = np.hstack([vectors, np.full((len(vectors), 1), 1.6, dtype=np.float32)])
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)


def test_evidence_is_between_nought_and_one() -> None:
    assert evidence(0.4, 0.8, readable=True) == pytest.approx(0.6)
    # An answer in other words than the question's is as near as it is.
    assert evidence(0.6, 0.1, readable=True) == 0.6
    assert 0.6 < evidence(0.0, 0.8, readable=False) < evidence(0.4, 0.8, readable=False) < 0.8
    known = Calibration(floor={"en": 0.7})
    assert known.near(0.7, "en") == known.near(0.2, "en") == 0
    assert known.near(0.85, "en") == pytest.approx(0.5)
    assert known.near(1.0, "en") == pytest.approx(1)
    assert known.near(0.4, "zh") == 0.4


def learned(outside: float, unrelated: float, readable: bool = True) -> Calibration:
    passages = [
        Passage(n, f"The old harbour master number {n} keeps forty ropes and seven boats there.", f"d{n}", "a")
        for n in range(8)
    ]

    def ask(question: str, document: str, floor: object) -> float:
        return outside if document else unrelated

    return learn(Version(3, 8, "e@1"), passages, {"en": 0.1}, lambda language: readable, ask)


def test_a_space_that_says_much_to_everything_is_asked_for_more() -> None:
    low, high = learned(outside=0.1, unrelated=0.1), learned(outside=0.4, unrelated=0.4)
    assert 0.1 < low.needed["en"] < high.needed["en"] < 0.6
    assert high.needed["en"] > 0.4
    # Both kinds of questions count: those of others, and its own with their document left out.
    assert low.needed["en"] <= learned(outside=0.4, unrelated=0.1).needed["en"] <= high.needed["en"]
    # A space that shares nothing still asks for something.
    assert learned(0.0, 0.0, readable=False).needed["zh"] == LEAST
    assert low.needed_for("en", True) == low.needed["en"]
    assert Calibration().needed_for("zh", False) == PRIOR[False]
    assert (low.embedder, low.generation, low.chunks, low.floor) == ("e@1", 3, 8, {"en": 0.1})


def test_unrelated_questions_are_alike_in_both_languages() -> None:
    assert len(UNRELATED["en"]) == len(UNRELATED["zh"]) == len(set(UNRELATED["en"])) == len(set(UNRELATED["zh"]))


def test_another_embedders_cosines_lead_to_the_same_decisions(
    tmp_path: Path, base: KnowledgeBase, take_in: TakeIn
) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY})
    base.calibrate(space.id)
    narrow = KnowledgeBase(tmp_path / "narrow", Narrow(device="cpu"))
    folder = tmp_path / "bundled"
    folder.mkdir()
    (folder / "ferry.md").write_text(FERRY, encoding="utf-8")
    other = narrow.ensure_folder("Island", folder)
    narrow.calibrate(other.id)
    for question, covered in QUESTIONS.items():
        assert base.retrieve([space.id], question, 3).covered == covered, question
        found = narrow.retrieve([other.id], question, 3)
        assert found.covered == covered, question
        assert 0 <= found.best <= 1
    narrow.close()


# --- kept and learned again


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def calibrator(tmp_path: Path, asked: list[str]) -> Iterator[Calibrator]:
    def learn_space(space_id: str) -> Calibration:
        asked.append(space_id)
        if space_id == "gone":
            raise NotFound("knowledge.no_space")
        if space_id == "broken":
            raise UserError("knowledge.embedding_failed", name="m")
        return Calibration(embedder="e@1", generation=1, chunks=100, needed={"en": 0.4}, floor={"en": 0.0})

    found = Calibrator(tmp_path / "calibrations", learn_space)
    yield found
    found.close()


def wait_for(calibrator: Calibrator) -> None:
    """Until the background work is done: closing waits for it, and what is learned stays."""
    while calibrator._queued:
        threading.Event().wait(0.01)
    calibrator.close()


def test_a_question_never_waits_and_the_next_finds_it_learned(calibrator: Calibrator, asked: list[str]) -> None:
    version = Version(1, 100, "e@1")
    assert calibrator.of("s", version) == Calibration()
    wait_for(calibrator)
    assert calibrator.of("s", version).needed == {"en": 0.4}
    assert asked == ["s"]


@pytest.mark.parametrize(
    ("version", "again", "usable"),
    [
        (Version(9, 115, "e@1"), False, True),
        (Version(9, 130, "e@1"), True, True),
        (Version(9, 60, "e@1"), True, True),
        (Version(9, 100, "other@1"), True, False),
        (Version(9, 0, ""), False, False),
    ],
    ids=["a little more", "much more", "much less", "another embedder", "emptied"],
)
def test_a_material_change_is_learned_again(
    calibrator: Calibrator, asked: list[str], version: Version, again: bool, usable: bool
) -> None:
    calibrator.calibrate("s")
    assert (calibrator.of("s", version).needed == {"en": 0.4}) == usable
    wait_for(calibrator)
    assert len(asked) == (2 if again else 1)


def test_it_survives_a_restart_and_damage(calibrator: Calibrator, tmp_path: Path) -> None:
    calibrator.calibrate("s")
    file = tmp_path / "calibrations" / "s.json"
    version = Version(1, 100, "e@1")

    def reopened() -> Calibration:
        other = Calibrator(tmp_path / "calibrations", lambda space_id: Calibration())
        found = other.of("s", version)
        other.close()
        return found

    assert reopened().needed == {"en": 0.4}
    whole = file.read_text(encoding="utf-8")
    changed = [whole[:40], "[]", "{}", "null", whole.replace("0.4", '"0.4"'), whole.replace("0.4", "7.5")]
    changed += [whole.replace(f'"format": {FORMAT}', '"format": 1'), whole.replace('"chunks"', '"chunk"'), "\x00\xff"]
    for content in changed:
        file.write_text(content, encoding="utf-8")
        assert reopened() == Calibration(), content
        file.write_text(whole, encoding="utf-8")
    assert list(file.parent.iterdir()) == [file]


def test_what_goes_wrong_stays_in_the_background(calibrator: Calibrator, asked: list[str]) -> None:
    for space_id in ("gone", "broken", "s"):
        calibrator.of(space_id, Version(1, 5, "e@1"))
    wait_for(calibrator)
    assert asked == ["gone", "broken", "s"]


def test_deleting_a_space_forgets_it(base: KnowledgeBase, take_in: TakeIn, tmp_path: Path) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY})
    base.calibrate(space.id)
    file = tmp_path / "knowledge" / "calibrations" / f"{space.id}.json"
    assert json.loads(file.read_text(encoding="utf-8"))["chunks"] == 2
    base.delete(space.id)
    assert not file.exists()


def test_closing_does_not_wait_for_all_questions(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY})
    base.retrieve([space.id], "Where?", 1)
    base.retriever.calibrator.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "calibration"]


# --- the sample


def test_a_small_space_is_its_own_sample(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Island")
    take_in(space.id, {"ferry.md": FERRY, "b.txt": "Another text."})
    samples = SpaceSamples(base._catalog)
    assert len(samples.of(space.id).passages) == 3
    assert samples.of(space.id) is samples.of(space.id)
    take_in(space.id, {"c.txt": "A third text."})
    assert len(samples.of(space.id).texts) == 4
    with pytest.raises(NotFound):
        samples.of("nowhere")


def test_the_sample_of_a_large_space_is_spread_and_bounded(base: KnowledgeBase, take_in: TakeIn) -> None:
    space = base.create("Large")
    sections = "".join(f"## Section {number}\n\nText of section {number}.\n\n" for number in range(SAMPLE_SIZE))
    take_in(space.id, {"a.md": sections, "b.md": sections.replace("Text", "Words")})
    sample = SpaceSamples(base._catalog).of(space.id)
    assert SAMPLE_SIZE - 2 <= len(sample.passages) <= SAMPLE_SIZE
    by_name = [passage.document for passage in sample.passages]
    assert abs(by_name.count("a.md") - by_name.count("b.md")) <= 2


def test_a_space_that_cannot_be_learned_keeps_no_other_from_it(tmp_path: Path) -> None:
    learned_of: list[str] = []

    def learn_space(space_id: str) -> Calibration:
        if space_id == "odd":
            raise ValueError("need at least one array to stack")
        learned_of.append(space_id)
        return Calibration()

    calibrator = Calibrator(tmp_path / "calibrations", learn_space)
    calibrator.refresh("odd")
    calibrator.refresh("s")
    wait_for(calibrator)
    assert learned_of == ["s"]
