"""A key/value cache that grows in place.

transformers' DynamicLayer copies the whole cache for every token (torch.cat); over a 650-token prompt on a CPU that
copy costs as much as reading the weights of a small model. Here each layer writes into a buffer with spare room: on a
GPU the whole window at once, as it was planned for, so that memory does not run out in the middle of a chat; on a CPU
it grows by a quarter at a time, never beyond the window.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

ROOM = 256


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A DynamicLayer whose `keys` and `values` (batch, heads, tokens, dim) are views of larger buffers.

    `shared` counts the leading tokens that are the same in every row of the batch: beams of one prompt.
    """

    def __init__(self, window: int = 0) -> None:
        """`window`: the most tokens there will be; 0 when nobody knows."""
        super().__init__()
        self.shared = 0
        self._window = window
        self._key_room: torch.Tensor | None = None
        self._value_room: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (batch, heads, new, dim) states; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._key_room = self._with_room(self._key_room, key_states, start, end)
        self._value_room = self._with_room(self._value_room, value_states, start, end)
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        return self.keys, self.values

    def beginning(self, count: int) -> "GrowingLayer":
        """A layer of its own with a copy of the first `count` tokens."""
        copied = GrowingLayer(self._window)
        copied.update(self.keys[:, :, :count], self.values[:, :, :count])
        return copied

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens (given as a negative number); the room stays."""
        super().crop(tokens_to_remove)
        self.shared = min(self.shared, self.get_seq_length())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times."""
        self.shared = self.get_seq_length()
        self._replace(self.keys.repeat_interleave(repeats, dim=0), self.values.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        self._replace(self.keys[indices], self.values[indices])

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i continues row beam_idx[i]. Tokens that all rows share are left where they are."""
        if self.get_seq_length() > self.shared:
            for states in (self.keys, self.values):
                own = states[:, :, self.shared :]
                own.copy_(own[beam_idx.to(own.device)])

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._key_room = self._value_room = None
        self.shared = 0

    def _replace(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values, self._key_room, self._value_room = keys, values, keys, values

    def _length(self, end: int, rows: int, on_gpu: bool) -> int:
        """Tokens to make room for. Several rows are beams, which need little and not for long."""
        if on_gpu and rows == 1 and self._window >= end:
            return self._window
        grown = end + max(ROOM, end // 4)
        return min(grown, self._window) if self._window >= end else grown

    def _with_room(self, room: torch.Tensor | None, new: torch.Tensor, start: int, end: int) -> torch.Tensor:
        if room is None or room.shape[-2] < end:
            batch, heads, _, dim = new.shape
            larger = new.new_empty(batch, heads, self._length(end, batch, new.is_cuda), dim)
            if room is not None:
                larger[:, :, :start] = room[:, :, :start]
            room = larger
        room[:, :, start:end] = new
        return room


def rooms(cache: Any) -> list[tuple[int, str, int]]:
    """(address, device, bytes) of every buffer that a cache of any kind holds; several tensors may view the same."""
    values = [value for layer in list(cache.layers) for value in list(vars(layer).values())]
    # States of layers that keep no keys and values are in dicts.
    values += [state for value in values if isinstance(value, dict) for state in list(value.values())]
    held = [value for value in values if isinstance(value, torch.Tensor) and not value.is_meta]
    storages = [(tensor.untyped_storage(), str(tensor.device)) for tensor in held]
    return [(storage.data_ptr(), device, storage.nbytes()) for storage, device in storages]


def new_cache(config: Any, window: int = 0) -> DynamicCache:
    """An empty cache for a model: growing layers for full attention, transformers' own for every other kind.

    `window`: the most tokens there will be; 0 when nobody knows.
    """
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(window) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
