"""A checkpoint's configuration, empty model and tokenizer, by transformers' own classes. Never the folder's code."""

from typing import TYPE_CHECKING, Any

from dbgpt_lite.llm.chat_template import Tokenizer
from dbgpt_lite.llm.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch


def transformers_config(checkpoint: Checkpoint) -> Any:
    """The PretrainedConfig of a checkpoint."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)


def empty_model(config: Any, dtype: "torch.dtype") -> Any:
    """The causal language model on the meta device, in evaluation mode: shapes and names, no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    return model.eval()


def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    found: Tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    return found
