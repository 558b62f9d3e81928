"""Names and shapes of a model's parameters from its config.json alone, without torch and without a weight file.

One row a family; the names are those of the transformers class that `architecture.empty_model` makes, and a test
compares every row with that class. A family without a row is counted from its headers or its empty model instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

from dbgpt_lite.llm.renaming import parts

# What reads a parameter: "linear" matrices may be quantized; one row of an "embedding" is read for a token; of
# "experts" (first size: how many) those that the router picks, quantized one by one, and the same of "joined" ones,
# which no quantization reads; everything else is read whole.
Kind = Literal["linear", "embedding", "experts", "joined", "head", "plain"]
Config = Mapping[str, Any]

_KEYS: Mapping[str, tuple[str, ...]] = {
    "h": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "d": ("head_dim", "kv_channels"),
    "f": ("intermediate_size", "ffn_hidden_size", "inner_hidden_size", "ffn_dim", "n_inner"),
    "v": ("padded_vocab_size", "vocab_size"),
    "m": ("moe_intermediate_size", "intermediate_size"),
    "s": ("shared_expert_intermediate_size",),
    "e": ("num_experts", "num_local_experts"),
    "positions": ("max_position_embeddings", "n_positions", "n_ctx"),
    "w": ("word_embed_proj_dim",),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `tied`: the parameter whose memory this one shares, "" for none. `stacked`: matrices that lie one
    below the other in each expert."""

    name: str
    shape: tuple[int, ...]
    kind: Kind = "plain"
    tied: str = ""
    stacked: int = 1

    @property
    def count(self) -> int:
        """Number of values that take memory of their own."""
        return 0 if self.tied else prod(self.shape)

    @property
    def matrices(self) -> tuple[int, tuple[int, ...]]:
        """How many matrices experts are, and the shape of each."""
        count, rows, columns = self.shape
        return count * self.stacked, (rows // self.stacked, columns)


@dataclass(frozen=True, slots=True)
class Module:
    """A weight of `sizes` (names of sizes, see `dimensions`) and perhaps a bias as long as the first.

    `bias` and `when` are "yes", "no", or the key of config.json that says so; "not key" turns it round. `stacked` as
    in Parameter.
    """

    name: str
    sizes: tuple[str, ...]
    kind: Kind = "plain"
    bias: str = "no"
    when: str = "yes"
    weight: str = ".weight"
    stacked: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters of a family: `before` the layers, in every layer at ``{layers}.N``, and `after` them.

    `feed`: the feed-forward part of a layer, `sparse` the one of a layer with experts (() for families without).
    `defaults`: what the transformers class assumes where config.json is silent. `rotary`: a module without parameters
    that must be on a device too.
    """

    layers: str
    before: tuple[Module, ...]
    layer: tuple[Module, ...]
    feed: tuple[Module, ...]
    after: tuple[Module, ...]
    sparse: tuple[Module, ...] = ()
    rotary: str = ""
    head: str = "lm_head"
    defaults: Config = field(default_factory=dict)


def linear(name: str, rows: str, columns: str, bias: str = "no", when: str = "yes") -> Module:
    """A matrix that may be quantized."""
    return Module(name, (rows, columns), "linear", bias, when)


def norm(*names: str, size: str = "h", bias: str = "no", when: str = "yes") -> tuple[Module, ...]:
    """Normalizations: a weight of one size, and with `bias` two."""
    return tuple(Module(name, (size,), bias=bias, when=when) for name in names)


def embedding(name: str, rows: str = "v", columns: str = "h") -> Module:
    """A table of which a token reads one row."""
    return Module(name, (rows, columns), "embedding")


def head(bias: str = "no") -> Module:
    """The output head, which stays unquantized."""
    return Module("lm_head", ("v", "h"), "head", bias)


def separate(bias: str = "no", out_bias: str | None = None, out: str = "o_proj") -> tuple[Module, ...]:
    """Attention with one matrix each for queries, keys, values and output."""
    places = (("q_proj", "q", "h"), ("k_proj", "k", "h"), ("v_proj", "k", "h"))
    own = tuple(linear(f"self_attn.{name}", rows, columns, bias) for name, rows, columns in places)
    return (*own, linear(f"self_attn.{out}", "h", "q", bias if out_bias is None else out_bias))


def gated(name: str = "mlp", width: str = "f", bias: str = "no") -> tuple[Module, ...]:
    """A feed-forward with a gate, in three matrices."""
    return (
        linear(f"{name}.gate_proj", width, "h", bias),
        linear(f"{name}.up_proj", width, "h", bias),
        linear(f"{name}.down_proj", "h", width, bias),
    )


def experts() -> tuple[Module, ...]:
    """A router and the experts' matrices, each kind in one tensor."""
    return (
        Module("mlp.gate", ("e", "h")),
        Module("mlp.experts.gate_up_proj", ("e", "2m", "h"), "experts", weight="", stacked=2),
        Module("mlp.experts.down_proj", ("e", "h", "m"), "experts", weight=""),
    )


def llama_like(
    attention: tuple[Module, ...],
    feed: tuple[Module, ...],
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm"),
    extra: tuple[Module, ...] = (),
    sparse: tuple[Module, ...] = (),
    **defaults: Any,
) -> Layout:
    """The frame that Llama and its many relatives share."""
    return Layout(
        layers="model.layers",
        before=(embedding("model.embed_tokens"),),
        layer=(*attention, *extra, *norm(*norms)),
        feed=feed,
        after=(*norm("model.norm"), head()),
        sparse=sparse,
        rotary="model.rotary_emb",
        defaults=defaults,
    )


def dimensions(config: Config) -> dict[str, int]:
    """Sizes by the short names that the rows use; 0 for one that the family has not."""
    found = {name: whole_number(config, *keys) for name, keys in _KEYS.items()}
    h, heads = found["h"], found["heads"]
    d = found["d"] or (h // heads if heads else 0)
    kv_heads = _kv_heads(config, found["kv_heads"], heads)
    f = found["f"] or int(h * (config.get("expansion_ratio") or 4))
    q, k = heads * d, kv_heads * d
    made = {
        "d": d,
        "kv_heads": kv_heads,
        "f": f,
        "q": q,
        "k": k,
        "qkv": q + 2 * k,
        "2f": 2 * f,
        "3h": 3 * h,
        "4h": 4 * h,
    }
    return found | made | {"2m": 2 * found["m"], "1": 1, "w": found["w"] or h, "positions+2": found["positions"] + 2}


def _kv_heads(config: Config, stated: int, heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    if config.get("multi_query_attention") is False:
        return heads
    return stated or heads


def whole_number(config: Config, *keys: str) -> int:
    """The first of these entries that is a whole number above 0; 0 when none is."""
    values = (config.get(key) for key in keys)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def known_config(layout: Layout, config: Config) -> Config:
    """config.json with what the transformers class assumes where it is silent."""
    return {**layout.defaults, **{key: value for key, value in config.items() if value is not None}}


def parameters(layout: Layout, config: Config) -> tuple[Parameter, ...]:
    """Every parameter of a model, in the order it is computed. Sizes come from `config`."""
    full = known_config(layout, config)
    sizes = dimensions(full)
    found = [*_written(layout.before, "", full, sizes)]
    for index in range(sizes["layers"]):
        feed = layout.sparse if layout.sparse and _is_sparse(full, index) else layout.feed
        found += _written((*layout.layer, *feed), f"{layout.layers}.{index}.", full, sizes)
    found += _written(layout.after, "", full, sizes)
    renamed = tuple(_renamed(full, one) for one in found)
    return _tied(renamed) if full.get("tie_word_embeddings") else renamed


def _written(modules: tuple[Module, ...], prefix: str, config: Config, sizes: Mapping[str, int]) -> Iterator[Parameter]:
    for module in modules:
        if not _says(module.when, config):
            continue
        shape = tuple(sizes[size] for size in module.sizes)
        yield Parameter(f"{prefix}{module.name}{module.weight}", shape, module.kind, stacked=module.stacked)
        if _says(module.bias, config):
            yield Parameter(f"{prefix}{module.name}.bias", shape[:1])


def _says(rule: str, config: Config) -> bool:
    if rule in ("yes", "no"):
        return rule == "yes"
    key = rule.removeprefix("not ")
    return bool(config.get(key)) != rule.startswith("not ")


def _is_sparse(config: Config, index: int) -> bool:
    """Whether a layer has experts, as the Qwen MoE configs say it."""
    step = whole_number(config, "decoder_sparse_step") or 1
    return index not in (config.get("mlp_only_layers") or ()) and (index + 1) % step == 0


def _renamed(config: Config, one: Parameter) -> Parameter:
    """Under the name of the class that loads it, where the row is written in the checkpoint's own names."""
    made = parts(config, one.name, one.shape)
    return replace(one, name=made[0].name) if len(made) == 1 else one


def _tied(found: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    source = next((one.name for one in found if one.kind == "embedding"), "")
    return tuple(replace(one, tied=source) if one.kind == "head" and source else one for one in found)
