"""Which parameters of the transformers model a stored tensor becomes. Pure: names and shapes, no torch.

A checkpoint whose config.json names an architecture that transformers does not have is told by the keys of that
config.json; each such architecture is a row, and so is each of its layers. Sources: the authors' published
modeling code, https://github.com/zai-org/ChatGLM2-6B and https://github.com/zai-org/ChatGLM-6B.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `start` to `start + rows` of a stored tensor become the parameter `name`; `rows` 0: the whole tensor.

    With `every`, the stored rows come in blocks of `every` rows and the part takes those rows of each block.
    """

    name: str
    start: int = 0
    rows: int = 0
    every: int = 0

    def take(self, tensor: Any) -> Any:
        """This part of `tensor` (rows, ...): a view where it can be one."""
        if not self.rows:
            return tensor
        if not self.every:
            return tensor[self.start : self.start + self.rows]
        rest = tensor.shape[1:]
        blocks = tensor.reshape(-1, self.every, *rest)[:, self.start : self.start + self.rows]
        return blocks.reshape(-1, *rest)


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of a stored tensor, as Part has them, before they have a name."""

    start: int = 0
    rows: int = 0
    every: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A stored module (a regular expression over its whole path) and the modules it becomes; none: it is dropped.

    The last word of a tensor's name (weight, bias, weight_scale) stays. `split` says which rows go to which module.
    """

    stored: str
    modules: tuple[str, ...] = ()
    split: Callable[[Config], tuple[Slice, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of checkpoint: its config.json has this model_type and holds all these keys."""

    name: str
    model_type: str
    keys: tuple[str, ...]
    rules: tuple[Rule, ...]


def _query_key_value(config: Config) -> tuple[Slice, ...]:
    """Rows of the queries, keys and values of ChatGLM2. Without multi-query attention each head has its own three."""
    dim, heads = int(config["kv_channels"]), int(config["num_attention_heads"])
    if not config.get("multi_query_attention", True):
        return tuple(Slice(place * dim, dim, 3 * dim) for place in range(3))
    queries, keys = heads * dim, int(config.get("multi_query_group_num", 1)) * dim
    return Slice(0, queries), Slice(queries, keys), Slice(queries + keys, keys)


_CHATGLM2_LAYER = r"transformer\.encoder\.layers\.(\d+)\."

ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "chatglm2",
        model_type="chatglm",
        keys=("kv_channels", "padded_vocab_size", "ffn_hidden_size"),
        rules=(
            Rule(r"transformer\.rotary_pos_emb"),
            Rule(r"transformer\.embedding\.word_embeddings", ("model.embed_tokens",)),
            Rule(r"transformer\.encoder\.final_layernorm", ("model.norm",)),
            Rule(r"transformer\.output_layer", ("lm_head",)),
            Rule(_CHATGLM2_LAYER + r"(input_layernorm|post_attention_layernorm)", (r"model.layers.\1.\2",)),
            Rule(
                _CHATGLM2_LAYER + r"self_attention\.query_key_value",
                tuple(rf"model.layers.\1.self_attn.{name}_proj" for name in "qkv"),
                _query_key_value,
            ),
            Rule(_CHATGLM2_LAYER + r"self_attention\.dense", (r"model.layers.\1.self_attn.o_proj",)),
            Rule(_CHATGLM2_LAYER + r"mlp\.dense_h_to_4h", (r"model.layers.\1.mlp.gate_up_proj",)),
            Rule(_CHATGLM2_LAYER + r"mlp\.dense_4h_to_h", (r"model.layers.\1.mlp.down_proj",)),
        ),
    ),
    Architecture(
        "chatglm",
        model_type="chatglm",
        keys=("inner_hidden_size", "position_encoding_2d"),
        rules=(Rule(r".*\.rotary_emb"),),
    ),
)


def architecture(config: Config) -> Architecture | None:
    """The row that a config.json belongs to, None for what transformers knows by itself."""
    kind = config.get("model_type")
    rows = (row for row in ARCHITECTURES if row.model_type == kind and all(key in config for key in row.keys))
    return next(rows, None)


def parts(config: Config, stored: str, shape: tuple[int, ...]) -> tuple[Part, ...]:
    """Parameters that the tensor `stored` of a checkpoint with this config.json becomes; () when none needs it.

    A name without a rule is left as it is: either the architecture keeps it, or the loader names it as unknown.
    """
    row = architecture(config)
    module, _, own = stored.rpartition(".")
    for rule in row.rules if row else ():
        if found := re.fullmatch(rule.stored, module):
            names = tuple(f"{found.expand(name)}.{own}" for name in rule.modules)
            slices = rule.split(config) if rule.split else (Slice(),) * len(names)
            return tuple(Part(name, cut.start, cut.rows, cut.every) for name, cut in zip(names, slices, strict=True))
    return (Part(stored),)
