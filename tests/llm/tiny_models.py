"""Tiny real things the tests of llm/ share: checkpoints, a tokenizer, prompts."""

from pathlib import Path
from typing import Any

from dbgpt_lite.messages import Message, Prompt

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LINES = [
    "The quick brown fox jumps over the lazy dog, and the lazy dog sleeps in the warm sun.",
    "SELECT name, town FROM readers WHERE town = 'Leeds' ORDER BY name",
    "今天天气很好，我们一起去公园散步。你叫什么名字？",
]


def make_tokenizer(folder: Path, chat_template: str | None = CHATML) -> None:
    """A byte-level BPE tokenizer of 512 tokens with ChatML's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(LINES * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)


def make_model(folder: Path, endless: bool = False, **config: Any) -> None:
    """A random Llama, sharpened so that its answers vary. `endless`: greedy, it never writes a special token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **tokens, "initializer_range": 0.4, **config}))
    if endless:
        # Their logits are 0, and among hundreds of random ones some are larger.
        with torch.no_grad():
            model.lm_head.weight[:3] = 0
    model.save_pretrained(folder, max_shard_size="200KB")


def ask(question: str, *before: Message) -> Prompt:
    """A prompt of one user message after `before`."""
    return Prompt("chat", (*before, Message("user", question)), question)


def answer_of(items: Any) -> tuple[str, Any]:
    """(whole text, usage) of a stream."""
    *pieces, usage = list(items)
    return "".join(piece for piece in pieces if isinstance(piece, str)), usage


def pack_int4(numbers: Any) -> Any:
    """Integers -8..7 (rows, columns) -> int8 (rows, columns/2), even columns in the high bits."""
    import torch

    high, low = numbers[:, ::2] & 15, numbers[:, 1::2] & 15
    return ((high << 4) | low).to(torch.uint8).view(torch.int8)
