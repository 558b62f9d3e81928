"""The local engine against transformers' own generate, and its behaviour under stops, queues and failures."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import Cancelled, ModelError, OutOfMemory, TooLarge
from dbgpt_lite.llm.generation import in_reserve
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.messages import Message, Sampling
from tests.llm.tiny_models import answer_of, ask

GREEDY = Sampling(temperature=0, max_tokens=24)
QUESTIONS = ["Who sleeps in the sun?", "今天天气", "SELECT name", "fox " * 30]


@contextmanager
def before_layer(engine: Any, number: int, action: Callable[[], None]) -> Iterator[None]:
    """Do something whenever the computation comes to a layer."""
    blocks = engine._runner._lean.blocks
    block = blocks[number]

    def product(x: Any) -> Any:
        action()
        return block.qkv(x)

    blocks[number] = replace(block, qkv=product)
    try:
        yield
    finally:
        blocks[number] = block


def reference(engine: Any, question: str, **options: Any) -> Any:
    """Texts that model.generate writes for the same prompt."""
    import torch

    ids = torch.tensor([engine._template.encode(ask(question).messages)])
    model = engine._runner._model
    made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)
    return [engine._text(row[ids.shape[1] :].tolist()) for row in made]


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_equals_generate(engine: Any, never: threading.Event, question: str) -> None:
    text, usage = answer_of(engine.stream(ask(question), GREEDY, never))
    assert [text] == reference(engine, question, max_new_tokens=24)
    assert usage.prompt_tokens == engine.count(ask(question).messages)
    assert 0 < usage.completion_tokens <= 24
    assert 0 <= usage.queue_s <= usage.first_token_s <= usage.seconds


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("length", [1, 12])
def test_beams_equal_generate(engine: Any, never: threading.Event, question: str, length: int) -> None:
    expected = reference(engine, question, max_new_tokens=length, num_beams=4, num_return_sequences=4)
    assert engine.candidates(ask(question), 4, length, never) == list(dict.fromkeys(expected))


def test_prefix_reuse_changes_nothing(tiny: Path, never: threading.Event) -> None:
    used, fresh = (load(tiny, LoadOptions(dtype="float32", device_map="cpu")) for _ in range(2))
    history: list[Message] = []
    for question in ["The quick brown fox", "jumps over", "the lazy dog", "and sleeps"]:
        prompt = ask(question, *history)
        fresh._runner.forget()
        text, usage = answer_of(used.stream(prompt, GREEDY, never))
        plain, plain_usage = answer_of(fresh.stream(prompt, GREEDY, never))
        assert text == plain
        assert plain_usage.cached_tokens == 0
        assert usage.cached_tokens > 0 or not history
        assert used.candidates(prompt, 3, 8, never) == fresh.candidates(prompt, 3, 8, never)
        history += [Message("user", question), Message("assistant", text)]


def test_seed_repeats_and_temperature_varies(engine: Any, never: threading.Event) -> None:
    def draw(seed: int) -> str:
        return answer_of(engine.stream(ask("fox"), Sampling(1.5, 0.95, 16, seed=seed), never))[0]

    assert draw(3) == draw(3)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_top_p_near_zero_is_greedy(engine: Any, never: threading.Event) -> None:
    nucleus = Sampling(temperature=1.0, top_p=1e-9, max_tokens=12, seed=1)
    greedy = Sampling(temperature=0, max_tokens=12)
    assert (
        answer_of(engine.stream(ask("dog"), nucleus, never))[0]
        == answer_of(engine.stream(ask("dog"), greedy, never))[0]
    )


def test_stop_string_ends_the_answer(engine: Any, never: threading.Event) -> None:
    whole, _ = answer_of(engine.stream(ask("Who sleeps?"), GREEDY, never))
    stop = whole[5:8]
    text, usage = answer_of(engine.stream(ask("Who sleeps?"), Sampling(0, 1, 24, stop=(stop,)), never))
    assert text == whole[: whole.index(stop)]
    assert usage.finish_reason == "stop"


def test_length_is_clipped_to_the_window(engine: Any, never: threading.Event) -> None:
    prompt = ask("fox " * 120)
    room = engine.info.context_length - engine.count(prompt.messages)
    _, usage = answer_of(engine.stream(prompt, Sampling(0, 1, 10_000), never))
    assert usage.completion_tokens <= room
    with pytest.raises(TooLarge, match="tokens"):
        list(engine.stream(ask("fox " * 2000), GREEDY, never))


def test_cancel_mid_answer_frees_the_slot(engine: Any) -> None:
    cancel = threading.Event()
    stream = engine.stream(ask("fox"), Sampling(0, 1, 400), cancel)
    next(stream)
    assert engine.busy
    cancel.set()
    *_, usage = list(stream)
    assert usage.finish_reason == "cancelled"
    assert not engine.busy


def test_cancel_while_the_prompt_is_read(engine: Any, never: threading.Event) -> None:
    """The stop comes between two layers; the next answer is as if nothing had happened."""
    expected, _ = answer_of(engine.stream(ask("quick"), GREEDY, never))
    cancel = threading.Event()
    with before_layer(engine, 1, cancel.set):
        _, usage = answer_of(engine.stream(ask("brown " * 60), GREEDY, cancel))
        cancel.clear()
        with pytest.raises(Cancelled):
            engine.candidates(ask("brown"), 3, 8, cancel)
    assert usage.finish_reason == "cancelled"
    assert usage.completion_tokens == 0
    assert not engine.busy
    assert answer_of(engine.stream(ask("quick"), GREEDY, never))[0] == expected


def test_closing_the_iterator_frees_the_slot(engine: Any, never: threading.Event) -> None:
    stream = engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(stream)
    stream.close()
    assert not engine.busy


def test_waiting_is_fair_and_cancellable(engine: Any, never: threading.Event) -> None:
    first = engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(first)
    order: list[int] = []
    gone = threading.Event()

    def wait(number: int, cancel: threading.Event) -> None:
        _, usage = answer_of(engine.stream(ask("dog"), Sampling(0, 1, 2), cancel))
        order.append(number if usage.finish_reason != "cancelled" else -number)

    threads = []
    for number in (1, 2, 3, 4):
        threads.append(threading.Thread(target=wait, args=(number, gone if number == 3 else never)))
        threads[-1].start()
        while engine.waiting < number:
            time.sleep(0.002)
    gone.set()
    threads[2].join()
    assert order == [-3]
    first.close()
    for thread in threads:
        thread.join()
    assert order == [-3, 1, 2, 4]
    assert engine.waiting == 0


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("some kernel broke"), ModelError),
    ],
)
def test_failure_while_answering_leaves_the_engine_usable(
    engine: Any, never: threading.Event, failure: Exception, expected: type[ModelError]
) -> None:
    def fail() -> None:
        raise failure

    good, _ = answer_of(engine.stream(ask("fox"), GREEDY, never))
    with before_layer(engine, 2, fail), pytest.raises(expected) as caught:
        list(engine.stream(ask("fox and dog"), GREEDY, never))
    assert type(caught.value) is expected
    assert not engine.busy
    assert answer_of(engine.stream(ask("fox"), GREEDY, never))[0] == good


def test_memory_of_a_failed_answer_is_free_while_the_error_is_shown(engine: Any, never: threading.Event) -> None:
    import torch

    held: list[weakref.ref[Any]] = []

    def fail() -> None:
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(activations)} GiB")

    good, _ = answer_of(engine.stream(ask("fox"), GREEDY, never))
    with before_layer(engine, 2, fail), pytest.raises(OutOfMemory, match="smaller LLM_CONTEXT") as caught:
        list(engine.stream(ask("fox and dog"), GREEDY, never))
    assert held[0]() is None
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None
    assert answer_of(engine.stream(ask("fox"), GREEDY, never))[0] == good


def test_no_inference_mode_leaks_into_the_consumer(engine: Any, never: threading.Event) -> None:
    import torch

    stream = engine.stream(ask("fox"), GREEDY, never)
    next(stream)
    assert not torch.is_inference_mode_enabled()
    stream.close()


def test_close_ends_what_runs(tiny: Path, never: threading.Event) -> None:
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu"))
    stream = engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(stream)
    closer = threading.Thread(target=engine.close)
    closer.start()
    with pytest.raises(ModelError, match="unloaded"):
        list(stream)
    closer.join()
    with pytest.raises(ModelError, match="unloaded"):
        list(engine.stream(ask("fox"), GREEDY, never))


def test_close_does_not_wait_for_a_reader_that_pauses(tiny: Path, never: threading.Event) -> None:
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu"))
    model = weakref.ref(engine._runner._model)
    paused = engine.stream(ask("fox"), Sampling(0, 1, 400), never)
    next(paused)
    waiting: list[ModelError] = []

    def wait() -> None:
        try:
            list(engine.stream(ask("dog"), GREEDY, never))
        except ModelError as error:
            waiting.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not engine.waiting:
        time.sleep(0.002)
    closer = threading.Thread(target=engine.close, daemon=True)
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    waiter.join()
    assert "unloaded" in str(waiting[0])
    assert model() is None
    with pytest.raises(ModelError, match="unloaded"):
        list(paused)
    assert not engine.busy


def test_close_frees_the_model_while_the_error_of_a_stopped_search_is_shown(tiny: Path) -> None:
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu"))
    model = weakref.ref(engine._runner._model)
    inside = threading.Event()
    ends: list[ModelError] = []

    def search() -> None:
        try:
            engine.candidates(ask("fox"), 4, 400, threading.Event())
        except ModelError as error:
            ends.append(error)

    searcher = threading.Thread(target=search)
    with before_layer(engine, 2, inside.set):
        searcher.start()
        assert inside.wait(20)
    engine.close()
    assert model() is None
    searcher.join()
    assert "unloaded" in str(ends[0])


def test_memory_is_what_closing_gives_back(tiny: Path, never: threading.Event) -> None:
    engine = load(tiny, LoadOptions(dtype="float32", device_map="cpu"))
    weights = engine.memory["cpu"]
    list(engine.stream(ask("fox"), Sampling(0, 1, 4), never))
    layers = engine._runner._kept.current.cache.layers
    rooms = [room for layer in layers for room in (layer._key_room, layer._value_room)]
    assert engine.memory == {"cpu": weights + sum(room.nbytes for room in rooms)}
    assert sum(room.nbytes for room in rooms) > 0
    engine._runner.forget()
    assert engine.memory == {"cpu": weights}
    engine.close()
    assert engine.memory == {}


def test_what_the_gpus_allocator_keeps_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: {"cuda:1": 700}[device])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: {"cuda:1": 500}[device])
    assert in_reserve("cuda:1") == 200
    assert in_reserve("cpu") == 0


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(dtype="float32"),
        LoadOptions(dtype="bfloat16"),
        LoadOptions(quantization="int8"),
        LoadOptions(quantization="nf4"),
    ],
    ids=["float32", "bfloat16", "int8", "nf4"],
)
def test_load_stream_stop(
    tiny: Path, never: threading.Event, options: LoadOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, float]] = []
    engine = load(tiny, options, lambda state: seen.append((state.stage, state.share)))
    text, usage = answer_of(engine.stream(ask("The quick"), Sampling(0, 1, 12), never))
    cancel = threading.Event()
    stream = engine.stream(ask("The quick"), Sampling(0, 1, 300), cancel)
    next(stream)
    cancel.set()
    assert list(stream)[-1].finish_reason == "cancelled"
    assert not engine.busy
    assert text
    assert usage.completion_tokens
    assert engine.info.quantization == options.quantization
    assert seen[0] == ("checking", 0.0)
    assert seen[-1] == ("ready", 1.0)
    assert any(0 < share < 1 for _, share in seen)
    output = capfd.readouterr()
    assert "MatMul" not in output.err + output.out
