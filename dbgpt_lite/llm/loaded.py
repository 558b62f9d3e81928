"""What every engine over a model in this process shares: its tokenizer and chat format, and what it holds."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dbgpt_lite.errors import Cancelled, ModelError, TooLarge
from dbgpt_lite.llm.answer import Answer
from dbgpt_lite.llm.chat_template import ChatTemplate, Tokenizer
from dbgpt_lite.llm.sharing import Whose, common_prefix
from dbgpt_lite.messages import EngineInfo, Message, Prompt, Sampling, Usage, Waiting

if TYPE_CHECKING:
    from dbgpt_lite.llm.constraint import Guide


log = logging.getLogger(__name__)

# How torch's allocators and cuBLAS say it.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate", "could not allocate", "alloc_failed")


# A character for private use: nobody's text begins with it.
_ELSE = "\ue000"


class LoadedEngine(ABC):
    """An Engine whose model lies in this process. `model` tells the tokens that end an answer; it is not kept."""

    def __init__(self, model: Any, tokenizer: Tokenizer, template: ChatTemplate, info: EngineInfo) -> None:
        from dbgpt_lite.llm.constraint import Grammars

        self._tokenizer = tokenizer
        self._template = template
        self._info = info
        self._end = frozenset(_end_tokens(model, tokenizer)) | template.end_ids
        self._grammars = Grammars(tokenizer, self._end)
        self._closed = threading.Event()
        self._used = time.monotonic()

    @property
    def info(self) -> EngineInfo:
        """Facts about the model."""
        return self._info

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many requests wait for their turn."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a request computes now."""

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended or was prepared; 0 while one computes."""
        return 0.0 if self.busy else time.monotonic() - self._used

    @property
    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes on each device that closing gives back."""

    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt these messages make."""
        self._used = time.monotonic()
        return len(self._template.encode(messages))

    def count_text(self, text: str) -> int:
        """Tokens of a text alone."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def stream(self, prompt: Prompt, sampling: Sampling, cancel: threading.Event) -> Iterator[str | Waiting | Usage]:
        """Pieces of the answer's text, then its Usage. See Engine.stream."""
        answer = Answer()
        try:
            yield from self._answered(prompt, sampling, cancel, answer)
        except Cancelled:
            answer.finish_reason = "cancelled"
        # Not in the handler: there the error would hold the stop, whose frames hold the model.
        if answer.finish_reason == "cancelled":
            self._refuse_closed()
        yield answer.usage()

    @abstractmethod
    def _answered(
        self, prompt: Prompt, sampling: Sampling, cancel: threading.Event, answer: Answer
    ) -> Iterator[str | Waiting]:
        """Pieces of the text, and how one stands in line; `answer` counts and times. Raises Cancelled."""

    @abstractmethod
    def candidates(self, prompt: Prompt, count: int, max_tokens: int, cancel: threading.Event) -> list[str]:
        """Up to `count` alternative answers, best first. See Engine.candidates."""

    @abstractmethod
    def close(self) -> None:
        """Free what the engine holds. See Engine.close."""

    def _fit(self, prompt: Prompt, max_tokens: int) -> tuple[list[int], int]:
        """Token ids of the prompt and how many may follow within the window."""
        self._refuse_closed()
        ids = self._template.encode(prompt.messages)
        window = self._info.context_length
        if len(ids) >= window:
            raise TooLarge("llm.prompt_too_long", tokens=len(ids), window=window)
        return ids, min(max_tokens, window - len(ids))

    def _common(self, prompt: Prompt, ids: Sequence[int]) -> int:
        """How many leading tokens of the prompt `ids` other owners' prompts may share."""
        if not prompt.common:
            return 0
        return common_prefix(ids, self._template.encode(_only_common(prompt)))

    def _whose(self, prompt: Prompt, ids: Sequence[int]) -> Whose:
        return Whose(prompt.owner, self._common(prompt, ids))

    def _guide(self, prompt: Prompt) -> "Guide | None":
        return self._grammars.guide(prompt.grammar) if self._info.constrained else None

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _texts(self, beams: Iterable[Sequence[int]]) -> list[str]:
        """The texts of finished beams up to the first stop, without repeats."""
        return list(dict.fromkeys(self._before_stop(self._text(tokens)) for tokens in beams))

    def _before_stop(self, text: str) -> str:
        found = [at for word in self._template.stop if (at := text.find(word)) >= 0]
        return text[: min(found)] if found else text

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise ModelError("llm.closed", name=self._info.name)


def _only_common(prompt: Prompt) -> list[Message]:
    """The prompt's messages with everything but its common beginning written otherwise: where a template puts it, and
    which tokens it shares with what follows, only the template and the tokenizer know."""
    first, *others = prompt.messages
    kept = Message(first.role, first.content[: prompt.common] + _ELSE)
    return [kept, *(Message(message.role, _ELSE) for message in others)]


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch's CPU allocator raises a plain RuntimeError; its text is the only sign."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # Not "memory" alone: an illegal memory access leaves a GPU that computes nothing more.
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def empty_gpu_cache() -> bool:
    """Give back what a GPU's allocator keeps without a tensor in it; False when the GPU answers no more."""
    import torch

    try:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    except RuntimeError:
        log.exception("the GPU does not answer")
        return False
    return True


def _end_tokens(model: Any, tokenizer: Any) -> Iterator[int]:
    """Every token that ends an answer: generation_config's list, config's, the tokenizer's."""
    for holder in (model.generation_config, model.config, tokenizer):
        value = getattr(holder, "eos_token_id", None)
        yield from value if isinstance(value, list) else [value] if isinstance(value, int) else []
