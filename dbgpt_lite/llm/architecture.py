"""A checkpoint's configuration, empty model, tokenizer and chat format. Never the folder's own code.

transformers' classes where it has them; the rows of ARCHITECTURES that it does not have are built here.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dbgpt_lite.llm import chatglm2
from dbgpt_lite.llm.chat_template import Tokenizer
from dbgpt_lite.llm.checkpoint import Checkpoint
from dbgpt_lite.llm.renaming import architecture

if TYPE_CHECKING:
    import torch


def _chatglm_config(checkpoint: Checkpoint) -> Any:
    from dbgpt_lite.llm.chatglm import chatglm_config

    return chatglm_config(checkpoint)


# By the name of the architecture's row in renaming.ARCHITECTURES.
_CONFIGS: Mapping[str, Callable[[Checkpoint], Any]] = {
    "chatglm2": chatglm2.glm_config,
    "chatglm": _chatglm_config,
}


def _name(checkpoint: Checkpoint) -> str:
    row = architecture(checkpoint.config)
    return row.name if row else ""


def transformers_config(checkpoint: Checkpoint) -> Any:
    """The PretrainedConfig of a checkpoint. Raises ModelError for a variant that cannot be computed."""
    from transformers import AutoConfig

    if build := _CONFIGS.get(_name(checkpoint)):
        return build(checkpoint)
    # Made from a GGUF file's header (transformers' own reading of it leaves out how positions are stretched), or a file
    # of another name given to `plan`.
    if checkpoint.format == "gguf" or not (checkpoint.folder / "config.json").is_file():
        return AutoConfig.for_model(**checkpoint.config)
    return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)


def empty_model(config: Any, dtype: "torch.dtype") -> Any:
    """The causal language model on the meta device, in evaluation mode: shapes and names, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from dbgpt_lite.llm.chatglm import ChatGLMConfig, ChatGLMForCausalLM

    with torch.device("meta"):
        if isinstance(config, ChatGLMConfig):
            return ChatGLMForCausalLM(config).to(dtype).eval()
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return model.eval()


def chat_format(checkpoint: Checkpoint) -> str:
    """The chat format that the architecture implies, "" when it implies none."""
    name = _name(checkpoint)
    return chatglm2.generation(checkpoint) if name == "chatglm2" else name


def _gguf_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """AutoTokenizer comes to the same class, but first reads the whole vocabulary for a config it does not need."""
    from transformers import PreTrainedTokenizerFast

    file = checkpoint.files[0].name
    found: Tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint.folder, gguf_file=file, local_files_only=True)
    return found


def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer. Raises ModelError for SentencePiece files that are not ChatGLM's."""
    from transformers import AutoTokenizer

    if _name(checkpoint):
        from dbgpt_lite.llm.chatglm_tokenizer import chatglm_tokenizer

        return chatglm_tokenizer(checkpoint.folder, checkpoint.config, chat_format(checkpoint))
    if checkpoint.format == "gguf":
        return _gguf_tokenizer(checkpoint)
    found: Tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    return found
