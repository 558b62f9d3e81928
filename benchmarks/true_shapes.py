"""Random checkpoints in the true shapes of real models, in their authors' own layouts, for benchmarks/model_loading.py.

Speed and memory do not depend on what the weights say. The output head answers with the tokenizer's own tokens only.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
LINES = ["The quick brown fox jumps over the lazy dog.", "SELECT name FROM readers WHERE town = 'Leeds'"]
Sizes = Mapping[str, int]
# https://huggingface.co/zai-org/chatglm2-6b/blob/main/config.json
CHATGLM2: Mapping[str, Any] = {
    "model_type": "chatglm", "architectures": ["ChatGLMModel"], "add_bias_linear": False, "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True, "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True, "ffn_hidden_size": 13696, "fp32_residual_connection": False,
    "hidden_size": 4096, "kv_channels": 128, "layernorm_epsilon": 1e-05, "multi_query_attention": True,
    "multi_query_group_num": 2, "num_attention_heads": 32, "num_layers": 28, "original_rope": True,
    "padded_vocab_size": 65024, "post_layer_norm": True, "rmsnorm": True, "seq_length": 32768,
    "tie_word_embeddings": False, "torch_dtype": "float16", "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA_13B: Sizes = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
LLAMA_33B: Sizes = {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52}
LLAMA_7B: Sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
VOCABULARY = 32000


def chatglm2(folder: Path, packed: bool) -> None:
    """ChatGLM2-6B: seven fp16 .bin shards with their index, or one .bin of packed int4."""
    folder.mkdir(parents=True)
    tensors = _chatglm2_tensors(packed)
    config = dict(CHATGLM2) | ({"quantization_bit": 4} if packed else {})
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "tests" / "fixtures" / "golden" / "chatglm2-tokenizer" / "tokenizer.model", folder)
    if packed:
        torch.save(dict(tensors), folder / "pytorch_model.bin")
        return
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in tensors:
        if sum(one.nbytes for one in shards[-1].values()) + tensor.nbytes > 1_900_000_000:
            shards.append({})
        shards[-1][name] = tensor
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        torch.save(shard, folder / file)
        where |= dict.fromkeys(shard, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def _chatglm2_tensors(packed: bool) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, ffn, vocabulary = 4096, 13696, 65024
    stem = "transformer."
    yield f"{stem}embedding.word_embeddings.weight", _normal(vocabulary, hidden)
    yield f"{stem}rotary_pos_emb.inv_freq", 1.0 / 10000 ** (torch.arange(0, 64, 2).half() / 64)
    for layer in range(28):
        own = f"{stem}encoder.layers.{layer}."
        yield f"{own}input_layernorm.weight", torch.ones(hidden).half()
        yield from _matrix(f"{own}self_attention.query_key_value", hidden + 512, hidden, packed)
        yield f"{own}self_attention.query_key_value.bias", _normal(hidden + 512)
        yield from _matrix(f"{own}self_attention.dense", hidden, hidden, packed)
        yield f"{own}post_attention_layernorm.weight", torch.ones(hidden).half()
        yield from _matrix(f"{own}mlp.dense_h_to_4h", 2 * ffn, hidden, packed)
        yield from _matrix(f"{own}mlp.dense_4h_to_h", hidden, ffn, packed)
    yield f"{stem}encoder.final_layernorm.weight", torch.ones(hidden).half()
    yield f"{stem}output_layer.weight", _head(vocabulary, hidden, 640, torch.float16)


def _matrix(name: str, rows: int, columns: int, packed: bool) -> Iterator[tuple[str, torch.Tensor]]:
    if not packed:
        yield f"{name}.weight", _normal(rows, columns)
        return
    yield f"{name}.weight", torch.randint(-128, 128, (rows, columns // 2), dtype=torch.int8)
    yield f"{name}.weight_scale", torch.full((rows,), 0.005).half()


def llama(folder: Path, sizes: Sizes) -> None:
    """A bf16 Llama in safetensors shards of at most 4 GB with their index."""
    writer = _Writer(folder, _llama_config(sizes))
    for name, tensor in _llama_tensors(sizes):
        writer.add(name, {name: tensor.cpu()})
    writer.close()


def llama_nf4(folder: Path, sizes: Sizes) -> None:
    """A Llama saved in bitsandbytes' own layout: NF4 with double quantization. Needs a GPU; made matrix by matrix."""
    from bitsandbytes.functional import quantize_4bit

    method = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8", "llm_int8_skip_modules": ["lm_head"],
    }  # fmt: skip
    writer = _Writer(folder, _llama_config(sizes) | {"quantization_config": method})
    for name, tensor in _llama_tensors(sizes):
        if tensor.ndim == 2 and "layers" in name:
            packed, state = quantize_4bit(tensor.cuda(), blocksize=64, compress_statistics=True, quant_type="nf4")
            beside = {f"{name}.{key}": value.cpu() for key, value in state.as_dict(packed=True).items()}
            writer.add(name, {name: packed.cpu(), **beside})
        else:
            writer.add(name, {name: tensor.cpu()})
    writer.close()


def _llama_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, "hidden_act": "silu",
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16", **sizes,
    }  # fmt: skip


def _llama_tensors(sizes: Sizes) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    shapes = {f"self_attn.{part}_proj": (hidden, hidden) for part in "qkvo"}
    shapes |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    yield "model.embed_tokens.weight", _normal(VOCABULARY, hidden, dtype=torch.bfloat16)
    for layer in range(sizes["num_hidden_layers"]):
        own = f"model.layers.{layer}."
        for name, (rows, columns) in shapes.items():
            yield f"{own}{name}.weight", _normal(rows, columns, dtype=torch.bfloat16)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{own}{name}.weight", torch.ones(hidden, dtype=torch.bfloat16)
    yield "model.norm.weight", torch.ones(hidden, dtype=torch.bfloat16)
    yield "lm_head.weight", _head(VOCABULARY, hidden, 259, torch.bfloat16)


def _normal(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    """Small random numbers; made on the GPU, since a processor takes minutes for billions of them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02).cpu()


def _head(rows: int, columns: int, known: int, dtype: torch.dtype) -> torch.Tensor:
    """An output head that never names a token which the small tokenizer lacks, nor one that ends the answer."""
    head = _normal(rows, columns, dtype=dtype) * 50
    head[known:] = 0
    head[:3] = 0
    return head


def _tokenizer(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet, vocab_size=400)
    tokenizer.train_from_iterator(LINES * 50, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


class _Writer:
    """Safetensors shards of at most 4 GB, one after the other, and their index at the end."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "dbgpt.json").write_text(json.dumps({"chat_format": "vicuna"}))
        _tokenizer(folder)
        self._folder = folder
        self._shard: dict[str, torch.Tensor] = {}
        self._files: list[list[str]] = []

    def add(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in (*self._shard.values(), *tensors.values()))
        if self._shard and size > 4_000_000_000:
            self._flush()
        self._shard |= {key: tensor.contiguous() for key, tensor in tensors.items()}

    def close(self) -> None:
        self._flush()
        where: dict[str, str] = {}
        for number, names in enumerate(self._files, 1):
            file = f"model-{number:05}-of-{len(self._files):05}.safetensors"
            (self._folder / f"part-{number}").rename(self._folder / file)
            where |= dict.fromkeys(names, file)
        (self._folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))

    def _flush(self) -> None:
        self._files.append(list(self._shard))
        save_file(self._shard, self._folder / f"part-{len(self._files)}", metadata={"format": "pt"})
        self._shard = {}
