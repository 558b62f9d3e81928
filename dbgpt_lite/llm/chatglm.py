"""ChatGLM-6B (Du et al., "GLM", ACL 2022), written for transformers: module names are those of its checkpoints.

What sets it apart: the prompt, up to the `<sop>` that opens the answer, reads itself in both directions; each token
has two positions, its place and its place within the answer, which turn one half of a head each; residuals are
scaled up. Source: the authors' modeling code, https://github.com/zai-org/ChatGLM-6B.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from dbgpt_lite.llm.chatglm2 import refuse_variants
from dbgpt_lite.llm.checkpoint import Checkpoint

# sqrt(2 x layers) for the 28 layers of the 6B model. The authors' code builds its layers without telling them their
# number, so it scales by this whatever config.json says, and so were all of its checkpoints trained.
RESIDUAL_SCALE = 56**0.5

_REQUIRED = (("position_encoding_2d", True, True), ("pre_seq_len", None, None))


class ChatGLMConfig(PretrainedConfig):  # type: ignore[misc]
    """config.json of ChatGLM-6B, in its own words and with the authors' defaults."""

    model_type = "chatglm"
    attribute_map: ClassVar = {"num_hidden_layers": "num_layers", "max_position_embeddings": "max_sequence_length"}

    vocab_size: int = 150528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    position_encoding_2d: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = 150004
    eos_token_id: int | list[int] | None = 150005
    pad_token_id: int | None = 3
    mask_token_id: int = 150000
    gmask_token_id: int = 150001


def chatglm_config(checkpoint: Checkpoint) -> ChatGLMConfig:
    """The configuration of a ChatGLM-6B checkpoint. Raises ModelError for what is not computed here."""
    config = dict(checkpoint.config)
    refuse_variants(config, _REQUIRED, checkpoint.folder.name)
    for key in ("auto_map", "architectures", "quantization_bit", "quantization_embeddings", "pre_seq_len"):
        config.pop(key, None)
    return ChatGLMConfig(**config)


class ChatGLMRotary(nn.Module):
    """Cosines and sines of the two positions. The authors keep the frequencies in half precision; so does this."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.config = config  # a loader that has no values for the buffer makes the module again from it
        dim = config.hidden_size // config.num_attention_heads // 2
        frequencies = 1.0 / 10_000 ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        self.register_buffer("inv_freq", frequencies.half().float(), persistent=False)

    inv_freq: Tensor

    @torch.no_grad()
    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions (rows, tokens, 2) -> cosines and sines (rows, 1, tokens, 2, head/2)."""
        angles = positions[..., None].float() * self.inv_freq.to(positions.device, torch.float32)
        both = torch.cat((angles, angles), dim=-1)[:, None]
        return both.cos().to(dtype), both.sin().to(dtype)


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """states (rows, heads, tokens, head), the first half turned by the first position, the second by the second."""
    halves = states.view(*states.shape[:-1], 2, -1)
    first, second = halves.chunk(2, dim=-1)
    return (halves * cos + torch.cat((-second, first), dim=-1) * sin).flatten(-2)


class ChatGLMAttention(nn.Module):
    """Multi-head attention; one product gives queries, keys and values, head by head."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, past: Cache | None) -> Tensor:
        """states (rows, tokens, width); mask (rows, 1, tokens, keys), true where a token may look, None: everywhere."""
        fused = self.query_key_value(states)
        fused = fused.view(*fused.shape[:-1], self.heads, -1).transpose(1, 2)
        query, key, value = fused.chunk(3, dim=-1)
        query, key = _turned(query, *rotary), _turned(key, *rotary)
        if past is not None:
            key, value = past.update(key, value, self.layer)
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.dense(context.transpose(1, 2).flatten(2))
        return output


class ChatGLMMLP(nn.Module):
    """Two products with GELU (tanh form) between them."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """states (rows, tokens, width)."""
        inner = nn.functional.gelu(self.dense_h_to_4h(states), approximate="tanh")
        output: Tensor = self.dense_4h_to_h(inner)
        return output


class ChatGLMBlock(nn.Module):
    """One layer. The residual is the normalised input, scaled."""

    def __init__(self, config: ChatGLMConfig, layer: int) -> None:
        super().__init__()
        self.alpha = RESIDUAL_SCALE
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(self, states: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, past: Cache | None) -> Tensor:
        """states (rows, tokens, width); see ChatGLMAttention for the rest."""
        states = self.input_layernorm(states)
        states = states * self.alpha + self.attention(states, rotary=rotary, mask=mask, past=past)
        states = self.post_attention_layernorm(states)
        output: Tensor = states * self.alpha + self.mlp(states)
        return output


class Context:
    """Of each row: how many leading tokens read each other in both directions, and the place of its [gMASK].

    The context ends before the `<sop>` that opens the answer, or with the ids. [MASK] counts in place of [gMASK] when
    there is one.
    """

    def __init__(self, ids: Tensor, config: ChatGLMConfig) -> None:
        opening, opened = _first(ids, config.bos_token_id)
        self.length = torch.where(opened, opening, ids.shape[-1])
        mask, found = _first(ids, config.mask_token_id)
        self.mark = torch.where(found, mask, _first(ids, config.gmask_token_id)[0])

    def positions(self, places: Tensor) -> Tensor:
        """places (tokens,) in the whole sequence -> (rows, tokens, 2): place, and place within the answer from 1."""
        length = self.length.to(places.device)[:, None]
        answer = (places - length + 1).clamp(min=0)
        return torch.stack((torch.where(answer > 0, self.mark.to(places.device)[:, None], places), answer), dim=-1)

    def mask(self, places: Tensor, keys: int) -> Tensor | None:
        """(rows, 1, tokens, keys), true where the token at a place may look; None when that is everywhere."""
        if len(places) == 1:
            return None
        key = torch.arange(keys, device=places.device)
        within = key < self.length.to(places.device)[:, None]
        return ((key <= places[:, None]) | within[:, None])[:, None]


def _first(ids: Tensor, token: int | None) -> tuple[Tensor, Tensor]:
    """(rows,) place of the first `token` in each row of ids, 0 without one; and whether there is one."""
    same = torch.eq(ids, -1 if token is None else token)
    return same.int().argmax(dim=-1), same.any(dim=-1)


class ChatGLMPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What transformers and accelerate need to know."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    _no_split_modules = ("ChatGLMBlock",)
    _skip_keys_device_placement = ("past", "past_key_values")
    _supports_sdpa = True


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Token ids -> hidden states."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = ChatGLMRotary(config)
        self.layers = nn.ModuleList(ChatGLMBlock(config, layer) for layer in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embeddings."""
        self.word_embeddings = value

    def forward(self, input_ids: Tensor, past_key_values: Cache | None = None) -> Tensor:
        """input_ids (rows, tokens) -> (rows, tokens, width).

        An empty cache must be given the whole context in one call; it remembers where the context ends. Later rows
        may be copies or permutations of rows with the same prompt.
        """
        start = past_key_values.get_seq_length() if past_key_values is not None else 0
        context = getattr(past_key_values, "chatglm_context", None) if start else Context(input_ids, self.config)
        if context is None:
            raise ValueError("a cache that this model did not fill")
        if past_key_values is not None:
            past_key_values.chatglm_context = context
        states = self.word_embeddings(input_ids)
        end = start + input_ids.shape[1]
        places = torch.arange(start, end, device=input_ids.device)
        rotary = self.rotary(context.positions(places), states.dtype)
        mask = context.mask(places, end)
        for layer in self.layers:
            states = layer(states, rotary=rotary, mask=mask, past=past_key_values)
        output: Tensor = self.final_layernorm(states)
        return output


class ChatGLMForCausalLM(ChatGLMPreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Token ids -> logits."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def whole_context(self, ids: Sequence[int]) -> int:
        """How many leading tokens of a prompt must be read in one pass, and kept or dropped as a whole."""
        return ids.index(self.config.bos_token_id) if self.config.bos_token_id in ids else len(ids)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids (rows, tokens) -> logits (rows, kept tokens, vocabulary); `logits_to_keep` 0: of all tokens.

        Rows are not padded: `attention_mask` is only taken so that generate() can pass it, and may hold no zero.
        """
        if attention_mask is not None and attention_mask.shape[-1] != attention_mask.sum(-1).min():
            raise ValueError("padded rows")
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        states = self.transformer(input_ids, past_key_values=past_key_values)
        logits = self.lm_head(states[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
