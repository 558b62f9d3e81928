"""Words and sentences of English and Chinese text.

`tokens` feed the BM25 index, `words` are the tokens that carry meaning, `sentences` are spans of the original text.
"""

import logging
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jieba

# Unified ideographs, extension A, compatibility ideographs, and the supplementary planes.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"(?:(?![{_HAN}])[^\W_])"
_TOKEN = re.compile(
    rf"(?P<han>[{_HAN}]+)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w]))"
    rf"|(?P<word>{_LETTER}+(?:[-._/+&@]{_LETTER}+)*(?:\+\+|\#)?)"
)
_HAN_CHARACTER = re.compile(rf"[{_HAN}]")
_JOINER = re.compile(r"[-._/+&@#]+")

_ENGLISH_STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could d did do does doing done down during each few for from further get had has have having he her here
    hers him his how i if in into is it its itself just ll m many may me might more most much must my no nor not now
    of off on once only or other our ours out over own please re s same shall she should so some such t tell than
    that the their theirs them then there these they this those through to too under until up upon us ve very was we
    were what when where which while who whom whose why will with would you your yours
    """.split()
)
_CHINESE_STOP_WORDS = frozenset(
    """
    的 了 和 是 在 我 有 就 不 人 都 一个 也 很 到 说 要 去 你 会 着 没有 看 自己 这 那 吗 呢 吧 啊 呀 么 什么 怎么
    怎样 如何 哪 哪个 哪些 哪里 哪儿 谁 多少 几 何时 为什么 为何 请问 请 与 及 或 或者 以及 并 而 但 但是 被 把 让
    给 对 对于 关于 从 由 于 以 为 之 其 该 此 这个 那个 这些 那些 它 他 她 它们 他们 她们 我们 你们 您 可以 可 能
    能够 将 又 还 才 只 所 则 如果 因为 所以 地 得 上 中 下 里 时 个 些 等
    """.split()
)
STOP_WORDS = _ENGLISH_STOP_WORDS | _CHINESE_STOP_WORDS

_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof sr jr st vs etc e.g i.e cf al fig figs no nos vol pp p ch sec eq approx dept est inc ltd co
    corp jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun a.m p.m u.s u.k u.n ph.d gen
    col lt capt rev hon
    """.split()
)
_CLOSERS = "\"'”’»)]}」』）】》"
_SENTENCE_END = re.compile(
    rf"(?P<newline>\n)|(?P<full>[。！？；…]+)[{re.escape(_CLOSERS)}]*|[.!?]+[{re.escape(_CLOSERS)}]*"
)
_LAST_WORD = re.compile(r"[\w.]*$")


def is_chinese(text: str) -> bool:
    """Whether Chinese characters carry the text: a Han character weighs as much as one Latin word."""
    han = len(_HAN_CHARACTER.findall(text))
    return han > 0 and han >= len(re.findall(rf"{_LETTER}+", text))


def holds_chinese(text: str) -> bool:
    """Whether there is a Chinese character in the text."""
    return _HAN_CHARACTER.search(text) is not None


def words(text: str) -> list[str]:
    """The lower-cased content words of `text` in order, repeats kept; function words are left out.

    Codes appear whole and by parts: "RX-200" gives rx-200, rx200, rx, 200. Chinese words come from jieba's search cut,
    so 销售额 also gives 销售.
    """
    return [token for token in tokens(text) if token not in STOP_WORDS]


def tokens(text: str) -> list[str]:
    """Like `words`, with the function words."""
    return list(_tokens(unicodedata.normalize("NFKC", text).lower()))


def bigrams(text: str) -> list[str]:
    """Neighbouring pairs of Chinese characters in order, none across other characters."""
    runs = re.findall(rf"[{_HAN}]+", unicodedata.normalize("NFKC", text))
    return [run[position : position + 2] for run in runs for position in range(len(run) - 1)]


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """`word` without a common English ending; the same for question and text is all that matters."""
    if not word.isascii() or not word.isalpha():
        return word
    for ending, instead in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("ly", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + instead
    return word


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        token = match.group()
        if match.lastgroup == "han":
            yield from _segmenter().cut_for_search(token)
        elif match.lastgroup == "number":
            yield token.replace(",", "")
        else:
            yield from _code_tokens(token)


def _code_tokens(token: str) -> Iterator[str]:
    """A word, or a code whole, without its hyphens, and by parts (single letters are noise, single digits are not)."""
    yield token
    parts = [part for part in _JOINER.split(token) if part]
    if len(parts) < 2:
        return
    if "-" in token and any(character.isdigit() for character in token):
        yield token.replace("-", "")
    yield from (part for part in parts if len(part) > 1 or part.isdigit())


@cache
def _segmenter() -> "jieba.Tokenizer":
    """jieba with its dictionary read straight from the package.

    Its own initialize() would read and write a marshal file in the shared temporary folder, which anybody may plant.
    """
    import jieba

    logger = logging.getLogger("jieba")
    logger.handlers.clear()
    logger.setLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans (start, end) of the sentences of `text`, without the white space around them, in order.

    A sentence ends at a line break, after 。！？；… or after . ! ? when white space, the end or a Chinese character
    follows, unless the stop belongs to an abbreviation, an initial, a list number or a decimal.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if match["newline"] or match["full"] or _ends_sentence(text, start, match):
            _append_span(spans, text, start, match.end())
            start = match.end()
    _append_span(spans, text, start, len(text))
    return spans


def _append_span(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        begin = start + piece.index(stripped)
        spans.append((begin, begin + len(stripped)))


def _ends_sentence(text: str, start: int, match: "re.Match[str]") -> bool:
    after = text[match.end() : match.end() + 1]
    if after and not after.isspace() and not _HAN_CHARACTER.match(after):
        return False
    if not match.group().startswith(".") or match.group().startswith(".."):
        return not _continues(text, match.end())
    before = text[start : match.start()].strip()
    last = _LAST_WORD.search(before)
    word = last.group().lower() if last else ""
    if word.isdigit() and word == before:
        return False
    if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and not _HAN_CHARACTER.match(word)):
        return False
    return not _continues(text, match.end())


def _continues(text: str, position: int) -> bool:
    """Whether a lower-case letter follows, as after an unlisted abbreviation."""
    return text[position : position + 80].lstrip(" \t")[:1].islower()
