"""Messages -> the prompt text of one model, in which nothing a person typed can pass for the template's own marks.

A named format of chat_formats.CHAT_FORMATS is written where one is chosen, else the tokenizer's own chat template.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.chat_formats import ChatFormat, chat_format
from dbgpt_lite.messages import Message

# Zero-width space: put inside a mark it stops the mark from being one, and a reader does not see it.
BREAK = "\u200b"
_PROBE = ("pr0be-system", "pr0be-first", "pr0be-answer", "pr0be-second")
_MARK = re.compile(
    r"<<[^<>]{1,40}>>|<[^<>\s]{1,40}>|\[/?[A-Za-z_]{2,20}\]|#{2,}\s*[^\n:]{1,30}:|^\s*[A-Za-z]{2,16}:", re.M
)
_MARKUP = re.compile(r"^[<\[{｜].*[>\]}｜]$", re.S)


class Tokenizer(Protocol):
    """What this package uses of a transformers tokenizer."""

    chat_template: Any
    is_fast: bool

    @property
    def all_special_tokens(self) -> list[str]: ...
    @property
    def added_tokens_decoder(self) -> dict[int, Any]: ...
    def __call__(self, text: str, **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...
    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


def can_constrain(tokenizer: Tokenizer) -> bool:
    """Whether a grammar can be matched with this tokenizer's tokens."""
    return bool(tokenizer.is_fast or hasattr(tokenizer, "token_bytes"))


def merge_turns(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring messages of one role become one, with an empty line between them."""
    groups = groupby(messages, key=lambda message: message.role)
    return [Message(role, "\n\n".join(message.content for message in group)) for role, group in groups]


def system_into_user(messages: Sequence[Message]) -> list[Message]:
    """Write system messages at the head of the first user turn, for templates that know no system role."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if not system:
        return rest
    if not rest or rest[0].role != "user":
        return [Message("user", system), *rest]
    return [Message("user", f"{system}\n\n{rest[0].content}"), *rest[1:]]


def write_format(row: ChatFormat, messages: Sequence[Message]) -> str:
    """The prompt text of `messages` in a named format, ending where the answer begins."""
    system = "\n\n".join(message.content for message in messages if message.role == "system") or row.default_system
    framed = row.system.replace("{content}", system) if system else ""
    turns = [message for message in messages if message.role != "system"]
    if row.inside and framed:
        turns = system_into_user([Message("system", framed), *turns])
    parts = [] if row.inside else [framed]
    if row.lone and [message.role for message in turns] == ["user"]:
        return "".join(parts) + row.lone.replace("{content}", turns[0].content)
    number = row.first_round - 1
    for message in turns:
        number += message.role == "user"
        frame = row.user if message.role == "user" else row.assistant
        parts.append(frame.replace("{n}", str(number)).replace("{content}", message.content))
    return "".join(parts) + row.opening


@dataclass(frozen=True)
class ChatTemplate:
    """Renders conversations for one tokenizer. `format_name` "": by its own template, and plainly if it has none.

    `end_tokens`: tokens that end an answer of this model's family, whatever the template says.
    """

    tokenizer: Tokenizer
    format_name: str = ""
    end_tokens: tuple[str, ...] = ()

    @cached_property
    def row(self) -> ChatFormat | None:
        """The named format in use, None when the tokenizer's own template is."""
        if self.format_name:
            return chat_format(self.format_name)
        return None if self.tokenizer.chat_template else chat_format("plain")

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer in this format; a tokenizer's own template ends with a token instead."""
        return self.row.stop if self.row else ()

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt text, ending where the answer begins. Raises ModelError when the template fails on it."""
        return self._written(
            merge_turns([Message(message.role, self.neutral(message.content)) for message in messages])
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt. The tokenizer's own template writes its start token itself."""
        ids: list[int] = self.tokenizer(self.render(messages), add_special_tokens=self.row is not None)["input_ids"]
        return ids

    def neutral(self, content: str) -> str:
        """`content` with a zero-width space inside every mark that could open or close a turn or be a special token."""
        for mark in self.marks:
            while mark in content:
                content = content.replace(mark, mark[:1] + BREAK + mark[1:])
        return self._without_special_ids(content)

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Strings a content must not hold: special tokens, markup-like added tokens, and the template's own frames."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {str(token) for token in added if token.special or _MARKUP.match(str(token))}
        found |= set(self.tokenizer.all_special_tokens)
        found |= {mark.strip() for piece in self._frames for mark in _MARK.findall(piece)} | set(self.stop)
        return tuple(sorted((mark for mark in found if len(mark) > 1), key=len, reverse=True))

    @cached_property
    def _forbidden_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return frozenset(index for index, token in added if token.special or _MARKUP.match(str(token)))

    def _without_special_ids(self, content: str) -> str:
        """The tokenizer has the last word: a normaliser may turn look-alikes (＜|im_end|＞) into a special token."""
        for glue in (BREAK, BREAK, ""):
            spans = self._special_spans(content)
            for start, end in reversed(spans):
                content = content[:start] + glue.join(content[start:end] if glue else "") + content[end:]
            if not spans:
                break
        return content

    def _special_spans(self, content: str) -> list[tuple[int, int]]:
        """Where `content` alone would be read as special tokens, as (start, end) character offsets."""
        encoded = self.tokenizer(content, add_special_tokens=False)
        if self._forbidden_ids.isdisjoint(encoded["input_ids"]):
            return []
        if not self.tokenizer.is_fast:
            return [(0, len(content))]
        encoded = self.tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [(start, end) for index, (start, end) in pairs if index in self._forbidden_ids]

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the special one that the template writes right after one, and the stops' own."""
        names = {*self.stop, *self.end_tokens}
        named = frozenset(index for index, token in self.tokenizer.added_tokens_decoder.items() if str(token) in names)
        if len(self._frames) != len(_PROBE) + 1:
            return named
        after = self.tokenizer(self._frames[3], add_special_tokens=False)["input_ids"]
        return named | frozenset(after[:1]) & self._forbidden_ids

    @cached_property
    def _frames(self) -> list[str]:
        """What the template writes around the turns of a sample conversation."""
        roles = ("system", "user", "assistant", "user")
        sample = [Message(role, text) for role, text in zip(roles, _PROBE, strict=True)]  # type: ignore[arg-type]
        try:
            text = self._written(sample)
        except ModelError:
            return []
        return re.split("|".join(_PROBE), text)

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template writes a system message; some refuse it and some leave it out without a word."""
        try:
            text = self._own([Message("system", _PROBE[0]), Message("user", _PROBE[1])])
        except ModelError:
            return False
        return _PROBE[0] in text

    def _written(self, turns: Sequence[Message]) -> str:
        if self.row:
            return write_format(self.row, turns)
        return self._own(turns if self._takes_system else merge_turns(system_into_user(turns)))

    def _own(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        conversation = [{"role": message.role, "content": message.content} for message in messages]
        render: Callable[..., str] = self.tokenizer.apply_chat_template
        try:
            return render(conversation, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise ModelError("llm.template_failed", reason=str(error)[:200]) from error
