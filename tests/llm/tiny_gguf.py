"""GGUF files of tiny models, written by the gguf package as llama.cpp's converter writes them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, get_tensor_name_map
from gguf.quants import dequantize, quantize

from tests.llm.tiny_models import CHATML

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
Facts = Mapping[str, Any]


def rounded(model: Any, kind: str) -> None:
    """Give a model the weights that it has after it was packed and unpacked."""
    import torch

    for parameter in model.parameters():
        if parameter.dim() > 1:
            packed = quantize(parameter.detach().numpy(), GGMLQuantizationType[kind])
            parameter.data = torch.from_numpy(numpy.array(dequantize(packed, GGMLQuantizationType[kind]))).float()


def write_gguf(
    file: Path,
    model: Any,
    architecture: str,
    tokenizer: Path,
    kind: str = "Q8_0",
    facts: Facts | None = None,
    tensors: Mapping[str, Any] | None = None,
    chat_template: str = CHATML,
) -> Path:
    """The model and the tokenizer folder as one file. `facts`: more metadata (None takes an entry away)."""
    writer = GGUFWriter(file, architecture)
    writer.add_file_type(FILE_TYPES[kind])
    entries = {**_sizes(model.config, architecture), **(facts or {})}
    for key, value in entries.items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    if tokenizer.suffix == ".model":
        _sentencepiece(writer, tokenizer)
    else:
        _byte_level(writer, tokenizer)
    if chat_template:
        writer.add_chat_template(chat_template)
    for name, values in (stored(model, architecture) | (tensors or {})).items():
        packed = GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        writer.add_tensor(name, quantize(values, packed), raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def stored(model: Any, architecture: str) -> dict[str, Any]:
    """The parameters under llama.cpp's names, turned as its converter turns them."""
    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == architecture)
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    found: dict[str, Any] = {}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        stem, _, end = name.rpartition(".")
        values = tensor.detach().float().numpy()
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = model.config.num_attention_heads if "q_proj" in stem else model.config.num_key_value_heads
            values = _pairs_apart(values, heads)
        if architecture.startswith("gemma") and stem.endswith("norm"):
            values = values + 1
        found[f"{names.get_name(stem)}.{end}"] = numpy.ascontiguousarray(values)
    return found


def _pairs_apart(values: Any, heads: int) -> Any:
    """llama.cpp turns neighbouring numbers of a head together, transformers those half a head apart."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def _sizes(config: Any, architecture: str) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    theta = rope.get("full_attention", rope)["rope_theta"]
    own = {"attention.key_length": head, "attention.value_length": head} if architecture != "llama" else {}
    window = {"attention.sliding_window": config.sliding_window} if architecture.startswith("gemma") else {}
    return {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(theta),
        "rope.dimension_count": head,
        **own,
        **window,
    }


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    adders: Mapping[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    adders[type(value)](key, value)


def _byte_level(writer: GGUFWriter, folder: Path) -> None:
    """A tokenizer.json with byte-level BPE."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {**content["model"]["vocab"], **{one["content"]: one["id"] for one in content["added_tokens"]}}
    special = {one["content"] for one in content["added_tokens"]}
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def _sentencepiece(writer: GGUFWriter, file: Path) -> None:
    """A SentencePiece file, as the Llamas have it."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(file))
    count = pieces.get_piece_size()
    kinds = [
        TokenType.UNKNOWN
        if pieces.is_unknown(n)
        else TokenType.CONTROL
        if pieces.is_control(n)
        else TokenType.BYTE
        if pieces.is_byte(n)
        else TokenType.NORMAL
        for n in range(count)
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(n) for n in range(count)])
    writer.add_token_scores([pieces.get_score(n) for n in range(count)])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_bos_token(True)
