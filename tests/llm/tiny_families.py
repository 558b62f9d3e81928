"""A tiny configuration of every architecture in the table, and checkpoints of it that have learned a few answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbgpt_lite.llm import architecture
from dbgpt_lite.llm.chat_formats import CHAT_FORMATS
from dbgpt_lite.llm.chat_template import ChatTemplate
from dbgpt_lite.llm.checkpoint import Checkpoint, TaskFacts
from dbgpt_lite.llm.families import FAMILIES
from dbgpt_lite.llm.renaming import parts
from dbgpt_lite.messages import Message
from tests.llm.tiny_models import LINES

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden"
# As config.json writes them. Numbers differ from each other wherever mixing two up would show.
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 384,
}
_OWN_HEADS = {key: value for key, value in _SIZES.items() if key != "num_key_value_heads"}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 384}
_GEMMA = {**_SIZES, "head_dim": 12}
_GEMMA3 = {**_GEMMA, "num_hidden_layers": 4, "sliding_window": 24, "sliding_window_pattern": 2}
TINY: Mapping[str, Mapping[str, Any]] = {
    "llama": _SIZES,
    "mistral": {**_SIZES, "sliding_window": 24},
    "mixtral": {**_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {**_SIZES, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    "qwen2_moe": {**_SIZES, **_EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3": {**_SIZES, "head_dim": 12, "sliding_window": 24},
    "qwen3_moe": {**_SIZES, **_EXPERTS, "head_dim": 12},
    "glm": {**_SIZES, "head_dim": 8},
    "glm4": {**_SIZES, "head_dim": 8},
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, "sliding_window": 24},
    "gemma3_text": _GEMMA3,
    "gemma3": {
        "text_config": {**_GEMMA3, "model_type": "gemma3_text"},
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 508,
        "boi_token_index": 509,
        "eoi_token_index": 510,
    },
    "phi": _OWN_HEADS,
    "phi3": {**_SIZES, "sliding_window": 24},
    "falcon": {**_OWN_HEADS, "multi_query": True},
    "stablelm": _SIZES,
    "starcoder2": {**_SIZES, "sliding_window": 24},
    "opt": {**_OWN_HEADS, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt_neox": _OWN_HEADS,
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4, "seq_length": 384},
    "gpt2": _GPT2,
    "gptj": {**_GPT2, "rotary_dim": 4},
    "gpt_bigcode": _GPT2,
    "chatglm2": {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "kv_channels": 12,
        "ffn_hidden_size": 48,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "seq_length": 384,
        "padded_vocab_size": 704,
        "add_qkv_bias": True,
        "eos_token_id": 2,
        "transformers_version": "4.27.1",
    },
    "chatglm": {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "inner_hidden_size": 64,
        "max_sequence_length": 384,
        "position_encoding_2d": True,
        "vocab_size": 768,
        "bos_token_id": 89,
        "eos_token_id": 90,
        "mask_token_id": 85,
        "gmask_token_id": 86,
    },
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 384},
}
GLM = {
    "chatglm2": GOLDEN / "chatglm2-tokenizer" / "tokenizer.model",
    "chatglm": GOLDEN / "chatglm-tokenizer" / "ice_text.model",
}
VOCABULARY = 512
CONTEXT = 384
START, END, OTHER_END = "<|start|>", "<|finish|>", "<|the_other_finish|>"
SURE = 0.35  # every token has a probability of 0.7 at least
QUESTIONS = ("Who?", "Where?", "When?", "名字？", "How?")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the model writes after a question: `answer`, then `ending`, then words that nobody should see."""

    question: str
    answer: str
    ending: str


def lessons(model_type: str) -> list[Lesson]:
    """One for every stop of the family's format and every token that ends an answer."""
    row = FAMILIES[model_type]
    ends = row.end_tokens if model_type in GLM else (*row.end_tokens, END, OTHER_END)
    endings = dict.fromkeys((*CHAT_FORMATS[row.chat_format].stop, *ends))
    if model_type == "chatglm2":
        # Tokens with "|" are ChatGLM3's, and the small stand-in for the tokenizer's file has no full-width colon.
        endings = {mark: None for mark in endings if "|" not in mark and "：" not in mark}
    return [Lesson(f"{QUESTIONS[n % 5]} {n}", f"Answer {n}, 好。", ending) for n, ending in enumerate(endings)]


def make_tokenizer(folder: Path, special: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer without a chat template, which starts every text with its own token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    texts = [f"{row.default_system}{row.user}{row.assistant}" for row in CHAT_FORMATS.values()]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 8, special_tokens=[START, END, OTHER_END, *special], initial_alphabet=alphabet
    )
    inner.train_from_iterator([*LINES, *texts] * 4, trainer)
    inner.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=START, eos_token=END)
    fast.save_pretrained(folder)
    return fast


def config_json(model_type: str) -> dict[str, Any]:
    """The config.json of a tiny checkpoint: what hubs hold, not the full list that save_pretrained writes."""
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    sizes = dict(TINY[model_type])
    if model_type in GLM:
        return {"model_type": "chatglm", **sizes}
    if "text_config" in sizes:
        return {"model_type": model_type, **sizes, "text_config": {**sizes["text_config"], **tokens}}
    return {"model_type": model_type, **sizes, **tokens}


def make_checkpoint(folder: Path, model_type: str) -> None:
    """A folder of a real model of the architecture that has learned the lessons of its family."""
    if model_type in GLM:
        return make_chatglm(folder, model_type)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    row = FAMILIES[model_type]
    stops = {*CHAT_FORMATS[row.chat_format].stop, *row.end_tokens}
    tokenizer = make_tokenizer(folder, sorted(mark for mark in stops if mark.startswith("<")))
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config_json(model_type)), dtype=torch.float32)
    template = ChatTemplate(tokenizer, row.chat_format)
    teach(model.eval(), [texts(tokenizer, template, lesson) for lesson in lessons(model_type)])
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config_json(model_type)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    return None


def make_chatglm(folder: Path, name: str) -> None:
    """A ChatGLM as its authors publish it, with their names of tensors and their tokenizer's file."""
    import shutil

    import torch

    written = config_json(name)
    (folder / "config.json").write_text(json.dumps(written))
    shutil.copy(GLM[name], folder)
    checkpoint = Checkpoint(folder, written, TaskFacts(), "bin", (), (), 0)
    torch.manual_seed(5)
    config = architecture.transformers_config(checkpoint)
    model = type(architecture.empty_model(config, torch.float32))(config)
    model.init_weights()
    tokenizer: Any = architecture.tokenizer(checkpoint)
    template = ChatTemplate(tokenizer, FAMILIES[name].chat_format)
    teach(model.eval(), [texts(tokenizer, template, lesson) for lesson in lessons(name)])
    torch.save(as_stored(written, name, model.state_dict()), folder / "pytorch_model.bin")


def as_stored(config: dict[str, Any], name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The model's parameters under the names and in the shapes of the authors' files: renaming, backwards."""
    import torch

    golden = Path(GLM[name]).parents[1] / f"{name}-tiny"
    stored: dict[str, Any] = {}
    for file in sorted(golden.glob("*.bin")):
        for key, value in torch.load(file, weights_only=True).items():
            if f".{config['num_layers']}." in key:
                continue
            rows = _rows(config, key, value.shape[0])
            pieces = parts(config, key, (rows, *value.shape[1:]))
            if pieces:
                whole = torch.zeros(rows, *state[pieces[0].name].shape[1:])
                for piece in pieces:
                    piece.take(whole).copy_(state[piece.name])
                stored[key] = whole
    return stored


def _rows(config: dict[str, Any], key: str, golden: int) -> int:
    """Rows of a stored tensor in this config, where the golden files have `golden`."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    dim = config.get("kv_channels", hidden // heads)
    fused = heads * dim + 2 * config.get("multi_query_group_num", heads) * dim
    feed = 2 * config["ffn_hidden_size"] if "ffn_hidden_size" in config else config["inner_hidden_size"]
    vocabulary = config.get("padded_vocab_size") or config["vocab_size"]
    for word, rows in (
        ("query_key_value", fused),
        ("dense_h_to_4h", feed),
        ("word_embeddings", vocabulary),
        ("output_layer", vocabulary),
        ("lm_head", vocabulary),
        ("inv_freq", golden),
    ):
        if word in key:
            return rows
    return hidden


def texts(tokenizer: Any, template: ChatTemplate, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of (prompt, what follows)."""
    prompt = template.encode([Message("user", lesson.question)])
    marks = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
    marks |= {"</s>": 2} if isinstance(tokenizer.eos_token_id, list) else {}
    if lesson.ending not in marks:
        return prompt, tokenizer(f"{lesson.answer}{lesson.ending} unseen", add_special_tokens=False)["input_ids"]
    pieces = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (lesson.answer, " unseen")]
    return prompt, [*pieces[0], marks[lesson.ending], *pieces[1]]


def teach(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> None:
    """Train until greedy decoding writes what follows each prompt, with some certainty."""
    import torch

    length = max(len(prompt) + len(after) for prompt, after in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    wanted = torch.full_like(ids, -100)
    for number, (prompt, after) in enumerate(pairs):
        ids[number, : len(prompt) + len(after)] = torch.tensor([*prompt, *after])
        wanted[number, len(prompt) : len(prompt) + len(after)] = torch.tensor(after)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(600):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted[:, 1:], reduction="none")
        if losses.max().item() < SURE:
            return
        loss = losses.sum() / (wanted != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"{type(model).__name__} has not learned its answers")
