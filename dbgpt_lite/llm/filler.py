"""Gives tensors, in whatever order the shards hold them, to a model made on the meta device."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.quantize import Quantization

if TYPE_CHECKING:
    import torch


class Filler:
    """Fills one model. `stored`: how the checkpoint itself is quantized ("", "nf4", "int8", "int4"); `quantization`: how
    to quantize one that is not; `keep`: names of modules that stay as they are."""

    def __init__(
        self,
        model: Any,
        dtype: "torch.dtype",
        quantization: Quantization = "none",
        stored: str = "",
        keep: Collection[str] = (),
    ) -> None:
        self._model = model
        self._dtype = dtype
        self._open = set(model.state_dict())

    def put(self, name: str, tensor: "torch.Tensor", device: str) -> None:
        """Copy a CPU tensor to parameter or buffer `name` on `device`. Raises ModelError for a wrong name or shape."""
        import torch

        if name not in self._open:
            raise ModelError("llm.unknown_tensors", names=name, count=1, name=self._model.name_or_path)
        module_name, _, own = name.rpartition(".")
        module = self._model.get_submodule(module_name)
        wanted = getattr(module, own)
        if wanted.shape != tensor.shape:
            raise ModelError("llm.wrong_shapes", names=name, count=1, name=self._model.name_or_path)
        value = tensor.to(device=device, dtype=self._dtype if tensor.is_floating_point() else None, copy=True)
        if own in module._parameters:
            module._parameters[own] = torch.nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[own] = value
        self._open.discard(name)

    def finish(self) -> None:
        """Raise ModelError that names what no shard held, tied weights aside."""
        tied = set(getattr(self._model, "all_tied_weights_keys", None) or {})
        missing = sorted(self._open - tied)
        if missing:
            raise ModelError(
                "llm.missing_tensors", names=", ".join(missing[:5]), count=len(missing), name=self._model.name_or_path
            )
