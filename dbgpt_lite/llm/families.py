"""TABLE of model facts. Two keys: architecture facts by config.json's ``model_type``, chat formats by name.

Nothing here imports torch. A new architecture or chat format is a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dbgpt_lite.errors import ModelError


@dataclass(frozen=True, slots=True)
class Family:
    """Where an architecture keeps its sizes in config.json, and which layers must stay whole on one device.

    Every `*_keys` is tried in order; the first one that config.json holds wins. `default_context` counts when
    config.json does not name a window. `whole` are class names, as accelerate's ``no_split_module_classes``.
    """

    name: str
    context_keys: tuple[str, ...] = ("max_position_embeddings",)
    layers_keys: tuple[str, ...] = ("num_hidden_layers",)
    heads_keys: tuple[str, ...] = ("num_attention_heads",)
    kv_heads_keys: tuple[str, ...] = ("num_key_value_heads",)
    hidden_keys: tuple[str, ...] = ("hidden_size",)
    head_dim_keys: tuple[str, ...] = ("head_dim",)
    default_context: int = 2048
    whole: tuple[str, ...] = ()


_GPT2 = Family(
    "GPT-2",
    context_keys=("n_positions",),
    layers_keys=("n_layer",),
    heads_keys=("n_head",),
    hidden_keys=("n_embd",),
    default_context=1024,
    whole=("GPT2Block",),
)

FAMILIES: Mapping[str, Family] = {
    "llama": Family("Llama", whole=("LlamaDecoderLayer",)),
    "mistral": Family("Mistral", whole=("MistralDecoderLayer",)),
    "mixtral": Family("Mixtral", whole=("MixtralDecoderLayer",)),
    "qwen2": Family("Qwen2", whole=("Qwen2DecoderLayer",)),
    "qwen2_moe": Family("Qwen2 MoE", whole=("Qwen2MoeDecoderLayer",)),
    "qwen3": Family("Qwen3", whole=("Qwen3DecoderLayer",)),
    "qwen3_moe": Family("Qwen3 MoE", whole=("Qwen3MoeDecoderLayer",)),
    "glm": Family("GLM", whole=("GlmDecoderLayer",)),
    "glm4": Family("GLM-4", whole=("Glm4DecoderLayer",)),
    # ChatGLM-6B, ChatGLM2 and ChatGLM3 all call themselves so; see renaming.ARCHITECTURES.
    "chatglm": Family(
        "ChatGLM",
        context_keys=("seq_length", "max_sequence_length"),
        layers_keys=("num_layers",),
        kv_heads_keys=("multi_query_group_num",),
        head_dim_keys=("kv_channels",),
        whole=("GlmDecoderLayer", "ChatGLMBlock"),
    ),
    "gemma": Family("Gemma", whole=("GemmaDecoderLayer",)),
    "gemma2": Family("Gemma 2", whole=("Gemma2DecoderLayer",)),
    "gemma3_text": Family("Gemma 3", whole=("Gemma3DecoderLayer",)),
    "phi": Family("Phi", whole=("PhiDecoderLayer",)),
    "phi3": Family("Phi-3", whole=("Phi3DecoderLayer",)),
    "falcon": Family(
        "Falcon",
        layers_keys=("num_hidden_layers", "n_layer"),
        heads_keys=("num_attention_heads", "n_head"),
        kv_heads_keys=("num_kv_heads", "n_head_kv"),
        whole=("FalconDecoderLayer",),
    ),
    "stablelm": Family("StableLM", whole=("StableLmDecoderLayer",)),
    "starcoder2": Family("StarCoder2", whole=("Starcoder2DecoderLayer",)),
    "opt": Family("OPT", whole=("OPTDecoderLayer",)),
    "gpt_neox": Family("GPT-NeoX", whole=("GPTNeoXLayer",)),
    "bloom": Family(
        "BLOOM",
        context_keys=("seq_length",),
        layers_keys=("n_layer", "num_hidden_layers"),
        heads_keys=("n_head", "num_attention_heads"),
        hidden_keys=("hidden_size", "n_embed"),
        whole=("BloomBlock",),
    ),
    "gpt2": _GPT2,
    "gptj": replace(_GPT2, name="GPT-J", whole=("GPTJBlock",)),
    "gpt_bigcode": replace(_GPT2, name="StarCoder", whole=("GPTBigCodeBlock",)),
    "mpt": Family(
        "MPT",
        context_keys=("max_seq_len",),
        layers_keys=("n_layers",),
        heads_keys=("n_heads",),
        hidden_keys=("d_model",),
        whole=("MptBlock",),
    ),
}


def family(model_type: str) -> Family:
    """The row of a ``model_type``; an unlisted one gets the usual key names and its own name."""
    return FAMILIES.get(model_type) or Family(model_type)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes read from config.json: window in tokens, layers, heads, width."""

    context_length: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int


def shape(config: Mapping[str, object]) -> ModelShape:
    """Sizes of a config.json; a size that it does not hold is 0, except the window and the heads' defaults."""
    row = family(str(config.get("model_type", "")))
    heads = _first(config, row.heads_keys)
    hidden = _first(config, row.hidden_keys)
    return ModelShape(
        context_length=_first(config, row.context_keys) or row.default_context,
        layers=_first(config, row.layers_keys),
        heads=heads,
        kv_heads=_kv_heads(config, row, heads),
        head_dim=_first(config, row.head_dim_keys) or (hidden // heads if heads else 0),
        hidden=hidden,
    )


def _kv_heads(config: Mapping[str, object], row: Family, heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    if config.get("multi_query_attention") is False:
        return heads
    return _first(config, row.kv_heads_keys) or heads


def _first(config: Mapping[str, object], keys: tuple[str, ...]) -> int:
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a conversation is written for a model whose tokenizer brings no template.

    `system`, `user` and `assistant` frame one turn's ``{content}``; `opening` asks for the answer. `numbered` counts
    question and answer as one round in ``{n}``, from `first_round`. `lone` is how a first question is written, in
    place of `user` and `opening`. `default_system` is written when no system message is there.
    """

    system: str
    user: str
    assistant: str
    opening: str
    stop: tuple[str, ...]
    default_system: str = ""
    numbered: bool = False
    first_round: int = 1
    lone: str = ""


CHAT_FORMATS: Mapping[str, ChatFormat] = {
    # https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md
    "vicuna": ChatFormat(
        system="{content} ",
        user="USER: {content} ",
        assistant="ASSISTANT: {content}</s>",
        opening="ASSISTANT:",
        stop=("USER:", "</s>"),
        default_system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    # https://huggingface.co/timdettmers/guanaco-33b-merged
    "guanaco": ChatFormat(
        system="{content}\n",
        user="### Human: {content}\n",
        assistant="### Assistant: {content}\n",
        opening="### Assistant:",
        stop=("### Human:", "### Assistant:"),
    ),
    # https://github.com/tatsu-lab/stanford_alpaca#data-release
    "alpaca": ChatFormat(
        system="{content}\n\n",
        user="### Instruction:\n{content}\n\n",
        assistant="### Response:\n{content}\n\n",
        opening="### Response:\n",
        stop=("### Instruction:",),
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    ),
    # https://github.com/openai/openai-python/blob/release-v0.28.1/chatml.md
    "chatml": ChatFormat(
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
        opening="<|im_start|>assistant\n",
        stop=("<|im_end|>", "<|im_start|>"),
    ),
    # https://github.com/zai-org/ChatGLM2-6B (build_prompt of its modeling code)
    "chatglm2": ChatFormat(
        system="{content}\n\n",
        user="[Round {n}]\n\n问：{content}\n\n",
        assistant="答：{content}\n\n",
        opening="答：",
        stop=("[Round ", "\n问："),
        numbered=True,
    ),
    # https://github.com/zai-org/ChatGLM-6B (chat of its modeling code)
    "chatglm": ChatFormat(
        system="{content}\n",
        user="[Round {n}]\n问：{content}\n",
        assistant="答：{content}\n",
        opening="答：",
        stop=("[Round ", "\n问："),
        numbered=True,
        first_round=0,
        lone="{content}",
    ),
    # https://github.com/zai-org/ChatGLM3/blob/main/PROMPT_en.md
    "chatglm3": ChatFormat(
        system="<|system|>\n {content}",
        user="<|user|>\n {content}",
        assistant="<|assistant|>\n {content}",
        opening="<|assistant|>",
        stop=("<|user|>", "<|observation|>"),
    ),
    "plain": ChatFormat(
        system="{content}\n\n",
        user="User: {content}\n",
        assistant="Assistant: {content}\n",
        opening="Assistant:",
        stop=("\nUser:", "\nAssistant:"),
    ),
}


def chat_format(name: str) -> ChatFormat:
    """The chat format `name`. Raises ModelError that lists the known ones."""
    if name not in CHAT_FORMATS:
        raise ModelError("llm.unknown_chat_format", name=name, known=", ".join(CHAT_FORMATS))
    return CHAT_FORMATS[name]
