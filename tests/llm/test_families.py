"""Model facts are rows, found by exact names, without torch."""

import subprocess
import sys

import pytest

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.families import CHAT_FORMATS, FAMILIES, ModelShape, chat_format, family, shape
from dbgpt_lite.llm.renaming import ARCHITECTURES


def test_import_is_light() -> None:
    code = (
        "import sys, dbgpt_lite.llm.families, dbgpt_lite.llm.placement, dbgpt_lite.llm.engine, dbgpt_lite.llm.manager;"
        "import dbgpt_lite.llm.renaming, dbgpt_lite.llm.architecture, dbgpt_lite.llm.chatglm_tokenizer;"
        "heavy = {'torch', 'transformers', 'accelerate', 'bitsandbytes', 'httpx', 'sentencepiece'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_rows_name_layers_that_transformers_keeps_whole() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    assert set(FAMILIES) - set(known) == {row.model_type for row in ARCHITECTURES}
    for model_type in ("llama", "qwen2", "glm4", "gemma2", "phi3", "falcon", "gpt2", "bloom", "mpt"):
        model_class = AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model(model_type))]
        assert set(family(model_type).whole) <= set(model_class._no_split_modules or ())


def test_sizes_are_those_of_transformers_defaults() -> None:
    from transformers import AutoConfig

    for model_type in ("llama", "mistral", "qwen2", "falcon", "gpt2", "bloom", "opt", "gpt_neox"):
        config = AutoConfig.for_model(model_type)
        sizes = shape(config.to_dict())
        assert sizes.layers == config.num_hidden_layers
        assert sizes.heads == config.num_attention_heads
        assert sizes.hidden == config.hidden_size


def test_falcon_multi_query_has_one_kv_head() -> None:
    config = {"model_type": "falcon", "num_attention_heads": 71, "hidden_size": 4544, "multi_query": True}
    assert shape(config).kv_heads == 1
    assert shape(config).head_dim == 64
    assert shape({**config, "new_decoder_architecture": True, "num_kv_heads": 8}).kv_heads == 8


def test_sizes_of_chatglm() -> None:
    second = {"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32, "hidden_size": 4096}
    grouped = second | {
        "kv_channels": 96,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "seq_length": 8192,
    }
    assert shape(grouped) == ModelShape(8192, 28, 32, 2, 96, 4096)
    assert shape({**grouped, "multi_query_attention": False}).kv_heads == 32
    assert shape({**second, "max_sequence_length": 2048}) == ModelShape(2048, 28, 32, 32, 128, 4096)


def test_an_unlisted_family_keeps_its_name() -> None:
    assert family("olmo2").name == "olmo2"
    assert shape({"model_type": "olmo2"}).context_length == 2048


def test_formats_are_found_by_name_only() -> None:
    assert chat_format("guanaco").opening == "### Assistant:"
    with pytest.raises(ModelError, match="vicuna"):
        chat_format("my-guanaco-33b")


def test_every_format_frames_content_and_stops() -> None:
    for row in CHAT_FORMATS.values():
        assert "{content}" in row.user
        assert "{content}" in row.assistant
        assert row.stop
