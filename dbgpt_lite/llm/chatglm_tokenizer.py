"""The tokenizers of ChatGLM, ChatGLM2 and ChatGLM3: SentencePiece files with special tokens and rules of their own.

Sources: the authors' tokenization code, https://github.com/zai-org/ChatGLM-6B, https://github.com/zai-org/ChatGLM2-6B,
https://github.com/zai-org/ChatGLM3. The only holder of sentencepiece.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dbgpt_lite.errors import ModelError
from dbgpt_lite.llm.checkpoint import read_tokenizer_config

_SPACE = "\u2581"
_LONGEST_BLANK = 80


@dataclass(frozen=True, slots=True)
class Rules:
    """How a family's tokenizer goes beyond its SentencePiece file.

    `appended`: special tokens with the ids after the file's own. `inside`: special tokens that the file itself holds.
    `before`, `after`: what add_special_tokens puts around a text. `end`: tokens that end an answer. `readable`: special
    tokens that are also read where they stand in a text; all others come from add_special_tokens alone.
    `whitespace`: line ends, tabs and runs of spaces are pieces (<n>, <|tab|>, <|blank_2|> to <|blank_80|>).
    """

    file: str
    appended: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    end: tuple[str, ...] = ("</s>",)
    readable: tuple[str, ...] = ()
    whitespace: bool = False


_MASKS = ("[MASK]", "[gMASK]", "[sMASK]")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_CHATGLM2 = Rules("tokenizer.model", appended=(*_MASKS, "sop", "eop"), before=("[gMASK]", "sop"))

# By the name of the chat format.
RULES: Mapping[str, Rules] = {
    "chatglm": Rules(
        "ice_text.model",
        inside=(*_MASKS, "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"),
        after=("[gMASK]", "<sop>"),
        end=("<eop>",),
        readable=(*_MASKS, "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"),
        whitespace=True,
    ),
    "chatglm2": _CHATGLM2,
    "chatglm3": replace(
        _CHATGLM2,
        appended=(*_CHATGLM2.appended, *_ROLES),
        end=("</s>", "<|user|>", "<|observation|>"),
        readable=_ROLES,
    ),
}


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """An entry of `added_tokens_decoder`, as transformers has them."""

    content: str
    special: bool = True

    def __str__(self) -> str:
        return self.content


def chatglm_tokenizer(folder: Path, config: Mapping[str, Any], name: str) -> "ChatGLMTokenizer":
    """The tokenizer of a folder, by the rules `name`. Raises ModelError when its file is not the family's."""
    from sentencepiece import SentencePieceProcessor

    rules = RULES[name]
    unusable = ModelError("llm.bad_tokenizer", name=folder.name, file=rules.file)
    try:
        pieces = SentencePieceProcessor(model_file=str(folder / rules.file))
    except (OSError, RuntimeError):
        raise unusable from None
    if any(pieces.id_to_piece(pieces.piece_to_id(token)) != token for token in rules.inside):
        raise unusable
    return ChatGLMTokenizer(pieces, rules, _image_tokens(folder, config, pieces.vocab_size()))


def _image_tokens(folder: Path, config: Mapping[str, Any], pieces: int) -> int:
    """Ids that ChatGLM-6B's first release kept for images before those of the text; later ones have none."""
    given = read_tokenizer_config(folder).get("num_image_tokens")
    if isinstance(given, int):
        return given
    return 20_000 if config.get("vocab_size", 0) >= 20_000 + pieces else 0


class ChatGLMTokenizer:
    """What this package uses of a transformers tokenizer, over SentencePiece `pieces` whose ids begin at `offset`."""

    chat_template: Any = None
    is_fast = False

    def __init__(self, pieces: Any, rules: Rules, offset: int = 0) -> None:
        self._pieces = pieces
        self._rules = rules
        self._offset = offset
        self._own: int = pieces.vocab_size()
        written = [token for token in rules.readable if token in rules.appended]
        self._written = re.compile("|".join(map(re.escape, written)) or r"(?!)")

    @property
    def vocab_size(self) -> int:
        """Number of ids, those without a piece included."""
        return self._offset + self._own + len(self._rules.appended)

    @property
    def eos_token_id(self) -> list[int]:
        """Tokens that end an answer."""
        return [self.token_id(token) for token in self._rules.end]

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts that are read as a special token or as whitespace; special tokens without a written form are none."""
        return [*self._rules.readable, *(_WHITESPACE if self._rules.whitespace else ())]

    @cached_property
    def added_tokens_decoder(self) -> dict[int, SpecialToken]:
        """Special tokens that can be written in a text, by id."""
        return {self.token_id(token): SpecialToken(token) for token in self._rules.readable}

    def token_id(self, token: str) -> int:
        """The id of a special token or piece."""
        if token in self._rules.appended:
            return self._offset + self._own + self._rules.appended.index(token)
        return self._offset + int(self._pieces.piece_to_id(token))

    def __call__(self, text: str, add_special_tokens: bool = True, **options: Any) -> dict[str, list[int]]:
        """{"input_ids": token ids of `text`}."""
        ids: list[int] = []
        for part in self._parts(text):
            ids += [self.token_id(part)] if self._written.fullmatch(part) else self._encode(part)
        if add_special_tokens:
            ids = [*map(self.token_id, self._rules.before), *ids, *map(self.token_id, self._rules.after)]
        return {"input_ids": ids}

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False, **options: Any) -> str:
        """The text of `token_ids`. Ids without a text (images, the vocabulary's padding) are left out."""
        surfaces = (self._surface(index, skip_special_tokens) for index in token_ids)
        text: str = self._pieces.decode_pieces([surface for surface in surfaces if surface])
        return text

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        """These tokenizers bring no template: see chat_formats.py. Raises ValueError."""
        raise ValueError("no chat template")

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for in an answer, none for special tokens: what a grammar is matched with.

        A piece for a single byte has none either when that byte is a letter with a piece of its own, or in no text.
        """
        found = [self._bytes(index) for index in range(self.vocab_size)]
        others = {text for index, text in enumerate(found) if not self._is_byte(index)} | {b"\xff"}
        return [b"" if text in others and self._is_byte(index) else text for index, text in enumerate(found)]

    def _parts(self, text: str) -> list[str]:
        """`text` cut around the special tokens in it that SentencePiece does not know; no empty parts."""
        parts: list[str] = []
        end = 0
        for found in self._written.finditer(text):
            parts += [text[end : found.start()], found.group()]
            end = found.end()
        return [part for part in (*parts, text[end:]) if part]

    def _encode(self, text: str) -> list[int]:
        if self._rules.whitespace:
            text = _write_whitespace(text)
        return [self._offset + index for index in self._pieces.encode(text)]

    def _surface(self, index: int, skip_special_tokens: bool) -> str:
        """A piece as decode_pieces takes it: whitespace pieces as what they stand for."""
        own = index - self._offset
        if not 0 <= own < self._own:
            appended = own - self._own
            known = 0 <= appended < len(self._rules.appended)
            return self._rules.appended[appended] if known and not skip_special_tokens else ""
        piece: str = self._pieces.id_to_piece(own)
        if piece in self._rules.inside or self._pieces.is_control(own):
            return "" if skip_special_tokens else piece
        return _WHITESPACE.get(piece, piece) if self._rules.whitespace else piece

    def _is_byte(self, index: int) -> bool:
        own = index - self._offset
        return bool(0 <= own < self._own and self._pieces.is_byte(own))

    def _bytes(self, index: int) -> bytes:
        own = index - self._offset
        if self._is_byte(index):
            return bytes([int(self._pieces.id_to_piece(own)[3:5], 16)])
        if 0 <= own < self._own and self._pieces.is_unknown(own):
            return b""
        return self._surface(index, skip_special_tokens=True).replace(_SPACE, " ").encode()


_WHITESPACE = {"<n>": "\n", "<|tab|>": "\t"} | {f"<|blank_{n}|>": " " * n for n in range(2, _LONGEST_BLANK + 1)}


def _write_whitespace(text: str) -> str:
    """Line ends, tabs and runs of two to eighty spaces as the pieces that stand for them, the longest runs first."""
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    return re.sub(f" {{2,{_LONGEST_BLANK}}}", lambda run: f"<|blank_{len(run.group())}|>", text)
