"""How many tokens a text has, without tokenizing words again that were seen before."""

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Texts are tokenized in blocks of so many characters: a tokenizer holds some hundred bytes for every token.
COUNT_BLOCK = 20_000
# Words remembered, and how long one may be: some tens of megabytes at most.
MAX_WORDS = 100_000
MAX_WORD = 40

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_SPACE = re.compile(r"[ \t\n]+")


class TokenCounter:
    """Counts the tokens of texts as `tokenizer` cuts them, its own marks left out. Safe for many threads.

    BERT's tokenizers cut at white space and take every Chinese character alone before anything else, so that counts
    of words add up. Splitting a document asks for most of its words several times, which this answers from memory.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._by_words = _cuts_at_words(json.loads(tokenizer.to_str()))
        self._words: dict[str, int] = {}

    def count(self, text: str) -> int:
        """Tokens of `text`. Where words do not add up, one that a block's end cuts may count twice."""
        if not self._by_words:
            return sum(self._tokenized(text[first : first + COUNT_BLOCK]) for first in range(0, len(text), COUNT_BLOCK))
        rest, chinese = _CHINESE.subn(" ", text)
        words, total = self._words, chinese
        for word in _SPACE.split(rest):
            known = words.get(word)
            total += self._learn(word) if known is None else known
        return total

    def _learn(self, word: str) -> int:
        # Longer words than the tokenizer takes are one unknown token, so a cut of them must not be counted apart.
        tokens = self._tokenized(word) if word else 0
        if len(word) <= MAX_WORD:
            if len(self._words) >= MAX_WORDS:
                self._words.clear()
            self._words[word] = tokens
        return tokens

    def _tokenized(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))


def _cuts_at_words(description: dict[str, object]) -> bool:
    normalizer, cutter = description.get("normalizer"), description.get("pre_tokenizer")
    return (
        isinstance(normalizer, dict)
        and isinstance(cutter, dict)
        and normalizer.get("type") == "BertNormalizer"
        and normalizer.get("handle_chinese_chars") is True
        and cutter.get("type") == "BertPreTokenizer"
    )
