"""Answers that cannot leave a grammar: which tokens may come next, as a mask over the logits.

The only holder of llguidance (https://github.com/guidance-ai/llguidance). Its own torch helpers are not used:
importing them compiles code for half a minute.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

log = logging.getLogger(__name__)

_KEPT_GRAMMARS = 8
# Grammars over a schema have many rules that are alike, one a table; the library's defaults stop short of them.
_LIMITS = {
    "max_items_in_row": 100_000,
    "step_max_items": 5_000_000,
    "initial_lexer_fuel": 20_000_000,
    "step_lexer_fuel": 5_000_000,
    "max_grammar_size": 2_000_000,
    "verbose_errors": False,
}
# So many tokens before its limit, an answer that may end does.
_LAST = 24


class Guide:
    """The place of one answer in a grammar. After a failure of the library it no longer restricts anything."""

    def __init__(self, matcher: Any, end: Collection[int]) -> None:
        self._matcher = matcher
        self._end = torch.tensor(sorted(end))

    def copy(self) -> "Guide":
        """Another guide at the same place."""
        twin = Guide.__new__(Guide)
        twin._matcher, twin._end = self._matcher and self._matcher.deep_copy(), self._end
        return twin

    def allowed(self, size: int, room: int) -> torch.Tensor | None:
        """Which of `size` token ids may come next, as booleans; None for all of them.

        `room`: how many more tokens the answer may have. Near its end an answer that is complete stops.
        """
        if self._matcher is None:
            return None
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._failed():
            return None
        known = np.unpackbits(bits, count=min(size, 8 * len(bits)), bitorder="little").view(bool)
        allowed = torch.from_numpy(known if len(known) == size else np.pad(known, (0, size - len(known))))
        if room <= _LAST and bool(allowed[self._end].any()):
            allowed[:] = False
            allowed[self._end] = True
        if not allowed.any():
            self._give_up("no token fits")
            return None
        return allowed

    def masked(self, logits: torch.Tensor, room: int) -> torch.Tensor:
        """Logits (vocabulary,) with those of tokens that may not come next at minus infinity."""
        allowed = self.allowed(logits.shape[-1], room)
        return logits if allowed is None else logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def advance(self, token: int) -> None:
        """The answer goes on with `token`."""
        if self._matcher is not None:
            self._matcher.consume_token(token)
            self._failed()

    def _failed(self) -> bool:
        if self._matcher.is_error():
            self._give_up(self._matcher.get_error())
        return self._matcher is None

    def _give_up(self, reason: str) -> None:
        # The library's message may quote the answer; its first line does not.
        log.warning("decoding goes on without its grammar: %s", next(iter(reason.splitlines()), "")[:80])
        self._matcher = None


class BeamGuides:
    """A guide for each running beam, told apart by the beam's tokens."""

    def __init__(self, first: Guide) -> None:
        self._guides: dict[tuple[int, ...], Guide] = {(): first}

    def masked(self, scores: torch.Tensor, beams: Sequence[tuple[int, ...]], room: int) -> torch.Tensor:
        """Scores (beams, vocabulary) of the beams with these tokens, minus infinity where a token may not follow."""
        self._guides = {tokens: self._guide(tokens) for tokens in beams}
        rows = [self._guides[tokens].masked(row, room) for tokens, row in zip(beams, scores, strict=True)]
        return torch.stack(rows)

    def _guide(self, tokens: tuple[int, ...]) -> Guide:
        if not tokens:
            return self._guides[()]
        guide = self._guides[tokens[:-1]].copy()
        guide.advance(tokens[-1])
        return guide


class Grammars:
    """Compiles grammars for one tokenizer and keeps the last ones. Not thread-safe: callers hold the engine's slot."""

    def __init__(self, tokenizer: Any, end: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._end = end
        self._library_tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def guide(self, grammar: str) -> Guide | None:
        """A guide at the beginning of `grammar`; None when there is none or it does not compile.

        Lark text, in which `<stop>` stands for the tokens that end an answer.
        """
        if not grammar:
            return None
        if grammar not in self._compiled:
            self._compiled[grammar] = self._compile(grammar)
            if len(self._compiled) > _KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        matcher = self._compiled[grammar]
        return None if matcher is None else Guide(matcher.deep_copy(), self._end)

    def _compile(self, grammar: str) -> Any:
        import llguidance

        try:
            if self._library_tokenizer is None:
                self._library_tokenizer = self._wrap()
            stop = f"<[{','.join(map(str, sorted(self._end)))}]>"
            lark = llguidance.LLMatcher.grammar_from_lark(grammar.replace("<stop>", stop))
            limits = llguidance.LLParserLimits(**_LIMITS)  # type: ignore[arg-type]
            matcher = llguidance.LLMatcher(self._library_tokenizer, lark, log_level=0, limits=limits)
        except Exception as error:  # a tokenizer it cannot read: any of several types
            log.warning("decoding without a grammar: %s", type(error).__name__)
            return None
        if matcher.is_error():
            log.warning("a grammar does not compile: %s", matcher.get_error()[:200])
            return None
        return matcher

    def _wrap(self) -> Any:
        if hasattr(self._tokenizer, "token_bytes"):
            from llguidance import LLTokenizer, TokenizerWrapper

            return LLTokenizer(TokenizerWrapper(_ByteTokenizer(self._tokenizer)), eos_token=sorted(self._end))
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, eos_token=sorted(self._end))


class _ByteTokenizer:
    """A tokenizer that tells the bytes of its tokens, as llguidance takes one.

    What a grammar leaves no choice about is cut into the longest tokens from left to right: the tokenizer itself
    would put a space before it and write some letters differently.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Any) -> None:
        self.eos_token_id = tokenizer.eos_token_id[0]
        known: list[bytes] = tokenizer.token_bytes()
        self._ids = {letters: index for index, letters in enumerate(known) if letters}
        self._longest = max(map(len, known))
        # A token without a text needs a name: the library's own for a nameless one passes for any that ends an answer.
        self.tokens = [letters or b"<nothing %d>" % index for index, letters in enumerate(known)]
        self.special_token_ids = [index for index, letters in enumerate(known) if not letters]

    def __call__(self, text: str | bytes) -> list[int]:
        """Token ids of a text, or of its bytes; a byte without a token is left out."""
        rest = text.encode() if isinstance(text, str) else text
        ids: list[int] = []
        while rest:
            sizes = range(min(self._longest, len(rest)), 0, -1)
            size = next((size for size in sizes if rest[:size] in self._ids), 0)
            if size:
                ids.append(self._ids[rest[:size]])
            rest = rest[size or 1 :]
        return ids
