"""Whether a passage bears out a sentence. Pure: rules for words, figures, names and negation in English and Chinese.

The rules are meant to catch what harms: a figure or a name that is not in the passage, a figure taken from another
matter, a "not" that was lost. They do not understand: a sentence that turns the passage's words into a falsehood
without any of these passes. Measured on tests/chat/citation_pairs.json.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from dbgpt_lite.chat.numerals import Figure, figures, is_figure
from dbgpt_lite.chat.quoting import terms
from dbgpt_lite.knowledge.words import STOP_WORDS, bigrams, is_chinese, sentences, words
from dbgpt_lite.messages import Passage

# near(sentence, passages' sentences) -> cosine of the sentence with each; a second chance for other words.
Near = Callable[[str, Sequence[str]], Sequence[float]]

# Set on tests/chat/citation_pairs.json: share of a sentence's words, or of its character pairs, in the passage.
ENOUGH, ENOUGH_ZH = 0.5, 0.5
CLEARLY = 0.8
SAME_WORDS = 0.66
NEAR = 0.6
MAX_NEAR = 40  # sentences of a passage that are embedded
_FEW = 3

_ESCAPED = re.compile(r"\\([\\`*_~<>\[\]$|#.+-])")
_MARKUP = re.compile(r"\*\*|__|`|^[\s>*#|-]+", re.MULTILINE)
_LABEL = re.compile(r"^[^.。!?！？:：]{1,40}[:：](?=\s*\S)")
_LATIN_NAME = re.compile(r"(?<![\w-])[A-Z][\w-]*(?:\.\w+)?|(?<![\w-])[A-Za-z]+-?\d[\w-]*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:;。！？：；\n]|\d[.)])[\s\"'“”‘’(（「*]*$")
_CLAUSE = re.compile(r"[,;:，；：、()（）—]|\bbut\b|\bunless\b|\bexcept\b|但是?|除非|不过")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|cannot|without|unable|exclud\w+|except\w*|forbid\w*|forbidden|prohibit\w*"
    r"|refus\w+|reject\w*|den(?:y|ied|ies)|void|ineligible|closed?)\b|n['’]t\b|(?<![\w])(?:un|in|im)(?:paid|valid|possible)\b"
    r"|不(?!仅|但|同|断|错|过|少于|超过|得超过)|没有?|未|无(?!论)|禁止|谢绝|拒绝|非(?!常)|除外|免(?!费)|勿",
    re.IGNORECASE,
)
_ONLY = re.compile(
    r"\bnot\b[^.,;]{0,30}? (?:more|less|longer|later) than\b|\bnot only\b|\bno (?:more|less|later) than\b"
    r"|不[能得可应]?(?:超过|少于|低于|高于|晚于|早于|迟于)",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"\b(?:does|do|did|is|are) ?(?:not|n['’]t) (?:\w+ )?(?:mention|contain|say|state|specif|provide|describe|give|"
    r"include any|mentioned|stated|specified|found)|\bno (?:information|mention|details?)\b|not in the(?:se)? documents"
    r"|(?:没有|未|并未|无)(?:提到|提及|说明|包含|涉及|给出|相关|找到|规定|记载)",
    re.IGNORECASE,
)
# Where another claim begins. A comma alone also stands between the things that are not mentioned.
_CLAIM = re.compile(
    r"[;；]|\b(?:but|however|although|though|whereas)\b|,\s*and\s+(?=(?:the|it|they|this|these|you|we|a|an|all|its|their)\b)"
    r"|但是?|不过|然而|[，,](?:而|并)且?",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"^\s*(?:[-*+•|]|\d+[.)]|(?:it|they|this|these|that|he|she)\b|它|这|该|其|前者|后者)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence of a passage with what it is understood by: its figures, words, and those of the one before it."""

    text: str
    figures: tuple[Figure, ...]
    terms: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage as it is compared: its text with heading and file name, its units and clauses."""

    text: str
    squeezed: str
    names: frozenset[str]
    figures: tuple[Figure, ...]
    terms: frozenset[str]
    pairs: frozenset[str]
    units: tuple[_Unit, ...]


@lru_cache(maxsize=256)
def evidence(passage: Passage) -> Evidence:
    """What a sentence may rest on in `passage`."""
    whole = f"{passage.text}\n{passage.heading}\n{passage.document}"
    units: list[_Unit] = []
    above = terms(passage.heading)
    previous: frozenset[str] = frozenset()
    header: frozenset[str] = frozenset()
    for start, end in sentences(passage.text):
        sentence = passage.text[start:end]
        own = terms(sentence)
        row = sentence.startswith("|")
        header = (header or own) if row else frozenset()
        leans = _GOES_ON.match(sentence) or len(own) <= _FEW
        around = own | above | header | (previous if leans else frozenset())
        units.append(_Unit(sentence, figures(sentence, generous=True), around))
        previous = own
    return Evidence(
        passage.text,
        _squeezed(passage.text),
        _names_in(whole),
        figures(whole, generous=True),
        terms(whole),
        frozenset(bigrams(whole)),
        tuple(units),
    )


def plain(sentence: str) -> str:
    """A sentence of an answer without Markdown and without the escapes of the built-in assistant."""
    return _MARKUP.sub("", _ESCAPED.sub(r"\1", sentence)).strip()


def quoted(sentence: str, known: Evidence) -> bool:
    """Whether the passage holds the sentence word for word; white space does not count."""
    said = _squeezed(plain(sentence)).strip("\"'“”‘’「」『』.。")
    return len(said) >= 4 and said in known.squeezed


def supports(sentence: str, known: Evidence, near: Near | None = None) -> bool:
    """Whether the passage bears out `sentence` (see the module)."""
    if quoted(sentence, known):
        return True
    said = plain(sentence)
    if _DENIAL.search(said):
        # "The documents do not mention X" rests on what is not there; "but the warranty lasts ten years" does not.
        claims = [part for part in _CLAIM.split(said) if terms(part) and not _DENIAL.search(part)]
        return all(supports(claim, known, near) for claim in claims)
    if not facts_hold(said, known):
        return False
    if is_chinese(said) != is_chinese(known.text) and not _shares_writing(said, known):
        # Another language: figures and names are all that can be compared.
        return True
    return (share(said, known) >= _needed(said) and not _turned_round(said, known)) or _close(said, known, near)


def clearly_supports(sentence: str, known: Evidence) -> bool:
    """The strict rule for pointing a marker elsewhere: quoted, or nearly every word and every figure in one place."""
    if quoted(sentence, known):
        return True
    said = plain(sentence)
    if is_chinese(said) != is_chinese(known.text) or len(terms(said)) < _FEW + 1 or _DENIAL.search(said):
        return False
    return facts_hold(said, known) and share(said, known) >= CLEARLY and not _turned_round(said, known)


def facts_hold(said: str, known: Evidence) -> bool:
    """Whether every figure and name of `said` is in the passage, each figure beside a word that `said` has too."""
    if not _names_of(said) <= known.names:
        return False
    about = frozenset(term for term in terms(said) - _units() if not is_figure(term))
    foreign = is_chinese(said) != is_chinese(known.text)
    for figure in figures(said):
        places = [unit for unit in known.units if any(_same(figure, one) for one in unit.figures)]
        if not places and not any(_same(figure, one) for one in known.figures):
            return False
        if places and about and not foreign and not any(about & unit.terms for unit in places):
            return False
    return True


@cache
def _units() -> frozenset[str]:
    """Terms of units and counted things, which say little about what a figure is of. Not at import: it reads jieba's
    dictionary, which takes longer than all else that a small command does."""
    names = """day days week weeks month months year years hour hours minute minutes percent euro euros dollar
        dollars yuan pound pounds kilogram kilograms gram metre metres meter meters times people working business
        calendar maximum minimum 天 日 年 月 个月 周 小时 分钟 元 块 人 次 个 工作日 内 以内 左右"""
    return frozenset(term for word in names.split() for term in terms(word))


def _same(claimed: Figure, found: Figure) -> bool:
    """The same figure, and not of another thing: 45 days are not 45 euros."""
    if claimed.value != found.value:
        return False
    return not claimed.unit or found.alone or claimed.unit == found.unit


def share(said: str, known: Evidence) -> float:
    """The share of the sentence's content that is in the passage: words, or character pairs of Chinese ones."""
    own = _content(said)
    return len(own & (known.terms | known.pairs)) / len(own) if own else 1.0


def _needed(said: str) -> float:
    return ENOUGH_ZH if is_chinese(said) else ENOUGH


def _close(said: str, known: Evidence, near: Near | None) -> bool:
    """The second chance: other words for the same thing, by the embedder. Not where a negation was turned round."""
    if near is None or not known.units or is_chinese(said) or _turned_round(said, known):
        return False
    own = _content(said)
    likely = sorted(known.units, key=lambda unit: -len(unit.terms & own))[:MAX_NEAR]
    return max(near(said, [unit.text for unit in likely])) >= NEAR


def _turned_round(said: str, known: Evidence) -> bool:
    """Whether the clauses that hold nearly all words of `said` all say the opposite as far as "not" goes."""
    own = _content(said)
    if len(own) < 2:
        return False
    pieces = [piece for unit in known.units for piece in [unit.text, *_CLAUSE.split(unit.text)]]
    held = [(len(own & _content(piece)) / len(own), piece) for piece in pieces]
    best = max((amount for amount, _ in held), default=0.0)
    if best < SAME_WORDS:
        return False
    return all(_denies(piece) != _denies(said) for amount, piece in held if amount >= best - 0.1)


def _denies(text: str) -> bool:
    found = len(_NEGATION.findall(_ONLY.sub("", text)))
    # "is not closed" is no denial; in several clauses it cannot be told which is denied.
    return found % 2 == 1 if not _CLAUSE.search(text) else found > 0


@lru_cache(maxsize=4096)
def _content(text: str) -> frozenset[str]:
    """What carries meaning beyond figures and negation: stems of English words, character pairs of Chinese ones."""
    found: set[str] = set()
    for word in words(text):
        if is_figure(word) or _NEGATION.fullmatch(word):
            continue
        pairs = bigrams(word)
        found.update(pairs or (() if is_chinese(word) else terms(word)))
    return frozenset(found)


def _shares_writing(said: str, known: Evidence) -> bool:
    """Whether a mixed text can be compared after all: half of the sentence's words are in the passage."""
    return share(said, known) >= _needed(said)


def _names_of(said: str) -> frozenset[str]:
    """Names and codes of a sentence, lower case: capitalized words that do not begin it, and words with digits."""
    said = _LABEL.sub("", said)
    found = set()
    for match in _LATIN_NAME.finditer(said):
        name = match.group()
        begins = bool(_SENTENCE_START.search(said[: match.start()]))
        measure = bool(re.search(r"\d\s?$", said[: match.start()])) or len(name) == 1
        coded = any(letter.isdigit() for letter in name) or sum(letter.isupper() for letter in name) > 1
        if (
            (coded or not begins)
            and not measure
            and name.lower() not in STOP_WORDS
            and not _MONTH_OR_DAY.fullmatch(name)
        ):
            found.add(_name(name))
    return frozenset(found)


_MONTH_OR_DAY = re.compile(
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|I"
)


def _names_in(text: str) -> frozenset[str]:
    found = {_name(word) for word in re.findall(r"[A-Za-z][\w.-]*\w|[A-Za-z]", text)}
    return frozenset(found | {part for word in found for part in re.split(r"[._]", word)} | _parts(text))


def _parts(text: str) -> set[str]:
    return {_name(part) for word in re.findall(r"[A-Za-z][\w-]*", text) for part in word.split("-") if part}


def _name(word: str) -> str:
    """A name as it is compared: lower case, without hyphen and plural."""
    low = word.lower().replace("-", "").replace("_", "")
    return low[:-1] if low.endswith("s") and len(low) > 3 else low


def _squeezed(text: str) -> str:
    return "".join(text.split())
