"""Gives tensors, in whatever order the shards hold them, to a model made on the meta device.

Three cases: a plain tensor is copied to its parameter; a weight of a layer to quantize is copied to the layer's device
and quantized there; the tensors of a layer that the checkpoint holds quantized wait for each other, and then replace
the plain layer.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.quantize import COMPANIONS, Quantization

if TYPE_CHECKING:
    import torch


class Filler:
    """Fills one model. `stored`: how the checkpoint itself is quantized ("", "nf4", "fp4", "int8", "int4", "row8");
    `quantization`: how to quantize one that is not; `keep`: names of modules that stay as they are beside the output
    head. Raises ModelError when bitsandbytes is needed and missing."""

    def __init__(
        self,
        model: Any,
        dtype: "torch.dtype",
        quantization: Quantization = "none",
        stored: str = "",
        keep: Collection[str] = (),
    ) -> None:
        from transformers.initialization import no_init_weights

        from dbgpt_lite.llm.quantized_layers import is_transposed, linear_shape, replace, replaceable

        self._model = model
        self._dtype = dtype
        self._stored = stored
        self._kind = "" if stored or quantization == "none" else quantization
        self._tied: dict[str, str] = dict(getattr(model, "all_tied_weights_keys", None) or {})
        self._copied: set[str] = set()
        self._waiting: dict[str, dict[str, torch.Tensor]] = {}
        self._quantize: dict[str, tuple[int, int]] = {}
        self._transposed: set[str] = set()
        self.wide = kept_wide(model, dtype)
        with no_init_weights():  # what is made on the meta device needs no values
            for name in replaceable(model, self._kind, keep) if self._kind else ():
                module = model.get_submodule(name)
                self._quantize[f"{name}.weight"] = linear_shape(module) or (0, 0)
                if is_transposed(module):
                    self._transposed.add(f"{name}.weight")
                replace(model, name, self._kind)
        self._open = {name for name in model.state_dict() if not self._is_scale(name)}
        _tell_libraries(model, stored or self._kind)

    def put(self, name: str, tensor: "torch.Tensor", device: str) -> None:
        """Copy a CPU tensor to parameter or buffer `name` on `device`. Raises ModelError for a wrong name or shape."""
        layer, own = self._split(name)
        if own == "weight_format":  # older files lack it, so no layer waits for it
            self._check_layout(name, tensor)
            return
        weight = self._home(f"{layer}.weight" if own else name)
        if weight is None:
            return
        if own or self._is_packed(weight, tensor):
            self._collect(weight, own or "weight", tensor, device)
        elif weight in self._quantize:
            self._fill_quantized(weight, tensor, device)
        else:
            self._fill_plain(weight, tensor, device)

    def finish(self) -> None:
        """Tie what is tied. Raises ModelError that names what no shard held."""
        from dbgpt_lite.llm.quantized_layers import absent

        missing = self._open - set(self._tied) - set(self._waiting)
        for weight, tensors in self._waiting.items():
            layer = weight.removesuffix("weight")
            missing |= {layer + own for own in absent(self._stored, tensors)}
        if missing:
            raise self._refusal("llm.missing_tensors", *sorted(missing))
        self._model.tie_weights()

    def _split(self, name: str) -> tuple[str, str]:
        """ "a.b.SCB" -> ("a.b", "SCB") for what a quantized checkpoint holds beside a weight, else (name, "")."""
        for own in COMPANIONS.get(self._stored, ()):
            if name.endswith(f".{own}"):
                return name.removesuffix(f".{own}"), own
        return name, ""

    def _home(self, name: str) -> str | None:
        """Where a tensor goes; None for the second copy of a tied weight. Raises ModelError for an unknown name."""
        source = self._tied.get(name, name)
        if name in self._open and source != name:
            self._open.discard(name)
            self._copied.add(source)
            return source if source in self._open else None
        if name in self._copied and name not in self._open:
            self._copied.discard(name)
            return None
        if name not in self._open:
            raise self._refusal("llm.unknown_tensors", name)
        return name

    def _check_layout(self, name: str, tensor: "torch.Tensor") -> None:
        """Today's LLM.int8 weights are kept by rows, which is 0; others are of versions before 2024."""
        if tensor.numel() != 1 or int(tensor) != 0:
            raise self._refusal("llm.bad_packing", name)

    def _is_packed(self, weight: str, tensor: "torch.Tensor") -> bool:
        """Whether this is the quantized weight itself. A 4-bit one is a column of a type of any width."""
        module_name, _, own = weight.rpartition(".")
        wanted = self._model.get_submodule(module_name)._parameters.get(own)
        if not self._stored or wanted is None:
            return False
        column = self._stored in ("nf4", "fp4") and tensor.ndim == 2 and tensor.shape[1] == 1
        return not tensor.is_floating_point() or (column and wanted.shape != tensor.shape)

    def _collect(self, weight: str, own: str, tensor: "torch.Tensor", device: str) -> None:
        """Keep a tensor of a quantized layer; build the layer when it is the last one."""
        from dbgpt_lite.llm.quantized_layers import MisfitError, absent

        tensors = self._waiting.setdefault(weight, {})
        tensors[own] = tensor.to(device=device, copy=True)
        if absent(self._stored, tensors):
            return
        try:
            self._build(weight, tensors)
        except MisfitError as misfit:
            raise self._refusal("llm.bad_packing", f"{weight.removesuffix('weight')}{misfit}") from None
        del self._waiting[weight]
        self._open.discard(weight)

    def _build(self, weight: str, tensors: "dict[str, torch.Tensor]") -> None:
        from dbgpt_lite.llm.quantized_layers import (
            MisfitError,
            expanded,
            fill,
            is_transposed,
            linear_shape,
            must_expand,
            replace,
        )

        name, kind = weight.removesuffix(".weight"), self._stored
        module = self._model.get_submodule(name)
        shape = linear_shape(module)
        if shape is not None and not must_expand(kind, shape, tensors):
            fill(replace(self._model, name, kind), kind, shape, tensors)
            return
        if module.weight.ndim != 2:
            raise MisfitError("weight")
        values = expanded(kind, shape or tuple(module.weight.shape), tensors, self._dtype)
        self._assign(weight, values.T.contiguous() if is_transposed(module) else values)

    def _fill_quantized(self, weight: str, tensor: "torch.Tensor", device: str) -> None:
        from dbgpt_lite.llm.quantized_layers import fill, quantized

        shape = self._quantize[weight]
        turned = weight in self._transposed
        if tuple(tensor.shape) != (shape[::-1] if turned else shape) or not tensor.is_floating_point():
            raise self._refusal("llm.wrong_shapes", weight)
        value = tensor.to(device).to(self._dtype)
        tensors = quantized(self._kind, value.T.contiguous() if turned else value)
        fill(self._model.get_submodule(weight.removesuffix(".weight")), self._kind, shape, tensors)
        self._open.discard(weight)

    def _fill_plain(self, name: str, tensor: "torch.Tensor", device: str) -> None:
        import torch

        module_name, _, own = name.rpartition(".")
        wanted = getattr(self._model.get_submodule(module_name), own)
        if wanted.shape != tensor.shape or wanted.is_floating_point() != tensor.is_floating_point():
            raise self._refusal("llm.wrong_shapes", name)
        value = tensor.to(device=device, copy=True)
        dtype = torch.float32 if name in self.wide else self._dtype
        self._assign(name, value.to(dtype) if value.is_floating_point() else value)

    def _assign(self, name: str, value: "torch.Tensor") -> None:
        import torch

        module_name, _, own = name.rpartition(".")
        module = self._model.get_submodule(module_name)
        if own in module._parameters:
            module._parameters[own] = torch.nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[own] = value
        self._open.discard(name)

    def _is_scale(self, name: str) -> bool:
        """Scales of layers that are quantized here come from no checkpoint."""
        return name.endswith("_scale") and name.removesuffix("_scale") in self._quantize

    def _refusal(self, key: str, *names: str) -> ModelError:
        if key == "llm.bad_packing":
            return ModelError(key, tensor=names[0])
        shown = ", ".join(names[:5])
        return ModelError(key, names=shown, count=len(names), name=Path(self._model.name_or_path).name)


def kept_wide(model: Any, dtype: "torch.dtype") -> frozenset[str]:
    """Names of what a model keeps in float32 whatever it computes in, such as the biases by which experts are picked.

    The patterns are transformers', which looks for them anywhere in a name; what is made in float32 on purpose stays
    so. Of a model on the meta device, before layers are replaced.
    """
    import torch

    patterns: set[str] = set()
    if dtype in (torch.float16, torch.bfloat16):
        patterns |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        patterns |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    found = [re.compile(pattern.replace("*", ".*")) for pattern in patterns]
    return frozenset(
        name
        for name, value in model.state_dict().items()
        if value.dtype == torch.float32 != dtype or any(pattern.search(name) for pattern in found)
    )


def _tell_libraries(model: Any, kind: str) -> None:
    """transformers and peft ask by these names whether layers are quantized, and how."""
    for module in model.modules() if kind else ():
        if (config := getattr(module, "config", None)) is not None:
            config._is_quantized = True
    if kind in ("nf4", "fp4"):
        model.is_loaded_in_4bit = True
    if kind == "int8":
        model.is_loaded_in_8bit = True
