"""How much of a question a passage speaks of: shares of the question's words, weighted by how rare they are.

Question and text are compared without a dictionary of Chinese words: a Chinese term of the question counts when the
text contains it as it stands, so comparing a passage costs microseconds and no segmentation.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dbgpt_lite.knowledge.words import STOP_WORDS, bigrams, sentences, stem, words

# A space of three chunks says little about how rare a word is; its idf is that of at least so many.
FEWEST_TEXTS = 50

_HAN = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_HAN_RUN = re.compile(f"{_HAN}+")
_LATIN = re.compile(rf"(?:(?!{_HAN})[^\W_])+")
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_FUNCTION_WORDS = sorted((word for word in STOP_WORDS if _HAN_RUN.fullmatch(word) and len(word) > 1), key=len)
# Asking words and particles; other single characters that are function words also begin names (上海, 中国).
_ASKING = re.compile("|".join(reversed(_FUNCTION_WORDS)) + "|[的了吗呢吧啊呀么是在和与及或哪谁几被把]")


@dataclass(frozen=True, slots=True)
class Comparable:
    """A text as it is compared: lower case, its Chinese as it stands and its other words without endings."""

    han: str
    stems: frozenset[str]

    def has(self, term: str) -> bool:
        """Whether the text holds a term of `question_terms`."""
        return term in self.stems or (bool(self.han) and term in self.han)


def comparable(text: str) -> Comparable:
    """`text`, ready to be compared with many questions."""
    plain = unicodedata.normalize("NFKC", text).lower()
    han = " ".join(_HAN_RUN.findall(plain))
    return Comparable(han, frozenset([*(stem(word) for word in _LATIN.findall(plain)), *_codes(plain)]))


def comparable_sentences(text: str) -> tuple[Comparable, ...]:
    """Every sentence of `text`, ready to be compared."""
    return tuple(comparable(text[start:end]) for start, end in sentences(text))


def together(parts: Iterable[Comparable]) -> Comparable:
    """The whole of which these are the parts."""
    parts = tuple(parts)
    return Comparable(" ".join(part.han for part in parts), frozenset().union(*(part.stems for part in parts)))


def question_terms(question: str) -> tuple[str, ...]:
    """What to look for: words without endings, codes; of Chinese its words, the pairs and the single characters.

    Function words are left out, unless there is nothing else.
    """
    plain = unicodedata.normalize("NFKC", question).lower()
    return _terms(_ASKING.sub(" ", plain), STOP_WORDS) or _terms(plain, frozenset())


def _terms(plain: str, without: frozenset[str]) -> tuple[str, ...]:
    found = [stem(word) for word in _LATIN.findall(plain) if word not in without] + _codes(plain)
    found += [word for word in words(plain) if _HAN_RUN.fullmatch(word)] + bigrams(plain)
    found += [character for run in _HAN_RUN.findall(plain) for character in run]
    return tuple(dict.fromkeys(found))


def _codes(plain: str) -> list[str]:
    """ "rx-200" as "rx200", which is how others write it."""
    joined = [code.replace("-", "") for code in _CODE.findall(plain)]
    return [code for code in joined if any(character.isdigit() for character in code)]


def term_weights(terms: Sequence[str], sample: Sequence[Comparable]) -> dict[str, float]:
    """Each term's share of the question's idf (BM25's form), the idf taken over `sample`; the shares add up to 1."""
    total = max(len(sample), FEWEST_TEXTS)
    weight: dict[str, float] = {}
    for term in terms:
        holding = sum(text.has(term) for text in sample)
        weight[term] = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
    everything = sum(weight.values()) or 1.0
    return {term: value / everything for term, value in weight.items()}


def share(weight: Mapping[str, float], text: Comparable) -> float:
    """The share of the question that `text` holds, 0 to 1."""
    return sum(value for term, value in weight.items() if text.has(term))
