"""Forward passes of one model over caches that outlive a request, so that a follow-up reads only what is new.

On a CPU a Llama-like model is run by a decoder of our own (lean.py), any other by transformers' modules.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from dbgpt_lite.errors import Cancelled
from dbgpt_lite.llm.cache import new_cache, rooms
from dbgpt_lite.llm.devices import free_ram
from dbgpt_lite.llm.lean import LeanDecoder
from dbgpt_lite.llm.offload_store import OFFLOADED
from dbgpt_lite.llm.parts import take_apart
from dbgpt_lite.llm.prefixes import Prefixes
from dbgpt_lite.llm.sharing import NOBODY, Whose

# Tokens of a prompt read in one pass. On a CPU a stop waits for one matrix product over a chunk, so large models
# get a shorter one.
CPU_CHUNK = 256
CPU_CHUNK_LARGE = 64
GPU_CHUNK = 2048
_LARGE = 1_000_000_000
# Copies of packed weights may take this share of the free memory.
_COPIES = 4


def _chunk(model: Any, device: torch.device) -> int:
    if device.type != "cpu":
        return GPU_CHUNK
    return CPU_CHUNK if sum(p.numel() for p in model.parameters()) < _LARGE else CPU_CHUNK_LARGE


def in_reserve(device: str) -> int:
    """Bytes that torch holds of a GPU without a tensor in them; nobody else counts them as free."""
    if not device.startswith("cuda"):
        return 0
    return int(torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


class Runner:
    """Reads prompts in chunks and continues them. Not thread-safe: whoever calls holds the engine's slot.

    A model whose prompts read themselves in both directions says so by a method `whole_context`: how many leading
    tokens of a prompt must be read in one pass, and are kept from an earlier request all together or not at all.

    Every linear layer first looks at the events of `watch`, so a stop takes effect within one matrix product.
    """

    def __init__(self, model: Any, window: int = 0, prefix_bytes: int = 0) -> None:
        """`window`: the most tokens that prompt and answer have; 0 when nobody knows. `prefix_bytes`: what earlier
        prompts beside the last one may keep, on a CPU."""
        self._model = model
        self._device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
        self._whole_context = getattr(model, "whole_context", None)
        limit = prefix_bytes if self._device.type == "cpu" else 0
        self._kept = Prefixes(lambda: new_cache(model.config, window), limit)
        self._events: tuple[threading.Event, ...] = ()
        self._lean = self._taken_apart()
        self._chunk = self._lean.chunk if self._lean else _chunk(model, self._device)
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda *_: self._stop_if_asked())

    def watch(self, *events: threading.Event) -> None:
        """Raise Cancelled from the next matrix product on once one of these is set."""
        self._events = events

    def memory(self) -> dict[str, int]:
        """Bytes on each device that are free once the model is gone: its weights, shared ones once, the cache, and on
        a GPU what the allocator keeps in reserve. "disk": copies of weights that go with the model."""
        tensors = [*self._model.parameters(), *self._model.buffers(), *(self._lean.tensors() if self._lean else ())]
        held = [(t.data_ptr(), str(t.device), t.nbytes) for t in tensors]
        cached = [room for cache in self._kept.caches for room in rooms(cache)]
        found: Counter[str] = Counter()
        for device, size in {start: (device, size) for start, device, size in (*held, *cached)}.values():
            found[device] += size
        del found["meta"]
        for device in found:
            found[device] += in_reserve(device)
        if copied := getattr(self._model, OFFLOADED, 0):
            found["disk"] = copied
        return dict(found)

    def forget(self) -> None:
        """Drop every cache and give the memory back."""
        self._kept.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def read(self, ids: Sequence[int], whose: Whose = NOBODY) -> tuple[torch.Tensor, int]:
        """Logits (vocabulary,) after the prompt `ids` (at least one), which is `whose`; how many tokens were cached."""
        whole = self._whole_context(ids) if self._whole_context else 0
        cached = self._kept.resume(ids, whole, whose)
        if not cached and self._device.type == "cuda":
            torch.cuda.empty_cache()
        first = max(cached + self._chunk, whole)
        for start, end in pairwise((cached, *range(first, len(ids), self._chunk), len(ids))):
            logits = self._forward(list(ids[start:end]))
        return logits, cached

    @torch.inference_mode()
    def step(self, token: int) -> torch.Tensor:
        """Logits (vocabulary,) after one more token."""
        return self._forward([token])

    @torch.inference_mode()
    def beam_step(self, tokens: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """Logits (beams, vocabulary) after one more token (beams,) each; beam i continues beam parents[i]."""
        cache = self._kept.current.cache
        rows = cache.layers[0].keys.shape[0]
        if rows == 1 and len(tokens) > 1:
            cache.batch_repeat_interleave(len(tokens))
        elif rows != len(tokens):
            # A grammar may leave fewer ways to go on than there were beams, and later more again.
            cache.batch_select_indices(parents)
        else:
            cache.reorder_cache(parents)
        return self._call(tokens[:, None].to(self._device))

    @torch.inference_mode()
    def end_beams(self) -> None:
        """Keep the first beam's copy of the prompt for the next request."""
        cache = self._kept.current.cache
        if cache.layers[0].keys.shape[0] > 1:
            cache.batch_select_indices(torch.tensor([0], device=self._device))
        self._settle()

    def _forward(self, tokens: list[int]) -> torch.Tensor:
        try:
            logits = self._call(torch.tensor([tokens], device=self._device))
        except Cancelled:
            self._settle()
            raise
        except BaseException:
            self.forget()
            raise
        self._kept.current.tokens.extend(tokens)
        return logits[0]

    def _call(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (rows, tokens) -> logits (rows, vocabulary) of the last token."""
        cache = self._kept.current.cache
        if self._lean:
            return self._lean(ids, cache.layers)
        output = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _settle(self) -> None:
        """Bring the cache to the known tokens: a stop leaves some layers one chunk ahead of the others."""
        if not self._kept.current.settle():
            self._kept.start()

    def _taken_apart(self) -> LeanDecoder | None:
        parts = take_apart(self._model) if self._device.type == "cpu" else None
        return LeanDecoder(parts, self._stop_if_asked, free_ram() // _COPIES) if parts else None

    def _stop_if_asked(self) -> None:
        for event in self._events:
            if event.is_set():
                raise Cancelled
