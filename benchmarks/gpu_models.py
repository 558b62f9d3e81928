"""Models in true shapes with random NF4 weights on a GPU: what is timed does not depend on the weights."""

from collections.abc import Callable
from typing import Any

import torch

NF4_BITS = 4 + 8 / 64 + 32 / 64 / 256  # a value, its share of an 8-bit scale, and of the scale of 256 scales


def median_ms(run: Callable[[], Any], times: int = 15, warm: int = 3) -> float:
    """Milliseconds of `run` on the GPU, the median of several."""
    for _ in range(warm):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    found = []
    for _ in range(times):
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return sorted(found)[len(found) // 2]


def bandwidth() -> float:
    """Bytes a second of a copy within the GPU's memory, read and written bytes counted."""
    one = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(one)
    return 2 * 2**31 / median_ms(lambda: other.copy_(one)) * 1e3


def nf4_linear(rows: int, columns: int, bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A bitsandbytes layer of random weights."""
    layer = nf4_of(torch.randn(rows, columns, dtype=torch.bfloat16, device="cuda") * 0.02, dtype)
    if bias:
        layer.bias = torch.nn.Parameter(torch.randn(rows, dtype=dtype, device="cuda") * 0.02, requires_grad=False)
    return layer


def nf4_of(weight: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A bitsandbytes layer of a weight (rows, columns), double-quantized."""
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer = Linear4bit(1, 1, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    layer.weight = Params4bit(
        packed, requires_grad=False, quant_state=state, quant_type="nf4", compress_statistics=True,
        bnb_quantized=True, blocksize=64,
    )  # fmt: skip
    layer.weight.quant_state, layer.weight.module, layer.quant_state = state, layer, state
    layer.out_features, layer.in_features = weight.shape
    return layer


def int4_of(weight: torch.Tensor) -> Any:
    """A layer with the rows of a weight (rows, columns) packed in int4."""
    from dbgpt_lite.llm.int4 import PackedLinear, quantize_rows

    rows, columns = weight.shape
    layer = PackedLinear(columns, rows, False, 4)
    packed, scales = quantize_rows(weight)
    layer.weight = torch.nn.Parameter(packed, requires_grad=False)
    layer.weight_scale = torch.nn.Parameter(scales, requires_grad=False)
    return layer


def llama_33b() -> Any:
    """The shape of LLaMA-30B, which Guanaco-33B is tuned from: 32.5 billion parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52}
    config = LlamaConfig(vocab_size=32000, num_key_value_heads=52, max_position_embeddings=16384, **sizes)
    return _filled(LlamaForCausalLM, config, torch.bfloat16)


def chatglm2_6b() -> Any:
    """The shape of ChatGLM2-6B as transformers' GLM."""
    from transformers import GlmConfig, GlmForCausalLM

    config = GlmConfig(
        vocab_size=65024, hidden_size=4096, intermediate_size=13696, num_hidden_layers=28, num_attention_heads=32,
        num_key_value_heads=2, head_dim=128, attention_bias=True, rms_norm_eps=1e-5, max_position_embeddings=32768,
        pad_token_id=0, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    )  # fmt: skip
    return _filled(GlmForCausalLM, config, torch.float16)


def _filled(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        model = kind(config).to(dtype)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                setattr(module, name, nf4_linear(*child.weight.shape, child.bias is not None, dtype))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            value = torch.ones(parameter.shape, dtype=dtype, device="cuda")
            if value.ndim > 1:
                value.normal_(0, 0.02)
            owner, _, own = name.rpartition(".")
            setattr(model.get_submodule(owner), own, torch.nn.Parameter(value, requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")
    return model.eval()


def weight_bytes(model: Any) -> int:
    """Bytes of weights that one token's step must read: all but the embedding, of which it reads a row."""
    total = 0
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            total += int(module.in_features * module.out_features * NF4_BITS / 8)
        elif isinstance(module, torch.nn.Linear) and "lm_head" in name:
            total += module.weight.nbytes
    return total
