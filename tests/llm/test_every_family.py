"""Every row of the families table on a real model of its architecture: load, chat format, stream, stop.

The models are tiny and have learned a few answers, each followed by one of the marks that must end it.
"""

import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbgpt_lite.errors import TooLarge
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.checkpoint import read_checkpoint
from dbgpt_lite.llm.families import FAMILIES, shape
from dbgpt_lite.llm.loader import LoadOptions, load
from dbgpt_lite.llm.outline import outline
from dbgpt_lite.messages import Message, Sampling
from tests.llm.configs import cached_numbers
from tests.llm.test_chat_template import EXPECTED, TALK
from tests.llm.tiny_families import CONTEXT, TINY, Lesson, config_json, lessons, make_checkpoint, make_tokenizer
from tests.llm.tiny_models import CHATML, answer_of, ask

GREEDY = Sampling(temperature=0, max_tokens=40)
CPU = LoadOptions(dtype="float32", device_map="cpu")


@dataclass(frozen=True)
class Loaded:
    """A row's folder, loaded as the app does it. `model` is the transformers model inside of `engine`."""

    model_type: str
    folder: Path
    engine: Any
    model: Any

    @property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return dict(json.loads((self.folder / "config.json").read_text()))


@pytest.fixture(scope="module", params=FAMILIES)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """One row; the table's own keys are the list, so a row without a tiny configuration fails."""
    folder = tmp_path_factory.mktemp("families") / request.param
    folder.mkdir()
    make_checkpoint(folder, request.param)
    engine = load(folder, CPU)
    return Loaded(request.param, folder, engine, engine._runner._model)


def test_every_row_has_a_tiny_configuration() -> None:
    assert TINY.keys() == FAMILIES.keys()


def test_prompt_is_the_published_text(row: Loaded) -> None:
    assert row.engine._template.render(TALK) == EXPECTED[FAMILIES[row.model_type].chat_format]


def test_every_stop_ends_an_answer(row: Loaded, never: threading.Event) -> None:
    """Stop strings, stop tokens, the tokenizer's end token and every one that generation_config.json lists."""

    def told(lesson: Lesson) -> tuple[str, str]:
        text, usage = answer_of(row.engine.stream(ask(lesson.question), GREEDY, never))
        return text.strip(), usage.finish_reason

    learned = lessons(row.model_type)
    assert len(learned) >= 2
    assert {lesson.ending: told(lesson) for lesson in learned} == {
        lesson.ending: (lesson.answer, "stop") for lesson in learned
    }


def test_window(row: Loaded, never: threading.Event) -> None:
    assert row.engine.info.context_length == CONTEXT
    words = "fox " * 60
    room = CONTEXT - row.engine.count(ask(words).messages)
    _, usage = answer_of(row.engine.stream(ask(words), Sampling(0, 1, 10_000), never))
    assert usage.completion_tokens <= room
    with pytest.raises(TooLarge, match=str(CONTEXT)):
        next(row.engine.stream(ask(words * 4), GREEDY, never))


def test_sizes_are_those_of_the_configuration_class(row: Loaded) -> None:
    inner = row.model.config.get_text_config()
    sizes = shape(row.config)
    assert sizes.layers == inner.num_hidden_layers
    assert sizes.heads == inner.num_attention_heads
    assert sizes.hidden == inner.hidden_size


LEFT_OUT = ("num_key_value_heads", "head_dim", "sliding_window", "sliding_window_pattern", "max_window_layers")


@pytest.mark.parametrize(
    ("model_type", "key"),
    [(kind, key) for kind in FAMILIES for key in LEFT_OUT if key in TINY[kind].get("text_config", TINY[kind])],
)
def test_what_a_left_out_size_means(model_type: str, key: str) -> None:
    """The cache that transformers would make decides; a null is not the same as a missing key."""
    from transformers import AutoConfig
    from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

    written = config_json(model_type)
    inner = dict(written.get("text_config", written))
    del inner[key]
    short = {**written, "text_config": inner} if "text_config" in written else inner
    config = AutoConfig.for_model(**short).get_text_config()
    layers = DynamicCache(config=config).layers
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    sizes = shape(short)
    assert sizes.sliding_layers == len(windows)
    assert {sizes.window} == (set(windows) or {0})
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert sizes.head_dim == head_dim
    if not FAMILIES[model_type].shared_heads:
        assert sizes.kv_heads == (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


@pytest.mark.parametrize("tokens", [10, 100])
def test_cache_is_as_large_as_told(row: Loaded, tokens: int) -> None:
    """After one reading of a prompt shorter and longer than the sliding windows."""
    import torch

    from dbgpt_lite.llm.cache import new_cache

    cache = new_cache(row.model.config)
    with torch.inference_mode():
        row.model(input_ids=torch.arange(3, 3 + tokens)[None], past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    sizes = shape(row.config)
    assert held == cached_numbers(sizes, tokens)
    planned = sum(block.cache for block in outline(read_checkpoint(row.folder)).blocks("float32", "none", tokens, 1))
    # A window of a sliding layer is planned whole; one token less is kept.
    assert 0 <= planned - 4 * held <= 4 * 2 * sizes.kv_heads * sizes.head_dim * sizes.sliding_layers


def test_named_parts_are_in_the_model(row: Loaded) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    facts = FAMILIES[row.model_type]
    modules = dict(row.model.named_modules())
    assert set(facts.whole) <= {type(module).__name__ for module in modules.values()}
    assert set(facts.whole) <= set(row.model._no_split_modules)
    linear = {name.split(".")[-1] for name, module in modules.items() if isinstance(module, torch.nn.Linear | Conv1D)}
    assert facts.lora
    assert set(facts.lora) <= linear
    head = next(name for name, module in modules.items() if module is row.model.get_output_embeddings())
    assert head in facts.keep
    narrow = {n.split(".")[-1] for n, m in modules.items() if isinstance(m, torch.nn.Linear) and m.out_features == 1}
    assert narrow <= set(facts.keep)


def test_rows_of_one_layer_kind_are_whole(row: Loaded) -> None:
    """What is repeated once a layer, with its residuals, is what the row keeps on one device."""
    blocks = [module for module in row.model.modules() if type(module).__name__ in FAMILIES[row.model_type].whole]
    assert len(blocks) == shape(row.config).layers


# What transformers knows and the table does not: the generic row.
UNLISTED = {
    "olmo2": {"num_key_value_heads": 2},
    "granite": {"num_key_value_heads": 2},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 1.0},
    "smollm3": {"num_key_value_heads": 2, "no_rope_layers": [1, 1, 0]},
    "exaone4": {"num_key_value_heads": 2, "sliding_window": 24, "sliding_window_pattern": 3},
}


@pytest.mark.parametrize("model_type", UNLISTED)
def test_an_unlisted_architecture_needs_no_code(model_type: str, tmp_path: Path, never: threading.Event) -> None:
    """With its tokenizer's own template: it loads, its sizes are right, and it answers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from dbgpt_lite.llm.cache import new_cache

    assert model_type not in FAMILIES
    sizes = {**TINY["llama"], **UNLISTED[model_type], "vocab_size": 512, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(3)
    config = AutoConfig.for_model(model_type, **{**sizes, "pad_token_id": 0})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer = make_tokenizer(tmp_path, ["<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path)
    engine = load(tmp_path, CPU)
    assert engine.info.context_length == CONTEXT
    assert engine._template.render([Message("user", "hi")]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in engine._end
    _, usage = answer_of(engine.stream(ask("Who?"), Sampling(0, 1, 8), never))
    assert usage.completion_tokens
    cache = new_cache(config)
    with torch.inference_mode():
        engine._runner._model(input_ids=torch.arange(3, 53)[None], past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == cached_numbers(shape(read_checkpoint(tmp_path).config), 50)


@pytest.mark.parametrize("row", ["llama"], indirect=True)
def test_a_format_told_in_the_folder_beats_the_template(row: Loaded, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(row.folder, tmp_path / "told"))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "dbgpt.json").write_text(json.dumps({"chat_format": "vicuna"}))
    template = load(folder, CPU)._template
    assert template.render(TALK) == EXPECTED["vicuna"]
    assert set(template.stop) == set(CHAT_FORMATS["vicuna"].stop)
