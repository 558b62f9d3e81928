"""TABLE of chat formats by name: how a conversation is written for a model whose tokenizer brings no template.

Each row follows the text its source shows. A new format is a row. Nothing here imports torch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dbgpt_lite.errors import ModelError


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one conversation is written, without the start tokens, which the tokenizer adds.

    `system`, `user` and `assistant` frame one turn's ``{content}``; `opening` asks for the answer. `stop` ends an
    answer; an entry that the tokenizer holds as one special token ends it as that token. `numbered` counts question and
    answer as one round in ``{n}``, from `first_round`. `lone` is how a first question is written, in place of `user`
    and `opening`. `default_system` is written when no system message is there. `inside`: the
    framed system message and an empty line stand at the head of the first user turn. `shown_by`: special tokens that,
    all together in a tokenizer, show that a model was made for this format.
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
    inside: bool = False
    shown_by: tuple[str, ...] = ()


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
    # https://huggingface.co/timdettmers/guanaco-33b-merged/discussions/4
    "guanaco": ChatFormat(
        system="{content}\n",
        user="### Human: {content}\n",
        assistant="### Assistant: {content}\n",
        opening="### Assistant:",
        stop=("### Human:", "### Assistant:"),
        default_system="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    # https://github.com/tatsu-lab/stanford_alpaca#data-release
    "alpaca": ChatFormat(
        system="{content}\n\n",
        user="### Instruction:\n{content}\n\n",
        assistant="### Response:{content}\n\n",
        opening="### Response:",
        stop=("### Instruction:",),
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    ),
    # https://huggingface.co/blog/llama2#how-to-prompt-llama-2
    "llama2": ChatFormat(
        system="<<SYS>>\n{content}\n<</SYS>>",
        user="[INST] {content} [/INST]",
        assistant=" {content} </s><s>",
        opening="",
        stop=("[INST]", "</s>"),
        inside=True,
    ),
    # https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3/
    "llama3": ChatFormat(
        system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{content}<|eot_id|>",
        opening="<|start_header_id|>assistant<|end_header_id|>\n\n",
        stop=("<|eot_id|>", "<|end_of_text|>"),
        shown_by=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # https://github.com/openai/openai-python/blob/release-v0.28.1/chatml.md
    "chatml": ChatFormat(
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{content}<|im_end|>\n",
        opening="<|im_start|>assistant\n",
        stop=("<|im_end|>", "<|im_start|>"),
        shown_by=("<|im_start|>", "<|im_end|>"),
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
    # https://huggingface.co/THUDM/glm-4-9b-chat (the frames of its tokenizer's messages)
    "glm4": ChatFormat(
        system="<|system|>\n{content}",
        user="<|user|>\n{content}",
        assistant="<|assistant|>\n{content}",
        opening="<|assistant|>\n",
        stop=("<|user|>", "<|observation|>", "<|endoftext|>"),
        shown_by=("[gMASK]", "<|user|>", "<|assistant|>", "<|observation|>"),
    ),
    # https://docs.mistral.ai/cookbooks/concept-deep-dive-tokenization-chat_templates
    "mistral": ChatFormat(
        system="{content}",
        user="[INST] {content} [/INST]",
        assistant=" {content}</s>",
        opening="",
        stop=("</s>", "[INST]"),
        inside=True,
        shown_by=("[INST]", "[/INST]"),
    ),
    # https://ai.google.dev/gemma/docs/core/prompt-structure
    "gemma": ChatFormat(
        system="{content}",
        user="<start_of_turn>user\n{content}<end_of_turn>\n",
        assistant="<start_of_turn>model\n{content}<end_of_turn>\n",
        opening="<start_of_turn>model\n",
        stop=("<end_of_turn>", "<start_of_turn>"),
        inside=True,
        shown_by=("<start_of_turn>", "<end_of_turn>"),
    ),
    # https://huggingface.co/microsoft/Phi-3-mini-4k-instruct#chat-format
    "phi3": ChatFormat(
        system="<|system|>\n{content}<|end|>\n",
        user="<|user|>\n{content}<|end|>\n",
        assistant="<|assistant|>\n{content}<|end|>\n",
        opening="<|assistant|>\n",
        stop=("<|end|>", "<|user|>"),
        shown_by=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    # https://huggingface.co/microsoft/phi-2#qa-format
    "phi": ChatFormat(
        system="{content}\n\n",
        user="Instruct: {content}\n",
        assistant="Output: {content}\n",
        opening="Output:",
        stop=("\nInstruct:", "\nOutput:"),
    ),
    # https://huggingface.co/tiiuae/falcon-7b-instruct (its later chat template)
    "falcon": ChatFormat(
        system="{content}\n\n",
        user="User: {content}\n\n",
        assistant="Assistant: {content}\n\n",
        opening="Assistant:",
        stop=("\nUser:", "\nAssistant:"),
    ),
    # https://huggingface.co/stabilityai/stablelm-zephyr-3b#usage
    "stablelm": ChatFormat(
        system="<|system|>\n{content}<|endoftext|>\n",
        user="<|user|>\n{content}<|endoftext|>\n",
        assistant="<|assistant|>\n{content}<|endoftext|>\n",
        opening="<|assistant|>\n",
        stop=("<|endoftext|>", "<|user|>"),
    ),
    # https://huggingface.co/bigcode/starcoder2-15b-instruct-v0.1#use
    "starcoder2": ChatFormat(
        system="{content}\n\n",
        user="### Instruction\n{content}\n\n",
        assistant="### Response\n{content}<|endoftext|>",
        opening="### Response\n",
        stop=("### Instruction", "<|endoftext|>"),
        default_system="You are an exceptionally intelligent coding assistant that consistently delivers accurate "
        "and reliable responses to user instructions.",
    ),
    # https://huggingface.co/OpenAssistant/oasst-sft-4-pythia-12b-epoch-3.5#prompting
    "openassistant": ChatFormat(
        system="<|system|>{content}<|endoftext|>",
        user="<|prompter|>{content}<|endoftext|>",
        assistant="<|assistant|>{content}<|endoftext|>",
        opening="<|assistant|>",
        stop=("<|endoftext|>", "<|prompter|>"),
        shown_by=("<|prompter|>", "<|assistant|>"),
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


def format_shown_by(tokens: Collection[str]) -> str:
    """The format whose special tokens a tokenizer holds, the one with most of them first; "" when none's are there."""
    found = [name for name, row in CHAT_FORMATS.items() if row.shown_by and set(row.shown_by) <= set(tokens)]
    return max(found, key=lambda name: len(CHAT_FORMATS[name].shown_by), default="")
